//! std's mutex and condition variable for ThreadSanitizer: nothing but a word and its atomics.
//!
//! std comes compiled without the sanitizer's calls. The sanitizer sees only code of std that is inlined. It does not see
//! the code for a lock that is taken, and would report everything that such a lock guards. Here a thread that finds the
//! lock taken lets others run, and each wait ends spuriously.
#![allow(unsafe_code, reason = "a lock")]

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

/// `std::sync::Mutex`, never poisoned.
#[derive(Default)]
pub struct Mutex<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `held` lets one thread at a time at the value.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// As std's.
    pub const fn new(value: T) -> Self {
        Self {
            held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// As std's.
    ///
    /// # Errors
    /// None.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        loop {
            if let Ok(guard) = self.try_lock() {
                return Ok(guard);
            }
            std::thread::yield_now();
        }
    }

    /// As std's.
    ///
    /// # Errors
    /// `WouldBlock` if the lock is held.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if self.held.swap(true, Ordering::Acquire) {
            return Err(TryLockError::WouldBlock);
        }
        Ok(MutexGuard(self))
    }

    /// As std's.
    ///
    /// # Errors
    /// None.
    pub fn into_inner(self) -> LockResult<T> {
        Ok(self.value.into_inner())
    }

    /// As std's.
    ///
    /// # Errors
    /// None.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        Ok(self.value.get_mut())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// Gives the lock back when it is dropped.
#[derive(Debug)]
pub struct MutexGuard<'a, T>(&'a Mutex<T>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard's thread holds the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::Release);
    }
}

/// `std::sync::Condvar`, all of whose waits end soon.
#[derive(Debug, Default)]
pub struct Condvar;

/// Whether the limit of a wait has passed.
#[derive(Clone, Copy, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// As std's.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// How long a wait takes.
const NAP: Duration = Duration::from_micros(100);

impl Condvar {
    /// As std's.
    pub const fn new() -> Self {
        Self
    }

    /// As std's.
    ///
    /// # Errors
    /// None.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let mutex = guard.0;
        drop(guard);
        std::thread::sleep(NAP);
        mutex.lock()
    }

    /// As std's.
    ///
    /// # Errors
    /// None.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let mutex = guard.0;
        drop(guard);
        std::thread::sleep(limit.min(NAP));
        let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((guard, WaitTimeoutResult(limit <= NAP)))
    }

    /// As std's.
    pub fn notify_one(&self) {}

    /// As std's.
    pub fn notify_all(&self) {}
}
