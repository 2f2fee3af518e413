//! A worker: one seat of the scheduler. Its queues, its timer wheel, its poller, its stacks.
//!
//! The [`Core`] has one owner at a time ([`Worker::core`]); all threads share the rest. A worker has these
//! queues, and they are asked in this order:
//!
//! | queue   | holds                                  | order        | thieves take             |
//! |---------|----------------------------------------|--------------|--------------------------|
//! | `RunNext` | the thread that was woken last         | one          | nothing; see below       |
//! | `ready`   | threads that IO, a timer or a peer woke | oldest first | a batch of the oldest   |
//! | `fresh`   | threads that have not started          | newest first | the oldest               |
//! | `yielded` | threads that gave way                  | oldest first | a batch of the oldest    |
//!
//! There is one queue more, `reserved`: threads that must start on this worker, which no thief takes. They start when
//! the other queues are empty, and by turns with threads of the injector.
//!
//! Some threads go on to compute after they have woken a peer. If the threads of a worker do so, and another worker
//! sleeps, the peer goes to `ready` instead of `RunNext` (`eager.rs`). If the owner does not come back for a while, the
//! monitor moves the thread in `RunNext` to `ready`.
//!
//! With the newest first, a tree of spawns is run depth first, so a million threads need only a few stacks. No
//! queue starves another: see [`Core::next`].
//!
//! Invariant 1: only the owner touches `core` ([`Worker::core`]), and no reference into it outlives a suspension or a
//! call of the user's code.
#![allow(unsafe_code, reason = "the seat's holder owns the core")]

#[cfg_attr(loom, allow(dead_code, reason = "no model takes samples"))]
pub(crate) mod latency;
pub(crate) mod queues;
mod table;
pub(crate) mod timers;

use std::collections::VecDeque;
use std::time::Instant;

use weald_timer::{Remote, Tick, Wheel};

use crate::green::call::Call;
use crate::green::cells::Cells;
use crate::green::green_thread::Task;
use crate::green::id::GreenThreadId;
use crate::green::queue::{Injector, Order, RunNext, RunQueue, Steal, Thieves};
use crate::parts::eager::Eagerness;
use crate::parts::poller::Poller;
use crate::parts::stack;
use crate::parts::thread_locals;
use crate::shim::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::shim::cell::UnsafeCell;
use crate::shim::sync::{Arc, Mutex};

#[cfg(not(loom))]
use self::latency::Histogram;
pub(crate) use self::table::Workers;

/// What a timer does when it is due.
#[derive(Debug)]
pub(crate) enum TimerEvent {
    /// Ends a wait.
    Wake(Task, u32),
    /// Starts a green thread.
    Call(Arc<Call>),
}

/// A timer that another thread sends to the worker.
#[derive(Debug)]
pub(crate) struct RemoteTimer {
    pub(crate) deadline: Instant,
    pub(crate) call: Arc<Call>,
}

/// A seat of the scheduler; see the module's comment.
///
/// Each worker lies on cache lines of its own, because other CPUs use its neighbours in memory. 128 bytes, because
/// processors fetch lines in pairs. Without this, skynet of a million took 1.35 times as long in `Pinned` with two
/// workers.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Worker {
    pub(crate) index: usize,
    core: UnsafeCell<Core>,
    /// Apart from the core, because a thread's memory may come back while a reference to the core is in use.
    cells: UnsafeCell<Cells>,
    pub(crate) run_next: RunNext,
    pub(crate) ready: Thieves<Task>,
    pub(crate) fresh: Thieves<Task>,
    pub(crate) yielded: Thieves<Task>,
    /// Threads that must start here (`Builder::worker`). A thread that puts one in wakes the worker's poller.
    pub(crate) reserved: Injector,
    pub(crate) poller: Poller,
    /// Other threads cancel entries of the wheel by this.
    pub(crate) timers: Remote<TimerEvent>,
    pub(crate) remote_timers: Mutex<VecDeque<RemoteTimer>>,
    /// `remote_timers` is not empty. Written under its lock.
    pub(crate) has_remote_timers: AtomicBool,
    /// Dispatches so far. The monitor looks whether the number changes.
    pub(crate) ticks: AtomicU64,
    /// The monitor has seen that `ticks` does not change although work waits. Thieves may drain the poller then.
    pub(crate) late: AtomicBool,
    /// When the wheel's first timer is due, in nanoseconds since the runtime's start. The owner writes it for the
    /// monitor. It may be too early, for a timer that was cancelled, but never too late.
    pub(crate) next_timer: AtomicU64,
    /// The seat: `seat.rs`.
    pub(crate) seat: crate::engine::seat::Seat,
    pub(crate) counters: Counters,
    /// From the wake-up of threads to their run here.
    #[cfg(not(loom))]
    pub(crate) wake_latency: Histogram,
    /// From the spawn of threads to their first run here.
    #[cfg(not(loom))]
    pub(crate) start_latency: Histogram,
}

