//! The carrier, worker and runtime of the OS thread that asks.
#![allow(unsafe_code, reason = "the OS thread's own carrier")]

use std::ptr;

use crate::current;
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
