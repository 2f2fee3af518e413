//! A worker: one seat of the scheduler. Its queues, its timer wheel, its poller, its stacks.
//!
//! Whoever holds the seat, one carrier at a time, owns the [`Core`]; the rest is everybody's. A
//! worker has these queues, and is asked in this order:
//!
//! | queue   | holds                                  | order        | thieves take             |
//! |---------|----------------------------------------|--------------|--------------------------|
//! | slot    | what the running thread has just woken | one          | nothing; see below       |
//! | ready   | what IO, a timer or a peer woke        | first in     | a batch of the oldest    |
//! | fresh   | what was spawned and has not started   | newest first | the oldest               |
//! | yielded | what gave way                          | first in     | a batch of the oldest    |
//!
//! Where the threads of a worker compute on after they have woken a peer, the peer goes to `ready` instead of
//! the slot if another worker sleeps (`eager.rs`). If the owner does not come back for a while the monitor
//! moves what is in the slot to `ready`.
//!
//! Newest first unfolds a tree of spawns depth first, so a million of them need a few stacks. No
//! class starves another: see [`Worker::next`].
//!
//! Invariant 1: `core` is touched only by the carrier that the seat says (`seat.rs`), and no
//! reference into it outlives a suspension or a call of the user's code.
#![allow(unsafe_code, reason = "the seat's holder owns the core")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use weald_timer::{Key, Remote, Tick, Wheel};

use crate::call_after::Call;
use crate::cells::Cells;
use crate::eager::Eagerness;
use crate::green_thread::{Header, Hint, Task};
use crate::handle::GreenThreadId;
use crate::poller::Poller;
use crate::queue::{Order, RunQueue, Slot, Steal, Thieves, shrink};
use crate::shim::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::shim::bounds::FAIRNESS_INTERVAL;
use crate::shim::cell::UnsafeCell;
use crate::shim::clock;
use crate::shim::sync::{Arc, Mutex};
use crate::stack;
use crate::state::Why;
use crate::thread_locals;

/// Dispatches from the slot in a row: a pair that wakes each other leaves room for the others after
/// as many. Between tokio's 3, low for a request and its answer, and Go's 10 ms. A guess.
const SLOT_STREAK: u32 = 16;

/// A yielded thread runs at least every so many dispatches, the oldest spawned one as well. A multiple
/// of the interval in which a carrier's own threads leave a dispatch to these (`carrier/mod.rs`).
pub(crate) const CLASS_INTERVAL: u32 = 16;

/// Which dispatch of an interval begins with the oldest spawned one.
const OLDEST_FRESH: u32 = 8;

/// Dispatches between two looks at the clock, at most and to begin with. Looking costs some 30 ns.
const CLOCK_INTERVAL: u32 = 32;

/// The poller is looked at when this has passed and the worker never ran out of work.
const POLL_INTERVAL: Duration = Duration::from_micros(100);

/// While so many threads are ready the poller may wait: whom it woke would come after them.
const PLENTY: usize = 32;

/// But no longer than this.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Timers that are fired at one look while fewer threads than this are ready. More would only wait in
/// the queue, and what IO wakes would wait behind them.
const DUE_ROOM: usize = 256;

/// Timers that are fired between two questions what time it is.
pub(crate) const DUE_BATCH: usize = 64;

/// When so much time went by, the timers that are still due wait for the next look at the clock.
/// There are up to 16 such looks between two turns of a thread that yields. A guess.
pub(crate) const DUE_SLICE: Duration = Duration::from_micros(50);

/// Timers from elsewhere that a worker takes in at one look.
const REMOTE_BATCH: usize = 256;

/// Timers that were cancelled elsewhere of which a worker takes the memory back before it sleeps;
/// for more it comes back.
const DRAIN_BATCH: usize = 1024;

/// Numbers for new threads are fetched in blocks.
const ID_BLOCK: u64 = 1024;

/// What a timer does when it is due.
#[derive(Debug)]
pub(crate) enum TimerEvent {
    /// Ends a wait.
    Wake(Task, u32),
    /// Starts a green thread.
    Call(Arc<Call>),
}

/// So long nobody must have needed the memory of timers that are over, before it goes back: as for stacks.
const SPARE_TIMERS_WINDOW: Duration = Duration::from_millis(500);

/// Between two steps of giving it back, for a worker that has nothing else to do.
const TRIM_PAUSE: Duration = Duration::from_millis(4);

