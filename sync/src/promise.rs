//! A value or an error that threads wait for: eventlet's `Event`.
//!
//! Invariant: `settled` tells, outside of the lock, if the outcome is there; both change under the lock. A waiter
//! looks at `settled` after it has entered the queue, because it must not wait for a lock there.
//! Checked by `loom-tests/tests/promise.rs`.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Awaited, On, WaitQueue, Woken};

use crate::mutex::Mutex;
use crate::shim::atomic::{AtomicBool, Ordering};

/// The error that a [`Promise`] was failed with. All waiters get it.
///
/// # Examples
/// See [`Promise::fail`].
#[derive(Clone, Debug)]
pub struct PromiseError(Arc<dyn Error + Send + Sync>);

impl PromiseError {
    /// Returns the error, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref::<E>()
    }
}

impl fmt::Display for PromiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for PromiseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// One value or one error that any number of threads, green or not, wait for.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use weald::sync::Promise;
///
/// let answer = Arc::new(Promise::new());
/// let asked = answer.clone();
/// let waiter = weald::spawn(move || asked.wait());
/// answer.set(42).unwrap();
/// assert_eq!(waiter.join().unwrap().unwrap(), 42);
/// assert_eq!(answer.set(43), Err(43));
/// ```
pub struct Promise<T> {
    outcome: Mutex<Option<Result<T, PromiseError>>>,
    settled: AtomicBool,
    queue: WaitQueue,
}

impl<T> Promise<T> {
    constructor! {
        /// Returns a promise that is neither kept nor failed.
        pub const fn new() -> Self {
            Self {
                outcome: Mutex::new(None),
                settled: AtomicBool::new(false),
                queue: WaitQueue::of("a promise"),
            }
        }
    }

    #[allow(clippy::result_large_err, reason = "it is what was given")]
    fn settle(&self, outcome: Result<T, PromiseError>) -> Result<(), Result<T, PromiseError>> {
        {
            let mut place = self.outcome.lock_quietly();
            if place.is_some() && !fault!("promise_is_kept_again") {
                return Err(outcome);
            }
            *place = Some(outcome);
            self.settled.store(true, Ordering::Release);
        }
        if fault!("promise_wakes_one") {
            self.queue.wake_one();
            return Ok(());
        }
        self.queue.wake_all();
        Ok(())
    }

    /// Keeps the promise: all waiters get the value.
    ///
    /// # Errors
    /// If the promise was kept or failed before. The error is the value.
    pub fn set(&self, value: T) -> Result<(), T> {
        match self.settle(Ok(value)) {
            Ok(()) | Err(Err(_)) => Ok(()),
            Err(Ok(value)) => Err(value),
        }
    }

    /// Fails the promise: all waiters get the error. Returns false if it was kept or failed before.
    ///
    /// # Examples
    /// ```
    /// let answer = weald::sync::Promise::<u32>::new();
    /// assert!(answer.fail("nobody knows"));
    /// assert_eq!(answer.wait().unwrap_err().to_string(), "nobody knows");
    /// ```
    pub fn fail(&self, error: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
        self.settle(Err(PromiseError(error.into().into()))).is_ok()
    }

    /// Tells if the promise was kept or failed.
    pub fn is_ready(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Forgets the value or the error. Threads that wait from now on wait for the next one.
    pub fn reset(&self) {
        let mut outcome = self.outcome.lock_quietly();
        let old = outcome.take();
        self.settled.store(false, Ordering::Release);
        drop(outcome);
        // The value's destructor is the user's code, so it runs outside of the lock.
        drop(old);
    }

    /// Waits until the promise is kept or failed. A blocking call; an exception unwinds.
    ///
    /// # Errors
    /// The error that the promise was failed with.
    pub fn wait(&self) -> Result<T, PromiseError>
    where
        T: Clone,
    {
        self.wait_until(None)
            .unwrap_or_else(|| unreachable!("a wait without a limit ends by the outcome"))
    }

    /// Waits as [`wait`](Self::wait) does, at most for `limit`. [`Duration::MAX`] means for ever. Returns `None` if
    /// the promise was neither kept nor failed in time.
    pub fn wait_timeout(&self, limit: Duration) -> Option<Result<T, PromiseError>>
    where
        T: Clone,
    {
        self.wait_until(io::deadline(limit))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<Result<T, PromiseError>>
    where
        T: Clone,
    {
        io::enter_unwinding();
        loop {
            let outcome = self.outcome.lock_quietly().clone();
            if outcome.is_some() {
                io::spend();
                return outcome;
            }
            let is_ready = || {
                if fault!("promise_waits_in_its_second_look") {
                    return self.outcome.lock_quietly().is_some();
                }
                self.is_ready()
            };
            let on = On::object(Awaited::Promise, self);
            match self.queue.wait_on(on, is_ready, deadline, true) {
                Woken::Notified | Woken::Ready | Woken::Again => {}
                Woken::TimedOut => return self.outcome.lock_quietly().clone(),
                Woken::Interrupted(interrupt) => interrupt.unwind(),
            }
        }
    }
}

impl<T> Default for Promise<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise")
            .field("ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}
