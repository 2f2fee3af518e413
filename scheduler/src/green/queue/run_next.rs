//! The `RunNext` of a worker: one green thread that was just made ready and runs next.
//!
//! Only the worker's owner puts a thread in and takes it out, by plain loads and stores. As long as the worker
//! moves on, no other worker gets a thread that its running thread has woken. If the worker does not move on, the
//! monitor holds its owner out (`door.rs`), is the owner for that time, and moves the thread to where thieves find it.
//! Other threads may ask whether the slot is empty; the answer may be out of date at once.
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
