//! Many readers or one writer, with std's interface.
#![allow(unsafe_code, reason = "the holders of the lock have the value")]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Mark};

use crate::poison::{Before, Poison};
use crate::raw_rwlock::RawRwLock;

/// A lock that many readers or one writer can have. The interface is that of [`std::sync::RwLock`].
///
/// A wait blocks the green thread and not the worker. Neither readers nor writers starve: a reader waits if a writer
/// waits, and a writer that leaves lets in the waiting readers. So if a reader reads again, it may wait for a writer
/// that waits for it, as with std's lock.
///
/// # Examples
/// ```
/// let lock = weald::sync::RwLock::new(5);
/// {
///     let (a, b) = (lock.read().unwrap(), lock.read().unwrap());
///     assert_eq!(*a + *b, 10);
/// }
/// *lock.write().unwrap() += 1;
/// assert_eq!(lock.into_inner().unwrap(), 6);
/// ```
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    poison: Poison,
    value: UnsafeCell<T>,
}

// SAFETY: a writer uses the value alone, so it need only be `Send`.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: readers share the value, so it must be `Sync` as well.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

/// The right to read the value of an [`RwLock`]. Dropping it releases the lock.
///
/// It may not be sent to another thread:
/// ```compile_fail
/// let lock = weald::sync::RwLock::new(0);
/// let guard = lock.read().unwrap();
/// std::thread::scope(|s| s.spawn(move || drop(guard)).join().unwrap());
/// ```
///
/// Like std's guard it is covariant: a guard of a value with a long lifetime can be used as a guard of one with a
/// shorter lifetime.
/// ```
/// use weald::sync::{RwLock, RwLockReadGuard};
/// fn first<'s>(words: RwLockReadGuard<'_, Vec<&'s str>>, or: &'s str) -> &'s str {
///     words.first().copied().unwrap_or(or)
/// }
/// let words: RwLock<Vec<&'static str>> = RwLock::new(vec![]);
/// let short = String::from("none");
/// assert_eq!(first(words.read().unwrap(), &short), "none");
/// ```
#[must_use = "if it is dropped at once the lock is let go at once"]
pub struct RwLockReadGuard<'a, T: ?Sized + 'a> {
    /// The lock's value. It is a pointer for two reasons: a `&RwLock<T>` would be invariant in `T`, and a `&T` would
    /// have to be valid until a function that takes the guard returns, after the guard has released the lock. A
    /// pointer is not `Send`.
    value: NonNull<T>,
    raw: &'a RawRwLock,
    /// What the reader may have left in the lock.
    mark: Mark,
}

/// The right to write the value of an [`RwLock`]. Dropping it releases the lock.
#[must_use = "if it is dropped at once the lock is let go at once"]
pub struct RwLockWriteGuard<'a, T: ?Sized + 'a> {
    lock: &'a RwLock<T>,
    before: Before,
    _not_send: PhantomData<*const ()>,
}

// SAFETY: sharing a guard shares the value.
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}
impl<T: ?Sized> UnwindSafe for RwLockReadGuard<'_, T> {}
impl<T: ?Sized> RefUnwindSafe for RwLockReadGuard<'_, T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<T> RwLock<T> {
    constructor! {
        /// Returns a lock that is free.
        pub const fn new(value: T) -> Self {
            Self {
                raw: RawRwLock::new(),
                poison: Poison::new(),
                value: UnsafeCell::new(value),
            }
        }
    }

    /// Returns the value. No thread can have the lock.
    ///
    /// # Errors
    /// If a writer has unwound. The error holds the value.
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

