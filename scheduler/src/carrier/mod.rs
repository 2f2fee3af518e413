//! A carrier: the OS thread that drives a worker. Run, search, sleep.
//!
//! ```text
//! loop {
//!     no seat?            wait for one (seat.rs)
//!     every 61 dispatches the injector; every few, by the clock: timers, poller
//!     own queues          the carrier's private ones, the worker's (worker.rs)
//!     nothing there       mail, injector, timers, poller
//!     still nothing       search: steal from the others, drain the pollers of late ones
//!     still nothing       announce sleep, look everywhere once more (idle.rs), sleep in the poller
//! }
//! ```
//!
//! A green thread leaves its stack with a [`Note`]; what the note asks for is done here, on the
//! carrier's own stack, so a thread is never published while its stack is in use.
//!
//! Threads that must not migrate, once started, are in their carrier's private queues. Others reach
//! those through its mail (`mail.rs`).
//!
//! Invariant 1: `private` and the cells are touched only on the carrier's OS thread.
//! Invariant 2: who touches a worker's core is inside the door (`door.rs`) and has asked for the
//! seat there: the loop, which leaves it only to run a green thread, or a [`with_core`] of that
//! thread. So the monitor may take the seat from a thread that does not come back.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

mod alarm;
mod away;
mod budget;
mod change_over;
mod idle;
mod mail;
mod outside;
mod own;
mod schedule;
mod table;
mod unwinding;

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr;
use std::time::{Duration, Instant};

use crate::coroutine::{Coroutine, Resumed, Suspender};
use crate::current;
use crate::door::Door;
use crate::ends::Ending;
use crate::exception;
use crate::green_thread::{Header, Hint, Note, Task, stack_payload};
use crate::join::{self, Orphan, Rest};
use crate::last_words;
use crate::runtime::Inner;
use crate::seat::Waited;
use crate::shim::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use crate::shim::cell::UnsafeCell;
use crate::shim::clock;
use crate::shim::sync::Arc;
use crate::slice::Slice;
use crate::spawn::{self, Birth};
use crate::stack;
use crate::state::WaitKind;
use crate::thread_locals::{self, Block, Lent};
use crate::threads::Which;
use crate::worker::{
    self, CLASS_INTERVAL, DUE_BATCH, DUE_SLICE, Private, Worker, count, millis_since,
};

use self::budget::{Budget, SLICE};
use self::mail::Mail;
use self::own::carrier_of;

pub(crate) use self::alarm::arm;
pub(crate) use self::away::{Away, leave_seat_in_place};
pub(crate) use self::budget::{give_way_from, spend, spend_from, spend_time};
pub(crate) use self::own::{
    current_runtime, with_cells, with_core, with_runtime, with_runtime_arc,
};
pub(crate) use self::schedule::schedule;
pub(crate) use self::table::Carriers;
pub(crate) use self::unwinding::{Unwinding, can_suspend};

/// A thread that comes back within this is no hog any more.
const BRIEF: Duration = Duration::from_millis(2);

/// Beside threads that must stay on their carrier every fourth dispatch is for those that need not.
/// Less would be a disadvantage for the many, more for who runs few of them. A guess.
const OTHERS_INTERVAL: u32 = 4;

/// Which dispatch of an interval begins with the carrier's own threads that gave way: none of those
/// that are for others.
const OWN_YIELDED: u32 = 2;

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
    private_len: Arc<AtomicUsize>,
    mail: Mail<Task>,
    /// Started threads that must stay here and have not ended.
    settled: Cell<usize>,
    /// A hog that has given way here without a seat, and goes on here (`outside.rs`).
    stays: RefCell<Option<Task>>,
    /// The OS thread's own thread-locals (`thread_locals`).
    pub(crate) host: Cell<usize>,
    /// What it lends to the green threads that run on it.
    lent: Lent,
    budget: Budget,
    /// The green thread that runs here is about to be DONE.
    pub(crate) ending: Ending,
    /// What its OS thread has asked the kernel for.
    slice: Cell<Slice>,
    /// When a thread that runs here last gave a fork to others (`fork_join.rs`).
    shared: Cell<Option<Instant>>,
}

