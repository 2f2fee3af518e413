//! A lock for green threads and OS threads whose waiting an exception may end.
//!
//! It is the raw lock of `weald_sync`, which is fair to those that wait for long, without `Mutex` on
//! top, for two reasons. A call that returns `io::Result` must return its exception, where `lock`
//! unwinds; and the lock around TLS's state is taken when bytes have been read from the socket, where
//! nothing may be raised. There is no poisoning: TLS remembers itself that it has failed.
//!
//! Invariant: who has taken the raw lock touches the value, until it lets it go.
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

    /// Waits, whatever is pending: for a lock that is held for computing only.
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        self.raw.take_quietly();
        Guard { turn: self }
    }

    /// A blocking call that has looked for exceptions: waits, and returns the one that ends the wait.
    /// `TimedOut` after the limit (`None`: never); with a limit of zero it does not wait: `WouldBlock`.
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

/// Made by who has taken the lock.
pub(super) struct Guard<'a, T> {
    turn: &'a Turn<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a guard is made by who took the lock (the invariant).
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
