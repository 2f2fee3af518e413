//! Waiting until something that a mutex guards has changed.
//!
//! Invariant: a waiter releases its lock only when a notification can find it in the queue. So a thread that changes
//! the condition under the lock and then notifies reaches the waiter.
//! A waiter that was notified reports nothing else, and a waiter that was not has taken no notification (`WaitQueue`,
//! invariant 3).
//! Checked by `loom-tests/tests/condvar.rs`.

use std::fmt;
use std::sync::{LockResult, PoisonError};
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Awaited, On, WaitQueue, Woken};

use crate::mutex::{Mutex, MutexGuard};
use crate::shim::clock;

/// A condition variable. The interface is that of [`std::sync::Condvar`].
///
/// It may be used with several mutexes. A wait is a blocking call: an exception unwinds *without* the lock and
/// poisons nothing. After a notification has come, taking the lock back raises nothing.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use weald::sync::{Condvar, Mutex};
///
/// let pair = Arc::new((Mutex::new(false), Condvar::new()));
/// let theirs = Arc::clone(&pair);
/// weald::spawn(move || {
///     *theirs.0.lock().unwrap() = true;
///     theirs.1.notify_one();
/// });
/// let ready = pair.0.lock().unwrap();
/// let ready = pair.1.wait_while(ready, |ready| !*ready).unwrap();
/// assert!(*ready);
/// ```
#[derive(Default)]
pub struct Condvar {
    queue: WaitQueue,
}

/// Tells if a wait with a limit ended by the limit.
///
/// # Examples
/// See [`Condvar::wait_timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Returns true if the limit had passed.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

type Timed<'a, T> = (MutexGuard<'a, T>, WaitTimeoutResult);

impl Condvar {
    constructor! {
        /// Returns a condition variable without waiters.
        pub const fn new() -> Self {
            Self {
                queue: WaitQueue::of("a condition variable"),
            }
        }
    }

    /// Releases the lock, waits for a notification, and takes the lock back. It may return without a notification, so
    /// check the condition again, or use [`wait_while`](Self::wait_while).
    ///
    /// # Errors
    /// If the mutex is poisoned. The error holds the guard.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        match self.wait_until(guard, None) {
            Ok((guard, _)) => Ok(guard),
            Err(poisoned) => Err(PoisonError::new(poisoned.into_inner().0)),
        }
    }

    /// Waits as long as the condition holds.
    ///
    /// # Errors
    /// If the mutex is poisoned. The error holds the guard.
    pub fn wait_while<'a, T: ?Sized, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: F,
    ) -> LockResult<MutexGuard<'a, T>>
    where
        F: FnMut(&mut T) -> bool,
    {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Waits as [`wait`](Self::wait) does, at most for `limit`. [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// If the mutex is poisoned. The error holds the guard and the result.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use weald::sync::{Condvar, Mutex};
    /// let (lock, condition) = (Mutex::new(()), Condvar::new());
    /// let guard = lock.lock().unwrap();
    /// let (_guard, result) = condition.wait_timeout(guard, Duration::from_millis(1)).unwrap();
    /// assert!(result.timed_out());
    /// ```
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        self.wait_until(guard, io::deadline(limit))
    }

    /// Waits as [`wait_timeout`](Self::wait_timeout) does, for milliseconds. Returns true if it was notified.
    ///
    /// # Errors
    /// Those of [`wait_timeout`](Self::wait_timeout).
    #[deprecated(note = "replaced by `wait_timeout`, as in std")]
    pub fn wait_timeout_ms<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        ms: u32,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        match self.wait_timeout(guard, Duration::from_millis(ms.into())) {
            Ok((guard, result)) => Ok((guard, !result.timed_out())),
            Err(poisoned) => {
                let (guard, result) = poisoned.into_inner();
                Err(PoisonError::new((guard, !result.timed_out())))
            }
        }
    }

    /// Waits as long as the condition holds, at most for `limit`. [`Duration::MAX`] means for ever. The result tells
    /// if the limit had passed while the condition still held.
    ///
    /// # Errors
    /// If the mutex is poisoned. The error holds the guard and the result.
    pub fn wait_timeout_while<'a, T: ?Sized, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
        mut condition: F,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>
    where
        F: FnMut(&mut T) -> bool,
    {
        let deadline = io::deadline(limit);
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            if deadline.is_some_and(|deadline| clock::now() >= deadline) {
                return Ok((guard, WaitTimeoutResult(true)));
            }
            guard = self.wait_until(guard, deadline)?.0;
        }
    }

    fn wait_until<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> LockResult<Timed<'a, T>> {
        let lock = MutexGuard::lock_of(&guard);
        // From here on the thread does not have the lock if it unwinds.
        std::mem::forget(guard);
        let held = LetsGo(Some(lock));
        io::enter_unwinding();
        let mut held = Some(held);
        if fault!("condvar_lets_go_before_it_enters") {
            drop(held.take());
        }
        // The lock is released as soon as a notification can find this waiter.
        let let_go = || {
            drop(held.take());
            false
        };
        let on = On::object(Awaited::Condvar, self);
        let timed_out = match self.queue.wait_on(on, let_go, deadline, true) {
            Woken::TimedOut => true,
            Woken::Notified if fault!("condvar_raises_once_notified") => {
                io::enter_unwinding();
                false
            }
            Woken::Notified | Woken::Ready | Woken::Again => false,
            Woken::Interrupted(interrupt) => interrupt.unwind(),
        };
        let result = WaitTimeoutResult(timed_out);
        match lock.take_back() {
            Ok(guard) => Ok((guard, result)),
            Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), result))),
        }
    }

    /// Wakes one waiter, if any waits. Not a blocking call.
    pub fn notify_one(&self) {
        self.queue.wake_one();
    }

    /// Wakes all threads that wait now. Not a blocking call.
    pub fn notify_all(&self) {
        if fault!("condvar_notifies_one_for_all") {
            return self.notify_one();
        }
        self.queue.wake_all();
    }
}

/// Releases a lock when dropped, without poisoning it.
struct LetsGo<'a, T: ?Sized>(Option<&'a Mutex<T>>);

impl<T: ?Sized> Drop for LetsGo<'_, T> {
    fn drop(&mut self) {
        if let Some(lock) = self.0.take() {
            lock.let_go();
        }
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
