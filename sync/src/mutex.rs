//! Mutual exclusion with std's interface.
#![allow(unsafe_code, reason = "the holder of the lock has the value")]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

use weald_scheduler::io;

use crate::poison::{Before, Poison};
use crate::raw_mutex::RawMutex;

/// A lock that one thread at a time can have, green or not. The interface is that of [`std::sync::Mutex`].
///
/// A wait blocks the green thread and not the worker. A thread that comes may take a free lock before those that
/// wait. A waiter that was passed over for half a millisecond gets the lock next.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use weald::sync::Mutex;
///
/// let sum = Arc::new(Mutex::new(0));
/// let threads: Vec<_> = (1..=10)
///     .map(|n| {
///         let sum = Arc::clone(&sum);
///         weald::spawn(move || *sum.lock().unwrap() += n)
///     })
///     .collect();
/// threads.into_iter().for_each(|thread| thread.join().unwrap());
/// assert_eq!(*sum.lock().unwrap(), 55);
/// ```
pub struct Mutex<T: ?Sized> {
    raw: RawMutex,
    poison: Poison,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time uses the value, so it need only be `Send`.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
impl<T: ?Sized> UnwindSafe for Mutex<T> {}
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}

/// The right to the value of a [`Mutex`]. Dropping it releases the lock.
///
/// It may not be sent to another thread:
/// ```compile_fail
/// let lock = weald::sync::Mutex::new(0);
/// let guard = lock.lock().unwrap();
/// std::thread::scope(|s| s.spawn(move || drop(guard)).join().unwrap());
/// ```
/// It may be shared with another thread only if the value may:
/// ```compile_fail
/// let lock = weald::sync::Mutex::new(std::cell::Cell::new(0));
/// let guard = lock.lock().unwrap();
/// let shared = &guard;
/// std::thread::scope(|s| s.spawn(move || shared.set(1)).join().unwrap());
/// ```
#[must_use = "if it is dropped at once the lock is let go at once"]
pub struct MutexGuard<'a, T: ?Sized + 'a> {
    lock: &'a Mutex<T>,
    before: Before,
    /// A raw pointer is not `Send`. A lock belongs to the thread that took it.
    _not_send: PhantomData<*const ()>,
}

