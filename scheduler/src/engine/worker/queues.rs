//! The queues of a worker, as its owner uses them: which thread runs next, and when to look elsewhere.
//!
//! `mod.rs` says which queues there are.
#![allow(unsafe_code, reason = "the owner of the core is the owner of the slot")]

use std::time::{Duration, Instant};

use crate::engine::private::SLOT_STREAK;
use crate::engine::worker::{Core, TimerEvent, Worker, millis_since};
use crate::green::call::Call;
use crate::green::green_thread::{Hint, Task};
use crate::green::id::GreenThreadId;
use crate::shim::bounds::FAIRNESS_INTERVAL;
use crate::shim::clock;
use crate::shim::sync::Arc;
use weald_timer::Tick;

/// At least every so many dispatches a yielded thread runs, and so does the oldest thread that has not started. Each
/// 61st dispatch begins with the injector (`run/look.rs`); if that falls on one of these, it takes twice as many.
/// A multiple of `OTHERS_INTERVAL` (`run/turns.rs`): a carrier's private threads leave every so many dispatches to
/// the worker's queues.
pub(crate) const CLASS_INTERVAL: u32 = 16;

/// Which dispatch of an interval begins with the oldest thread of `fresh`.
const OLDEST_FRESH: u32 = 8;

/// Dispatches between two looks at the clock, at most. A look costs some 30 ns.
const CLOCK_INTERVAL: u32 = 32;

/// If the worker never runs out of work, it looks at the poller after this time.
const POLL_INTERVAL: Duration = Duration::from_micros(100);

/// While so many threads are ready, the look at the poller may wait: threads that it wakes would run after them.
const PLENTY: usize = 32;

/// If so many threads are ready, it looks at the poller after this time.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A worker takes ids for new threads in blocks of so many.
const ID_BLOCK: u64 = 1024;

impl Core {
    /// Something is queued here.
    pub(crate) fn has_queued(&self, worker: &Worker) -> bool {
        !worker.run_next.is_empty()
            || self.ready.len() > 0
            || self.fresh.len() > 0
            || self.yielded.len() > 0
            || !worker.reserved.is_empty()
    }

    /// Counts a dispatch. True: it is time to look at the injector.
    #[inline(always)]
    pub(crate) fn tick(&mut self) -> bool {
        self.tick = self.tick.wrapping_add(1);
        self.tick.is_multiple_of(FAIRNESS_INTERVAL)
    }

    /// The dispatches so far.
    #[inline(always)]
    pub(crate) fn ticks(&self) -> u32 {
        self.tick
    }

    /// The next thread of the worker's queues. No queue starves. At most [`SLOT_STREAK`] threads in a row come from
    /// `RunNext`. Every 16th dispatch begins with the oldest thread of `yielded`, and another every 16th with the
    /// oldest of `fresh`.
    #[inline(always)]
    pub(crate) fn next(&mut self, worker: &Worker) -> Option<Task> {
        match self.tick % CLASS_INTERVAL {
            0 => {
                if let Some(task) = self.yielded.pop() {
                    return Some(task);
                }
            }
            OLDEST_FRESH => {
                if let Some(task) = self.fresh.pop_oldest() {
                    return Some(task);
                }
            }
            _ => {}
        }
        // SAFETY: the holder of the core is the owner.
        if let Some(task) = unsafe { worker.run_next.take() } {
            if self.slot_streak < SLOT_STREAK {
                self.slot_streak += 1;
                return Some(task);
            }
            // It runs after those that are ready.
            self.ready.push(task);
        }
        self.slot_streak = 0;
        if let Some(task) = self.ready.pop() {
            return Some(task);
        }
        if let Some(task) = self.fresh.pop() {
            return Some(task);
        }
        self.yielded.pop()
    }

    /// As `next`, but returns `None` if more must be done before this dispatch: a look at the injector or the clock, a
    /// look at the far end of a deque, as a thief has it, or making a deque smaller.
    #[inline(always)]
    pub(crate) fn next_at_hand(&mut self, worker: &Worker) -> Option<Task> {
        let tick = self.tick.wrapping_add(1);
        if self.clock_countdown <= 1
            || tick.is_multiple_of(FAIRNESS_INTERVAL)
            || (tick % CLASS_INTERVAL == OLDEST_FRESH && self.fresh.is_shared())
            || self.ready.will_shrink()
            || self.fresh.will_shrink()
            || self.yielded.will_shrink()
        {
            return None;
        }
        self.tick = tick;
        self.clock_countdown -= 1;
        self.next(worker)
    }

    /// Counts a dispatch. True: it is time to read the clock.
    #[inline(always)]
    pub(crate) fn clock_is_due(&mut self) -> bool {
        self.clock_countdown -= 1;
        self.clock_countdown == 0
    }

    /// When the worker last looked at the clock.
    pub(crate) fn last_look(&self) -> Instant {
        self.last_look
    }

