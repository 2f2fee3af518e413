//! A number of permits.
//!
//! | a permit is | counted in | leaves by                                                                |
//! |-------------|------------|--------------------------------------------------------------------------|
//! | free        | `free`     | whoever comes takes it                                                   |
//! | taken       | nowhere    | who has it adds it: to `free`, or to `handed` while somebody is starving |
//! | handed over | `handed`   | a waiter that was notified takes it, or who has handed it over takes it back |
//!
//! Whoever comes takes a free permit before those who wait, since a running thread that goes on is cheaper
//! than one that must be switched to. A waiter that was passed over for [`PATIENCE`] counts itself in
//! `starving` until it leaves; meanwhile permits are handed over in the order of the queue.
//!
//! Invariant 1: who adds a permit adds it and then wakes one waiter; a waiter enters the queue and then
//! looks at the number. So a permit that is free and a waiter that sleeps are never left together,
//! unless another was woken that will take it.
//! Invariant 2: who hands a permit over adds it to `handed` and then wakes one waiter; if nobody waits it
//! takes one back, if one is still there, and adds it to `free`. A permit is taken out of `handed` only by it and by
//! waiters that were notified, of which each looks there first; so of those there are as many as permits in
//! `handed` or more, and none stays there.
//!
//! Orderings: adding a permit releases, taking it acquires. `starving` is a hint: who adds a permit and does
//! not see it yet lets the waiter be passed over once more.
//! Checked by `loom-tests/tests/semaphore.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, WaitQueue, Woken};

use crate::raw_mutex::PATIENCE;
use crate::shim::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::shim::clock;

/// A number of permits that threads, green or not, take and give back.
///
/// Whoever comes may take a free permit before those who wait, until one of these was passed over for half a
/// millisecond: then permits are handed over in the order of the queue until it has had its turn.
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
    /// Permits on their way to waiters that were notified.
    handed: AtomicUsize,
    /// How many waiters were passed over for long.
    starving: AtomicUsize,
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

/// A waiter that was passed over for long; until it leaves.
struct Starving<'a>(&'a AtomicUsize);

impl<'a> Starving<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a wait for a permit ended without one.
enum NoPermit {
    Closed,
    TimedOut,
}

impl Semaphore {
    constructor! {
        /// So many permits.
        pub const fn new(permits: usize) -> Self {
            Self {
                free: AtomicUsize::new(permits),
                closed: AtomicBool::new(false),
                handed: AtomicUsize::new(0),
                starving: AtomicUsize::new(0),
                queue: WaitQueue::of("a semaphore"),
            }
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
        if self.is_closed() {
            return Err(NoPermit::Closed);
        }
        if self.try_take() {
            return Ok(());
        }
        self.wait(deadline)
    }

    /// There was no free permit.
    fn wait(&self, deadline: Option<Instant>) -> Result<(), NoPermit> {
        let mut since: Option<Instant> = None;
        let mut starving = None;
        loop {
            let may_be_free = || {
                !fault!("semaphore_waits_without_a_second_look")
                    && (self.free.load(Ordering::Relaxed) > 0 || self.is_closed())
            };
            match self.queue.wait(may_be_free, deadline, true) {
                Woken::Notified if self.take_handed() => return Ok(()),
                Woken::Notified | Woken::Ready | Woken::Again => {}
                Woken::TimedOut => return Err(NoPermit::TimedOut),
                Woken::Interrupted(interrupt) => {
                    drop(starving);
                    interrupt.unwind()
                }
            }
            if self.is_closed() {
                return Err(NoPermit::Closed);
            }
            if self.try_take() {
                return Ok(());
            }
            // It was passed over.
            if starving.is_none() {
                let now = clock::now();
                if now.duration_since(*since.get_or_insert(now)) > PATIENCE {
                    starving = Some(Starving::begin(&self.starving));
                }
            }
        }
    }

    /// Takes a permit that was handed over; for a waiter that was notified, and for who handed it over.
    fn take_handed(&self) -> bool {
        let take = |handed: usize| handed.checked_sub(1);
        self.handed
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, take)
            .is_ok()
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
        let hands_over =
            self.starving.load(Ordering::Relaxed) != 0 && !fault!("semaphore_never_hands_over");
        let left = if hands_over {
            self.hand_over(permits)
        } else {
            permits
        };
        if left > 0 {
            self.add_free(left);
        }
    }

    /// Hands permits over to those who wait, the longest first. Returns how many are left.
    #[cold]
    fn hand_over(&self, permits: usize) -> usize {
        let mut left = permits;
        while left > 0 && !self.is_closed() {
            self.handed.fetch_add(1, Ordering::Release);
            let woke = self.queue.wake_one();
            if !woke && !fault!("semaphore_leaves_a_permit_handed") && self.take_handed() {
                break;
            }
            left -= 1;
        }
        left
    }

    #[inline]
    fn add_free(&self, permits: usize) {
        let before = self.free.fetch_add(permits, Ordering::Release);
        assert!(
            before.checked_add(permits).is_some(),
            "more permits than a usize counts"
        );
        for _ in 0..permits {
            if !self.queue.wake_one() || fault!("semaphore_wakes_one_for_many") {
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
        unless!("semaphore_closes_quietly", self.queue.wake_all());
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
