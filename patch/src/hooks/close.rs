//! `close` and the calls that close a number by putting another file there. Calls that wait for the number get
//! `EBADF`. close(2), dup2(2), close_range(2), fclose(3).
//!
//! The system call is made as it is, for every caller. Two kinds of waiters are told: those of [`crate::wait`], and
//! those that wait for a lock that may have gone with the file. Telling them wakes them, which takes locks of the
//! scheduler. So a signal handler must not close a number that others wait for.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;

use libc::{FILE, c_int, c_uint};
use weald_scheduler::patch;

use crate::closing::Closing;
use crate::original::original;
use crate::raw::{self, sys};

original! {
    FCLOSE: unsafe extern "C" fn(*mut FILE) -> c_int = c"fclose";
}

/// Makes the call, which closes the numbers. In the child of a fork nobody waits.
fn closing(first: RawFd, last: RawFd, call: impl FnOnce() -> isize) -> c_int {
    if patch::is_forked() {
        return raw::int(call());
    }
    let closing = Closing::begin(first, last);
    let result = call();
    drop(closing);
    super::lock::unlocked();
    raw::int(result)
}

/// close(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn close(fd: c_int) -> c_int {
    // SAFETY: no pointers.
    closing(fd, fd, || unsafe { sys!(SYS_close, fd) })
}

/// dup2(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // Nothing is closed; the call is an error if `old` is not open.
        // SAFETY: no pointers.
        let flags = unsafe { sys!(SYS_fcntl, old, libc::F_GETFD) };
        return if raw::int(flags) < 0 { -1 } else { new };
    }
    dup3(old, new, 0)
}

/// dup3(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: no pointers.
    let call = || unsafe { sys!(SYS_dup3, old, new, flags) };
    // SAFETY: no pointers.
    let is_open = unsafe { sys!(SYS_fcntl, old, libc::F_GETFD) } >= 0;
    if old == new || flags & !libc::O_CLOEXEC != 0 || !is_open {
        // The call is an error and closes nothing.
        return raw::int(call());
    }
    closing(new, new, call)
}

/// close_range(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // SAFETY: no pointers.
    let call = || unsafe { sys!(SYS_close_range, first, last, flags) };
    // With flags the call only marks the numbers, or closes them in a table of the caller's own.
    if first > last || flags != 0 {
        return raw::int(call());
    }
    let number = |fd: c_uint| RawFd::try_from(fd).unwrap_or(RawFd::MAX);
    closing(number(first), number(last), call)
}

/// fclose(3), which closes a number without `close`.
///
/// # Safety
/// Those of fclose(3).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fclose(file: *mut FILE) -> c_int {
    // SAFETY: by contract it is an open stream, which need not have a descriptor.
    let fd = unsafe { libc::fileno(file) };
    let call = || {
        // SAFETY: by contract.
        let result = unsafe { FCLOSE.get()(file) };
        (result, raw::errno())
    };
    if fd < 0 || patch::is_forked() {
        return call().0;
    }
    let closing = Closing::begin(fd, fd);
    let (result, error) = call();
    drop(closing);
    super::lock::unlocked();
    raw::set_errno(error);
    result
}