impl<T: ?Sized> RwLock<T> {
    /// Takes the lock to read. A blocking call; an exception unwinds, without the lock.
    ///
    /// # Errors
    /// If a writer has unwound. The error holds the guard.
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        let me = self.raw.read(None).unwrap_or(Mark::NONE);
        self.reader(me)
    }

    /// Takes the lock to read, if no writer has it or waits for it. Not a blocking call.
    ///
    /// # Errors
    /// `WouldBlock` if a writer has the lock or waits for it. If a writer has unwound, the error holds the guard.
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if self.raw.try_read() {
            Ok(self.reader(Mark::NONE)?)
        } else {
            Err(TryLockError::WouldBlock)
        }
    }

    /// Takes the lock to read, and waits for it at most for `limit`. A blocking call. [`Duration::MAX`] means for
    /// ever.
    ///
    /// # Errors
    /// `WouldBlock` if the lock was not free in time. If a writer has unwound, the error holds the guard.
    pub fn try_read_for(&self, limit: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.read_until(io::deadline(limit))
    }

    /// Takes the lock as [`try_read_for`](Self::try_read_for) does, and waits at most until the deadline.
    ///
    /// # Errors
    /// Those of [`try_read_for`](Self::try_read_for).
    pub fn try_read_until(&self, deadline: Instant) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.read_until(Some(deadline))
    }

    fn read_until(&self, deadline: Option<Instant>) -> TryLockResult<RwLockReadGuard<'_, T>> {
        match self.raw.read(deadline) {
            Some(me) => Ok(self.reader(me)?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// Takes the lock to write. A blocking call; an exception unwinds, without the lock.
    ///
    /// # Errors
    /// If a writer has unwound. The error holds the guard.
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.raw.write(None);
        self.writer()
    }

    /// Takes the lock to write, if it is free. Not a blocking call.
    ///
    /// # Errors
    /// `WouldBlock` if the lock is not free. If a writer has unwound, the error holds the guard.
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        if self.raw.try_write() {
            Ok(self.writer()?)
        } else {
            Err(TryLockError::WouldBlock)
        }
    }

    /// Takes the lock to write, and waits for it at most for `limit`. A blocking call. [`Duration::MAX`] means for
    /// ever.
    ///
    /// # Errors
    /// `WouldBlock` if the lock was not free in time. If a writer has unwound, the error holds the guard.
    pub fn try_write_for(&self, limit: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.write_until(io::deadline(limit))
    }

    /// Takes the lock as [`try_write_for`](Self::try_write_for) does, and waits at most until the deadline.
    ///
    /// # Errors
    /// Those of [`try_write_for`](Self::try_write_for).
    pub fn try_write_until(&self, deadline: Instant) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.write_until(Some(deadline))
    }

    fn write_until(&self, deadline: Option<Instant>) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        if self.raw.write(deadline) {
            Ok(self.writer()?)
        } else {
            Err(TryLockError::WouldBlock)
        }
    }

    /// Returns the guard of a reader that has just taken the lock.
    fn reader(&self, mark: Mark) -> LockResult<RwLockReadGuard<'_, T>> {
        self.poison.wrap(self.guard_to_read(mark))
    }

    /// Returns the guard of a thread that has the lock to read. The guard releases the lock.
    fn guard_to_read(&self, mark: Mark) -> RwLockReadGuard<'_, T> {
        if mark != Mark::NONE {
            self.raw.mark_reader(mark);
        }
        RwLockReadGuard {
            mark,
            // SAFETY: the address of a cell's value is not null.
            value: unsafe { NonNull::new_unchecked(self.value.get()) },
            raw: &self.raw,
        }
    }

    /// Returns the guard of a writer that has just taken the lock.
    fn writer(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.poison.wrap(RwLockWriteGuard {
            lock: self,
            before: Poison::before(),
            _not_send: PhantomData,
        })
    }

    /// Tells if a writer has unwound.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_set()
    }

    /// Forgets that a writer has unwound.
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// Returns the value. No thread can have the lock.
    ///
    /// # Errors
    /// If a writer has unwound. The error holds the value.
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

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Makes the writer a reader, without letting another writer in between.
    ///
    /// # Examples
    /// ```
    /// use weald::sync::{RwLock, RwLockWriteGuard};
    /// let lock = RwLock::new(1);
    /// let mut writer = lock.write().unwrap();
    /// *writer += 1;
    /// let reader = RwLockWriteGuard::downgrade(writer);
    /// assert_eq!((*reader, *lock.read().unwrap()), (2, 2));
    /// ```
    pub fn downgrade(guard: Self) -> RwLockReadGuard<'a, T> {
        let lock = guard.lock;
        lock.poison.after(guard.before);
        std::mem::forget(guard);
        lock.raw.downgrade();
        lock.guard_to_read(Mark::NONE)
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.raw.release_marked_read(self.mark);
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.poison.after(self.before);
        self.lock.raw.release();
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard has the lock to read, so nobody writes, and the lock is borrowed for longer
        // than the guard.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard has the lock to write.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard has the lock to write, and is borrowed uniquely.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(guard) => shown.field("data", &&*guard),
            Err(TryLockError::Poisoned(poisoned)) => shown.field("data", &&**poisoned.get_ref()),
            Err(TryLockError::WouldBlock) => shown.field("data", &format_args!("<locked>")),
        };
        shown.field("poisoned", &self.is_poisoned());
        shown.finish_non_exhaustive()
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