// SAFETY: cells and `private` belong to the carrier's OS thread (invariant 1), the rest is shared.
unsafe impl Sync for Carrier {}
// SAFETY: nothing in it belongs to an OS thread before one was started for it.
unsafe impl Send for Carrier {}

/// What became of a thread that was to start.
#[derive(Debug)]
enum Start {
    /// It has its stack.
    Bound,
    /// There is no stack now, or no memory for its thread-locals, for that reason.
    Waits(io::Error),
    /// It can never start, and has ended. The seat may be gone.
    Ended,
}

/// Starts the OS thread of a carrier that was given a seat.
pub(crate) fn start(inner: &Arc<Inner>, index: usize) -> io::Result<()> {
    let shared = Arc::clone(inner);
    let name = format!("{}-{index}", inner.settings.thread_name);
    inner.threads.start(which(inner, index), name, move || {
        let carrier = &shared.carriers[index];
        carrier.inner.set(Arc::as_ptr(&shared));
        carrier.host.set(thread_locals::host_pointer());
        carrier.os_thread.store(os_thread(), Ordering::Relaxed);
        carrier.slice.set(Slice::Ordinary);
        current::set_carrier(carrier);
        let alt_stack = stack::overflow::AltStack::for_this_thread();
        let guard = AbortOnPanic;
        if let Some(own) = shared.settings.own {
            own.note_lent(&carrier.lent);
            carrier.run::<true>(&shared);
        } else {
            carrier.run::<false>(&shared);
        }
        std::mem::forget(guard);
        drop(alt_stack);
        current::set_carrier(ptr::null());
    })
}

fn which(inner: &Inner, index: usize) -> Which {
    if index < inner.settings.workers {
        Which::Carrier(index)
    } else {
        Which::Spare(index)
    }
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
        last_words::abort(format_args!("a panic in the scheduler"));
    }
}

