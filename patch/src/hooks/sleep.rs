//! `nanosleep` and similar calls. nanosleep(2), clock_nanosleep(2), usleep(3), sleep(3).
//!
//! They must not fail for a reason of weald's: std takes any error except `EINTR` for a bug, and sleeps again after
//! `EINTR`. So a sleep that an exception ends returns as if the time were over, and the exception is raised at the
//! next call of weald.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::time::{Duration, Instant};

use libc::{c_int, c_uint, clockid_t, timespec, useconds_t};
use weald_scheduler::patch::{self, Waited};

use crate::Kind;
use crate::hooks::limit::{duration_of, timespec_of};
use crate::hooks::on;
use crate::raw::{self, error_of, sys};

/// Sleeps. Returns the time that an exception has left.
fn sleep_for(duration: Duration) -> Duration {
    let deadline = Instant::now().checked_add(duration);
    match patch::sleep_until(deadline) {
        Waited::Pending(_) => deadline.map_or(duration, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        }),
        Waited::Woken | Waited::TimedOut => Duration::ZERO,
    }
}

/// nanosleep(2).
///
/// # Safety
/// As nanosleep(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nanosleep(wish: *const timespec, rest: *mut timespec) -> c_int {
    // SAFETY: by contract it is valid. Null is an error of the caller's, and the kernel tells it.
    let duration = unsafe { wish.as_ref() }.copied().and_then(duration_of);
    match duration {
        Some(duration) if on(Kind::Sleep) => {
            sleep_for(duration);
            0
        }
        // SAFETY: by contract.
        _ => raw::int(unsafe { sys!(SYS_nanosleep, wish, rest) }),
    }
}

/// clock_nanosleep(2). It returns the error and does not set `errno`.
///
/// # Safety
/// As clock_nanosleep(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    wish: *const timespec,
    rest: *mut timespec,
) -> c_int {
    if clock == libc::CLOCK_THREAD_CPUTIME_ID {
        // The kernel has another error for this. libc does not ask the kernel.
        return libc::EINVAL;
    }
    // SAFETY: as in `nanosleep`.
    let duration = unsafe { wish.as_ref() }.copied().and_then(duration_of);
    let plain = || {
        // SAFETY: by contract.
        error_of(unsafe { sys!(SYS_clock_nanosleep, clock, flags, wish, rest) }).unwrap_or(0)
    };
    if !on(Kind::Sleep) {
        return plain();
    }
    match (duration, clock) {
        (Some(wish), libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME) => {
            sleep_by(clock, flags & libc::TIMER_ABSTIME != 0, wish);
            0
        }
        // Only the kernel can watch this clock.
        (Some(_), _) => patch::blocking_until_others_act(plain),
        (None, _) => plain(),
    }
}

/// A sleep until a moment of the real-time clock looks at that clock so often, because it may be set meanwhile.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);

/// Sleeps for so long, or until the clock has come to that moment.
fn sleep_by(clock: clockid_t, is_absolute: bool, wish: Duration) {
    if !is_absolute {
        sleep_for(wish);
        return;
    }
    let longest = if clock == libc::CLOCK_REALTIME {
        LOOK_AT_CLOCK
    } else {
        Duration::MAX
    };
    loop {
        let left = left_on(clock, wish);
        // A sleep that an exception has ended leaves some time.
        if left.is_zero() || !sleep_for(left.min(longest)).is_zero() {
            return;
        }
    }
}

/// Returns how long it is until that moment of the clock.
fn left_on(clock: clockid_t, wish: Duration) -> Duration {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a pointer to a local. It does not fail for the clocks that come here.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    wish.saturating_sub(duration_of(now).unwrap_or_default())
}

/// usleep(3).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn usleep(micros: useconds_t) -> c_int {
    let wish = timespec_of(Duration::from_micros(micros.into()));
    // SAFETY: a pointer to a local.
    unsafe { nanosleep(&raw const wish, std::ptr::null_mut()) }
}

/// sleep(3). It returns the seconds that are left.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn sleep(secs: c_uint) -> c_uint {
    let wish = Duration::from_secs(secs.into());
    let left = if on(Kind::Sleep) {
        sleep_for(wish)
    } else {
        let wish = timespec_of(wish);
        let mut rest = timespec_of(Duration::ZERO);
        // SAFETY: pointers to locals.
        let result = unsafe { sys!(SYS_nanosleep, &raw const wish, &raw mut rest) };
        match error_of(result) {
            Some(_) => duration_of(rest).unwrap_or_default(),
            None => Duration::ZERO,
        }
    };
    let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    c_uint::try_from(whole).unwrap_or(c_uint::MAX)
}