/// A timer from somewhere without a wheel.
#[derive(Debug)]
pub(crate) struct RemoteTimer {
    pub(crate) deadline: Instant,
    pub(crate) call: Arc<Call>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    core: UnsafeCell<Core>,
    /// Apart from the core, as the end of a thread's memory may come wherever the core is in use.
    cells: UnsafeCell<Cells>,
    pub(crate) slot: Slot,
    ready: Thieves<Task>,
    fresh: Thieves<Task>,
    yielded: Thieves<Task>,
    pub(crate) poller: Poller,
    /// Cancels entries of the wheel from elsewhere.
    pub(crate) timers: Remote<TimerEvent>,
    remote_timers: Mutex<VecDeque<RemoteTimer>>,
    /// There are some; written under the lock.
    has_remote_timers: AtomicBool,
    /// Dispatches so far; the monitor watches it move.
    pub(crate) ticks: AtomicU64,
    /// The monitor has seen it stand still with work waiting: thieves may drain the poller.
    pub(crate) late: AtomicBool,
    /// When the wheel's first timer is due, in nanoseconds of the runtime's life; written by the
    /// owner, for the monitor. Never too late: it may be that of a timer that was cancelled.
    next_timer: AtomicU64,
    /// The seat: `seat.rs`.
    pub(crate) seat: crate::seat::Seat,
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
    ready: RunQueue<Task>,
    fresh: RunQueue<Task>,
    yielded: RunQueue<Task>,
    wheel: Wheel<TimerEvent>,
    pub(crate) stacks: stack::Cache,
    /// Blocks of thread-locals, in `Own`.
    pub(crate) blocks: thread_locals::Cache,
    tick: u32,
    slot_streak: u32,
    eagerness: Eagerness,
    clock_countdown: u32,
    clock_interval: u32,
    start: Instant,
    last_look: Instant,
    /// The same in milliseconds since the start.
    pub(crate) looked_at: usize,
    last_poll: Instant,
    ids: Option<GreenThreadId>,
    ids_used: u64,
    rng: u64,
    due: Vec<TimerEvent>,
    /// When it last gave back what it had spare.
    last_tidy: Instant,
    /// Since when much of the timers' memory has been spare.
    spare_timers: Option<Instant>,
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
            slot: Slot::new(),
            ready: ready_thieves,
            fresh: fresh_thieves,
            yielded: yielded_thieves,
            poller: Poller::new()?,
            timers: wheel.remote(),
            remote_timers: Mutex::new(VecDeque::new()),
            has_remote_timers: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            late: AtomicBool::new(false),
            next_timer: AtomicU64::new(u64::MAX),
            seat: crate::seat::Seat::new(),
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
                spare_timers: None,
            }),
        })
    }

    /// The owner's part.
    ///
    /// # Safety
    /// The caller's carrier holds the seat, and the reference is gone before the next suspension,
    /// the next call of this function and the next call of the user's code.
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
    pub(crate) fn slot_is_full(&self) -> bool {
        !self.slot.is_empty()
    }

    /// Moves what is in the slot to where thieves find it.
    ///
    /// # Safety
    /// As for `core`; or the holder of the seat is held out of its door.
    pub(crate) unsafe fn share_slot(&self) {
        // SAFETY: by contract the caller is the owner.
        unsafe {
            if let Some(task) = self.slot.take() {
                let core = self.core();
                core.ready.push(task);
                core.eagerness.computes();
            }
        }
    }

    /// A timer was put into the wheel; by the owner.
    #[inline]
    fn timer_at(&self, tick: Tick) {
        if tick.as_nanos() < self.next_timer.load(Ordering::Relaxed) {
            self.next_timer.store(tick.as_nanos(), Ordering::Relaxed);
        }
    }

    /// A timer is due, or waits to get into the wheel; from elsewhere.
    pub(crate) fn has_due_timers(&self, start: Instant, now: Instant) -> bool {
        self.next_timer.load(Ordering::Relaxed) <= nanos(start, now)
            || self.has_remote_timers.load(Ordering::Relaxed)
    }

    /// Anything queued; from elsewhere.
    pub(crate) fn queued(&self) -> usize {
        self.ready.len()
            + self.fresh.len()
            + self.yielded.len()
            + usize::from(!self.slot.is_empty())
    }

    pub(crate) fn post_timer(&self, timer: RemoteTimer) {
        let mut timers = self.remote_timers.lock();
        timers.push_back(timer);
        self.has_remote_timers.store(true, Ordering::Release);
        drop(timers);
        self.poller.unpark();
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

impl Core {
    /// Anything queued.
    pub(crate) fn has_queued(&self, worker: &Worker) -> bool {
        !worker.slot.is_empty()
            || self.ready.len() > 0
            || self.fresh.len() > 0
            || self.yielded.len() > 0
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
        // SAFETY: who has the core is the owner.
        if let Some(task) = unsafe { worker.slot.take() } {
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
            // To judge it when the peer has left its stack. A model has no time that passes.
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

    /// Queues what was woken. True: another worker could take it, or what it pushed aside.
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
        // SAFETY: who has the core is the owner.
        match unsafe { worker.slot.put(task) } {
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
        #[cfg(loom)]
        return below - 1;
        #[cfg(not(loom))]
        {
            self.rng ^= self.rng << 13;
            self.rng ^= self.rng >> 7;
            self.rng ^= self.rng << 17;
            usize::try_from(self.rng % below as u64).expect("below a usize")
        }
    }

    /// Arms a timer for a wait of the running thread.
    #[inline]
    pub(crate) fn arm(
        &mut self,
        worker: &Worker,
        start: Instant,
        header: &Header,
        epoch: u32,
        at: Instant,
    ) -> Key {
        let tick = tick_of(start, at);
        worker.timer_at(tick);
        self.wheel
            .insert(tick, TimerEvent::Wake(Task::from_header(header), epoch))
    }

    pub(crate) fn arm_call(
        &mut self,
        worker: &Worker,
        start: Instant,
        at: Instant,
        call: Arc<Call>,
    ) -> Key {
        let tick = tick_of(start, at);
        worker.timer_at(tick);
        self.wheel.insert(tick, TimerEvent::Call(call))
    }

    #[inline]
    pub(crate) fn disarm(&mut self, key: Key) -> Option<TimerEvent> {
        self.wheel.cancel(key)
    }

    /// Takes in timers from elsewhere, not all of them if there are many. True: there are more.
    pub(crate) fn take_remote_timers(&mut self, worker: &Worker, start: Instant) -> bool {
        if !worker.has_remote_timers.load(Ordering::Acquire) {
            return false;
        }
        let (timers, more) = {
            let mut timers = worker.remote_timers.lock();
            let some = timers.len().min(REMOTE_BATCH);
            let taken: Vec<_> = timers.drain(..some).collect();
            let more = !timers.is_empty();
            if !more {
                *timers = VecDeque::new();
            }
            worker.has_remote_timers.store(more, Ordering::Relaxed);
            (taken, more)
        };
        for timer in timers {
            let key = self.arm_call(worker, start, timer.deadline, Arc::clone(&timer.call));
            if !timer.call.armed(worker, key) {
                drop(self.wheel.cancel(key));
            }
        }
        more
    }

    /// How many timers may be fired at this look. `private`: threads that were woken and are in their
    /// carrier's own queues. However many are ready, half as many as have run since the last look, so
    /// that no crowd keeps timers from being fired.
    #[inline]
    pub(crate) fn room_for_due(&self, private: usize) -> usize {
        let ready = self.ready.len() + private;
        let least = (self.clock_interval as usize / 2).max(1);
        DUE_ROOM.saturating_sub(ready).max(least)
    }

    /// Takes timers that are due out of the wheel, `limit` at most. True: there are more, which can still
    /// be cancelled.
    #[inline]
    pub(crate) fn take_due(
        &mut self,
        worker: &Worker,
        start: Instant,
        now: Instant,
        limit: usize,
    ) -> (Vec<TimerEvent>, bool) {
        let mut due = std::mem::take(&mut self.due);
        let mut more = false;
        let now = Tick::from_nanos_floor(nanos(start, now));
        let mut next = self.wheel.next_deadline();
        if next.is_some_and(|next| next <= now) {
            let fire = |event| due.push(event);
            more = !self.wheel.advance_limited(now, limit, fire).is_done;
            next = self.wheel.next_deadline();
        }
        worker
            .next_timer
            .store(next.map_or(u64::MAX, Tick::as_nanos), Ordering::Relaxed);
        (due, more)
    }

    /// Gives the buffer of `take_due` back, for the next time.
    pub(crate) fn give_back(&mut self, due: Vec<TimerEvent>) {
        debug_assert!(due.is_empty(), "all were handled");
        self.due = due;
    }

    /// Takes out what is left when the runtime has stopped: threads that were queued, and calls in the
    /// future. Nobody waits for the timers any more.
    pub(crate) fn take_rest(&mut self, worker: &Worker) -> (Vec<Task>, Vec<Arc<Call>>) {
        // SAFETY: the caller has the core, so it is the slot's owner.
        let slot = unsafe { worker.slot.take() };
        let tasks = slot
            .into_iter()
            .chain(std::iter::from_fn(|| self.fresh.pop()))
            .chain(std::iter::from_fn(|| self.ready.pop()))
            .chain(std::iter::from_fn(|| self.yielded.pop()))
            .collect();
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

    /// Memory of timers is being given back, or will be if nobody needs it.
    pub(crate) fn has_spare_timers(&self) -> bool {
        self.spare_timers.is_some()
    }

    /// Gives memory back of timers that are over, if nobody has needed it for a while, until `stop` says
    /// so. Returns after how long to come again; `None`: there is nothing to give back any more.
    pub(crate) fn trim_timers(
        &mut self,
        now: Instant,
        stop: impl Fn() -> bool,
    ) -> Option<Duration> {
        if !cfg!(target_os = "linux") || !self.wheel.can_trim() {
            self.spare_timers = None;
            return None;
        }
        let since = *self.spare_timers.get_or_insert(now);
        let left = (since + SPARE_TIMERS_WINDOW).saturating_duration_since(now);
        if !left.is_zero() {
            return Some(left);
        }
        // SAFETY: pages that are given back read as zero, or stay as they are.
        if unsafe { self.wheel.trim(stop, give_pages_back) } {
            self.spare_timers = None;
            return None;
        }
        Some(TRIM_PAUSE)
    }

    /// How long the worker may sleep.
    pub(crate) fn sleep_limit(&mut self, start: Instant, now: Instant) -> Option<Duration> {
        if !self.wheel.drain_limited(DRAIN_BATCH) {
            return Some(Duration::ZERO);
        }
        let next = self.wheel.next_deadline()?;
        Some(Duration::from_nanos(
            next.as_nanos().saturating_sub(nanos(start, now)),
        ))
    }
}

/// Nanoseconds of the runtime's life; a deadline beyond some centuries counts as that.
fn nanos(start: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

fn tick_of(start: Instant, at: Instant) -> Tick {
    Tick::from_nanos_ceil(nanos(start, at))
}

/// Handles timers that were due. Returns how many.
pub(crate) fn fire(due: &mut Vec<TimerEvent>) -> usize {
    let count = due.len();
    for event in due.drain(..) {
        match event {
            TimerEvent::Wake(task, epoch) => {
                // SAFETY: the event keeps the header alive.
                unsafe { Header::wake(&raw const *task, epoch, Why::TIMED_OUT, Hint::Event) };
            }
            TimerEvent::Call(call) => Call::fire(call),
        }
    }
    count
}

/// A carrier's own queue of threads that stay with it.
#[derive(Debug, Default)]
pub(crate) struct Private {
    next: Option<Task>,
    woken: VecDeque<Task>,
    yielded: VecDeque<Task>,
    streak: u32,
    count: usize,
    /// How many there are, for others.
    len: Arc<AtomicUsize>,
}

impl Private {
    /// The length, for others: old as soon as it is told.
    pub(crate) fn told_len(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.len)
    }

    #[inline]
    fn tell(&mut self) {
        self.count = usize::from(self.next.is_some()) + self.woken.len() + self.yielded.len();
        self.len.store(self.count, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn push(&mut self, task: Task, hint: Hint) {
        match hint {
            Hint::Event => self.woken.push_back(task),
            Hint::Peer => {
                if let Some(old) = self.next.replace(task) {
                    self.woken.push_back(old);
                }
            }
        }
        self.tell();
    }

    #[inline]
    pub(crate) fn push_yielded(&mut self, task: Task) {
        self.yielded.push_back(task);
        self.tell();
    }

    /// The next that was woken.
    #[inline]
    pub(crate) fn pop_woken(&mut self) -> Option<Task> {
        if let Some(task) = self.next.take() {
            if self.streak < SLOT_STREAK {
                self.streak += 1;
                self.tell();
                return Some(task);
            }
            self.woken.push_back(task);
        }
        self.streak = 0;
        let task = self.woken.pop_front()?;
        self.tell();
        Some(task)
    }

    #[inline]
    pub(crate) fn pop_yielded(&mut self) -> Option<Task> {
        let task = self.yielded.pop_front()?;
        self.tell();
        Some(task)
    }

    /// Gives back the room of a list that had been long.
    pub(crate) fn shrink(&mut self) {
        shrink(&mut self.woken);
        shrink(&mut self.yielded);
    }

    /// How many were woken and run before those that gave way.
    pub(crate) fn woken(&self) -> usize {
        self.woken.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Gives the pages back that lie wholly in this memory: they read as zero from then on.
fn give_pages_back(first: *mut u8, bytes: usize) {
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    {
        let page = crate::stack::page_size();
        let start = first.addr().next_multiple_of(page);
        let end = (first.addr() + bytes) & !(page - 1);
        if start < end {
            // SAFETY: the pages are the wheel's, in which no timer lives, and anonymous memory of the allocator's.
            // If they are not, or must not go, they stay as they are.
            unsafe {
                libc::madvise(
                    first.with_addr(start).cast(),
                    end - start,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
    #[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
    let _ = (first, bytes);
}
