//! The run-next slot of a worker: one green thread that was just made ready and runs next.
//!
//! Only the worker's owner puts a thread in and takes it out, by plain loads and stores: what the
//! running thread wakes is nobody else's as long as its worker moves on. Where it does not, the
//! monitor holds the owner out (`door.rs`), is the owner for that time, and moves the thread to
//! where thieves find it. Others may ask whether the slot is empty; the answer is old at once.
//!
//! Invariant: the pointer stands for a reference, which belongs to the slot.
#![allow(unsafe_code, reason = "a counted reference kept as a pointer")]

use std::ptr;

use crate::green::green_thread::{Header, Task};
use crate::shim::atomic::{AtomicPtr, Ordering};

#[derive(Debug)]
pub(crate) struct RunNext(AtomicPtr<Header>);

impl RunNext {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Puts a thread in; returns the one that was there.
    ///
    /// # Safety
    /// The caller is the owner.
    #[inline]
    pub(crate) unsafe fn put(&self, task: Task) -> Option<Task> {
        // SAFETY: the same contract.
        let old = unsafe { self.take() };
        self.0.store(task.into_raw(), Ordering::Relaxed);
        old
    }

    /// Takes what is there.
    ///
    /// # Safety
    /// The caller is the owner.
    #[inline]
    pub(crate) unsafe fn take(&self) -> Option<Task> {
        let task = self.0.load(Ordering::Relaxed);
        if task.is_null() {
            return None;
        }
        self.0.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: nobody else takes it (the caller's word), and the slot has given its reference up.
        Some(unsafe { Task::from_raw(task) })
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }
}

impl Drop for RunNext {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        drop(unsafe { self.take() });
    }
}
