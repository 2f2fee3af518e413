//! The carrier, the worker and the runtime of the calling OS thread, and the way inside the door.
#![allow(unsafe_code, reason = "the OS thread's own carrier")]

use std::ptr;
use std::time::Duration;

use crate::engine::inner::Inner;
use crate::engine::worker::{Core, Worker};
use crate::green::cells::Cells;
use crate::green::green_thread::{AnyRuntime, Header, Task};
use crate::shim::atomic::Ordering;
use crate::shim::clock;
use crate::shim::here as words;
use crate::shim::sync::Arc;

use super::Carrier;

/// The running thread's carrier, if it is one of the given runtime's.
#[inline(always)]
pub(crate) fn carrier_of<'a>(runtime: *const AnyRuntime) -> Option<&'a Carrier> {
    let carrier = here();
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
    runtime: *const AnyRuntime,
    f: impl FnOnce(&Worker, &mut Core) -> R,
) -> Option<R> {
    let carrier = carrier_of(runtime)?;
    let _inside = carrier.door.section();
    let worker = carrier.seat()?;
    // SAFETY: the seat is held; `f` is ours and runs nothing of the user's.
    Some(f(worker, unsafe { worker.core() }))
}

/// The carrier that this OS thread is, or null.
#[inline(always)]
pub(crate) fn here() -> *const Carrier {
    words::carrier().cast()
}

#[inline(always)]
pub(crate) fn set_here(carrier: *const Carrier) {
    words::set_carrier(carrier.cast());
}

/// The carrier that this OS thread is, and the thread that runs here, by one look. Each may be null.
#[inline(always)]
pub(crate) fn here_and_thread() -> (*const Carrier, *const Header) {
    let (carrier, running) = words::carrier_and_running();
    (carrier.cast(), running.cast())
}

impl Carrier {
    /// The carrier's runtime. Null before its OS thread has begun.
    #[inline(always)]
    pub(crate) fn inner(&self) -> *const Inner {
        self.inner.get().cast()
    }

    /// Whether the thread that runs here may give one of its forks away. It may if no thread has done so here for
    /// `pause`.
    pub(crate) fn may_share(&self, pause: Duration) -> bool {
        let now = clock::now();
        let recently = |last| now.saturating_duration_since(last) < pause;
        if self.shared.get().is_some_and(recently) {
            return false;
        }
        self.shared.set(Some(now));
        true
    }

    /// Calls `f` with the carrier inside its door, with or without a seat. `f` must not suspend.
    pub(crate) fn inside<R>(&self, f: impl FnOnce() -> R) -> R {
        let _inside = self.door.section();
        f()
    }
}

/// Calls `f`, inside the door, with the memory that the running carrier's worker keeps for green threads, if it
/// holds a seat of the given runtime.
#[inline(always)]
pub(crate) fn with_cells(runtime: *const AnyRuntime, f: impl FnOnce(&mut Cells)) {
    if let Some(carrier) = carrier_of(runtime) {
        let _inside = carrier.door.section();
        if let Some(worker) = carrier.seat() {
            // SAFETY: the seat is held; `f` is ours and runs nothing of the user's.
            f(unsafe { worker.cells() });
        }
    }
}

/// The runtime of this OS thread: it is a carrier of the runtime, or belongs to one of its green threads
/// (`Builder::own_thread`). Else null.
fn runtime_here() -> *const Inner {
    let (carrier, running) = here_and_thread();
    // SAFETY: a carrier outlives what runs on its OS thread, and what runs here is alive.
    unsafe {
        match (carrier.as_ref(), running.as_ref()) {
            (Some(carrier), _) => carrier.inner(),
            (None, Some(header)) => header.runtime.cast(),
            (None, None) => ptr::null(),
        }
    }
}

/// The runtime of this OS thread, as `runtime_here`.
pub(crate) fn current_runtime() -> Option<Arc<Inner>> {
    let inner = runtime_here();
    if inner.is_null() {
        return None;
    }
    // SAFETY: the OS thread keeps its runtime, so the count is above zero.
    unsafe {
        Arc::increment_strong_count(inner);
        Some(Arc::from_raw(inner))
    }
}

/// Calls `f` with the runtime of this OS thread, as `current_runtime` has it.
pub(crate) fn with_runtime<R>(f: impl FnOnce(&Inner) -> R) -> Option<R> {
    // SAFETY: as in `current_runtime`, for the call.
    Some(f(unsafe { runtime_here().as_ref() }?))
}

impl Carrier {
    /// The green thread that runs on a carrier. If it has never left its stack, it is in no registry.
    pub(crate) fn running_thread(&self) -> Option<Task> {
        let carrier = self;
        if !carrier.door.is_outside() || carrier.running.load(Ordering::Relaxed).is_null() {
            return None;
        }
        let running = carrier.door.hold_out(|| {
            // SAFETY: the carrier is held outside its door, so the thread that runs there cannot end: its
            // carrier drops it inside.
            let header = unsafe { carrier.running.load(Ordering::Relaxed).as_ref() };
            header.map(Task::from_header)
        });
        running.flatten()
    }
}
