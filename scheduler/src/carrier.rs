//! A carrier: the OS thread that drives a worker. Run, search, sleep.
//!
//! ```text
//! loop {
//!     no seat?            wait for one (seat.rs)
//!     every 61 dispatches the injector; every few, by the clock: timers, poller
//!     own queues          the carrier's private ones, the worker's (worker.rs)
//!     nothing there       inbox, injector, timers, poller
//!     still nothing       search: steal from the others, drain the pollers of late ones
//!     still nothing       announce sleep, look everywhere once more (idle.rs), sleep in the poller
//! }
//! ```
//!
//! A green thread leaves its stack with a [`Note`]; what the note asks for is done here, on the
//! carrier's own stack, so a thread is never published while its stack is in use.
//!
//! Threads that must not migrate, once started, are in their carrier's private queues. Others reach
//! those through its inbox.
//!
//! Invariant 1: `private` and the cells are touched only on the carrier's OS thread.
//! Invariant 2: who touches a worker's core is inside the door (`door.rs`) and has asked for the
//! seat there: the loop, which leaves it only to run a green thread, or a [`with_core`] of that
//! thread. So the monitor may take the seat from a thread that does not come back.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use std::cell::Cell;
use std::io;
use std::ptr;
use std::time::{Duration, Instant};

use weald_timer::Key;

use crate::coroutine::{Coroutine, Resumed, Suspender};
use crate::current;
use crate::door::Door;
use crate::exception;
use crate::green_thread::{Header, Hint, Note, Task, stack_payload};
use crate::locals;
use crate::queue::Steal;
use crate::runtime::Inner;
use crate::shim::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use crate::shim::cell::UnsafeCell;
use crate::shim::clock;
use crate::shim::sync::{Arc, Mutex};
use crate::slice;
use crate::thread_locals;
use crate::trace::Tracer;
use crate::waiter::switch_out;
use crate::worker::{self, Core, Private, Worker, count, millis_since};

/// Blocking calls that did not wait, after which a thread gives way; tokio's figure.
const BUDGET: u32 = 128;

/// A thread whose calls never wait gives way after this too: DESIGN's bound for everybody else.
const SLICE: Duration = Duration::from_micros(200);

/// While calls come quicker than this, only every 8th reads the clock.
const QUICK: Duration = Duration::from_micros(25);

/// A thread that comes back within this is no hog any more.
const BRIEF: Duration = Duration::from_millis(2);

/// A worker that will sleep longer than this gives the memory of its spare stacks back first.
const TRIM_SLEEP: Duration = Duration::from_millis(50);

/// Passes over all victims before a searcher gives up; a thief may lose a race that often.
const PASSES: usize = 2;

/// One OS thread's part in a runtime.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) index: usize,
    inner: Cell<*const Inner>,
    /// The system's id of its OS thread.
    pub(crate) os_thread: AtomicUsize,
    /// Its way to the worker whose seat it holds.
    pub(crate) door: Door<Worker>,
    /// It is in a blocking call: what runs must not leave this OS thread. Its own; others may look.
    away: AtomicBool,
    /// When it was given its seat.
    since: Cell<Option<Instant>>,
    /// The monitor has reported the thread that runs here, without a seat, as a hog.
    pub(crate) reported: AtomicBool,
    /// Who runs here while the door stands open; others look only while they hold the carrier out.
    pub(crate) running: AtomicPtr<Header>,
    private: UnsafeCell<Private>,
    inbox: Mutex<Vec<(Task, Hint)>>,
    has_mail: AtomicBool,
    /// Started threads that must stay here and have not ended.
    settled: Cell<usize>,
    /// Threads that wait here in the middle of unwinding.
    pub(crate) unwinding: Cell<u32>,
    /// The OS thread's own thread-locals (`thread_locals`).
    pub(crate) host: Cell<usize>,
    budget: Budget,
}

/// What is left of the running thread's turn.
#[derive(Debug)]
struct Budget {
    left: Cell<u32>,
    next_look: Cell<u32>,
    since: Cell<Option<Instant>>,
    last: Cell<Option<Instant>>,
}

// SAFETY: cells and `private` belong to the carrier's OS thread (invariant 1), the rest is shared.
unsafe impl Sync for Carrier {}
// SAFETY: nothing in it belongs to an OS thread before one was started for it.
unsafe impl Send for Carrier {}

/// Starts the OS thread of a carrier that was given a seat.
pub(crate) fn start(inner: &Arc<Inner>, index: usize) -> io::Result<()> {
    let shared = Arc::clone(inner);
    let name = format!("{}-{index}", inner.settings.thread_name);
    let thread = crate::shim::thread::spawn(name, move || {
        let carrier = &shared.carriers[index];
        carrier.inner.set(Arc::as_ptr(&shared));
        carrier.host.set(thread_locals::host_pointer());
        carrier.os_thread.store(os_thread(), Ordering::Relaxed);
        current::set_carrier(carrier);
        let alt_stack = crate::stack::overflow::AltStack::for_this_thread();
        let guard = AbortOnPanic;
        carrier.run(&shared);
        std::mem::forget(guard);
        drop(alt_stack);
        current::set_carrier(ptr::null());
    })?;
    inner.threads.lock().push(thread);
    Ok(())
}

