//! `sleep`, `park`, `yield_now`, `checkpoint`: the waits of a thread that concern no other object.
#![allow(unsafe_code, reason = "the running thread's own header")]

use std::time::{Duration, Instant};

use crate::engine::carrier;
use crate::engine::share_forks;
use crate::shim::clock;
use crate::wait::waiter;

/// The end of a duration that begins now. `None`: never ([`Duration::MAX`], or beyond the clock).
pub(crate) fn deadline(duration: Duration) -> Option<Instant> {
    if duration == Duration::MAX {
        None
    } else {
        clock::now().checked_add(duration)
    }
}

/// Sleeps at least that long. [`Duration::MAX`] means for ever; with zero the thread only gives way.
///
/// Blocks the green thread, not the worker. The sleep never ends early. It is late by some tens of microseconds if the
/// worker is not busy.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// let start = Instant::now();
/// weald::sleep(Duration::from_millis(2));
/// assert!(start.elapsed() >= Duration::from_millis(2));
/// ```
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        yield_now();
    } else {
        waiter::sleep_until(deadline(duration));
    }
}

/// Sleeps until the clock shows `deadline`. If the deadline has passed, the thread only gives way.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// let deadline = Instant::now() + Duration::from_millis(1);
/// weald::sleep_until(deadline);
/// assert!(Instant::now() >= deadline);
/// ```
pub fn sleep_until(deadline: Instant) {
    if clock::now() >= deadline {
        yield_now();
    } else {
        waiter::sleep_until(Some(deadline));
    }
}

/// Waits until somebody calls [`unpark`](crate::GreenThread::unpark) on this thread. If somebody has called it
/// since the last `park`, returns at once.
///
/// Never wakes spuriously: only `unpark` or an exception ends it.
///
/// # Examples
/// ```
/// use weald::{current, park, spawn};
/// let me = current();
/// spawn(move || me.unpark());
/// park();
/// ```
#[inline]
pub fn park() {
    waiter::park_until(None);
}

/// As [`park`], and waits at most that long; [`Duration::MAX`] means for ever.
///
/// # Examples
/// ```
/// weald::park_timeout(std::time::Duration::from_millis(1));
/// ```
pub fn park_timeout(limit: Duration) {
    waiter::park_until(deadline(limit));
}

/// Lets the other green threads that are ready run first. On a plain OS thread it does what std's `yield_now` does.
///
/// # Examples
/// ```
/// weald::yield_now();
/// ```
pub fn yield_now() {
    // SAFETY: the running thread's header is alive.
    let header = unsafe { &*waiter::enter() };
    if header.forks.is_used() {
        share_forks::share_all(header);
    }
    carrier::give_way_from(header);
    waiter::enter();
}

/// Raises a pending exception, and gives way if the thread's turn is over. For loops that
/// compute. Costs some nanoseconds.
///
/// # Examples
/// ```
/// let mut sum = 0_u64;
/// for n in 0..1000_u64 {
///     sum += n;
///     weald::checkpoint();
/// }
/// assert_eq!(sum, 499_500);
/// ```
#[inline]
pub fn checkpoint() {
    waiter::enter();
    waiter::spend();
}
