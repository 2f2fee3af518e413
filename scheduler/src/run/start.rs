//! The start of a green thread: its stack, its thread-locals, and what runs there.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use std::io;
use std::ptr;

use crate::engine::carrier::{self, Carrier};
use crate::engine::inner::Inner;
use crate::engine::worker::Worker;
use crate::green::current;
use crate::green::green_thread::{Header, Hint, Note, Task, stack_payload};
use crate::parts::coroutine::{Coroutine, Suspender};
use crate::shim::atomic::Ordering;
use crate::shim::clock;
use crate::shim::sync::Arc;
use crate::wait::end;
use crate::wait::exception;

/// What became of a thread that was to start.
#[derive(Debug)]
enum Start {
    /// It has its stack.
    Bound,
    /// There is no stack now, or no memory for its thread-locals; the error says why.
    Waits(io::Error),
    /// It can never start, and has ended. The seat may be gone.
    Ended,
}

impl Carrier {
    /// Gives a thread that starts its stack. `None`: it will not run, or not yet.
    ///
    /// Not inlined, like all functions that `dispatch` seldom calls: if they were inlined, each dispatch would save and
    /// restore registers for them, some twenty instructions.
    #[inline(never)]
    pub(super) fn start(&self, inner: &Arc<Inner>, worker: &Worker, task: Task) -> Option<Task> {
        // This worker has retired, and the thread would have to stay here.
        if (inner.settings.pins || task.pinned) && inner.idle.is_retired(worker.index) {
            inner.inject(task);
            return None;
        }
        // Threads that wait for a stack of the same size come first.
        if !inner.starts.has(task.stack_size()) {
            match self.bind(inner, worker, &task) {
                Start::Bound => {
                    self.settle(inner, &task);
                    return Some(task);
                }
                Start::Ended => return None,
                Start::Waits(_) => {}
            }
        }
        if inner.starts.push(task, clock::now()) {
            // Sleeping workers may have stacks.
            for other in inner.workers.iter() {
                other.poller.unpark();
            }
        }
        None
    }

    /// Gives stacks to threads that wait for them, as far as there are stacks. Returns how many threads have ended or
    /// are ready now.
    #[cold]
    #[inline(never)]
    pub(super) fn admit(&self, inner: &Arc<Inner>, worker: &Worker) -> usize {
        /// No more than this at once, because other threads wait for the carrier.
        const MOST: usize = 32;
        let (mut admitted, mut next) = (0, 0);
        // One thread of each size, in turn, as long as there are stacks of that size.
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
                    self.queue_bound(inner, task);
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

    /// Gives a thread that starts its stack. A thread that was killed needs one as well, to drop what its body owns.
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
                // The memory is the C library's, and may be given back anywhere in the process.
                let error = io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    "no memory for the thread-locals of a green thread",
                );
                // SAFETY: as above.
                unsafe { worker.core() }.stacks.put(stack);
                return Start::Waits(error);
            };
            own.start(&block, header.cast());
            // SAFETY: the running reference is ours.
            unsafe { *task.block.get() = Some(block) };
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

    /// A thread that has its stack is about to begin here, or to be queued here. If it must not migrate, it
    /// belongs to this carrier from now on.
    #[inline]
    pub(super) fn settle(&self, inner: &Inner, task: &Task) {
        if inner.settings.pins || task.pinned {
            task.home.store(self.index + 1, Ordering::Relaxed);
            self.settled.set(self.settled.get() + 1);
        }
    }

    /// Queues a thread that has waited for its stack.
    fn queue_bound(&self, inner: &Arc<Inner>, task: Task) {
        match task.starts_on() {
            None => {
                self.settle(inner, &task);
                self.make_ready(inner, task, Hint::Event);
            }
            // The runtime has stopped: only a thread that shutdown gave up gets here, as in `Inner::inject`.
            Some(worker) => inner.reserve(worker, task).unwrap_or_else(std::mem::forget),
        }
    }

    /// Ends a thread for which there will never be a stack.
    #[cold]
    fn cannot_start(&self, inner: &Arc<Inner>, task: &Task, error: &io::Error) -> Start {
        self.end_in_place(inner, task, error);
        Start::Ended
    }

    /// Ends a thread that cannot start. What its body owns is dropped on the carrier's own stack, as if the
    /// thread were in a blocking call. If a destructor waits, it blocks the OS thread, and the monitor
    /// gives the seat to another carrier.
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
        let rest = end::wind_up(task, || end_hook(inner, task), || ());
        self.end(inner, task, rest);
        self.door.enter();
        self.away.store(false, Ordering::Relaxed);
        current::set_running(ptr::null());
        self.see_to_rest(inner, task);
    }
}

/// What runs on a green thread's stack.
fn main(header: *const Header, suspender: &Suspender<(), Note>) {
    // SAFETY: the carrier that resumes us holds the running reference.
    let task = unsafe { &*header };
    task.suspender.set(suspender);
    task.left_at.begin(std::ptr::from_ref(suspender).addr());
    // SAFETY: a thread that runs keeps its runtime.
    let inner = unsafe { Inner::of(task) };
    if let Some(own) = inner.settings.own {
        own.begin();
    }
    // A killed thread has started all the same, because a destructor of what its body owns may wait.
    doom_if_killed(inner, task);
    // SAFETY: the thread itself, for the first time.
    unsafe { Task::run_body(task) };
    let own = inner.settings.own;
    let rest = end::wind_up(
        task,
        || end_hook(inner, task),
        || {
            if let Some(own) = own {
                own.finish();
            }
        },
    );
    // SAFETY: a green thread runs on a carrier; the destructors may have left it for another.
    unsafe { &*carrier::here() }.end(inner, task, rest);
}

/// The body of a thread that was killed before it began does not run. This looks when the thread begins, not when it
/// gets its stack, because it may be killed in between.
#[inline]
pub(super) fn doom_if_killed(inner: &Inner, task: &Header) {
    let killed = exception::is_killed(task) && !fault!("carrier_starts_who_was_killed");
    if killed || inner.is_killing() {
        task.doomed.set(true);
    }
}

pub(super) fn end_hook(inner: &Inner, task: &Header) {
    if let Some(hooks) = &inner.settings.hooks {
        hooks.ended(task);
    }
}
