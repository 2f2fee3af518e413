//! A number of permits.
//!
//! | a permit is | counted in | leaves by                                                                |
//! |-------------|------------|--------------------------------------------------------------------------|
//! | free        | `free`     | a thread that comes takes it                                             |
//! | taken       | nowhere    | its owner adds it: to `free`, or to `handed` while a waiter is starving  |
//! | handed over | `handed`   | a waiter that was notified takes it, or the thread that handed it over takes it back |
//!
//! A thread that comes may take a free permit before those that wait, because continuing a running thread is cheaper
//! than switching to another one. A waiter that was passed over for [`PATIENCE`] counts itself in `starving` until it
//! leaves. Meanwhile permits are handed over in the order of the queue.
//!
//! Invariant 1: a thread that adds a permit first adds it and then wakes one waiter; a waiter first enters the queue
//! and then looks at the number. So there is never a free permit together with a sleeping waiter, unless another
//! waiter was woken that will take the permit.
//! Invariant 2: a thread that hands a permit over first adds it to `handed` and then wakes one waiter. If nobody
//! waits, it takes a permit back, if there is still one, and adds it to `free`. Only that thread and waiters that
//! were notified take permits out of `handed`, and each such waiter looks there first. So there are at least as many
//! of them as permits in `handed`, and no permit stays there.
//! Orderings: adding a permit releases, taking it acquires. `starving` is a hint: if a thread adds a permit and does
//! not see it yet, the waiter is passed over once more.
//! Checked by `loom-tests/tests/semaphore.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Awaited, On, WaitQueue, Woken};

use crate::raw_mutex::PATIENCE;
use crate::shim::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::shim::clock;

/// A number of permits that threads, green or not, take and give back.
///
/// A thread that comes may take a free permit before those that wait. If a waiter was passed over for half a
/// millisecond, permits are handed over in the order of the queue until it has had its turn.
///
/// # Examples
/// ```
/// static PLACES: weald::sync::Semaphore = weald::sync::Semaphore::new(2);
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

/// The right to one permit. Dropping it gives the permit back.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once is given back at once"]
pub struct Permit<'a>(&'a Semaphore);

/// A [`Permit`] of a semaphore in an `Arc`.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once is given back at once"]
pub struct OwnedPermit(Arc<Semaphore>);

/// Counts a waiter that was passed over for long, until it leaves.
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

/// Why a wait for a permit ended without one.
enum NoPermit {
    Closed,
    TimedOut,
}

impl Semaphore {
    constructor! {
        /// Returns a semaphore with `permits` permits.
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
        // A thread whose turn is over gives way here, before it has the permit.
        io::enter_and_spend();
        if self.is_closed() {
            return Err(NoPermit::Closed);
        }
        if self.try_take() {
            return Ok(());
        }
        self.wait(deadline)
    }

    /// Waits for a permit, after none was free.
    fn wait(&self, deadline: Option<Instant>) -> Result<(), NoPermit> {
        let mut since: Option<Instant> = None;
        let mut starving = None;
        loop {
            let may_be_free = || {
                !fault!("semaphore_waits_without_a_second_look")
                    && (self.free.load(Ordering::Relaxed) > 0 || self.is_closed())
            };
            let on = On::object(Awaited::Semaphore, self);
            match self.queue.wait_on(on, may_be_free, deadline, true) {
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
            // The waiter was passed over.
            if starving.is_none() {
                let now = clock::now();
                if now.duration_since(*since.get_or_insert(now)) > PATIENCE {
                    starving = Some(Starving::begin(&self.starving));
                }
            }
        }
    }

    /// Takes a permit that was handed over. For a waiter that was notified, and for the thread that handed it over.
    fn take_handed(&self) -> bool {
        let take = |handed: usize| handed.checked_sub(1);
        self.handed
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Takes a permit. A blocking call; an exception unwinds, and no permit is lost.
    ///
    /// # Panics
    /// If the semaphore is closed, or becomes closed during the wait.
    #[track_caller]
    pub fn acquire(&self) -> Permit<'_> {
        assert!(self.take(None).is_ok(), "the semaphore is closed");
        Permit(self)
    }

    /// Takes a permit if one is free. Not a blocking call. `None` also if the semaphore is closed.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_take().then(|| Permit(self))
    }

    /// Takes a permit, and waits for it at most for `limit`. A blocking call. [`Duration::MAX`] means for ever.
    /// Returns `None` also if the semaphore is closed.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// let none = weald::sync::Semaphore::new(0);
    /// assert!(none.acquire_timeout(Duration::from_millis(1)).is_none());
    /// ```
    pub fn acquire_timeout(&self, limit: Duration) -> Option<Permit<'_>> {
        self.take(io::deadline(limit)).is_ok().then(|| Permit(self))
    }

    /// Takes a permit as [`acquire`](Self::acquire) does. The permit is not bound to a borrow of the semaphore.
    ///
    /// # Panics
    /// Those of [`acquire`](Self::acquire).
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// let places = Arc::new(weald::sync::Semaphore::new(1));
    /// let permit = places.clone().acquire_owned();
    /// weald::spawn(move || drop(permit)).join().unwrap();
    /// assert_eq!(places.available_permits(), 1);
    /// ```
    #[track_caller]
    pub fn acquire_owned(self: Arc<Self>) -> OwnedPermit {
        assert!(self.take(None).is_ok(), "the semaphore is closed");
        OwnedPermit(self)
    }

    /// Takes a permit as [`try_acquire`](Self::try_acquire) does. The permit is not bound to a borrow of the
    /// semaphore.
    pub fn try_acquire_owned(self: Arc<Self>) -> Option<OwnedPermit> {
        self.try_take().then(|| OwnedPermit(self))
    }

    /// Adds permits.
    ///
    /// # Panics
    /// If there would be more permits than a `usize` can count.
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

    /// Hands permits over to waiters, those that have waited longest first. Returns how many permits are left.
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

    /// Returns how many permits are free now.
    pub fn available_permits(&self) -> usize {
        self.free.load(Ordering::Acquire)
    }

    /// Closes the semaphore: it gives out no more permits. All threads that wait, and all that come later, get none.
    /// Permits that are out stay valid.
    ///
    /// # Examples
    /// ```
    /// let places = weald::sync::Semaphore::new(1);
    /// places.close();
    /// assert!(places.try_acquire().is_none());
    /// ```
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        unless!("semaphore_closes_quietly", self.queue.wake_all());
    }

    /// Tells if the semaphore was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Permit<'_> {
    /// Drops the right without giving the permit back.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl OwnedPermit {
    /// Drops the right without giving the permit back.
    pub fn forget(self) {
        let mut this = std::mem::ManuallyDrop::new(self);
        // The reference of the `Arc` is still dropped.
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
