//! The way of a new green thread into its queue; and green threads without a handle, which the carriers' loop starts.
#![allow(unsafe_code, reason = "threads that have not started, by their makers")]

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::engine::record;
use crate::engine::worker::{Worker, count};
use crate::green::cells::Piece;
use crate::green::green_thread::{Settings, Task};
use crate::green::id::GreenThreadId;
use crate::parts::coroutine::Control;
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;
use crate::wait::end;
use crate::wait::exception;
use crate::wait::scheduler::Scheduler;

/// Memory that this worker has kept for such a thread. Called inside the door.
#[inline(always)]
pub(crate) fn kept<F: FnOnce() -> T, T>(worker: &Worker) -> Option<Piece> {
    let class = Task::class::<F, T>()?;
    // SAFETY: the caller holds the seat, inside the door; the reference ends with the statement.
    unsafe { worker.cells() }.get(class)
}

/// Queues a thread that has not started. `here`: in the worker's own queue, because the caller holds a seat, or
/// has just held one.
#[inline(always)]
pub(crate) fn queue(inner: &Arc<Inner>, task: Task, here: bool) {
    let mut task = Some(task);
    if here {
        carrier::with_core(Inner::address(inner), |_, core| {
            core.push_fresh(task.take().expect("once"));
        });
    }
    // There is no seat here, or it has just been seized, or other workers are to have the thread.
    if let Some(task) = task {
        if let Err(task) = inner.injector.push(task) {
            refuse(inner, &task);
        } else {
            inner.notify();
        }
        return;
    }
    if inner.idle.several() && !fault!("spawn_tells_no_other_worker") {
        inner.notify();
    }
}

/// Queues a thread that has not started on the worker on which it must start.
#[cold]
#[inline(never)]
pub(crate) fn reserve(inner: &Arc<Inner>, worker: usize, task: Task) {
    if let Err(task) = inner.reserve(worker, task) {
        refuse(inner, &task);
    }
}

/// Starts a green thread without a handle that drops something of the user's. The carriers' loop must not drop it,
/// because its destructor may wait. No exception and no shutdown interrupts the thread.
pub(crate) fn discard<T: Send + 'static>(inner: &Arc<Inner>, value: T) {
    start_detached(inner, Birth::Doomed, move || drop(value));
}

/// What a thread without a handle must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    /// It runs its body.
    Ordinary,
    /// It only drops its body.
    Doomed,
    /// As `Doomed`. It has been counted as spawned already.
    Counted,
}

/// Starts a green thread without a handle, for the carriers' loop. The loop must not have a handle to drop: if the
/// thread has ended by then, the handle would drop its result.
pub(crate) fn start_detached<F>(inner: &Arc<Inner>, birth: Birth, body: F)
where
    F: FnOnce() + Send + 'static,
{
    let runtime = Inner::address(inner);
    let here = carrier::with_core(runtime, |worker, core| {
        if birth != Birth::Counted {
            count(&worker.counters.spawned);
        }
        (core.next_id(), kept::<F, ()>(worker))
    });
    if here.is_none() && birth != Birth::Counted {
        inner.spawned_without_seat.fetch_add(1, Ordering::AcqRel);
    }
    let is_here = here.is_some();
    let (id, kept) = here.unwrap_or_else(|| (GreenThreadId::next(), None));
    let settings = Settings {
        id,
        runtime,
        name: None,
        stack_size: inner.settings.stack_size,
        pinned: false,
        worker: None,
        has_own_thread: false,
        is_under_limit: false,
        patched: match inner.settings.own {
            Some(_) => inner.settings.patched,
            None => Some(false),
        },
        control: Control::current(),
    };
    // SAFETY: the body is `'static`; the runtime is there as in `start`.
    let task = unsafe { Task::new::<Scheduler, _, _>(body, settings, false, kept) };
    task.doomed.set(birth != Birth::Ordinary);
    if record::is_on() {
        record::spawned(&task);
    }
    queue(inner, task, is_here);
}

/// Ends a thread that has not started and that nobody will run, because the runtime has stopped. Its body is dropped
/// here, in a thread that outlives the runtime.
#[cold]
pub(crate) fn refuse(inner: &Inner, task: &Task) {
    let _hold = exception::Hold::new();
    task.doomed.set(true);
    // SAFETY: the caller holds the running reference of a thread that has not started, so nobody else is
    // the thread.
    unsafe { Task::run_body(task) };
    let rest = end::wind_up(task, || (), || ());
    inner.ended_without_seat.fetch_add(1, Ordering::AcqRel);
    end::end(task, rest);
    inner.one_ended();
}
