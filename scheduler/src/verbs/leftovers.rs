//! The memory that a runtime leaves to the process when it ends: the stacks and blocks of thread-locals that its
//! green threads have had.
//!
//! Workers give such memory back before they sleep (`run/search.rs`). The workers of a runtime that has
//! ended do nothing, and the workers of other runtimes may sleep for ever. So a runtime that ends wakes
//! a sleeping worker of each other runtime. If there is no other runtime, it gives all the memory back itself.

use std::sync::PoisonError;

use crate::engine::inner::Inner;
use crate::parts::{stack, thread_locals};
use crate::shim::plain::Mutex;
use crate::shim::sync::{Arc, Weak};
#[cfg(not(miri))]
use crate::watch::debugger;

/// The runtimes that have started and not stopped.
static RUNNING: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// A runtime has started.
pub(crate) fn has_started(inner: &Arc<Inner>) {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.push(Arc::downgrade(inner));
    #[cfg(not(miri))]
    debugger::show(&running);
}

/// The runtimes that have started and not stopped, the oldest first.
pub(crate) fn running() -> Vec<Weak<Inner>> {
    RUNNING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// A runtime has stopped, and its workers have given their spares to the process.
pub(crate) fn has_stopped(inner: &Arc<Inner>) {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.retain(|it| !std::ptr::eq(it.as_ptr(), Arc::as_ptr(inner)));
    #[cfg(not(miri))]
    debugger::show(&running);
    let others: Vec<_> = running.iter().filter_map(Weak::upgrade).collect();
    drop(running);
    if others.is_empty() {
        stack::give_back_all();
        thread_locals::give_back_all();
    }
    for other in others {
        other.notify();
    }
}