impl Carrier {
    pub(crate) fn new(index: usize) -> Self {
        let private = Private::default();
        Self {
            index,
            inner: Cell::new(ptr::null()),
            os_thread: AtomicUsize::new(0),
            door: Door::new(),
            away: AtomicBool::new(false),
            since: Cell::new(None),
            reported: AtomicBool::new(false),
            running: AtomicPtr::new(ptr::null_mut()),
            private_len: private.told_len(),
            private: UnsafeCell::new(private),
            mail: Mail::new(),
            settled: Cell::new(0),
            stays: RefCell::new(None),
            host: Cell::new(0),
            lent: Lent::default(),
            budget: Budget::new(),
            ending: Ending::new(),
            slice: Cell::new(Slice::Ordinary),
            shared: Cell::new(None),
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

    /// Threads that are ready and must run here; a moment ago.
    pub(crate) fn queued(&self) -> usize {
        self.private_len.load(Ordering::Relaxed) + self.mail.len()
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

    /// `OWN`: green threads have thread-locals of their own. A loop for each, so that neither costs the
    /// other anything.
    fn run<const OWN: bool>(&self, inner: &Arc<Inner>) {
        self.door.enter();
        loop {
            let Some(worker) = self.seat() else {
                if let Some(task) = self.stays.take() {
                    self.go_on_outside(inner, task);
                    continue;
                }
                // Mail by its lock: a sender that this misses sees that there is no seat.
                let needs = || !self.private().is_empty() || self.mail.len() > 0;
                let keep = self.settled.get() > 0;
                match inner.seats.wait(inner, self.index, needs, keep) {
                    Waited::Seated(index) => {
                        self.since.set(Some(clock::now()));
                        self.take_over(inner);
                        self.sit(Some(&inner.workers[index]));
                    }
                    Waited::Stopping => break,
                    Waited::Retired
                        if cfg!(weald_fault = "carrier_is_counted_out_twice")
                            && inner.is_stopping() =>
                    {
                        break;
                    }
                    Waited::Retired => {
                        self.retire(inner);
                        return;
                    }
                }
                continue;
            };
            if inner.is_stopping() {
                self.sit(None);
                break;
            }
            match self.next(inner, worker) {
                Some(task) => {
                    let mut next = Some(task);
                    while let Some(task) = next {
                        next = self.dispatch::<OWN>(inner, worker, task);
                    }
                }
                None if self.seat().is_none() => {}
                None => self.idle(inner, worker),
            }
        }
        inner.seats.ended();
    }

    /// Nobody has needed this carrier for long, and its OS thread ends.
    #[cold]
    fn retire(&self, inner: &Inner) {
        let before = inner.threads.retire(which(inner, self.index));
        // From here on another OS thread may be this carrier.
        inner.seats.retired(self.index);
        before.join();
    }

    /// The next thread to run, if there is one without searching.
    #[inline(always)]
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
        if !self.private().is_empty() {
            return self.next_of_all(worker);
        }
        // SAFETY: as above, taken anew.
        unsafe { worker.core() }.next(worker)
    }

    /// As `next`, where threads wait that must stay on this carrier.
    #[inline(never)]
    fn next_of_all(&self, worker: &Worker) -> Option<Task> {
        let private = self.private();
        // SAFETY: the seat is held; the reference ends before anything is run.
        let core = unsafe { worker.core() };
        let ticks = core.ticks();
        // Its own threads have three of four dispatches, one of 16 begins with those that gave way. The
        // fourth is the others', so these meet each of the dispatches on which their classes take turns.
        let others_first = ticks.is_multiple_of(OTHERS_INTERVAL);
        if others_first && let Some(task) = core.next(worker) {
            return Some(task);
        }
        if ticks % CLASS_INTERVAL == OWN_YIELDED
            && let Some(task) = private.pop_yielded()
        {
            return Some(task);
        }
        if let Some(task) = private.pop_woken() {
            return Some(task);
        }
        if !others_first && let Some(task) = core.next(worker) {
            return Some(task);
        }
        private.pop_yielded()
    }

    /// Every 61 dispatches: the mail, a thread from the injector.
    #[cold]
    #[inline(never)]
    fn look_outside(&self, inner: &Inner) -> Option<Task> {
        self.take_mail();
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
    #[inline(never)]
    fn look_at_clock(&self, inner: &Arc<Inner>, worker: &Worker) -> bool {
        let now = clock::now();
        // SAFETY: the seat is held; ends before timers and events are handled.
        let core = unsafe { worker.core() };
        core.saw(now);
        let poll = core.poll_is_due(now, self.private().woken());
        let turn_is_over = || {
            let since = self.since.get().unwrap_or(now);
            now.saturating_duration_since(since) >= SLICE
        };
        if inner.seats.somebody_waits() && turn_is_over() && self.pass(inner, worker) {
            return false;
        }
        self.look(inner, worker, now, poll);
        if !inner.starts.is_empty() {
            self.admit(inner, worker);
            if self.seat().is_none() {
                return false;
            }
        }
        // One thread is what this worker runs next, unless the carrier's own are before it.
        let most = usize::from(self.private().is_empty());
        if inner.idle.somebody_sleeps() && worker.has_stealable() && worker.queued() > most {
            inner.notify();
        }
        true
    }

    /// Timers, and the poller if `poll`. Returns how many threads that may have made ready; at least
    /// one, if there is more to do and the next look must not wait.
    fn look(&self, inner: &Arc<Inner>, worker: &Worker, now: Instant, poll: bool) -> usize {
        self.take_mail();
        // SAFETY: the seat is held; ends with the statement.
        let remote = unsafe { worker.core() }.take_remote_timers(worker, inner.start);
        let mut found = usize::from(remote);
        // SAFETY: as above.
        let mut room = unsafe { worker.core() }.room_for_due(self.private().woken());
        loop {
            let limit = room.min(DUE_BATCH);
            // SAFETY: as above.
            let core = unsafe { worker.core() };
            let (mut due, more) = core.take_due(worker, inner.start, now, limit);
            let fired = worker::fire(&mut due);
            // SAFETY: as above, taken anew.
            unsafe { worker.core() }.give_back(due);
            found += fired;
            room -= fired;
            if !more {
                break;
            }
            if room == 0 || clock::now().saturating_duration_since(now) >= DUE_SLICE {
                // What is due and has not fired comes at the next look: others have their turns first.
                found += 1;
                break;
            }
        }
        if poll {
            // SAFETY: as above.
            unsafe { worker.core() }.polled(now);
            count(&worker.counters.polls);
            found += worker.poller.poll();
        }
        found
    }

    /// Runs a green thread until it leaves its stack, and does what its note asks for. With
    /// thread-locals of their own, also those that come after it, one of which may be left to do and
    /// is returned (`change_over.rs`).
    #[inline(always)]
    fn dispatch<const OWN: bool>(
        &self,
        inner: &Arc<Inner>,
        worker: &Worker,
        mut task: Task,
    ) -> Option<Task> {
        self.note_turn(worker);
        // SAFETY: the running reference is ours, hence the coroutine as well (green_thread.rs 2).
        let coroutine = unsafe { &mut *task.coroutine.get() };
        let coroutine = match coroutine {
            Some(coroutine) => coroutine,
            None => match self.start(inner, worker, task) {
                Some(bound) => {
                    task = bound;
                    // SAFETY: as above.
                    let bound = unsafe { &mut *task.coroutine.get() };
                    bound.as_mut().expect("just bound")
                }
                None => return None,
            },
        };
        if let Some(hooks) = &inner.settings.hooks {
            hooks.resumed(&task);
        }
        let header: *const Header = &raw const *task;
        self.running.store(header.cast_mut(), Ordering::Relaxed);
        let handed_over = task.hog.get().then(|| self.hand_over_before(inner));
        let mut next = None;
        let own = if OWN { inner.settings.own } else { None };
        let (resumed, seated) = match own {
            None => {
                // From here to `enter` the seat may be seized: `worker` is not ours any more.
                self.door.leave();
                current::set_running(header);
                let resumed = coroutine.resume(());
                current::set_running(ptr::null());
                (resumed, self.door.enter())
            }
            // SAFETY: the running reference is ours, and the block was bound with the coroutine.
            Some(own) => unsafe {
                let calm = handed_over.is_none();
                self.run_own(own, inner, worker, &mut task, calm, &mut next)
            },
        };
        if !seated {
            // It was seized from under it.
            task.hog.set(true);
            self.tell_where(&task, &resumed);
        } else if let Some(start) = handed_over {
            self.came_back(&task, start, &resumed);
        } else if self.door.seat().is_null() {
            // It lost its seat, or gave it up, and has found out in a call of weald's.
            self.tell_where(&task, &resumed);
        }
        self.left(inner, task, &resumed);
        next
    }

    /// What the thread's note asks for.
    #[inline(always)]
    fn left(&self, inner: &Arc<Inner>, task: Task, resumed: &Resumed<Note>) {
        match *resumed {
            Resumed::Suspended(note) => {
                if let Some(hooks) = &inner.settings.hooks {
                    hooks.suspended(&task);
                }
                self.suspended(inner, task, note);
            }
            Resumed::Finished => self.finished(inner, &task),
        }
    }

    /// The worker is about to run a green thread.
    #[inline(always)]
    fn note_turn(&self, worker: &Worker) {
        if worker.late.load(Ordering::Relaxed) {
            worker.late.store(false, Ordering::Relaxed);
        }
        // The monitor watches it move; a plain step, as only the seat's holder writes.
        let ticks = worker.ticks.load(Ordering::Relaxed);
        worker.ticks.store(ticks + 1, Ordering::Relaxed);
        self.budget.reset();
    }

    /// Gives a thread that starts its stack. `None`: it will not run, or not yet.
    ///
    /// Not inlined, as the others that `dispatch` calls and most dispatches do not: what the compiler
    /// would keep at hand for them costs each dispatch some twenty instructions.
    #[inline(never)]
    fn start(&self, inner: &Arc<Inner>, worker: &Worker, task: Task) -> Option<Task> {
        // Those that wait for a stack of its size are first.
        if !inner.starts.has(task.stack_size()) {
            match self.bind(inner, worker, &task) {
                Start::Bound => return Some(task),
                Start::Ended => return None,
                Start::Waits(_) => {}
            }
        }
        if inner.starts.push(task, clock::now()) {
            // Sleeping workers may have stacks.
            for other in &inner.workers {
                other.poller.unpark();
            }
        }
        None
    }

    /// Starts threads that wait for a stack, as far as there are any. Returns how many are over or
    /// ready.
    #[cold]
    #[inline(never)]
    fn admit(&self, inner: &Arc<Inner>, worker: &Worker) -> usize {
        /// No more at once: others wait as well.
        const MOST: usize = 32;
        let (mut admitted, mut next) = (0, 0);
        // Of each size one, in turn, as long as there are stacks of it.
        let mut classes = inner.starts.classes();
        while admitted < MOST && !classes.is_empty() {
            next %= classes.len();
            let class = classes[next];
            let Some(task) = inner.starts.pop(class) else {
                classes.remove(next);
                continue;
            };
            match self.bind(inner, worker, &task) {
                Start::Bound => {
                    inner.starts.started(class, clock::now());
                    self.push_woken(inner, task, Hint::Event);
                }
                Start::Ended if self.seat().is_none() => return admitted + 1,
                Start::Ended => inner.starts.started(class, clock::now()),
                Start::Waits(error) => {
                    inner.starts.put_back(task, clock::now(), &error);
                    classes.remove(next);
                    continue;
                }
            }
            next += 1;
            admitted += 1;
        }
        admitted
    }

    /// Gives a thread that starts its stack; one that was killed as well, for what its body owns.
    #[inline]
    fn bind(&self, inner: &Arc<Inner>, worker: &Worker, task: &Task) -> Start {
        // SAFETY: the seat is held; ends with the statement.
        let stack = match unsafe { worker.core() }.stacks.get(task.stack_size()) {
            Ok(stack) => stack,
            Err(refused) if refused.may_come => return Start::Waits(refused.error),
            Err(refused) => return self.cannot_start(inner, task, &refused.error),
        };
        let header: *const Header = &raw const **task;
        if let Some(own) = inner.settings.own {
            // SAFETY: as above.
            let Some(block) = (unsafe { worker.core() }).blocks.get(own) else {
                // It is the C library's memory, which may come back from anywhere.
                let error = io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    "no memory for the thread-locals of a green thread",
                );
                // SAFETY: as above.
                unsafe { worker.core() }.stacks.put(stack);
                return Start::Waits(error);
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
        let coroutine = unsafe {
            Coroutine::new(stack, task.control, move |suspender, ()| {
                main(header, suspender);
            })
        };
        // SAFETY: the running reference is ours.
        unsafe { *task.coroutine.get() = Some(coroutine) };
        Start::Bound
    }

    /// Ends a thread for which there will never be a stack.
    #[cold]
    fn cannot_start(&self, inner: &Arc<Inner>, task: &Task, error: &io::Error) -> Start {
        self.end_in_place(inner, task, error);
        Start::Ended
    }

    /// Ends a thread that cannot start. What its body owns is dropped on the carrier's own stack, as if the
    /// thread were in a blocking call: whatever waits there blocks the OS thread, and the monitor
    /// gives the seat to another one.
    #[cold]
    #[inline(never)]
    fn end_in_place(&self, inner: &Arc<Inner>, task: &Task, error: &io::Error) {
        inner.starts.say_never(error);
        doom_if_killed(inner, task);
        if !task.doomed.replace(true) {
            // SAFETY: the running reference of a thread that has not started is ours.
            unsafe { task.local() }.payload = Some(stack_payload(error));
        }
        let header: *const Header = &raw const **task;
        self.running.store(header.cast_mut(), Ordering::Relaxed);
        current::set_running(header);
        self.away.store(true, Ordering::Relaxed);
        self.door.leave();
        // SAFETY: as above.
        unsafe { Task::run_body(task) };
        let rest = join::wind_up(task, || end_hook(inner, task), || ());
        self.end(inner, task, rest);
        self.door.enter();
        self.away.store(false, Ordering::Relaxed);
        current::set_running(ptr::null());
        self.see_to_rest(inner, task);
    }

    #[inline(always)]
    fn suspended(&self, inner: &Arc<Inner>, task: Task, note: Note) {
        if !task.registered.get() {
            self.register(inner, &task);
        }
        match note {
            Note::Yield => self.push_yielded(inner, task),
            Note::Park { epoch, kind } => {
                let parked = if let Some(worker) = self.seat() {
                    park_seated(worker, task, epoch, kind)
                } else {
                    inner.parked_outside.fetch_add(1, Ordering::Relaxed);
                    task.left.set_time(millis_since(inner.start, clock::now()));
                    publish(task, epoch, kind)
                };
                if let Err(task) = parked {
                    self.woken_early(inner, task);
                }
            }
            Note::Requeue => self.push_woken(inner, task, Hint::Event),
        }
    }

    /// A thread has left its stack for the first time: from now on a shutdown finds it.
    #[inline(never)]
    fn register(&self, inner: &Inner, task: &Task) {
        inner.registry.insert(task, self.index);
        // The lock of the registry orders this after the step to *killing*, if the shutdown has looked
        // there before: then it leaves the thread to us.
        if inner.is_killing() && !cfg!(panic = "abort") {
            exception::kill(task);
        }
    }

    /// A waker, the token or an exception was first: the thread goes on.
    #[inline(never)]
    fn woken_early(&self, inner: &Arc<Inner>, task: Task) {
        match self.seat() {
            Some(worker) => count(&worker.counters.wakes),
            None => {
                inner.woken_outside.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.push_woken(inner, task, Hint::Event);
    }

    #[inline(always)]
    fn push_yielded(&self, inner: &Arc<Inner>, task: Task) {
        if self.seat().is_none() && self.may_stay(inner, &task) {
            self.stays.replace(Some(task));
        } else if task.home.load(Ordering::Relaxed) != 0 {
            self.private().push_yielded(task);
        } else if let Some(worker) = self.seat() {
            // SAFETY: the seat is held; ends with the statement.
            unsafe { worker.core() }.push_yielded(task);
        } else {
            inner.inject(task);
        }
    }

    #[inline(never)]
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

    #[inline(always)]
    fn finished(&self, inner: &Arc<Inner>, task: &Task) {
        // SAFETY: the running reference is ours.
        let coroutine = unsafe { (*task.coroutine.get()).take() };
        let stack = coroutine.expect("it has just run").into_stack();
        // SAFETY: as above.
        let block = unsafe { (*task.block.get()).take() };
        match self.seat() {
            Some(worker) => {
                // SAFETY: the seat is held; ends with the block.
                let core = unsafe { worker.core() };
                core.stacks.put(stack);
                if let Some(block) = block {
                    core.blocks.put(block);
                }
            }
            None => Self::release(inner, stack, block),
        }
        if task.home.load(Ordering::Relaxed) != 0 {
            self.settled.set(self.settled.get() - 1);
        }
        if task.registered.get() {
            inner.registry.remove(task);
        }
        self.see_to_rest(inner, task);
    }

    /// Leaves to all what a thread has had that has ended without a seat.
    #[cold]
    #[inline(never)]
    fn release(inner: &Inner, stack: stack::Stack, block: Option<Block>) {
        stack::release(stack);
        block.into_iter().for_each(thread_locals::release);
        // If all workers sleep, nobody would give it back to the system. No model has memory.
        if !cfg!(loom) {
            inner.notify();
        }
    }

    /// Wakes who joins a thread that is DONE, and sees to what it has left to nobody.
    #[inline(always)]
    fn see_to_rest(&self, inner: &Arc<Inner>, task: &Task) {
        let left = task.state.left();
        if left.joiners {
            self.wake_joiners(inner, task);
        }
        if left.result || left.errors {
            Self::adopt(inner, task);
        }
        inner.one_ended();
    }

    /// Starts the thread that drops what nobody else does; it has been counted.
    #[cold]
    #[inline(never)]
    fn adopt(inner: &Arc<Inner>, task: &Task) {
        if let Some(orphan) = Orphan::of(task) {
            spawn::start_detached(inner, Birth::Counted, move || drop(orphan));
        }
    }

    #[inline(never)]
    fn wake_joiners(&self, inner: &Arc<Inner>, task: &Task) {
        join::wake_joiners(task);
        if inner.workers.len() > 1 && self.seat().is_some_and(Worker::has_stealable) {
            inner.notify();
        }
    }

    /// Counts a thread that has wound up as ended, and makes it DONE. On the thread, which waits no more;
    /// nor does it allocate or wake anybody: what that would leave in its thread-locals, nobody would
    /// clean up.
    fn end(&self, inner: &Inner, task: &Header, rest: Rest) {
        self.ending.begin();
        {
            let _inside = self.door.section();
            match self.seat() {
                Some(worker) => count(&worker.counters.ended),
                None => {
                    inner.ended_outside.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        if join::finish(task, rest) {
            // For the thread that drops what it leaves.
            inner.spawned_outside.fetch_add(1, Ordering::AcqRel);
        }
        self.ending.end();
    }

    #[cold]
    #[inline(never)]
    fn give_up_seat(&self, inner: &Arc<Inner>) {
        if let Some(worker) = self.seat() {
            self.sit(None);
            inner.seats.release(inner, worker.index);
        }
    }
}

/// Publishes a thread as parked, unless something has ended its wait already; its stack is left. The
/// worker is the one whose seat is held.
#[inline(always)]
fn park_seated(worker: &Worker, task: Task, epoch: u32, kind: WaitKind) -> Result<(), Task> {
    count(&worker.counters.parks);
    // SAFETY: the seat is held; ends with the statement.
    task.left.set_time(unsafe { worker.core() }.looked_at);
    publish(task, epoch, kind)
}

/// The step to PARKED. The thread may run elsewhere when this returns.
#[inline(always)]
fn publish(task: Task, epoch: u32, kind: WaitKind) -> Result<(), Task> {
    let header = task.into_raw();
    // SAFETY: it came from `into_raw`; the state word owns the reference from the step to PARKED on,
    // and until then it is ours.
    let parked = cfg!(weald_fault = "carrier_parks_before_the_switch")
        || unsafe { (*header).state.park(epoch, kind) }.is_ok();
    if parked {
        return Ok(());
    }
    // SAFETY: it did not park, so the reference is still ours.
    Err(unsafe { Task::from_raw(header) })
}

/// What runs on a green thread's stack.
fn main(header: *const Header, suspender: &Suspender<(), Note>) {
    // SAFETY: the carrier that resumes us holds the running reference.
    let task = unsafe { &*header };
    task.suspender.set(suspender);
    task.left.begin(std::ptr::from_ref(suspender).addr());
    // SAFETY: a thread that runs keeps its runtime.
    let inner = unsafe { &*task.runtime };
    if let Some(own) = inner.settings.own {
        own.begin();
    }
    // It has started all the same: what its body owns may wait when it is dropped.
    doom_if_killed(inner, task);
    // SAFETY: the thread itself, for the first time.
    unsafe { Task::run_body(task) };
    let own = inner.settings.own;
    let rest = join::wind_up(
        task,
        || end_hook(inner, task),
        || {
            if let Some(own) = own {
                own.finish();
            }
        },
    );
    // SAFETY: a green thread runs on a carrier; the destructors may have left it for another.
    unsafe { &*current::carrier() }.end(inner, task, rest);
}

/// The body of a thread that was killed before it began is not run. Asked when it begins, not when it
/// gets its stack: it may be killed in between.
#[inline]
fn doom_if_killed(inner: &Inner, task: &Header) {
    let killed = exception::is_killed(task) && !cfg!(weald_fault = "carrier_starts_who_was_killed");
    if killed || inner.is_killing() {
        task.doomed.set(true);
    }
}

fn end_hook(inner: &Inner, task: &Header) {
    if let Some(hooks) = &inner.settings.hooks {
        hooks.ended(task);
    }
}
