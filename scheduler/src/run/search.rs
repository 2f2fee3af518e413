//! What a worker with empty queues does: it searches, announces its sleep, looks once more, sleeps.
//!
//! The protocol and its invariants are in `parts/idle.rs`.
#![allow(unsafe_code, reason = "the worker whose seat is held")]

use std::time::{Duration, Instant};

use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::record::{self, Kind};
use crate::engine::worker::{Core, Worker, count, nanos_since};
use crate::green::queue::Steal;
use crate::parts::stack;
use crate::parts::thread_locals;
use crate::shim::atomic::Ordering;
use crate::shim::clock;
use crate::shim::sync::Arc;

/// A worker that will sleep for longer than this first gives its spare stacks to all.
const LONG_SLEEP: Duration = Duration::from_millis(50);

/// A worker that only sleeps for shorter times does so after this time.
const TIDY_INTERVAL: Duration = Duration::from_millis(500);

/// How long a worker may give memory back before it sleeps. A thread that is made ready meanwhile may wait so long.
const TRIM_TIME: Duration = Duration::from_micros(500);
/// How long a worker may do so that sleeps only briefly, because it has something to do.
const BRIEF_TRIM_TIME: Duration = Duration::from_micros(100);

/// How often a searcher looks at all victims before it gives up. It may lose a race to another thief each time.
const PASSES: usize = 2;

impl Carrier {
    /// The worker's queues are empty: looks everywhere, then sleeps.
    #[cold]
    #[inline(never)]
    pub(super) fn idle(&self, inner: &Arc<Inner>, worker: &Worker) {
        worker.ticks.fetch_add(1, Ordering::Relaxed);
        if self.pass(inner, worker) {
            return;
        }
        if inner.idle.is_retired(worker.index) {
            self.serve_retired(inner, worker);
            return;
        }
        let now = clock::now();
        // SAFETY: the seat is held; ends before timers and events are handled.
        let core = unsafe { worker.core() };
        core.saw(now);
        Self::share_with_new_workers(inner, worker);
        if self.take_mail()
            || self.look(inner, worker, now, true) > 0
            || Self::take_injected(inner, worker)
            || (!inner.starts.is_empty() && self.admit(inner, worker) > 0)
        {
            Self::share(inner, worker);
            return;
        }
        let searching = inner.idle.several() && inner.idle.start_search();
        if searching && Self::search(inner, worker) {
            if inner.idle.found() {
                inner.notify();
            }
            return;
        }
        inner.idle.sleep(worker.index, searching);
        let in_sight = self.work_in_sight(inner, worker);
        let searches = if in_sight {
            inner.idle.stay(worker.index);
            true
        } else {
            self.sleep(inner, worker);
            inner.idle.wake(worker.index)
        };
        // This is done even if the worker did not sleep: the monitor may have seen its bit and taken it for asleep.
        inner.monitor.poke();
        if !in_sight {
            let now = clock::now();
            // SAFETY: the seat is held; ends before timers are handled.
            let core = unsafe { worker.core() };
            core.woke_up();
            core.saw(now);
            core.polled(now);
            worker.counters.wake_up(nanos_since(inner.start, now));
            self.look(inner, worker, now, false);
        }
        if searches {
            // A pusher may have left its work to this searcher. So the work must be found, or the last look repeated.
            let found = self.has_own_work(worker)
                || Self::take_injected(inner, worker)
                || Self::search(inner, worker);
            if inner.idle.found() && found {
                inner.notify();
            }
        } else {
            Self::share(inner, worker);
        }
    }

    /// If the runtime has begun with this worker alone, nobody could steal from it until now.
    pub(super) fn share_with_new_workers(inner: &Inner, worker: &Worker) {
        // SAFETY: the seat is held; ends with the block.
        let core = unsafe { worker.core() };
        if inner.idle.several() && !core.ready.is_shared() {
            core.share_queues(worker);
        }
    }

    /// Sleeps in the poller until an event, a timer or a wake-up comes, or until it is time to give memory back.
    pub(super) fn sleep(&self, inner: &Inner, worker: &Worker) {
        let now = clock::now();
        // SAFETY: the seat is held; ends with the statement.
        let limit = unsafe { worker.core() }.sleep_limit(inner.start, now);
        let tidies = if cfg!(loom) {
            None
        } else {
            self.tidy(inner, worker, limit, now)
        };
        let limit = match (limit, tidies) {
            (Some(limit), Some(pause)) => Some(limit.min(pause)),
            (limit, pause) => limit.or(pause),
        };
        count(&worker.counters.polls);
        if record::is_on() {
            record::note(Kind::Sleep, 0, 0);
        }
        worker.counters.sleep(nanos_since(inner.start, now));
        let events = worker.poller.sleep(limit);
        if record::is_on() {
            record::note(Kind::Awake, 0, events as u64);
        }
    }

