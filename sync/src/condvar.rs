//! Waiting until something that a mutex guards has changed.
//!
//! Invariant: a waiter lets its lock go only when a notification can find it in the queue; so who
//! changes the condition under the lock and then notifies is not missed.
//! Who was notified reports nothing else, and who was not has taken no notification (`WaitQueue`,
//! invariant 3).
//! Checked by `loom-tests/tests/condvar.rs`.

use std::fmt;
use std::sync::{LockResult, PoisonError};
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, WaitQueue, Woken};

use crate::mutex::{Mutex, MutexGuard};
use crate::shim::clock;

/// A condition variable; the interface of [`std::sync::Condvar`].
///
/// It may be used with several mutexes. A wait is a blocking call: an exception unwinds *without* the
/// lock and poisons nothing; once a notification has come, taking the lock back raises nothing.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use weald_sync::{Condvar, Mutex};
///
/// let pair = Arc::new((Mutex::new(false), Condvar::new()));
/// let theirs = Arc::clone(&pair);
/// weald_scheduler::spawn(move || {
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

/// Whether a wait with a limit ended by the limit.
///
/// # Examples
/// See [`Condvar::wait_timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// True if the limit had passed.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

type Timed<'a, T> = (MutexGuard<'a, T>, WaitTimeoutResult);

impl Condvar {
    constructor! {
        /// A condition that nobody waits for.
        pub const fn new() -> Self {
            Self {
                queue: WaitQueue::of("a condition variable"),
            }
        }
    }

    /// Lets the lock go, waits for a notification, takes the lock back. It may return without a
    /// notification: look at the condition again, or use [`wait_while`](Self::wait_while).
    ///
    /// # Errors
    /// The guard too, if a holder has unwound.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        match self.wait_until(guard, None) {
            Ok((guard, _)) => Ok(guard),
            Err(poisoned) => Err(PoisonError::new(poisoned.into_inner().0)),
        }
    }

    /// Waits as long as the condition holds.
    ///
    /// # Errors
    /// The guard too, if a holder has unwound.
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

    /// As [`wait`](Self::wait), at most that long; [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// The guard and the result too, if a holder has unwound.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use weald_sync::{Condvar, Mutex};
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

    /// As [`wait_timeout`](Self::wait_timeout), in milliseconds; true if it was notified.
    ///
    /// # Errors
    /// As [`wait_timeout`](Self::wait_timeout).
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

    /// Waits as long as the condition holds, at most that long; [`Duration::MAX`] means for ever. The
    /// result says that the limit had passed while the condition still held.
    ///
    /// # Errors
    /// The guard and the result too, if a holder has unwound.
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
        // From here on whoever unwinds does so without the lock.
        std::mem::forget(guard);
        let held = LetsGo(Some(lock));
        io::enter_unwinding();
        let mut held = Some(held);
        if fault!("condvar_lets_go_before_it_enters") {
            drop(held.take());
        }
        // The lock is let go once a notification can find this waiter.
        let let_go = || {
            drop(held.take());
            false
        };
        let timed_out = match self.queue.wait(let_go, deadline, true) {
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

    /// Wakes all who wait now. Not a blocking call.
    pub fn notify_all(&self) {
        if fault!("condvar_notifies_one_for_all") {
            return self.notify_one();
        }
        self.queue.wake_all();
    }
}

/// Lets a lock go when dropped, without poisoning.
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