    /// Notes the time of a look at the clock. The longer the threads run, the sooner the next look comes.
    pub(crate) fn saw(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.last_look);
        self.last_look = now;
        self.looked_at = millis_since(self.start, now);
        if since > POLL_INTERVAL {
            self.clock_interval = 1;
        } else if since < POLL_INTERVAL / 4 && self.clock_interval < CLOCK_INTERVAL {
            self.clock_interval *= 2;
        }
        self.clock_countdown = self.clock_interval;
        self.eagerness.saw(now);
    }

    /// The worker has slept. The threads for which it was woken may well compute.
    pub(crate) fn woke_up(&mut self) {
        self.eagerness.woke_up();
    }

    /// Whether a thread that a peer woke may go where a sleeping worker finds it.
    fn shares_woken(&mut self) -> bool {
        let shares = self.eagerness.is_due(clock::now);
        if shares && !cfg!(loom) {
            // So that the next look comes as soon as the waker has left its stack: it shows whether sharing was
            // right. In a model no time passes.
            self.clock_countdown = 1;
        }
        shares
    }

    /// It is time to look at the poller. `private`: how many woken threads are in the carrier's own queues.
    pub(crate) fn poll_is_due(&self, now: Instant, private: usize) -> bool {
        let since = now.saturating_duration_since(self.last_poll);
        let plenty = self.ready.len() + private >= PLENTY;
        since
            >= if plenty {
                LONGEST_POLL_INTERVAL
            } else {
                POLL_INTERVAL
            }
    }

    pub(crate) fn polled(&mut self, now: Instant) {
        self.last_poll = now;
    }

    /// Queues a thread that was woken. True: another worker could take a thread now, this one or the one that it has
    /// replaced in `RunNext`. `asleep`: another worker sleeps.
    #[inline]
    pub(crate) fn push_woken(
        &mut self,
        worker: &Worker,
        task: Task,
        hint: Hint,
        asleep: bool,
    ) -> bool {
        if hint == Hint::Event || (asleep && self.shares_woken()) {
            self.ready.push(task);
            return true;
        }
        // SAFETY: the holder of the core is the owner.
        match unsafe { worker.run_next.put(task) } {
            Some(old) => {
                self.ready.push(old);
                true
            }
            None => false,
        }
    }

    #[inline]
    pub(crate) fn push_ready(&mut self, task: Task) {
        self.ready.push(task);
    }

    #[inline]
    pub(crate) fn push_fresh(&mut self, task: Task) {
        self.fresh.push(task);
    }

    #[inline]
    pub(crate) fn push_yielded(&mut self, task: Task) {
        self.yielded.push(task);
    }

    pub(crate) fn next_id(&mut self) -> GreenThreadId {
        if self.ids.is_none() || self.ids_used == ID_BLOCK {
            self.ids = Some(GreenThreadId::block(ID_BLOCK));
            self.ids_used = 0;
        }
        let id = self.ids.expect("just set").offset(self.ids_used);
        self.ids_used += 1;
        id
    }

    /// A random number below `below` (xorshift). It says from which worker to try to steal first.
    pub(crate) fn random(&mut self, below: usize) -> usize {
        if cfg!(loom) {
            return below - 1;
        }
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        usize::try_from(self.rng % below as u64).expect("below a usize")
    }

    /// Takes out all threads that are queued.
    pub(crate) fn take_queued(&mut self, worker: &Worker) -> Vec<Task> {
        // SAFETY: the caller has the core, so it is the slot's owner.
        let first = unsafe { worker.run_next.take() };
        first
            .into_iter()
            .chain(std::iter::from_fn(|| self.fresh.pop()))
            .chain(std::iter::from_fn(|| self.ready.pop()))
            .chain(std::iter::from_fn(|| self.yielded.pop()))
            .collect()
    }

    /// There are other workers now. From here on they can steal from this one.
    pub(crate) fn share_queues(&mut self, worker: &Worker) {
        self.fresh.share(&worker.fresh);
        self.yielded.share(&worker.yielded);
        // This is the last one, because the monitor and the worker ask this queue whether all are shared.
        self.ready.share(&worker.ready);
    }

    /// Takes out what is left when the runtime has stopped: queued threads and calls in the
    /// future. No other timer matters any more.
    pub(crate) fn take_rest(&mut self, worker: &Worker) -> (Vec<Task>, Vec<Arc<Call>>) {
        let tasks = self.take_queued(worker);
        let remote = std::mem::take(&mut *worker.remote_timers.lock());
        let mut calls: Vec<_> = remote.into_iter().map(|timer| timer.call).collect();
        self.wheel.advance(Tick::MAX, |event| {
            if let TimerEvent::Call(call) = event {
                calls.push(call);
            }
        });
        (tasks, calls)
    }

    /// It is time to give back what is spare. For a worker that sleeps often and briefly.
    pub(crate) fn tidy_is_due(&self, now: Instant, interval: Duration) -> bool {
        now.saturating_duration_since(self.last_tidy) >= interval
    }

    pub(crate) fn tidied(&mut self, now: Instant) {
        self.last_tidy = now;
    }

    /// Gives spare stacks and blocks of thread-locals to all workers.
    pub(crate) fn share_spares(&mut self) {
        self.stacks.flush();
        self.blocks.flush();
    }

    /// Gives back the room of queues that have been long. Now few threads are queued, or none.
    pub(crate) fn shrink_queues(&mut self) {
        for queue in [&mut self.ready, &mut self.fresh, &mut self.yielded] {
            queue.shrink();
        }
    }
}