    /// Gives memory back that nobody has needed for a while. Returns after how long to come again:
    /// `None` if there is nothing more to give back and nobody waits for a stack, so that a process
    /// that has become idle comes to rest.
    ///
    /// `limit`: how long the worker will sleep.
    fn tidy(
        &self,
        inner: &Inner,
        worker: &Worker,
        limit: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        let long = limit.is_none_or(|limit| limit > LONG_SLEEP);
        // SAFETY: the seat is held; ends before the sleep, and nothing of the user's runs.
        let core = unsafe { worker.core() };
        let wanted = inner.starts.pause(now);
        let is_due = long || wanted.is_some() || core.tidy_is_due(now, TIDY_INTERVAL);
        if is_due {
            core.tidied(now);
            core.share_spares();
            // SAFETY: as above.
            unsafe { worker.cells() }.flush();
            core.shrink_queues();
            self.private().shrink();
            inner.injector.shrink();
        }
        let most = if long { TRIM_TIME } else { BRIEF_TRIM_TIME };
        let is_over = || worker.poller.is_notified() || now.elapsed() >= most;
        let timers = if is_due || core.has_spare_timers() {
            core.trim_timers(now, is_over)
        } else {
            None
        };
        let pauses = [
            stack::trim(now, is_over),
            thread_locals::trim(now, is_over),
            timers,
            wanted,
        ];
        pauses.into_iter().flatten().min()
    }

    /// More threads were made ready than the one that this worker runs next. Another worker may come.
    fn share(inner: &Inner, worker: &Worker) {
        if inner.idle.several() && worker.queued() > 1 {
            inner.notify();
        }
    }

    fn has_own_work(&self, worker: &Worker) -> bool {
        worker.queued() > 0 || !self.private().is_empty()
    }

    fn take_injected(inner: &Inner, worker: &Worker) -> bool {
        // SAFETY: the seat is held; the closure runs nothing of the user's.
        let core = unsafe { worker.core() };
        match inner
            .injector
            .pop_batch(inner.idle.workers().max(1), |task| core.push_ready(task))
        {
            Some(task) => {
                // SAFETY: as above, taken anew.
                unsafe { worker.core() }.push_ready(task);
                true
            }
            None => false,
        }
    }

    /// Steals from the others, and drains the pollers of those that are late.
    fn search(inner: &Inner, worker: &Worker) -> bool {
        let workers = &inner.workers;
        for _ in 0..PASSES {
            // SAFETY: the seat is held; ends with the statement.
            let first = unsafe { worker.core() }.random(inner.idle.all_workers());
            let mut retry = false;
            let found = inner.idle.find_awake(first, |victim| {
                let victim = &workers[victim];
                if victim.index == worker.index {
                    return None;
                }
                // SAFETY: the seat is held; stealing runs nothing of the user's.
                let core: &mut Core = unsafe { worker.core() };
                match victim.steal(core) {
                    Steal::Success(task) => {
                        if record::is_on() {
                            record::note(Kind::Steal, task.id.get(), victim.index as u64);
                        }
                        core.push_ready(task);
                        count(&worker.counters.steals);
                        return Some(());
                    }
                    Steal::Retry => retry = true,
                    Steal::Empty => {}
                }
                let adopts = victim.late.load(Ordering::Relaxed) && victim.poller.adopt() > 0;
                adopts.then_some(())
            });
            if found.is_some() {
                return true;
            }
            if Self::take_injected(inner, worker) {
                return true;
            }
            if !retry {
                break;
            }
        }
        false
    }

    /// A worker that does not sleep has something that could be stolen.
    fn sees_stealable(inner: &Inner) -> bool {
        let has_some = |worker: usize| inner.workers[worker].has_stealable().then_some(());
        inner.idle.find_awake(0, has_some).is_some()
    }

    /// The second look before sleep.
    fn work_in_sight(&self, inner: &Inner, worker: &Worker) -> bool {
        self.mail.is_there()
            || inner.is_stopping()
            || (!inner.injector.is_empty() && !fault!("carrier_sleeps_over_the_injector"))
            || inner.seats.somebody_waits()
            || Self::sees_stealable(inner)
            || !worker.run_next.is_empty()
    }
}
