//! A lock whose wait returns exceptions as errors, for calls that return `io::Result`.
//!
//! Invariant: only the thread that has taken the raw lock touches the value, until it releases the lock.
#![allow(unsafe_code, reason = "a lock hands out what it guards")]

use std::cell::UnsafeCell;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use weald_sync::RawMutex;

pub(super) struct Gate<T> {
    raw: RawMutex,
    value: UnsafeCell<T>,
}

// SAFETY: the value is touched by one thread at a time (the invariant).
unsafe impl<T: Send> Sync for Gate<T> {}

impl<T> Gate<T> {
    pub(super) const fn new(value: T) -> Self {
        Self {
            raw: RawMutex::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock. A blocking call; an exception unwinds.
    pub(super) fn lock(&self) -> Pass<'_, T> {
        self.raw.take();
        Pass::new(self)
    }

    /// Takes the lock. A blocking call.
    ///
    /// # Errors
    /// An exception has ended the wait.
    pub(super) fn lock_io(&self) -> io::Result<Pass<'_, T>> {
        weald_scheduler::io::enter()?;
        self.raw.take_io()?;
        Ok(Pass::new(self))
    }
}

/// The right to use the value.
pub(super) struct Pass<'a, T> {
    gate: &'a Gate<T>,
    /// A pass stays with the thread that took the lock. It may be shared only if the value may.
    marker: PhantomData<(&'a mut T, *const ())>,
}

impl<'a, T> Pass<'a, T> {
    fn new(gate: &'a Gate<T>) -> Self {
        let marker = PhantomData;
        Self { gate, marker }
    }
}

impl<T> Deref for Pass<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a pass is made by the thread that took the lock (the invariant).
        unsafe { &*self.gate.value.get() }
    }
}

impl<T> DerefMut for Pass<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the pass is borrowed mutably.
        unsafe { &mut *self.gate.value.get() }
    }
}

impl<T> Drop for Pass<'_, T> {
    fn drop(&mut self) {
        self.gate.raw.release();
    }
}
