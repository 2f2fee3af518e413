//! The run-next slot of a worker: one green thread that was just made ready and runs next.
//!
//! | who    | may                                                                  |
//! |--------|----------------------------------------------------------------------|
//! | owner  | put (a plain store if it is empty: only the owner fills it), take    |
//! | thief  | take, once the owner has not dispatched for long                     |
//!
//! Invariant: whoever swaps a pointer out owns the reference that it stands for.
//! Orderings: putting releases the thread's cell, taking acquires it.
//! Checked by `loom-tests/tests/slot.rs`.
#![allow(unsafe_code, reason = "a counted reference kept as a pointer")]

use std::ptr;

use crate::green_thread::{Header, Task};
use crate::shim::atomic::{AtomicPtr, Ordering};

#[derive(Debug)]
pub(crate) struct Slot(AtomicPtr<Header>);

impl Slot {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Puts a thread in; returns the one that was there. For the owner.
    #[inline]
    pub(crate) fn put(&self, task: Task) -> Option<Task> {
        let new = task.into_raw();
        if self.0.load(Ordering::Relaxed).is_null() {
            #[cfg(not(weald_fault = "slot_relaxed_put"))]
            self.0.store(new, Ordering::Release);
            #[cfg(weald_fault = "slot_relaxed_put")]
            self.0.store(new, Ordering::Relaxed);
            return None;
        }
        #[cfg(not(weald_fault = "slot_replaces_by_store"))]
        let old = self.0.swap(new, Ordering::AcqRel);
        #[cfg(weald_fault = "slot_replaces_by_store")]
        let old = {
            let old = self.0.load(Ordering::Acquire);
            self.0.store(new, Ordering::Release);
            old
        };
        // SAFETY: the swap made the old pointer ours.
        (!old.is_null()).then(|| unsafe { Task::from_raw(old) })
    }

    /// Takes what is there.
    #[inline]
    pub(crate) fn take(&self) -> Option<Task> {
        if self.0.load(Ordering::Relaxed).is_null() {
            return None;
        }
        #[cfg(not(any(weald_fault = "slot_takes_by_store", weald_fault = "slot_relaxed_take")))]
        let old = self.0.swap(ptr::null_mut(), Ordering::AcqRel);
        #[cfg(weald_fault = "slot_relaxed_take")]
        let old = self.0.swap(ptr::null_mut(), Ordering::Relaxed);
        #[cfg(weald_fault = "slot_takes_by_store")]
        let old = {
            let old = self.0.load(Ordering::Acquire);
            self.0.store(ptr::null_mut(), Ordering::Release);
            old
        };
        // SAFETY: the swap made the pointer ours.
        (!old.is_null()).then(|| unsafe { Task::from_raw(old) })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.take());
    }
}
