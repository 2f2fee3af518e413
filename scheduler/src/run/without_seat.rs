//! A hog on an OS thread of its own: a green thread that did not come back for long runs without a seat,
//! so that its worker goes on elsewhere meanwhile.
//!
//! The carrier gives its seat away once: before the thread runs, or when the monitor has noticed the hog. If such a
//! thread gives way and is still a hog, it goes on where it is. All seats have their carriers, so a turn through the
//! queues would help no other thread; the worker that ran the hog next would have to give its seat away again, and its
//! sockets would wait until the next carrier has woken up. The hog does not go on here if that would keep other threads
//! from a carrier: threads that must run here, or hogs beyond the bound on carriers, which take turns.
#![allow(unsafe_code, reason = "runs green threads")]

use std::ptr;
use std::time::{Duration, Instant};

use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::record::{self, Kind};
use crate::green::current;
use crate::green::green_thread::{Header, Note, Task};
use crate::green::trace::Tracer;
use crate::parts::coroutine::{Coroutine, Resumed};
use crate::parts::slice::{self, Slice};
use crate::parts::thread_locals::{Block, Support};
use crate::shim::atomic::Ordering;
use crate::shim::clock;
use crate::shim::sync::Arc;

/// A thread that comes back within this time is not a hog any more.
const BRIEF: Duration = Duration::from_millis(2);

impl Carrier {
    /// A thread that was a hog the last time will probably be one again. So the other threads get another carrier at
    /// once, before the monitor notices. Returns when the thread starts.
    #[cold]
    #[inline(never)]
    pub(super) fn hand_over_before(&self, inner: &Arc<Inner>) -> Instant {
        if inner.seats.prepare(inner).is_ok() {
            inner.monitor.handed_over();
            inner.monitor.expect(self.index, self.door.losses());
            self.give_up_seat(inner);
            self.slice(Slice::Long);
        }
        clock::now()
    }

    /// A thread that was run as a hog has left its stack.
    #[cold]
    #[inline(never)]
    pub(super) fn came_back(&self, task: &Task, start: Instant, resumed: &Resumed<Note>) {
        self.door.came_back();
        self.slice(Slice::Short);
        let took = clock::now().saturating_duration_since(start);
        task.hog.set(took >= BRIEF);
        self.tell_where(task, resumed);
    }

    /// Takes over a seat. If there were hogs in this runtime, the seat was probably a hog's.
    pub(super) fn take_over(&self, inner: &Inner) {
        if inner.monitor.handovers.load(Ordering::Relaxed) > 0 {
            self.slice(Slice::Short);
        }
    }

    fn slice(&self, slice: Slice) {
        if self.slice.replace(slice) != slice {
            slice::set(slice);
        }
    }

    /// A thread that gives way, without a seat, goes on here.
    #[cold]
    #[inline(never)]
    pub(super) fn may_stay(&self, inner: &Inner, task: &Task) -> bool {
        task.hog.get() && self.queued() == 0 && inner.seats.has_taker() && !inner.is_stopping()
    }

    /// Runs a hog that has given way here once more.
    #[cold]
    #[inline(never)]
    pub(super) fn go_on_without_seat(&self, inner: &Arc<Inner>, task: Task) {
        self.budget.reset();
        if let Some(hooks) = &inner.settings.hooks {
            hooks.resumed(&task);
        }
        let header: *const Header = &raw const *task;
        self.running.store(header.cast_mut(), Ordering::Relaxed);
        inner.monitor.expect(self.index, self.door.losses());
        self.slice(Slice::Long);
        if record::is_on() {
            self.note(Kind::Run, &task, 0);
        }
        let start = clock::now();
        // SAFETY: the running reference is ours, hence the coroutine and the block as well
        // (green_thread 2).
        let (coroutine, block) = unsafe {
            (
                (*task.coroutine.get()).as_mut(),
                (*task.block.get()).as_ref(),
            )
        };
        let coroutine = coroutine.expect("it has run before");
        let resumed = match inner.settings.own.zip(block) {
            // SAFETY: the block is that of the coroutine's thread, which the caller may run.
            Some((own, block)) => unsafe { self.resume_own_without_seat(own, block, coroutine) },
            None => self.resume_without_seat(header, coroutine),
        };
        self.came_back(&task, start, &resumed);
        self.act_on(inner, task, &resumed);
    }

    #[inline(never)]
    fn resume_without_seat(
        &self,
        header: *const Header,
        coroutine: &mut Coroutine<(), Note>,
    ) -> Resumed<Note> {
        self.door.leave();
        current::set_running(header);
        let resumed = coroutine.resume_from(self.control.get(), ());
        current::set_running(ptr::null());
        self.door.enter();
        resumed
    }

    /// As `resume_without_seat`, on the thread's own block. A function of its own, because nothing in it may touch a
    /// thread-local (`Support::arrive`).
    ///
    /// # Safety
    /// The block is that of the coroutine's thread, which the caller alone may run; the OS thread's own
    /// is current.
    #[inline(never)]
    unsafe fn resume_own_without_seat(
        &self,
        own: &Support,
        block: &Block,
        coroutine: &mut Coroutine<(), Note>,
    ) -> Resumed<Note> {
        // SAFETY: by contract.
        unsafe { own.arrive(block, std::ptr::from_ref(self).cast(), &self.lent_words) };
        self.door.leave();
        let resumed = coroutine.resume_from(self.control.get(), ());
        self.door.enter();
        // SAFETY: the pointer is that of this OS thread's own block.
        unsafe { own.depart(self.host.pointer.get()) };
        resumed
    }

    /// A hog that the monitor has reported is back: logs where it was, which nobody could see while it ran.
    #[cold]
    #[inline(never)]
    pub(super) fn tell_where(&self, task: &Task, resumed: &Resumed<Note>) {
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
}
