//! The queues of a worker, as its owner uses them: what runs next, and when to look elsewhere.
//!
//! `mod.rs` tells which queues there are.
#![allow(unsafe_code, reason = "who has the core is the slot's owner")]

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

/// A yielded thread runs at least every so many dispatches, and so does the oldest spawned one. (Each 61st dispatch begins
/// with threads from outside, `run/look.rs`; where the two meet, it is twice as many.) A multiple of
/// `OTHERS_INTERVAL` (`run/turns.rs`), by which a carrier's own threads leave dispatches to these.
pub(crate) const CLASS_INTERVAL: u32 = 16;

/// Which dispatch of an interval begins with the oldest spawned one.
const OLDEST_FRESH: u32 = 8;

/// Dispatches between two looks at the clock, at most and to begin with. Looking costs some 30 ns.
const CLOCK_INTERVAL: u32 = 32;

/// The poller is looked at when this has passed and the worker never ran out of work.
const POLL_INTERVAL: Duration = Duration::from_micros(100);

/// While so many threads are ready, the look at the poller may wait: threads that it wakes would run after them.
const PLENTY: usize = 32;

/// But no longer than this.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Numbers for new threads are fetched in blocks.
const ID_BLOCK: u64 = 1024;

impl Core {
    /// Anything queued.
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

    /// The next thread of the worker's own queues. None of them starves: the slot has a cap, and
    /// every 16th dispatch begins with the oldest yielded one, every 16th with the oldest spawned.
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
            // Its turn comes behind the others'.
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

    /// As `next`, but `None` also where this dispatch is one before which to look elsewhere: at the
    /// injector, at the clock, at the far end of a deque as a thief does; or one that makes a deque
    /// smaller.
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

    /// True every so many dispatches: time to read the clock.
    #[inline(always)]
    pub(crate) fn clock_is_due(&mut self) -> bool {
        self.clock_countdown -= 1;
        self.clock_countdown == 0
    }

    /// When it last looked at the clock.
    pub(crate) fn last_look(&self) -> Instant {
        self.last_look
    }

    /// Notes the time; the next look comes sooner if the threads run long.
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

    /// The worker has slept: what it is woken for may well compute.
    pub(crate) fn woke_up(&mut self) {
        self.eagerness.woke_up();
    }

    /// May a thread that a peer woke go where a sleeping worker finds it?
    fn shares_woken(&mut self) -> bool {
        let shares = self.eagerness.is_due(clock::now);
        if shares && !cfg!(loom) {
            // To judge the share when the peer has left its stack. In a model no time passes.
            self.clock_countdown = 1;
        }
        shares
    }

    /// `private`: threads that were woken and are in their carrier's own queues.
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

    /// Queues a thread that was woken. True: another worker could take it, or the thread that it has replaced.
    /// `asleep`: another worker sleeps.
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

    /// A number below `below` (xorshift); which victim to begin with.
    pub(crate) fn random(&mut self, below: usize) -> usize {
        if cfg!(loom) {
            return below - 1;
        }
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        usize::try_from(self.rng % below as u64).expect("below a usize")
    }

    /// Takes out the threads that are queued.
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

    /// There are other workers now: from here on they can steal from this one.
    pub(crate) fn share_queues(&mut self, worker: &Worker) {
        self.fresh.share(&worker.fresh);
        self.yielded.share(&worker.yielded);
        // The last one: the monitor and the worker itself ask it whether all are shared.
        self.ready.share(&worker.ready);
    }

    /// Takes out what is left when the runtime has stopped: threads that were queued, and calls in the
    /// future. Nobody waits for the timers any more.
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

    /// It is time to give back what is spare, for a worker that sleeps often and briefly.
    pub(crate) fn tidy_is_due(&self, now: Instant, interval: Duration) -> bool {
        now.saturating_duration_since(self.last_tidy) >= interval
    }

    pub(crate) fn tidied(&mut self, now: Instant) {
        self.last_tidy = now;
    }

    /// Leaves spare stacks and blocks of thread-locals to all workers.
    pub(crate) fn leave_spares(&mut self) {
        self.stacks.flush();
        self.blocks.flush();
    }

    /// Gives back the room of queues that had been long. Nothing is queued now, or little.
    pub(crate) fn shrink_queues(&mut self) {
        for queue in [&mut self.ready, &mut self.fresh, &mut self.yielded] {
            queue.shrink();
        }
    }
}
