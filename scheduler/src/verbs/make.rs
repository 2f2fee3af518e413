//! Makes a green thread with a handle. All functions that start threads for users call this.
#![allow(
    unsafe_code,
    reason = "one door for threads that borrow and threads that do not"
)]

use std::panic::Location;

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::engine::record;
use crate::engine::worker::{count, latency};
use crate::green::green_thread::{Settings, Task};
use crate::green::handle::GreenThread;
use crate::green::id::GreenThreadId;
use crate::green::request::{Request, Start};
use crate::parts::coroutine::Control;
#[cfg(not(loom))]
use crate::run;
use crate::run::birth::{kept, queue, refuse, reserve};
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;
use crate::verbs::join::JoinHandle;
use crate::wait::scheduler::Scheduler;

/// Makes a green thread and queues it. In a runtime that closes its body never runs, unless it is half
/// of a `join`.
///
/// # Safety
/// What `body` and its result borrow outlives the thread, and the result is taken or dropped while
/// it is valid.
pub(crate) unsafe fn start<F, T>(inner: &Arc<Inner>, request: Request, body: F) -> JoinHandle<T>
where
    F: FnOnce() -> T,
{
    #[cfg(loom)]
    if crate::thin::is_active() {
        // SAFETY: by contract.
        return unsafe { crate::thin::start(request, body) };
    }
    let runtime = Inner::address(inner);
    // Hooked calls tell threads apart by their thread-locals.
    let patched = match inner.settings.own {
        Some(_) => request.patched.or(inner.settings.patched),
        None => Some(false),
    };
    #[cfg(not(loom))]
    if patched == Some(true) {
        crate::parts::patching::prepare();
    }
    let settings = |id: GreenThreadId| Settings {
        id,
        runtime,
        name: request.name,
        stack_size: request.stack_size.unwrap_or(inner.settings.stack_size),
        pinned: request.pinned,
        worker: request.start.worker(),
        has_own_thread: request.start.is_own_thread(),
        is_under_limit: request.is_under_limit,
        patched,
        control: request.control.unwrap_or_else(Control::current),
    };
    let closing = inner.is_closing() && (!request.is_half || inner.is_stopping());
    let mut is_sampled = false;
    let here = carrier::with_core(runtime, |worker, core| {
        is_sampled = latency::is_sampled(count(&worker.counters.spawned));
        (core.next_id(), kept::<F, T>(worker))
    });
    if here.is_none() {
        inner.spawned_without_seat.fetch_add(1, Ordering::AcqRel);
    }
    let is_here = here.is_some();
    let (id, kept) = here.unwrap_or_else(|| (GreenThreadId::next(), None));
    // SAFETY: by contract. The runtime is alive until the thread is DONE: its shutdown waits for all threads
    // that were counted here, and if one of them never ends, its memory stays for ever.
    let task = unsafe { Task::new::<Scheduler, _, _>(body, settings(id), true, kept) };
    // SAFETY: the thread was made with a handle, once.
    let handle = unsafe { JoinHandle::new(task.handle_reference()) };
    if is_sampled {
        carrier::stamp(inner, &task, true);
    }
    if record::is_on() {
        record::spawned(&task);
    }
    if closing && !doom(inner, &task) {
        return handle;
    }
    if request.is_doomed {
        task.doomed.set(true);
    }
    match request.start {
        Start::Anywhere => queue(inner, task, is_here && !request.is_for_others),
        Start::Worker(worker) => reserve(inner, worker.into(), task),
        #[cfg(not(loom))]
        Start::OwnThread(thread) => run::own_thread::begin(&thread, task),
        #[cfg(loom)]
        Start::OwnThread(_) => queue(inner, task, is_here),
    }
    handle
}

/// Notes for the flight recorder where a thread was spawned.
#[inline(always)]
pub(crate) fn note_site(thread: &GreenThread, site: &'static Location<'static>) {
    if record::is_on() {
        record::spawned_at(thread.id(), site);
    }
}

/// The runtime closes, so the thread must only drop its body. False: the
/// runtime has stopped already, and the body was dropped here.
#[cold]
fn doom(inner: &Arc<Inner>, task: &Task) -> bool {
    if inner.is_stopping() {
        refuse(inner, task);
        return false;
    }
    task.doomed.set(true);
    true
}