// SAFETY: the core is touched only by the seat's holder (invariant 1); the rest is shared.
unsafe impl Sync for Worker {}
// SAFETY: nothing in it belongs to an OS thread.
unsafe impl Send for Worker {}

/// Only the seat's holder counts, so a store is enough. Anybody may read.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) spawned: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) steals: AtomicU64,
    pub(crate) parks: AtomicU64,
    pub(crate) wakes: AtomicU64,
    pub(crate) polls: AtomicU64,
    /// How many `exc_after`s were set here, minus how many ended here. If more ended than were set, this is a
    /// negative number in two's complement. The sum over all counters is right.
    pub(crate) alarms: AtomicUsize,
    /// How long it has slept, in nanoseconds, but for the sleep that lasts.
    pub(crate) slept: AtomicU64,
    /// When the sleep that lasts began, in nanoseconds of the runtime's life; 0: it does not sleep.
    pub(crate) asleep_since: AtomicU64,
}

impl Counters {
    /// Adds to the number of live `exc_after`s. Only the seat's holder calls this.
    #[inline]
    pub(crate) fn count_alarms(&self, by: usize) {
        let alarms = self.alarms.load(Ordering::Relaxed).wrapping_add(by);
        self.alarms.store(alarms, Ordering::Relaxed);
    }
}

impl Counters {
    /// The worker is about to sleep; for the only writer.
    pub(crate) fn sleep(&self, now: u64) {
        // No model asks.
        if !cfg!(loom) {
            self.asleep_since.store(now.max(1), Ordering::Release);
        }
    }

    /// Since when it sleeps, or 0; and for how long it has slept before.
    pub(crate) fn sleeps(&self) -> (u64, u64) {
        loop {
            let since = self.asleep_since.load(Ordering::Acquire);
            let slept = self.slept.load(Ordering::Acquire);
            // Else a sleep has begun or ended in between, and would count twice or not at all.
            if self.asleep_since.load(Ordering::Acquire) == since {
                return (since, slept);
            }
        }
    }

    /// The worker has woken up, if it has slept; for the only writer.
    pub(crate) fn wake_up(&self, now: u64) {
        if cfg!(loom) {
            return;
        }
        let since = self.asleep_since.load(Ordering::Relaxed);
        if since != 0 {
            let slept = self.slept.load(Ordering::Relaxed) + now.saturating_sub(since);
            self.slept.store(slept, Ordering::Release);
            self.asleep_since.store(0, Ordering::Release);
        }
    }
}

/// Adds one, and returns the sum. Only the counter's only writer calls this.
#[inline]
pub(crate) fn count(counter: &AtomicU64) -> u64 {
    let count = counter.load(Ordering::Relaxed) + 1;
    counter.store(count, Ordering::Release);
    count
}

/// The part of a worker that only its owner touches ([`Worker::core`]).
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) ready: RunQueue<Task>,
    pub(crate) fresh: RunQueue<Task>,
    pub(crate) yielded: RunQueue<Task>,
    pub(crate) wheel: Wheel<TimerEvent>,
    pub(crate) stacks: stack::Cache,
    /// Blocks of thread-locals, in `Own`.
    pub(crate) blocks: thread_locals::Cache,
    pub(crate) tick: u32,
    pub(crate) slot_streak: u32,
    pub(crate) eagerness: Eagerness,
    pub(crate) clock_countdown: u32,
    pub(crate) clock_interval: u32,
    pub(crate) start: Instant,
    pub(crate) last_look: Instant,
    /// `last_look` in milliseconds since the start.
    pub(crate) looked_at: usize,
    pub(crate) last_poll: Instant,
    pub(crate) ids: Option<GreenThreadId>,
    pub(crate) ids_used: u64,
    pub(crate) rng: u64,
    pub(crate) due: Vec<TimerEvent>,
    /// When the worker last gave back what it had spare.
    pub(crate) last_tidy: Instant,
    /// The last retirement of the worker that the owner has noticed (`run/retired.rs`). 0: none.
    pub(crate) retirement: usize,
    /// Since when much of the timers' memory has been spare.
    pub(crate) spare_timers: Option<Instant>,
}

/// The whole milliseconds from `start` to `now`.
pub(crate) fn millis_since(start: Instant, now: Instant) -> usize {
    let millis = now.saturating_duration_since(start).as_millis();
    usize::try_from(millis).unwrap_or(usize::MAX)
}

