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

/// Sleeps at least that long; [`Duration::MAX`] means for ever, zero gives way.
///
/// Blocks the green thread, not the worker. Never early; late by some tens of microseconds if the
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

/// Sleeps until the clock shows `deadline`; gives way if it does already.
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

/// Waits until somebody calls [`unpark`](crate::GreenThread::unpark) on this thread. If that was
/// done since the last `park`, returns at once.
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

/// As [`park`], at most that long; [`Duration::MAX`] means for ever.
///
/// # Examples
/// ```
/// weald::park_timeout(std::time::Duration::from_millis(1));
/// ```
pub fn park_timeout(limit: Duration) {
    waiter::park_until(deadline(limit));
}

/// Lets the other green threads that are ready run first. On a plain OS thread, as std's.
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

/// Gives way only if the thread's turn is over, and raises what waits to be raised: for loops that
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