// SAFETY: sharing a guard shares the value.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T> Mutex<T> {
    constructor! {
        /// Returns a lock that is free.
        pub const fn new(value: T) -> Self {
            Self {
                raw: RawMutex::new(),
                poison: Poison::new(),
                value: UnsafeCell::new(value),
            }
        }
    }

    /// Returns the value. No thread can have the lock.
    ///
    /// # Errors
    /// If a holder has unwound. The error holds the value.
    pub fn into_inner(self) -> LockResult<T> {
        let is_poisoned = self.poison.is_set();
        let value = self.value.into_inner();
        if is_poisoned {
            Err(PoisonError::new(value))
        } else {
            Ok(value)
        }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the lock. A blocking call; an exception unwinds, without the lock.
    ///
    /// A thread that already has the lock waits for ever.
    ///
    /// # Errors
    /// If a holder has unwound. The error holds the guard.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.raw.take();
        self.guard()
    }

    /// Takes the lock if it is free. Not a blocking call.
    ///
    /// # Errors
    /// `WouldBlock` if the lock is not free. If a holder has unwound, the error holds the guard.
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if self.raw.try_take() {
            Ok(self.guard()?)
        } else {
            Err(TryLockError::WouldBlock)
        }
    }

    /// Takes the lock, and waits for it at most for `limit`. A blocking call. [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// `WouldBlock` if the lock was not free in time. If a holder has unwound, the error holds the guard.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let lock = weald::sync::Mutex::new(());
    /// let held = lock.lock().unwrap();
    /// assert!(lock.try_lock_for(Duration::from_millis(1)).is_err());
    /// # drop(held);
    /// ```
    pub fn try_lock_for(&self, limit: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        self.lock_until(io::deadline(limit))
    }

    /// Takes the lock as [`try_lock_for`](Self::try_lock_for) does, and waits at most until the deadline.
    ///
    /// # Errors
    /// Those of [`try_lock_for`](Self::try_lock_for).
    pub fn try_lock_until(&self, deadline: Instant) -> TryLockResult<MutexGuard<'_, T>> {
        self.lock_until(Some(deadline))
    }

    fn lock_until(&self, deadline: Option<Instant>) -> TryLockResult<MutexGuard<'_, T>> {
        if self.raw.take_until(deadline) {
            Ok(self.guard()?)
        } else {
            Err(TryLockError::WouldBlock)
        }
    }

    /// Returns the guard of a thread that has just taken the lock.
    #[inline]
    fn guard(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = MutexGuard {
            lock: self,
            before: Poison::before(),
            _not_send: PhantomData,
        };
        self.poison.wrap(guard)
    }

    /// Tells if a holder has unwound.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_set()
    }

    /// Forgets that a holder has unwound.
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// Returns the value. No thread can have the lock.
    ///
    /// # Errors
    /// If a holder has unwound. The error holds the value.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let is_poisoned = self.poison.is_set();
        let value = self.value.get_mut();
        if is_poisoned {
            Err(PoisonError::new(value))
        } else {
            Ok(value)
        }
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Releases the lock to the thread that has waited longest, if one waits.
    ///
    /// # Examples
    /// ```
    /// use weald::sync::{Mutex, MutexGuard};
    /// let lock = Mutex::new(1);
    /// MutexGuard::unlock_fair(lock.lock().unwrap());
    /// assert!(lock.try_lock().is_ok());
    /// ```
    pub fn unlock_fair(guard: Self) {
        let lock = guard.lock;
        lock.poison.after(guard.before);
        std::mem::forget(guard);
        lock.raw.release_to_next();
    }

    pub(crate) fn lock_of(guard: &Self) -> &'a Mutex<T> {
        guard.lock
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Releases the lock without poisoning it. For a condition variable.
    pub(crate) fn let_go(&self) {
        self.raw.release();
    }

    /// Takes the lock, poisoned or not, without raising anything. For locks that are held for a few steps.
    pub(crate) fn lock_quietly(&self) -> MutexGuard<'_, T> {
        self.take_back().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock back without raising anything. For a condition variable.
    pub(crate) fn take_back(&self) -> LockResult<MutexGuard<'_, T>> {
        unless!("condvar_takes_no_lock_back", self.raw.take_quietly());
        self.guard()
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.after(self.before);
        self.lock.raw.release();
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard has the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard has the lock, and is borrowed uniquely.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => shown.field("data", &&*guard),
            Err(TryLockError::Poisoned(poisoned)) => shown.field("data", &&**poisoned.get_ref()),
            Err(TryLockError::WouldBlock) => shown.field("data", &format_args!("<locked>")),
        };
        shown.field("poisoned", &self.is_poisoned());
        shown.finish_non_exhaustive()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

// SAFETY: `try_take` and the waits step the word from unlocked to LOCKED by one exchange, and only `release` steps it
// back. Guards are not `Send`.
#[cfg(not(loom))]
unsafe impl lock_api::RawMutex for RawMutex {
    type GuardMarker = lock_api::GuardNoSend;

    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "lock_api's way to make one"
    )]
    const INIT: Self = RawMutex::new();

    fn lock(&self) {
        self.take();
    }

    fn try_lock(&self) -> bool {
        self.try_take()
    }

    unsafe fn unlock(&self) {
        self.release();
    }

    fn is_locked(&self) -> bool {
        self.is_taken()
    }
}

// SAFETY: as above; the lock goes to the waiter while it is LOCKED.
#[cfg(not(loom))]
unsafe impl lock_api::RawMutexFair for RawMutex {
    unsafe fn unlock_fair(&self) {
        self.release_to_next();
    }
}

// SAFETY: as above; it returns true only with the lock taken.
#[cfg(not(loom))]
unsafe impl lock_api::RawMutexTimed for RawMutex {
    type Duration = Duration;
    type Instant = Instant;

    fn try_lock_for(&self, limit: Duration) -> bool {
        self.take_until(io::deadline(limit))
    }

    fn try_lock_until(&self, deadline: Instant) -> bool {
        self.take_until(Some(deadline))
    }
}
