//! `connect` and `accept`: how connections begin. connect(2), accept(2).
//!
//! No argument makes `connect` not wait, so the hook sets `O_NONBLOCK` during the call.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;

use libc::{c_int, sockaddr, socklen_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::ask::{self, is_nonblocking, option};
use crate::hooks::on;
use crate::hooks::run::{AGAIN, cancelled, failed};
use crate::pauses::{Ended, Pauses};
use crate::raw::{self, error_of, sys};
use crate::slot::{Direction, Turn};
use crate::wait::Wait;

/// accept4(2).
///
/// One green thread at a time looks and then calls. Another thread or process may still take the connection between
/// the two. Then this call's OS thread waits, and the worker continues on another one.
///
/// # Safety
/// As accept4(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept4(
    fd: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: by contract.
    let call = || unsafe { sys!(SYS_accept4, fd, addr, addr_len, flags) };
    let flags_are_bad = flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0;
    if !on(Kind::Sockets) || flags_are_bad {
        return raw::int(call());
    }
    let mut wait = Wait::new(fd, Direction::Read);
    if wait.is_nonblocking() {
        return raw::int(call());
    }
    if let Some(error) = cancelled() {
        return raw::int(error);
    }
    let mut has_looked = false;
    loop {
        let looked = wait.attempt(|| isize::from(ask::events_now(fd, libc::POLLIN)));
        if looked < 0 {
            return raw::int(looked);
        }
        if looked != 0 {
            let Some(_turn) = Turn::take(fd) else {
                patch::give_way();
                continue;
            };
            if ask::is_ready(fd, libc::POLLIN) {
                // If another process is quicker, the call waits.
                let accepted = wait.unless_closed(call);
                patch::spend();
                return raw::int(accepted);
            }
        }
        if !std::mem::replace(&mut has_looked, true)
            && option(fd, libc::SO_ACCEPTCONN).is_none_or(|listens| listens == 0)
        {
            // The call is an error and does not wait.
            return raw::int(call());
        }
        // This was asked before. It is asked again if the known facts are in doubt.
        if wait.is_nonblocking() {
            return raw::int(call());
        }
        let deadline = wait.deadline();
        match wait.wait(deadline) {
            Ended::Woken | Ended::Plain => {}
            Ended::TimedOut => return raw::int(AGAIN),
            Ended::Failed(errno) => return raw::int(failed(errno)),
            Ended::Unpollable => return raw::int(patch::blocking_until_others_act(call)),
        }
    }
}

/// accept(2).
///
/// # Safety
/// As accept(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn accept(
    fd: c_int,
    addr: *mut sockaddr,
    addr_len: *mut socklen_t,
) -> c_int {
    // SAFETY: by contract.
    unsafe { accept4(fd, addr, addr_len, 0) }
}

/// Sets or clears `O_NONBLOCK`. A socket that is being connected belongs to its caller alone.
fn set_nonblocking(fd: RawFd, on: bool) {
    // SAFETY: no pointers.
    unsafe {
        let flags = sys!(SYS_fcntl, fd, libc::F_GETFL);
        if error_of(flags).is_none() {
            let bit = libc::O_NONBLOCK as isize;
            let flags = if on { flags | bit } else { flags & !bit };
            sys!(SYS_fcntl, fd, libc::F_SETFL, flags);
        }
    }
}

/// connect(2).
///
/// # Safety
/// As connect(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: by contract.
    let call = || unsafe { sys!(SYS_connect, fd, addr, len) };
    if !on(Kind::Sockets) || is_nonblocking(fd) {
        return raw::int(call());
    }
    if let Some(error) = cancelled() {
        return raw::int(error);
    }
    let start = || {
        set_nonblocking(fd, true);
        let started = call();
        set_nonblocking(fd, false);
        started
    };
    let mut wait = Wait::that_asks(fd, Direction::Write);
    let mut pauses = Pauses::default();
    loop {
        let started = start();
        match error_of(started) {
            // The limit may have ended an earlier call: connect(2), about SO_SNDTIMEO.
            Some(error @ (libc::EINPROGRESS | libc::EALREADY)) => {
                return raw::int(connected(&mut wait, error, call));
            }
            // The queue of a Unix listener is full, and no event tells when it has room.
            Some(libc::EAGAIN) => match pauses.wait(None, wait.deadline()) {
                Ended::TimedOut => return raw::int(started),
                Ended::Failed(errno) => return raw::int(failed(errno)),
                Ended::Woken | Ended::Plain | Ended::Unpollable => {}
            },
            _ => return raw::int(started),
        }
    }
}

/// Waits for a connection that is being made. `late` is the error when the limit passes. At the end `call` connects
/// once more. That returns the result at once, and makes the socket know that it is connected.
fn connected(wait: &mut Wait, late: c_int, call: impl FnOnce() -> isize) -> isize {
    let (fd, deadline) = (wait.fd(), wait.deadline());
    loop {
        let looked = wait.attempt(|| isize::from(ask::events_now(fd, libc::POLLOUT)));
        if looked < 0 {
            return looked;
        }
        if looked > 0 {
            break;
        }
        match wait.wait(deadline) {
            Ended::Woken | Ended::Plain => {}
            Ended::TimedOut => return failed(late),
            Ended::Failed(errno) => return failed(errno),
            Ended::Unpollable => break,
        }
    }
    call()
}
