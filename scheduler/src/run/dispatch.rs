//! One turn of a green thread: runs it, and does what its note asks for.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use std::ptr;

use super::publish::{park_seated, publish};
use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::record::{self, Kind};
use crate::engine::worker::{Worker, count, millis_since, nanos_since};
use crate::green::current;
use crate::green::green_thread::{Header, Hint, Note, Task};
use crate::parts::coroutine::Resumed;
use crate::shim::atomic::Ordering;
use crate::shim::clock;
use crate::shim::sync::Arc;
use crate::wait::exception;

impl Carrier {
    /// Runs a green thread until it leaves its stack, and does what its note asks for. In `Own` it may run the next
    /// threads as well (`change_over.rs`); a thread that it returns was chosen and has not run.
    #[inline(always)]
    pub(super) fn dispatch<const OWN: bool>(
        &self,
        inner: &Arc<Inner>,
        worker: &Worker,
        mut task: Task,
    ) -> Option<Task> {
        self.note_turn(worker);
        // SAFETY: the running reference is ours, hence the coroutine as well (green_thread 2).
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
        self.look_at_stamp(inner, worker, &task);
        let handed_over = task.hog.get().then(|| self.hand_over_before(inner));
        if record::is_on() {
            self.note(Kind::Run, &task, 0);
        }
        let mut next = None;
        let own = if OWN { inner.settings.own } else { None };
        let (resumed, seated) = match own {
            None => {
                // From here to `enter` the seat may be seized: `worker` is not ours any more.
                self.door.leave();
                current::set_running(header);
                let resumed = coroutine.resume_from(self.control.get(), ());
                current::set_running(ptr::null());
                (resumed, self.door.enter())
            }
            // SAFETY: the running reference is ours, and the block was bound with the coroutine.
            Some(own) => unsafe {
                let may_go_on = handed_over.is_none();
                self.run_own(own, inner, worker, &mut task, may_go_on, &mut next)
            },
        };
        if !seated {
            // The seat was seized while the thread ran.
            task.hog.set(true);
            self.tell_where(&task, &resumed);
        } else if let Some(start) = handed_over {
            self.came_back(&task, start, &resumed);
        } else if self.door.seat().is_null() {
            // The carrier lost its seat or gave it up, and a call of weald's has noticed that.
            self.tell_where(&task, &resumed);
        }
        self.act_on(inner, task, &resumed);
        next
    }

    /// Does what the thread's note asks for.
    #[inline(always)]
    pub(super) fn act_on(&self, inner: &Arc<Inner>, task: Task, resumed: &Resumed<Note>) {
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
    pub(super) fn note_turn(&self, worker: &Worker) {
        if worker.late.load(Ordering::Relaxed) {
            worker.late.store(false, Ordering::Relaxed);
        }
        // The monitor looks whether it changes. A load and a store are enough, because only the seat's holder writes.
        let ticks = worker.ticks.load(Ordering::Relaxed);
        worker.ticks.store(ticks + 1, Ordering::Relaxed);
        self.budget.reset();
    }

    /// A thread that is sampled is about to run.
    #[inline(always)]
    pub(super) fn look_at_stamp(&self, inner: &Inner, worker: &Worker, task: &Header) {
        if !cfg!(loom) && task.left_at.is_stamped() {
            self.take_stamp(inner, worker, task);
        }
    }

    #[cold]
    #[inline(never)]
    #[allow(
        clippy::unused_self,
        reason = "the worker is the one whose seat it has"
    )]
    fn take_stamp(&self, inner: &Inner, worker: &Worker, task: &Header) {
        let (since, is_new) = task.left_at.take_stamp();
        let waited = nanos_since(inner.start, clock::now()).saturating_sub(since);
        #[cfg(not(loom))]
        let histogram = if is_new {
            &worker.start_latency
        } else {
            &worker.wake_latency
        };
        #[cfg(not(loom))]
        histogram.add(waited);
        #[cfg(loom)]
        let _ = (waited, is_new, worker);
    }

    #[inline(always)]
    pub(super) fn suspended(&self, inner: &Arc<Inner>, task: Task, note: Note) {
        if record::is_on() {
            self.note_left(&task, note);
        }
        if !task.registered.get() {
            self.register(inner, &task);
        }
        match note {
            Note::Yield => self.push_yielded(inner, task),
            Note::Park { epoch, kind } => {
                let parked = if let Some(worker) = self.seat() {
                    park_seated(worker, task, epoch, kind)
                } else {
                    inner.parked_without_seat.fetch_add(1, Ordering::Relaxed);
                    task.left_at
                        .set_time(millis_since(inner.start, clock::now()));
                    publish(task, epoch, kind)
                };
                if let Err(task) = parked {
                    self.woken_early(inner, task);
                }
            }
            Note::Requeue => self.make_ready(inner, task, Hint::Event),
        }
    }

    /// A thread has left its stack for the first time. From now on a shutdown finds it.
    #[inline(never)]
    fn register(&self, inner: &Inner, task: &Task) {
        inner.registry.insert(task, self.index);
        // The shutdown steps to *killing* and then kills all threads in the registry. If it has looked there before
        // this thread was in, the registry's lock makes us see the step, and we kill the thread.
        if inner.is_killing() && !cfg!(panic = "abort") {
            exception::kill(task);
        }
    }

    /// A waker, the token or an exception came before the thread was parked. The thread goes on.
    #[inline(never)]
    pub(super) fn woken_early(&self, inner: &Arc<Inner>, task: Task) {
        if record::is_on() {
            self.note(Kind::Wake, &task, record::EARLY_WAKE);
        }
        match self.seat() {
            Some(worker) => {
                count(&worker.counters.wakes);
            }
            None => {
                inner.woken_without_seat.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.make_ready(inner, task, Hint::Event);
    }

    #[inline(always)]
    pub(super) fn push_yielded(&self, inner: &Arc<Inner>, task: Task) {
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
    pub(super) fn make_ready(&self, inner: &Arc<Inner>, task: Task, hint: Hint) {
        if task.home.load(Ordering::Relaxed) != 0 {
            self.private().push(task, hint);
        } else if let Some(worker) = self.seat() {
            let asleep = inner.idle.several() && inner.idle.somebody_sleeps();
            // SAFETY: the seat is held; ends with the statement.
            let stealable = unsafe { worker.core() }.push_woken(worker, task, hint, asleep);
            if stealable && inner.idle.several() {
                inner.notify();
            }
        } else {
            inner.inject(task);
        }
    }
}
