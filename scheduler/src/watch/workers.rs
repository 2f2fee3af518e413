//! The figures of each worker: what it has done, how long it was busy, how long ready threads waited for it.

use std::time::{Duration, Instant};

use crate::engine::inner::Inner;
#[cfg(not(loom))]
use crate::engine::worker::latency::{self, Histogram};
use crate::engine::worker::{Worker, nanos_since};
use crate::shim::atomic::Ordering;
use crate::shim::clock;

/// How long something took, in a histogram: two buckets for each power of two, from 64 ns to about a minute.
///
/// # Examples
/// ```
/// let mut all = weald::Latencies::default();
/// for worker in weald::worker_metrics() {
///     all.merge(&worker.wake_latency);
/// }
/// if let Some(slow) = all.quantile(0.99) {
///     println!("99 of 100 threads ran less than {slow:?} after they were woken");
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// As many as there are buckets; or none, where nothing was counted.
    counts: Vec<u64>,
    sum: u64,
}

impl Latencies {
    #[cfg(not(loom))]
    fn of(histogram: &Histogram) -> Self {
        let counts = histogram.counts.iter();
        Self {
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: histogram.sum.load(Ordering::Relaxed),
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Of all together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// The buckets, the shortest first: a bound, and how many are below it and not below the bound before. The bound of
    /// the last bucket is [`Duration::MAX`]. The bounds are always the same; if nothing was counted there may be no
    /// buckets.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let counts = self.counts.iter().enumerate();
        counts.map(|(bucket, &count)| (bound(bucket), count))
    }

    /// The bound of the bucket in which that part of all, 0 to 1, is reached. `None`: nothing was counted.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a count, within it"
        )]
        let wanted = ((part.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = |&(_, count): &(Duration, u64)| {
            seen += count;
            seen >= wanted
        };
        self.buckets().find(reached).map(|(bound, _)| bound)
    }

    /// Adds those of another histogram.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Those that were counted after `earlier`, which is from the same worker.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        since.sum = since.sum.saturating_sub(earlier.sum);
        since
    }
}

#[cfg(not(loom))]
fn bound(bucket: usize) -> Duration {
    latency::bound(bucket)
}

#[cfg(loom)]
fn bound(_: usize) -> Duration {
    Duration::MAX
}

/// What a worker has done since the runtime's start; from [`Runtime::worker_metrics`](crate::Runtime::worker_metrics).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// Its number.
    pub index: usize,
    /// The time in which it did not sleep. It is the time since the runtime's start less that of its sleeps. So the time
    /// before [`set_workers`](crate::Runtime::set_workers) added the worker counts, too.
    pub busy: Duration,
    /// Times that it has run a green thread, or looked for one in vain.
    pub dispatches: u64,
    /// Green threads that were spawned there.
    pub spawned: u64,
    /// Successful thefts from other workers.
    pub steals: u64,
    /// Waits of green threads.
    pub parks: u64,
    /// Waits of green threads that have ended there.
    pub wakes: u64,
    /// Looks at its poller.
    pub polls: u64,
    /// Green threads that are ready in its queues now.
    pub queued: usize,
    /// How long threads waited from their wake-up until they ran there, of each 64th wake-up.
    pub wake_latency: Latencies,
    /// How long threads waited from their spawn until they ran there, of each 64th spawn.
    pub start_latency: Latencies,
}

impl WorkerMetrics {
    /// Those of all workers of a runtime that have not retired.
    pub(crate) fn of_all(inner: &Inner) -> Vec<Self> {
        let workers = inner.workers.iter().take(inner.idle.workers());
        workers
            .map(|worker| Self::of(worker, inner.start))
            .collect()
    }

    fn of(worker: &Worker, start: Instant) -> Self {
        let counters = &worker.counters;
        // The clock is read while the sleeps stay as they are. Else a sleep after the reading would make `busy` smaller
        // than before.
        let (since, slept, now) = loop {
            let sleeps = counters.sleeps();
            let now = nanos_since(start, clock::now());
            if counters.sleeps() == sleeps {
                break (sleeps.0, sleeps.1, now);
            }
        };
        let sleeps = if since == 0 {
            0
        } else {
            now.saturating_sub(since)
        };
        Self {
            index: worker.index,
            busy: Duration::from_nanos(now.saturating_sub(slept + sleeps)),
            dispatches: worker.ticks.load(Ordering::Relaxed),
            spawned: counters.spawned.load(Ordering::Relaxed),
            steals: counters.steals.load(Ordering::Relaxed),
            parks: counters.parks.load(Ordering::Relaxed),
            wakes: counters.wakes.load(Ordering::Relaxed),
            polls: counters.polls.load(Ordering::Relaxed),
            queued: worker.queued() + worker.reserved.len(),
            #[cfg(not(loom))]
            wake_latency: Latencies::of(&worker.wake_latency),
            #[cfg(not(loom))]
            start_latency: Latencies::of(&worker.start_latency),
            #[cfg(loom)]
            wake_latency: Latencies::default(),
            #[cfg(loom)]
            start_latency: Latencies::default(),
        }
    }
}