/// The system's id of the running OS thread; 0 where nobody asks for it.
fn os_thread() -> usize {
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    // SAFETY: the call has no conditions.
    return usize::try_from(unsafe { libc::gettid() }).unwrap_or(0);
    #[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
    0
}

/// Ends the process if the scheduler itself panics: a seat would be lost, and all who wait for it
/// with it.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    #[cold]
    fn drop(&mut self) {
        // The panic's own message is out already.
        log::error!("weald: a panic in the scheduler; aborting");
        std::process::abort();
    }
}

impl Carrier {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            inner: Cell::new(ptr::null()),
            os_thread: AtomicUsize::new(0),
            door: Door::new(),
            away: AtomicBool::new(false),
            since: Cell::new(None),
            reported: AtomicBool::new(false),
            running: AtomicPtr::new(ptr::null_mut()),
            private: UnsafeCell::new(Private::default()),
            inbox: Mutex::new(Vec::new()),
            has_mail: AtomicBool::new(false),
            settled: Cell::new(0),
            unwinding: Cell::new(0),
            host: Cell::new(0),
            budget: Budget {
                left: Cell::new(BUDGET),
                next_look: Cell::new(BUDGET),
                since: Cell::new(None),
                last: Cell::new(None),
            },
        }
    }

    /// The worker whose seat this carrier holds; inside the door.
    #[inline(always)]
    fn seat(&self) -> Option<&Worker> {
        // SAFETY: workers live as long as the runtime, which the carrier's OS thread keeps.
        unsafe { self.door.seat().as_ref() }
    }

    /// A green thread has said that it blocks this OS thread; for others a hint.
    #[inline]
    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Takes a seat, or lets go of it; inside the door.
    fn sit(&self, worker: Option<&Worker>) {
        self.door.sit(worker.map_or(ptr::null(), ptr::from_ref));
    }

    #[inline(always)]
    #[allow(
        clippy::mut_from_ref,
        reason = "the OS thread's own, held for a statement"
    )]
    fn private(&self) -> &mut Private {
        // SAFETY: only this OS thread gets here (invariant 1), and no reference is kept.
        self.private.with_mut(|private| unsafe { &mut *private })
    }

    fn run(&self, inner: &Arc<Inner>) {
        self.door.enter();
        loop {
            let Some(worker) = self.seat() else {
                // The inbox by its lock: a sender that this misses sees that there is no seat.
                let needs = || !self.private().is_empty() || !self.inbox.lock().is_empty();
                let keep = self.settled.get() > 0;
                match inner.seats.wait(inner, self.index, needs, keep) {
                    Some(index) => {
                        self.since.set(Some(clock::now()));
                        self.sit(Some(&inner.workers[index]));
                    }
                    None if inner.seats.is_stopping() => break,
                    // Spare for too long: `wait` has counted it out.
                    None => return,
                }
                continue;
            };
            if inner.is_stopping() {
                self.sit(None);
                break;
            }
            match self.next(inner, worker) {
                Some(task) => self.dispatch(inner, worker, task),
                None if self.seat().is_none() => {}
                None => self.idle(inner, worker),
            }
        }
        inner.seats.ended();
    }

    /// The next thread to run, if there is one without searching.
    #[inline]
    fn next(&self, inner: &Arc<Inner>, worker: &Worker) -> Option<Task> {
        // SAFETY: the seat is held; the reference ends before anything is run.
        let core = unsafe { worker.core() };
        if core.tick() {
            let task = self.look_outside(inner);
            if task.is_some() {
                return task;
            }
        }
        // SAFETY: as above, taken anew.
        let core = unsafe { worker.core() };
        if core.clock_is_due() && !self.look_at_clock(inner, worker) {
            return None;
        }
        let private = self.private();
        // SAFETY: as above, taken anew.
        let core = unsafe { worker.core() };
        let others_first = core.ticks() % 16 == 8 && self.unwinding.get() == 0;
        if others_first && let Some(task) = core.next(worker) {
            return Some(task);
        }
        if let Some(task) = private.pop_woken() {
            return Some(task);
        }
        if self.unwinding.get() == 0
            && !others_first
            && let Some(task) = core.next(worker)
        {
            return Some(task);
        }
        private.pop_yielded()
    }

    /// Every 61 dispatches: the mail, a thread from the injector.
    #[cold]
    fn look_outside(&self, inner: &Inner) -> Option<Task> {
        self.take_mail();
        if self.unwinding.get() > 0 {
            return None;
        }
        inner.injector.pop()
    }

    /// Lets go of the seat for a carrier that waits for one. The queues go with it; what is the
    /// carrier's own waits for the next one. False: nobody waits.
    fn pass(&self, inner: &Inner, worker: &Worker) -> bool {
        if !inner.seats.somebody_waits() {
            return false;
        }
        self.sit(None);
        if inner.seats.pass(inner, worker.index) {
            return true;
        }
        self.sit(Some(worker));
        false
    }

    /// Timers, events, and carriers that wait for a seat. False: one of them has it now.
    #[cold]
    fn look_at_clock(&self, inner: &Arc<Inner>, worker: &Worker) -> bool {
        let now = clock::now();
        // SAFETY: the seat is held; ends before timers and events are handled.
        let core = unsafe { worker.core() };
        core.saw(now);
        let poll = core.poll_is_due(now);
        let turn_is_over = || {
            let since = self.since.get().unwrap_or(now);
            now.saturating_duration_since(since) >= SLICE
        };
        if inner.seats.somebody_waits() && turn_is_over() && self.pass(inner, worker) {
            return false;
        }
        self.look(inner, worker, now, poll);
        if inner.idle.somebody_sleeps() && worker.has_stealable() {
            inner.notify();
        }
        true
    }

    /// Timers, and the poller if `poll`. Returns how many threads that may have made ready.
    fn look(&self, inner: &Arc<Inner>, worker: &Worker, now: Instant, poll: bool) -> usize {
        self.take_mail();
        // SAFETY: the seat is held; ends with the statement.
        unsafe { worker.core() }.take_remote_timers(worker, inner.start);
        // SAFETY: as above.
        let mut due = unsafe { worker.core() }.take_due(worker, inner.start, now);
        let mut found = worker::fire(&mut due);
        // SAFETY: as above.
        unsafe { worker.core() }.give_back(due);
        if poll {
            // SAFETY: as above.
            unsafe { worker.core() }.polled(now);
            count(&worker.counters.polls);
            found += worker.poller.poll();
        }
        found
    }

    /// Moves what others sent into the private queues. True: there was something.
    fn take_mail(&self) -> bool {
        if !self.has_mail() {
            return false;
        }
        let mail = {
            let mut inbox = self.inbox.lock();
            self.has_mail.store(false, Ordering::Relaxed);
            std::mem::take(&mut *inbox)
        };
        for (task, _) in mail {
            self.private().push(task, Hint::Event);
        }
        true
    }

    fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Runs a green thread until it leaves its stack, and does what its note asks for.
    #[inline]
    fn dispatch(&self, inner: &Arc<Inner>, worker: &Worker, task: Task) {
        if worker.late.load(Ordering::Relaxed) {
            worker.late.store(false, Ordering::Relaxed);
        }
        // The monitor watches it move; a plain step, as only the seat's holder writes.
        let ticks = worker.ticks.load(Ordering::Relaxed);
        worker.ticks.store(ticks + 1, Ordering::Relaxed);
        self.budget.reset();
        let header: *const Header = &raw const *task;
        // SAFETY: the running reference is ours, hence the coroutine as well (green_thread.rs 2).
        let coroutine = unsafe { &mut *task.coroutine.get() };
        let coroutine = match coroutine {
            Some(coroutine) => coroutine,
            None => match self.bind(inner, worker, &task) {
                Some(()) => {
                    // SAFETY: as above.
                    let bound = unsafe { &mut *task.coroutine.get() };
                    bound.as_mut().expect("just bound")
                }
                None => return,
            },
        };
        if let Some(hooks) = &inner.settings.hooks {
            hooks.resumed(&task);
        }
        self.running.store(header.cast_mut(), Ordering::Relaxed);
        let handed_over = task.hog.get().then(|| self.hand_over_before(inner));
        // From here to `enter` the seat may be seized: `worker` is not ours any more.
        self.door.leave();
        let resumed = match inner.settings.own {
            None => {
                current::set_running(header);
                let resumed = coroutine.resume(());
                current::set_running(ptr::null());
                resumed
            }
            // SAFETY: the block was bound with the coroutine, and this is the OS thread.
            Some(own) => unsafe {
                let block = (*task.block.get()).as_ref().expect("bound together");
                own.resume(coroutine, block, self, self.host.get())
            },
        };
        if !self.door.enter() {
            // It was seized from under it.
            task.hog.set(true);
            self.tell_where(&task, &resumed);
        } else if let Some(start) = handed_over {
            self.door.came_back();
            slice::lengthen(false);
            task.hog
                .set(clock::now().saturating_duration_since(start) >= BRIEF);
            self.tell_where(&task, &resumed);
        } else if self.door.seat().is_null() {
            // It lost its seat, or gave it up, and has found out in a call of weald's.
            self.tell_where(&task, &resumed);
        }
        match resumed {
            Resumed::Suspended(note) => {
                if let Some(hooks) = &inner.settings.hooks {
                    hooks.suspended(&task);
                }
                self.suspended(inner, task, note);
            }
            Resumed::Finished => self.finished(inner, &task),
        }
    }

    /// A hog that the monitor has reported is back: from where, which could not be seen while it ran.
    #[cold]
    fn tell_where(&self, task: &Task, resumed: &Resumed<Note>) {
        if !self.reported.swap(false, Ordering::Relaxed) {
            return;
        }
        let name = task.name().unwrap_or("<unnamed>");
        if *resumed == Resumed::Finished {
            log::warn!("weald: green thread {name} ({:?}) has ended", task.id);
        } else {
            let trace = Tracer::new().take_suspended(task);
            log::warn!(
                "weald: green thread {name} ({:?}) is back; it was in\n{trace}",
                task.id
            );
        }
    }

    /// A thread that did not come back for long the last time will hardly do so this time: the
    /// others go on elsewhere at once, not when the monitor has noticed. Returns when it starts.
    #[cold]
    fn hand_over_before(&self, inner: &Arc<Inner>) -> Instant {
        if inner.seats.has_taker() {
            inner.monitor.expect(self.index, self.door.losses());
            self.give_up_seat(inner);
            slice::lengthen(true);
        }
        clock::now()
    }

    /// Gives a thread that starts its stack, or its end if it was killed. `None`: it will not run.
    fn bind(&self, inner: &Arc<Inner>, worker: &Worker, task: &Task) -> Option<()> {
        if exception::is_killed(task) || inner.is_killing() {
            self.count_end(inner);
            crate::join::cancel(task, Box::new(exception::Exception::killed()));
            return None;
        }
        // SAFETY: the seat is held; ends with the statement.
        let stack = match unsafe { worker.core() }.stacks.get(task.stack_size()) {
            Ok(stack) => stack,
            Err(error) => {
                log::error!("a green thread cannot start: {error}");
                self.count_end(inner);
                crate::join::cancel(task, stack_payload(&error));
                return None;
            }
        };
        let header: *const Header = &raw const **task;
        if let Some(own) = inner.settings.own {
            // SAFETY: as above.
            let Some(block) = (unsafe { worker.core() }).blocks.get(own) else {
                let error = io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    "no memory for the thread-locals of a green thread",
                );
                log::error!("a green thread cannot start: {error}");
                // SAFETY: as above.
                unsafe { worker.core() }.stacks.put(stack);
                self.count_end(inner);
                crate::join::cancel(task, stack_payload(&error));
                return None;
            };
            own.start(&block, header);
            // SAFETY: the running reference is ours.
            unsafe { *task.block.get() = Some(block) };
        }
        if inner.settings.pins || task.pinned {
            task.home.store(self.index + 1, Ordering::Relaxed);
            self.settled.set(self.settled.get() + 1);
        }
        // SAFETY: the closure runs only while the carrier holds the running reference, so `header`
        // is alive; the coroutine is never dropped while suspended.
        let coroutine =
            unsafe { Coroutine::new(stack, move |suspender, ()| main(header, suspender)) };
        // SAFETY: the running reference is ours.
        unsafe { *task.coroutine.get() = Some(coroutine) };
        Some(())
    }

    fn suspended(&self, inner: &Arc<Inner>, task: Task, note: Note) {
        match note {
            Note::Yield => self.push_yielded(inner, task),
            Note::Park { epoch, kind } => {
                if !task.registered.get() {
                    inner.registry.insert(&task, self.index);
                }
                if let Some(worker) = self.seat() {
                    count(&worker.counters.parks);
                    // SAFETY: the seat is held; ends with the statement.
                    task.left.set_time(unsafe { worker.core() }.looked_at);
                } else {
                    inner.parked_outside.fetch_add(1, Ordering::Relaxed);
                    task.left.set_time(millis_since(inner.start, clock::now()));
                }
                let header = task.into_raw();
                // SAFETY: it came from `into_raw`; the state word owns the reference from the step
                // to PARKED on, and until then it is ours.
                if unsafe { (*header).state.park(epoch, kind) }.is_err() {
                    // A waker, the token or an exception was first.
                    // SAFETY: it did not park, so the reference is still ours.
                    let task = unsafe { Task::from_raw(header) };
                    match self.seat() {
                        Some(worker) => count(&worker.counters.wakes),
                        None => {
                            inner.woken_outside.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    self.push_woken(inner, task, Hint::Event);
                }
            }
            Note::Requeue => self.push_woken(inner, task, Hint::Event),
        }
        if self.unwinding.get() > 0 && self.seat().is_some() && self.private().is_empty() {
            // Nothing that has not started may start here now: another carrier drives the worker.
            self.give_up_seat(inner);
        }
    }

    #[inline]
    fn push_yielded(&self, inner: &Arc<Inner>, task: Task) {
        if task.home.load(Ordering::Relaxed) != 0 {
            self.private().push_yielded(task);
        } else if let Some(worker) = self.seat() {
            // SAFETY: the seat is held; ends with the statement.
            unsafe { worker.core() }.push_yielded(task);
        } else {
            inner.inject(task);
        }
    }

    fn push_woken(&self, inner: &Arc<Inner>, task: Task, hint: Hint) {
        if task.home.load(Ordering::Relaxed) != 0 {
            self.private().push(task, hint);
        } else if let Some(worker) = self.seat() {
            let asleep = inner.workers.len() > 1 && inner.idle.somebody_sleeps();
            // SAFETY: the seat is held; ends with the statement.
            let stealable = unsafe { worker.core() }.push_woken(worker, task, hint, asleep);
            if stealable && inner.workers.len() > 1 {
                inner.notify();
            }
        } else {
            inner.inject(task);
        }
    }

    fn finished(&self, inner: &Inner, task: &Task) {
        // SAFETY: the running reference is ours.
        let coroutine = unsafe { (*task.coroutine.get()).take() };
        let stack = coroutine.expect("it has just run").into_stack();
        match self.seat() {
            // SAFETY: the seat is held; ends with the statement.
            Some(worker) => unsafe { worker.core() }.stacks.put(stack),
            None => crate::stack::release(stack),
        }
        // SAFETY: as above.
        if let Some(block) = unsafe { (*task.block.get()).take() } {
            match self.seat() {
                // SAFETY: the seat is held; ends with the statement.
                Some(worker) => unsafe { worker.core() }.blocks.put(block),
                None => thread_locals::release(block),
            }
        }
        if task.home.load(Ordering::Relaxed) != 0 {
            self.settled.set(self.settled.get() - 1);
        }
        if task.registered.get() {
            inner.registry.remove(task);
        }
    }

    /// Counts a thread that has ended; whoever waits for the last one is told.
    fn count_end(&self, inner: &Inner) {
        let _inside = self.door.section();
        match self.seat() {
            Some(worker) => count(&worker.counters.ended),
            None => {
                inner.ended_outside.fetch_add(1, Ordering::AcqRel);
            }
        }
        inner.one_ended();
    }

    fn give_up_seat(&self, inner: &Arc<Inner>) {
        if let Some(worker) = self.seat() {
            self.sit(None);
            inner.seats.release(inner, worker.index);
        }
    }

    /// Nothing in the own queues: look everywhere, then sleep.
    #[cold]
    fn idle(&self, inner: &Arc<Inner>, worker: &Worker) {
        worker.ticks.fetch_add(1, Ordering::Relaxed);
        if self.unwinding.get() > 0 {
            self.give_up_seat(inner);
            return;
        }
        if self.pass(inner, worker) {
            return;
        }
        let now = clock::now();
        // SAFETY: the seat is held; ends with the statement.
        unsafe { worker.core() }.saw(now);
        if self.take_mail()
            || self.look(inner, worker, now, true) > 0
            || Self::take_injected(inner, worker)
        {
            Self::share(inner, worker);
            return;
        }
        let searching = inner.workers.len() > 1 && inner.idle.start_search();
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
            Self::sleep(inner, worker);
            inner.idle.wake(worker.index)
        };
        // Also if it did not sleep: the monitor may have taken its bit for sleep.
        inner.monitor.poke();
        if !in_sight {
            let now = clock::now();
            // SAFETY: the seat is held; ends before timers are handled.
            let core = unsafe { worker.core() };
            core.woke_up();
            core.saw(now);
            core.polled(now);
            self.look(inner, worker, now, false);
        }
        if searches {
            // Whatever was left to it must be found, or the last look repeated.
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

    /// Sleeps in the poller until an event, a timer or a wake-up.
    fn sleep(inner: &Inner, worker: &Worker) {
        // SAFETY: the seat is held; ends before the sleep.
        let core = unsafe { worker.core() };
        let limit = core.sleep_limit(inner.start, clock::now());
        if limit.is_none_or(|limit| limit > TRIM_SLEEP) {
            core.stacks.trim();
        }
        count(&worker.counters.polls);
        worker.poller.sleep(limit);
    }

    /// More was made ready than this worker runs next: another may come.
    fn share(inner: &Inner, worker: &Worker) {
        if inner.workers.len() > 1 && worker.queued() > 1 {
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
            .pop_batch(inner.workers.len(), |task| core.push_ready(task))
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
            let first = unsafe { worker.core() }.random(workers.len());
            let mut retry = false;
            for offset in 0..workers.len() {
                let victim = &workers[(first + offset) % workers.len()];
                if victim.index == worker.index {
                    continue;
                }
                // SAFETY: the seat is held; stealing runs nothing of the user's.
                let core: &mut Core = unsafe { worker.core() };
                match victim.steal(core) {
                    Steal::Success(task) => {
                        core.push_ready(task);
                        count(&worker.counters.steals);
                        return true;
                    }
                    Steal::Retry => retry = true,
                    Steal::Empty => {}
                }
                if victim.late.load(Ordering::Relaxed) && victim.poller.adopt() > 0 {
                    return true;
                }
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

    /// The second look before sleep.
    fn work_in_sight(&self, inner: &Inner, worker: &Worker) -> bool {
        self.has_mail()
            || inner.is_stopping()
            || !inner.injector.is_empty()
            || inner.seats.somebody_waits()
            || inner.workers.iter().any(Worker::has_stealable)
            || !worker.slot.is_empty()
    }

    /// Sends a thread that must run here; from elsewhere.
    fn send(&self, inner: &Inner, task: Task, hint: Hint) {
        {
            let mut inbox = self.inbox.lock();
            inbox.push((task, hint));
            self.has_mail.store(true, Ordering::Release);
        }
        // Pairs with the fence of a carrier that takes a seat and then goes to sleep (`idle.rs`):
        // either it sees the mail, or we see its seat.
        fence(Ordering::SeqCst);
        // SAFETY: workers live as long as the runtime.
        match unsafe { self.door.held().as_ref() } {
            None => inner.seats.call(self.index),
            Some(worker) => worker.poller.unpark(),
        }
    }
}

impl Budget {
    #[inline(always)]
    fn reset(&self) {
        self.left.set(BUDGET);
        self.next_look.set(BUDGET);
    }
}

/// What runs on a green thread's stack.
fn main(header: *const Header, suspender: &Suspender<(), Note>) {
    // SAFETY: the carrier that resumes us holds the running reference.
    let task = unsafe { &*header };
    task.suspender.set(suspender);
    // SAFETY: the thread itself, for the first time.
    unsafe { Task::run_body(task) };
    // SAFETY: the thread itself.
    unsafe { locals::clear(task) };
    // SAFETY: a thread that runs keeps its runtime.
    let inner = unsafe { &*task.runtime };
    if let Some(hooks) = &inner.settings.hooks {
        hooks.ended(task);
    }
    let own = inner.settings.own;
    if let Some(own) = own {
        task.ending.set(true);
        own.finish();
    }
    // SAFETY: a green thread runs on a carrier; the destructors may have left it for another.
    unsafe { &*current::carrier() }.count_end(inner);
    crate::join::end(task);
    if let Some(own) = own {
        // What the last two have made, if anything.
        own.finish();
    }
}

/// The running thread's carrier, if it is one of the given runtime's.
#[inline(always)]
fn carrier_of<'a>(runtime: *const Inner) -> Option<&'a Carrier> {
    let carrier = current::carrier();
    if carrier.is_null() {
        return None;
    }
    // SAFETY: a carrier outlives what runs on its OS thread.
    let carrier = unsafe { &*carrier };
    ptr::eq(carrier.inner.get(), runtime).then_some(carrier)
}

/// Calls `f`, inside the door, with the running carrier's worker and its core, if it holds a seat
/// of the given runtime. `f` must not suspend.
#[inline(always)]
pub(crate) fn with_core<R>(
    runtime: *const Inner,
    f: impl FnOnce(&Worker, &mut Core) -> R,
) -> Option<R> {
    let carrier = carrier_of(runtime)?;
    let _inside = carrier.door.section();
    let worker = carrier.seat()?;
    // SAFETY: the seat is held; `f` is ours and runs nothing of the user's.
    Some(f(worker, unsafe { worker.core() }))
}

/// The runtime of this OS thread's carrier, if it is one.
pub(crate) fn current_runtime() -> Option<Arc<Inner>> {
    let carrier = current::carrier();
    if carrier.is_null() {
        return None;
    }
    // SAFETY: a carrier outlives what runs on its OS thread, and the thread keeps the runtime, so
    // the count is above zero.
    unsafe {
        let inner = (*carrier).inner.get();
        Arc::increment_strong_count(inner);
        Some(Arc::from_raw(inner))
    }
}

/// Calls `f` with the caller's runtime, or the default one; without counting if it is on a carrier.
#[inline]
pub(crate) fn with_runtime_arc<R>(f: impl FnOnce(&Arc<Inner>) -> R) -> R {
    let carrier = current::carrier();
    if carrier.is_null() {
        return f(&crate::runtime::default());
    }
    // SAFETY: the carrier's OS thread keeps a reference to its runtime for all that runs on it;
    // this borrows that one, and never drops it.
    let inner = unsafe { std::mem::ManuallyDrop::new(Arc::from_raw((*carrier).inner.get())) };
    f(&inner)
}

/// Calls `f` with the runtime of this OS thread's carrier.
pub(crate) fn with_runtime<R>(f: impl FnOnce(&Inner) -> R) -> Option<R> {
    let carrier = current::carrier();
    if carrier.is_null() {
        return None;
    }
    // SAFETY: as in `current_runtime`, for the call.
    Some(f(unsafe { &*(*carrier).inner.get() }))
}

/// Queues a thread whose running reference is the caller's.
#[inline]
pub(crate) fn schedule(task: Task, hint: Hint) {
    let home = task.home.load(Ordering::Relaxed);
    if let Some(carrier) = carrier_of(task.runtime) {
        // SAFETY: the carrier's OS thread keeps the runtime.
        let inner = unsafe { &*task.runtime };
        if home != 0 && home - 1 != carrier.index {
            inner.woken_outside.fetch_add(1, Ordering::Relaxed);
            inner.carriers[home - 1].send(inner, task, hint);
            return;
        }
        let inside = carrier.door.section();
        if let Some(worker) = carrier.seat() {
            count(&worker.counters.wakes);
            if home != 0 {
                carrier.private().push(task, hint);
                return;
            }
            let asleep = inner.workers.len() > 1 && inner.idle.somebody_sleeps();
            // SAFETY: the seat is held; ends with the statement.
            let stealable = unsafe { worker.core() }.push_woken(worker, task, hint, asleep);
            drop(inside);
            // What the loop makes ready, by timers and events, it shares when it is through.
            if stealable && inner.workers.len() > 1 && current::green().is_some() {
                inner.notify();
            }
            return;
        }
        drop(inside);
        if home != 0 {
            inner.woken_outside.fetch_add(1, Ordering::Relaxed);
            carrier.private().push(task, hint);
            return;
        }
    }
    schedule_outside(task, hint, home);
}

#[cold]
fn schedule_outside(task: Task, hint: Hint, home: usize) {
    // SAFETY: the thread is not DONE, so its runtime is alive; from here on we keep it, because the
    // thread may run and end as soon as it is queued.
    let inner = unsafe {
        Arc::increment_strong_count(task.runtime);
        Arc::from_raw(task.runtime)
    };
    inner.woken_outside.fetch_add(1, Ordering::Relaxed);
    if home == 0 {
        inner.inject(task);
    } else {
        inner.carriers[home - 1].send(&inner, task, hint);
    }
}

/// True if the running thread may leave its stack and others may run on its OS thread.
#[inline]
pub(crate) fn can_suspend(header: &Header) -> bool {
    if !header.is_green() {
        return false;
    }
    let carrier = current::carrier();
    // SAFETY: a green thread runs on a carrier.
    let away = unsafe { (*carrier).is_away() };
    !away && (!std::thread::panicking() || can_suspend_panicking(header))
}

/// The green thread's panic count goes with it, so that it may unwind anywhere.
fn owns_locals(header: &Header) -> bool {
    // SAFETY: a thread that runs keeps its runtime.
    unsafe { (*header.runtime).settings.own.is_some() }
}

/// A thread that unwinds leaves its stack only if it comes back to the same OS thread.
#[cold]
#[inline(never)]
fn can_suspend_panicking(header: &Header) -> bool {
    if owns_locals(header) {
        return true;
    }
    if !exception::own_unwinding(header) {
        return true;
    }
    header.home.load(Ordering::Relaxed) != 0
}

/// Keeps the count of threads that wait on this OS thread while unwinding; made before the switch.
#[derive(Debug)]
pub(crate) struct Unwinding(Option<*const Carrier>);

impl Unwinding {
    #[inline]
    pub(crate) fn note(header: &Header) -> Self {
        if !std::thread::panicking() || owns_locals(header) || !exception::own_unwinding(header) {
            return Self(None);
        }
        exception::note_unwinding(header);
        let carrier = current::carrier();
        // SAFETY: a green thread runs on a carrier; this one stays with it.
        let unwinding = unsafe { &(*carrier).unwinding };
        unwinding.set(unwinding.get() + 1);
        Self(Some(carrier))
    }
}

impl Drop for Unwinding {
    fn drop(&mut self) {
        if let Some(carrier) = self.0 {
            // SAFETY: carriers live as long as the runtime; the thread is still on this one.
            let unwinding = unsafe { &(*carrier).unwinding };
            unwinding.set(unwinding.get() - 1);
        }
    }
}

/// A timer of a wait, to be cancelled if something else ends the wait.
#[derive(Debug)]
pub(crate) struct Armed {
    worker: *const Worker,
    key: Key,
}

/// Arms a timer for a wait of the running green thread, which may suspend: it does if its carrier
/// has lost its seat, and goes on where there is one.
#[inline]
pub(crate) fn arm(header: &Header, epoch: u32, at: Instant) -> Armed {
    // SAFETY: a thread that runs keeps its runtime.
    let start = unsafe { (*header.runtime).start };
    loop {
        let armed = with_core(header.runtime, |worker, core| Armed {
            worker,
            key: core.arm(worker, start, header, epoch, at),
        });
        match armed {
            Some(armed) => return armed,
            None => switch_out(header, Note::Requeue),
        }
    }
}

impl Armed {
    /// Cancels it; here if the thread is still on the same worker, else from outside.
    #[inline]
    pub(crate) fn cancel(self, header: &Header) {
        // SAFETY: a thread that runs keeps its runtime, hence its workers.
        let worker = unsafe { &*self.worker };
        let here = with_core(header.runtime, |own, core| {
            ptr::eq(own, worker).then(|| core.disarm(self.key))
        });
        // What comes out is dropped here, outside the door.
        match here.flatten() {
            Some(entry) => drop(entry),
            None => drop(worker.timers.cancel(self.key)),
        }
    }
}

/// See `waiter::spend`.
#[inline]
pub(crate) fn spend() {
    let carrier = current::carrier();
    if carrier.is_null() {
        return;
    }
    // SAFETY: a carrier outlives what runs on its OS thread.
    let budget = unsafe { &(*carrier).budget };
    let left = budget.left.get();
    budget.left.set(left.wrapping_sub(1));
    if left <= 1 || left <= budget.next_look.get() {
        spend_slow();
    }
}

#[cold]
#[inline(never)]
fn spend_slow() {
    let carrier = current::carrier();
    // SAFETY: `spend` has seen that there is one.
    let budget = unsafe { &(*carrier).budget };
    let left = budget.left.get().min(BUDGET);
    if left > 0 {
        let now = clock::now();
        if left == BUDGET - 1 {
            budget.since.set(Some(now));
            budget.last.set(Some(now));
        }
        let since = budget.since.get().unwrap_or(now);
        let last = budget.last.replace(Some(now)).unwrap_or(now);
        if now.saturating_duration_since(since) < SLICE {
            let quick = now.saturating_duration_since(last) < QUICK;
            budget
                .next_look
                .set(left.saturating_sub(if quick { 8 } else { 1 }));
            return;
        }
    }
    give_way();
}

/// Lets the others run; raises nothing.
fn give_way() {
    // SAFETY: the running thread's header is alive.
    give_way_from(unsafe { &*current::header() });
}

/// As `give_way`, for the running thread's header.
#[inline]
pub(crate) fn give_way_from(header: &Header) {
    if !std::thread::panicking() && can_suspend(header) {
        switch_out(header, Note::Yield);
    } else if !header.is_green() {
        crate::shim::thread::yield_now();
    }
}

/// Says that the running thread blocks its OS thread; the guard that it has come back.
///
/// The seat goes to another carrier at once if others wait for it; else the carrier keeps it, and
/// the monitor takes it when somebody does.
#[derive(Debug)]
pub(crate) struct Away(*const Carrier);

impl Away {
    /// `None`: this OS thread is no carrier, or it has been said already.
    pub(crate) fn begin() -> Option<Self> {
        let carrier = current::carrier();
        if carrier.is_null() {
            return None;
        }
        // SAFETY: a carrier outlives what runs on its OS thread.
        let this = unsafe { &*carrier };
        if this.is_away() {
            return None;
        }
        this.away.store(true, Ordering::Relaxed);
        let _inside = this.door.section();
        if this.seat().is_some_and(|worker| worker.queued() > 0) {
            this.hand_over();
        }
        Some(Self(carrier))
    }
}

impl Carrier {
    /// Others wait here, and the running thread will not come back soon.
    #[cold]
    fn hand_over(&self) {
        let inner = current_runtime().expect("a carrier has one");
        if inner.seats.has_taker() {
            self.give_up_seat(&inner);
        }
    }

    /// The seat was lost while the running thread blocked.
    #[cold]
    fn come_back(&self) {
        // SAFETY: the running thread's header is alive.
        let header = unsafe { &*current::header() };
        if header.is_green() && !std::thread::panicking() {
            self.away.store(false, Ordering::Relaxed);
            // The carrier's loop waits for a seat; a thread that may migrate goes on elsewhere.
            switch_out(header, Note::Requeue);
            return;
        }
        // In the middle of unwinding nothing may leave this OS thread.
        let inner = current_runtime().expect("a carrier has one");
        // Without one the runtime has stopped: the thread runs on without a seat, in place.
        if let Some(index) = inner.seats.wait(&inner, self.index, || true, true) {
            let _inside = self.door.section();
            self.sit(Some(&inner.workers[index]));
            self.away.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // SAFETY: the thread did not leave the OS thread while it was away.
        let carrier = unsafe { &*self.0 };
        let inside = carrier.door.section();
        let seated = carrier.seat().is_some();
        drop(inside);
        if seated {
            carrier.away.store(false, Ordering::Relaxed);
        } else {
            carrier.come_back();
        }
    }
}

/// Before the running thread blocks its OS thread in a wait: others get the worker.
pub(crate) fn leave_seat_in_place(header: &Header) -> Option<Away> {
    if header.is_green() {
        Away::begin()
    } else {
        None
    }
}
