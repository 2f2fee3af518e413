//! The carrier, worker and runtime of the OS thread that asks.
#![allow(unsafe_code, reason = "the OS thread's own carrier")]

use std::ptr;
use std::time::Duration;

use crate::cells::Cells;
use crate::current;
use crate::shim::clock;
use crate::shim::sync::Arc;
use crate::worker::{Core, Worker};

use super::{Carrier, Inner};

/// The running thread's carrier, if it is one of the given runtime's.
#[inline(always)]
pub(super) fn carrier_of<'a>(runtime: *const Inner) -> Option<&'a Carrier> {
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

/// A fork is given to a sleeping worker no sooner after the last one. To make a green thread of it and to
/// wake an OS thread takes some microseconds, which a program whose halves are tiny must not pay each time.
const SHARE_PAUSE: Duration = Duration::from_micros(20);

impl Carrier {
    /// Whether the thread that runs here may give one of its forks to a worker that sleeps.
    pub(crate) fn may_share(&self) -> bool {
        let now = clock::now();
        let recently = |last| now.saturating_duration_since(last) < SHARE_PAUSE;
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
pub(crate) fn with_cells(runtime: *const Inner, f: impl FnOnce(&mut Cells)) {
    if let Some(carrier) = carrier_of(runtime) {
        let _inside = carrier.door.section();
        if let Some(worker) = carrier.seat() {
            // SAFETY: the seat is held; `f` is ours and runs nothing of the user's.
            f(unsafe { worker.cells() });
        }
    }
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
