//! A number of permits.
//!
//! Invariant: who adds a permit adds it and then wakes one waiter; a waiter enters the queue and then
//! looks at the number. So a permit that is free and a waiter that sleeps are never left together,
//! unless another was woken that will take it.
//! Checked by `loom-tests/tests/semaphore.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, WaitQueue, Woken};

use crate::shim::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A number of permits that threads, green or not, take and give back.
///
/// Whoever comes may take a free permit before those who wait.
///
/// # Examples
/// ```
/// static PLACES: weald_sync::Semaphore = weald_sync::Semaphore::new(2);
/// let (one, two) = (PLACES.acquire(), PLACES.acquire());
/// assert!(PLACES.try_acquire().is_none());
/// drop(one);
/// assert_eq!(PLACES.available_permits(), 1);
/// two.forget(); // never given back
/// assert_eq!(PLACES.available_permits(), 1);
/// ```
pub struct Semaphore {
    free: AtomicUsize,
    closed: AtomicBool,
    queue: WaitQueue,
}

/// The right to one permit; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once is given back at once"]
pub struct Permit<'a>(&'a Semaphore);

/// As [`Permit`], of a semaphore in an `Arc`.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once is given back at once"]
pub struct OwnedPermit(Arc<Semaphore>);

/// How a wait for a permit ended without one.
enum NoPermit {
    Closed,
    TimedOut,
}

impl Semaphore {
    /// So many permits.
    #[cfg(not(loom))]
    pub const fn new(permits: usize) -> Self {
        Self {
            free: AtomicUsize::new(permits),
            closed: AtomicBool::new(false),
            queue: WaitQueue::of("a semaphore"),
        }
    }

    /// loom's atomics are not made by constant functions.
    #[cfg(loom)]
    #[allow(
        missing_docs,
        reason = "a model has constructors that are no `const fn`"
    )]
    pub fn new(permits: usize) -> Self {
        Self {
            free: AtomicUsize::new(permits),
            closed: AtomicBool::new(false),
            queue: WaitQueue::of("a semaphore"),
        }
    }

    fn try_take(&self) -> bool {
        let mut free = self.free.load(Ordering::Relaxed);
        while free > 0 && !self.is_closed() {
            match self.free.compare_exchange_weak(
                free,
                free - 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => free = now,
            }
        }
        false
    }

    fn take(&self, deadline: Option<Instant>) -> Result<(), NoPermit> {
        // Before: a thread whose turn is over gives way without the permit.
        io::enter_and_spend();
        loop {
            if self.is_closed() {
                return Err(NoPermit::Closed);
            }
            if self.try_take() {
                return Ok(());
            }
            let may_be_free = || {
                !cfg!(weald_fault = "semaphore_waits_without_a_second_look")
                    && (self.free.load(Ordering::Relaxed) > 0 || self.is_closed())
            };
            match self.queue.wait(may_be_free, deadline, true) {
                Woken::Notified | Woken::Ready | Woken::Again => {}
                Woken::TimedOut => return Err(NoPermit::TimedOut),
                Woken::Interrupted(interrupt) => interrupt.unwind(),
            }
        }
    }

    /// Takes a permit; a blocking call. An exception unwinds, and no permit is lost.
    ///
    /// # Panics
    /// If the semaphore is closed, or is while it waits.
    #[track_caller]
    pub fn acquire(&self) -> Permit<'_> {
        assert!(self.take(None).is_ok(), "the semaphore is closed");
        Permit(self)
    }

    /// Takes a permit if one is free. Not a blocking call. `None` also if the semaphore is closed.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_take().then(|| Permit(self))
    }

    /// Takes a permit, and waits for it at most that long; a blocking call. [`Duration::MAX`] means
    /// for ever. `None` also if the semaphore is closed.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let none = weald_sync::Semaphore::new(0);
    /// assert!(none.acquire_timeout(Duration::from_millis(1)).is_none());
    /// ```
    pub fn acquire_timeout(&self, limit: Duration) -> Option<Permit<'_>> {
        self.take(io::deadline(limit)).is_ok().then(|| Permit(self))
    }

    /// As [`acquire`](Self::acquire), for as long as one likes.
    ///
    /// # Panics
    /// As [`acquire`](Self::acquire).
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// let places = Arc::new(weald_sync::Semaphore::new(1));
    /// let permit = places.clone().acquire_owned();
    /// weald_scheduler::spawn(move || drop(permit)).join().unwrap();
    /// assert_eq!(places.available_permits(), 1);
    /// ```
    #[track_caller]
    pub fn acquire_owned(self: Arc<Self>) -> OwnedPermit {
        assert!(self.take(None).is_ok(), "the semaphore is closed");
        OwnedPermit(self)
    }

    /// As [`try_acquire`](Self::try_acquire), for as long as one likes.
    pub fn try_acquire_owned(self: Arc<Self>) -> Option<OwnedPermit> {
        self.try_take().then(|| OwnedPermit(self))
    }

    /// Adds permits.
    ///
    /// # Panics
    /// If there were more than a `usize` counts.
    pub fn add_permits(&self, permits: usize) {
        let before = self.free.fetch_add(permits, Ordering::Release);
        assert!(
            before.checked_add(permits).is_some(),
            "more permits than a usize counts"
        );
        for _ in 0..permits {
            if !self.queue.wake_one() || cfg!(weald_fault = "semaphore_wakes_one_for_many") {
                break;
            }
        }
    }

    /// The permits that are free now.
    pub fn available_permits(&self) -> usize {
        self.free.load(Ordering::Acquire)
    }

    /// Gives out no more permits: all who wait, and all who come, get none. Permits that are out
    /// stay.
    ///
    /// # Examples
    /// ```
    /// let places = weald_sync::Semaphore::new(1);
    /// places.close();
    /// assert!(places.try_acquire().is_none());
    /// ```
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if !cfg!(weald_fault = "semaphore_closes_quietly") {
            self.queue.wake_all();
        }
    }

    /// True once it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Permit<'_> {
    /// Never gives it back.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl OwnedPermit {
    /// Never gives it back.
    pub fn forget(self) {
        let mut this = std::mem::ManuallyDrop::new(self);
        // The count of the `Arc` is let go all the same.
        #[allow(unsafe_code, reason = "takes a field out of what is not dropped")]
        // SAFETY: `this` is neither used nor dropped after this.
        drop(unsafe { std::ptr::read(&raw mut this.0) });
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("available_permits", &self.available_permits())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
