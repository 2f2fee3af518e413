//! A worker: one seat of the scheduler. Its queues, its timer wheel, its poller, its stacks.
//!
//! The [`Core`] has one owner at a time ([`Worker::core`]); all threads share the rest. A worker has these
//! queues, and they are asked in this order:
//!
//! | queue   | holds                                  | order        | thieves take             |
//! |---------|----------------------------------------|--------------|--------------------------|
//! | `RunNext` | the thread that was woken last       | one          | nothing; see below       |
//! | ready   | what IO, a timer or a peer woke        | first in     | a batch of the oldest    |
//! | fresh   | what was spawned and has not started   | newest first | the oldest               |
//! | yielded | what gave way                          | first in     | a batch of the oldest    |
//!
//! Beside them there are the threads that are to start here (`reserved`), which no thief takes. They start when the
//! other queues are empty, and by turns with those of the injector.
//!
//! If the threads of a worker go on to compute after they have woken a peer, and another worker sleeps, the peer goes to
//! `ready` instead of `RunNext` (`eager.rs`). If the owner does not come back for a while, the monitor moves the thread
//! in `RunNext` to `ready`.
//!
//! Newest first unfolds a tree of spawns depth first, so a million of them need a few stacks. No
//! class starves another: see [`Core::next`].
//!
//! Invariant 1: only the owner touches `core` ([`Worker::core`]), and no reference into it outlives a suspension or a
//! call of the user's code.
#![allow(unsafe_code, reason = "the seat's holder owns the core")]

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

pub(crate) use self::table::Workers;

/// What a timer does when it is due.
#[derive(Debug)]
pub(crate) enum TimerEvent {
    /// Ends a wait.
    Wake(Task, u32),
    /// Starts a green thread.
    Call(Arc<Call>),
}

/// A timer from somewhere without a wheel.
#[derive(Debug)]
pub(crate) struct RemoteTimer {
    pub(crate) deadline: Instant,
    pub(crate) call: Arc<Call>,
}

/// Each lies on cache lines of its own, as its neighbour in the list belongs to another core. 128 bytes, as processors
/// fetch lines in pairs. Without that, skynet of a million took 1.35 times as long in `Pinned` with two workers.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Worker {
    pub(crate) index: usize,
    core: UnsafeCell<Core>,
    /// Apart from the core, as the end of a thread's memory may come wherever the core is in use.
    cells: UnsafeCell<Cells>,
    pub(crate) run_next: RunNext,
    pub(crate) ready: Thieves<Task>,
    pub(crate) fresh: Thieves<Task>,
    pub(crate) yielded: Thieves<Task>,
    /// Threads that start here and nowhere else (`Builder::worker`). Whoever puts one in wakes the worker's poller.
    pub(crate) reserved: Injector,
    pub(crate) poller: Poller,
    /// Cancels entries of the wheel from elsewhere.
    pub(crate) timers: Remote<TimerEvent>,
    pub(crate) remote_timers: Mutex<VecDeque<RemoteTimer>>,
    /// There are some; written under the lock.
    pub(crate) has_remote_timers: AtomicBool,
    /// Dispatches so far; the monitor watches it move.
    pub(crate) ticks: AtomicU64,
    /// The monitor has seen it stand still with work waiting: thieves may drain the poller.
    pub(crate) late: AtomicBool,
    /// When the wheel's first timer is due, in nanoseconds of the runtime's life; written by the
    /// owner, for the monitor. Never too late: it may be that of a timer that was cancelled.
    pub(crate) next_timer: AtomicU64,
    /// The seat: `seat.rs`.
    pub(crate) seat: crate::engine::seat::Seat,
    pub(crate) counters: Counters,
}

// SAFETY: the core is touched only by the seat's holder (invariant 1); the rest is shared.
unsafe impl Sync for Worker {}
// SAFETY: nothing in it belongs to an OS thread.
unsafe impl Send for Worker {}

/// Counted by the seat's holder alone, so a store is enough; read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) spawned: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) steals: AtomicU64,
    pub(crate) parks: AtomicU64,
    pub(crate) wakes: AtomicU64,
    pub(crate) polls: AtomicU64,
    /// `exc_after`s that were set here less those that ended here; below zero, modulo its range, where
    /// more ended than were set.
    pub(crate) alarms: AtomicUsize,
}

impl Counters {
    /// Adds to the number of live `exc_after`s; for the only writer.
    #[inline]
    pub(crate) fn count_alarms(&self, by: usize) {
        let alarms = self.alarms.load(Ordering::Relaxed).wrapping_add(by);
        self.alarms.store(alarms, Ordering::Relaxed);
    }
}

/// Counts one more; for the only writer.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
}

/// The owner's part.
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
    /// The same in milliseconds since the start.
    pub(crate) looked_at: usize,
    pub(crate) last_poll: Instant,
    pub(crate) ids: Option<GreenThreadId>,
    pub(crate) ids_used: u64,
    pub(crate) rng: u64,
    pub(crate) due: Vec<TimerEvent>,
    /// When it last gave back what it had spare.
    pub(crate) last_tidy: Instant,
    /// It knows that the worker has retired (`run/retired.rs`).
    pub(crate) is_retired: bool,
    /// Since when much of the timers' memory has been spare.
    pub(crate) spare_timers: Option<Instant>,
}

/// Whole milliseconds.
pub(crate) fn millis_since(start: Instant, now: Instant) -> usize {
    let millis = now.saturating_duration_since(start).as_millis();
    usize::try_from(millis).unwrap_or(usize::MAX)
}

impl Worker {
    /// `alone`: no other worker is there to steal from this one. `guard`: that of its threads' stacks.
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
                is_retired: false,
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

    /// Something that a thief could take.
    pub(crate) fn has_stealable(&self) -> bool {
        !self.ready.is_empty() || !self.fresh.is_empty() || !self.yielded.is_empty()
    }

    /// Something that thieves do not find; a hint.
    pub(crate) fn hides_some(&self) -> bool {
        !self.run_next.is_empty() || !self.ready.is_shared()
    }

    /// Has thieves find all that is queued. While they see a list that they cannot steal from, they search.
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

    /// Moves what is in the slot to where thieves find it.
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

    /// Anything queued, but for those that are to start here; from elsewhere.
    pub(crate) fn queued(&self) -> usize {
        self.ready.len()
            + self.fresh.len()
            + self.yielded.len()
            + usize::from(!self.run_next.is_empty())
    }

    /// Takes work from here for another worker: the oldest first.
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