/// Nanoseconds of the runtime's life.
pub(crate) fn nanos_since(start: Instant, now: Instant) -> u64 {
    let nanos = now.saturating_duration_since(start).as_nanos();
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

impl Worker {
    /// `alone`: there is no other worker that could steal from this one. `guard`: the guard of its threads' stacks.
    pub(crate) fn new(
        index: usize,
        alone: bool,
        guard: stack::Guard,
        start: Instant,
    ) -> std::io::Result<Self> {
        let (ready, ready_thieves) = RunQueue::new(Order::Oldest, !alone);
        let (fresh, fresh_thieves) = RunQueue::new(Order::Newest, !alone);
        let (yielded, yielded_thieves) = RunQueue::new(Order::Oldest, !alone);
        let wheel = Wheel::new(Tick::from_nanos_floor(0));
        Ok(Self {
            index,
            run_next: RunNext::new(),
            ready: ready_thieves,
            fresh: fresh_thieves,
            yielded: yielded_thieves,
            reserved: Injector::new(),
            poller: Poller::new()?,
            timers: wheel.remote(),
            remote_timers: Mutex::new(VecDeque::new()),
            has_remote_timers: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            late: AtomicBool::new(false),
            next_timer: AtomicU64::new(u64::MAX),
            seat: crate::engine::seat::Seat::new(),
            counters: Counters::default(),
            #[cfg(not(loom))]
            wake_latency: Histogram::new(),
            #[cfg(not(loom))]
            start_latency: Histogram::new(),
            cells: UnsafeCell::new(Cells::new()),
            core: UnsafeCell::new(Core {
                ready,
                fresh,
                yielded,
                wheel,
                stacks: stack::Cache::with_guard(guard),
                blocks: thread_locals::Cache::default(),
                tick: 0,
                slot_streak: 0,
                eagerness: Eagerness::new(),
                clock_countdown: 1,
                clock_interval: 1,
                start,
                last_look: start,
                looked_at: 0,
                last_poll: start,
                ids: None,
                ids_used: 0,
                rng: 0x9e37_79b9_7f4a_7c15 ^ ((index as u64 + 1) << 17),
                due: Vec::new(),
                last_tidy: start,
                retirement: 0,
                spare_timers: None,
            }),
        })
    }

    /// The worker's core. It has one owner at a time: the carrier that holds the seat (`seat.rs`), while it is inside
    /// its door (`door.rs`), or the monitor, while it holds that carrier out. When the carriers are gone, it is
    /// the shutdown's (`verbs/runtime.rs`). Nobody else touches it.
    ///
    /// # Safety
    /// The caller is the owner, and the reference is gone before the next suspension, the next call of
    /// this function and the next call of the user's code.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller's promise makes it unique")]
    pub(crate) unsafe fn core(&self) -> &mut Core {
        // SAFETY: by contract.
        self.core.with_mut(|core| unsafe { &mut *core })
    }

    /// The memory that is kept for green threads.
    ///
    /// # Safety
    /// As for [`core`](Self::core).
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller's promise makes it unique")]
    pub(crate) unsafe fn cells(&self) -> &mut Cells {
        // SAFETY: by contract.
        self.cells.with_mut(|cells| unsafe { &mut *cells })
    }

    /// There is something that a thief could take.
    pub(crate) fn has_stealable(&self) -> bool {
        !self.ready.is_empty() || !self.fresh.is_empty() || !self.yielded.is_empty()
    }

    /// There seems to be something that thieves do not find.
    pub(crate) fn hides_some(&self) -> bool {
        !self.run_next.is_empty() || !self.ready.is_shared()
    }

    /// Makes all that is queued visible to thieves. While thieves see something that they cannot steal, they go on to
    /// search.
    ///
    /// # Safety
    /// As for `core`; or the holder of the seat is held out of its door.
    pub(crate) unsafe fn share_all(&self) {
        // SAFETY: by contract the caller is the owner.
        unsafe {
            self.core().share_queues(self);
            self.share_slot();
        }
    }

    /// Moves the thread in `RunNext` to `ready`, where thieves find it.
    ///
    /// # Safety
    /// As for `core`; or the holder of the seat is held out of its door.
    unsafe fn share_slot(&self) {
        // SAFETY: by contract the caller is the owner.
        unsafe {
            if let Some(task) = self.run_next.take() {
                let core = self.core();
                core.ready.push(task);
                core.eagerness.computes();
            }
        }
    }

    /// How many threads are queued, without those in `reserved`. Any thread may ask.
    pub(crate) fn queued(&self) -> usize {
        self.ready.len()
            + self.fresh.len()
            + self.yielded.len()
            + usize::from(!self.run_next.is_empty())
    }

    /// Steals work of this worker for another worker, the oldest first.
    pub(crate) fn steal(&self, into: &Core) -> Steal<Task> {
        let mut retry = false;
        let attempts: [&dyn Fn() -> Steal<Task>; 3] = [
            &|| self.ready.steal_batch_and_pop(&into.ready),
            &|| self.fresh.steal(),
            &|| self.yielded.steal_batch_and_pop(&into.yielded),
        ];
        for attempt in attempts {
            match attempt() {
                Steal::Success(task) => return Steal::Success(task),
                Steal::Retry => retry = true,
                Steal::Empty => {}
            }
        }
        if retry { Steal::Retry } else { Steal::Empty }
    }
}
