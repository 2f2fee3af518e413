//! `epoll_wait` on an epoll instance of the program's. epoll_wait(2).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, epoll_event, sigset_t, timespec};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::limit::{deadline_of, duration_of, milliseconds};
use crate::hooks::on;
use crate::hooks::run::failed;
use crate::pauses::{Ended, Pauses, errno_of};
use crate::raw::{self, sys};
use crate::slot::Direction;
use crate::wait::Wait;

/// Makes `epoll_wait` for a patched caller. `call` waits for at most the given time.
fn green_epoll(
    epoll: c_int,
    deadline: Option<Instant>,
    call: impl Fn(Option<Duration>) -> isize,
) -> isize {
    if let Some(pending) = patch::pending() {
        return failed(errno_of(pending));
    }
    let mut wait = Wait::new(epoll, Direction::Read);
    // The instance cannot be waited for if epoll instances are nested as deep as the kernel allows. Then there are
    // pauses.
    let mut pauses: Option<Pauses> = None;
    loop {
        let ready = wait.attempt(|| call(Some(Duration::ZERO)));
        if ready != 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            patch::spend();
            return ready;
        }
        let ended = match &mut pauses {
            Some(pauses) => pauses.wait(None, deadline),
            None => wait.wait(deadline),
        };
        match ended {
            Ended::Woken | Ended::TimedOut | Ended::Plain => {}
            Ended::Failed(errno) => return failed(errno),
            Ended::Unpollable => pauses = Some(Pauses::default()),
        }
    }
}

/// Makes epoll_pwait(2) with a limit as a duration.
///
/// # Safety
/// As epoll_wait(2).
unsafe fn plain_epoll(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    limit: Option<Duration>,
) -> isize {
    // It is rounded up, as a limit of 0 would not wait.
    let limit = limit.map_or(-1, |left| {
        c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
    });
    let none = ptr::null::<sigset_t>();
    // SAFETY: by contract.
    unsafe { sys!(SYS_epoll_pwait, epoll, events, max, limit, none, 8) }
}

/// epoll_wait(2).
///
/// # Safety
/// As epoll_wait(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    let limit = milliseconds(timeout);
    // SAFETY: by contract.
    let call = |limit| unsafe { plain_epoll(epoll, events, max, limit) };
    if !on(Kind::Select) || timeout == 0 {
        return raw::int(call(limit));
    }
    raw::int(green_epoll(epoll, deadline_of(limit), call))
}

/// epoll_pwait(2). With a signal mask it goes to the kernel as it is.
///
/// # Safety
/// As epoll_pwait(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    if mask.is_null() {
        // SAFETY: by contract.
        return unsafe { epoll_wait(epoll, events, max, timeout) };
    }
    // SAFETY: by contract.
    let call = || unsafe { sys!(SYS_epoll_pwait, epoll, events, max, timeout, mask, 8) };
    if on(Kind::Select) {
        raw::int(patch::blocking_until_others_act(call))
    } else {
        raw::int(call())
    }
}

/// epoll_pwait2(2): its limit is a `timespec`. With a signal mask it goes to the kernel as it is.
///
/// # Safety
/// As epoll_pwait2(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: by contract.
    let plain = || unsafe { sys!(SYS_epoll_pwait2, epoll, events, max, timeout, mask, 8) };
    // SAFETY: by contract it is null or valid.
    let limit = unsafe { timeout.as_ref() }.map(|limit| duration_of(*limit));
    if !on(Kind::Select) || limit == Some(None) || limit == Some(Some(Duration::ZERO)) {
        return raw::int(plain());
    }
    if !mask.is_null() {
        return raw::int(patch::blocking_until_others_act(plain));
    }
    // SAFETY: by contract.
    let call = |limit| unsafe { plain_epoll(epoll, events, max, limit) };
    raw::int(green_epoll(epoll, deadline_of(limit.flatten()), call))
}
