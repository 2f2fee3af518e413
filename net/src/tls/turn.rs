//! A lock for green threads and OS threads. An exception may end the wait for it.
//!
//! It uses the raw lock of `weald_sync`, which is fair to those that wait for long, and not its `Mutex`, for two
//! reasons. A call that returns `io::Result` must return its exception, but `Mutex::lock` unwinds. And the lock
//! around TLS's state is taken after bytes were read from the socket, where nothing may be raised. There is no
//! poisoning: TLS itself remembers that it has failed.
//!
//! Invariant: only the thread that has taken the raw lock touches the value, until it releases the lock.
#![allow(unsafe_code, reason = "a lock hands out what it guards")]

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use weald_sync::RawMutex;

pub(super) struct Turn<T> {
    raw: RawMutex,
    value: UnsafeCell<T>,
}

// SAFETY: the value is touched by one thread at a time (the invariant).
unsafe impl<T: Send> Sync for Turn<T> {}

impl<T> Turn<T> {
    pub(super) const fn new(value: T) -> Self {
        Self {
            raw: RawMutex::new(),
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.raw.try_take().then(|| Guard { turn: self })
    }

    /// Waits even if an exception is pending: for a lock that is held only for computing.
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        self.raw.take_quietly();
        Guard { turn: self }
    }

    /// A blocking call whose caller has looked for exceptions. It waits, and returns an exception that ends the wait.
    /// Returns `TimedOut` after the limit (`None`: no limit). With a limit of zero it does not wait, and returns
    /// `WouldBlock`.
    #[inline]
    pub(super) fn lock_io(&self, limit: Option<Duration>) -> io::Result<Guard<'_, T>> {
        if let Some(guard) = self.try_lock() {
            return Ok(guard);
        }
        if limit == Some(Duration::ZERO) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.raw
            .take_io_until(limit.and_then(weald_scheduler::io::deadline))?;
        Ok(Guard { turn: self })
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> fmt::Debug for Turn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

/// The right to use the value. Made by the thread that has taken the lock.
pub(super) struct Guard<'a, T> {
    turn: &'a Turn<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: only a thread that has taken the lock makes a guard (the invariant).
        unsafe { &*self.turn.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard is borrowed mutably.
        unsafe { &mut *self.turn.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.turn.raw.release();
    }
}
