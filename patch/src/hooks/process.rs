//! Waiting for child processes. waitpid(2), waitid(2), wait(2), wait3(2).
//!
//! A call for one child waits for the child's pidfd (pidfd_open(2)), which is readable when the child has ended. No
//! event tells of any child, of a group, or of a child that stops: these calls are tried again after pauses.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::ptr;

use libc::{c_int, id_t, idtype_t, pid_t, rusage, siginfo_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::on;
use crate::hooks::run::failed;
use crate::pauses::{Ended, Pauses, errno_of};
use crate::raw::{self, error_of, sys};
use crate::slot::{Direction, close_own};
use crate::wait::Wait;

/// A descriptor that is readable when the process has ended.
struct Pidfd(RawFd);

impl Pidfd {
    fn open(pid: pid_t) -> Option<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { sys!(SYS_pidfd_open, pid, 0) };
        if error_of(fd).is_some() {
            return None;
        }
        RawFd::try_from(fd).ok().map(Self)
    }
}

impl Drop for Pidfd {
    fn drop(&mut self) {
        close_own(self.0);
    }
}

/// Waits for a child. `attempt` does not wait and returns 0 while the child runs; `plain` waits.
fn for_child(pid: pid_t, attempt: impl Fn() -> isize, plain: impl FnOnce() -> isize) -> isize {
    let first = attempt();
    if first != 0 {
        patch::spend();
        return first;
    }
    if let Some(pending) = patch::pending() {
        return failed(errno_of(pending));
    }
    let Some(pidfd) = Pidfd::open(pid) else {
        return patch::blocking_until_others_act(plain);
    };
    by_descriptor(pidfd.0, attempt, plain)
}

/// Waits as `for_child` does, with a pidfd.
fn by_descriptor(fd: RawFd, attempt: impl Fn() -> isize, plain: impl FnOnce() -> isize) -> isize {
    let mut wait = Wait::new(fd, Direction::Read);
    loop {
        let result = attempt();
        if result != 0 {
            patch::spend();
            return result;
        }
        match wait.wait(None) {
            Ended::Woken | Ended::TimedOut | Ended::Plain => {}
            Ended::Failed(errno) => return failed(errno),
            Ended::Unpollable => return patch::blocking_until_others_act(plain),
        }
    }
}

/// Waits as `for_child` does, for children without a descriptor.
fn for_any(attempt: impl Fn() -> isize) -> isize {
    let mut pauses = Pauses::default();
    loop {
        let result = attempt();
        if result != 0 {
            patch::spend();
            return result;
        }
        if let Ended::Failed(errno) = pauses.wait(None, None) {
            return failed(errno);
        }
    }
}

/// wait4(2).
///
/// # Safety
/// As wait4(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn wait4(
    pid: pid_t,
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    // SAFETY: by contract.
    let call = |options: c_int| unsafe { sys!(SYS_wait4, pid, status, options, usage) };
    if !on(Kind::Process) || options & libc::WNOHANG != 0 {
        return raw::int(call(options));
    }
    let attempt = || call(options | libc::WNOHANG);
    if pid > 0 && options & (libc::WUNTRACED | libc::WCONTINUED) == 0 {
        return raw::int(for_child(pid, attempt, || call(options)));
    }
    raw::int(for_any(attempt))
}

/// waitpid(2).
///
/// # Safety
/// As waitpid(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: by contract.
    unsafe { wait4(pid, status, options, ptr::null_mut()) }
}

/// wait(2).
///
/// # Safety
/// As wait(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn wait(status: *mut c_int) -> pid_t {
    // SAFETY: by contract.
    unsafe { wait4(-1, status, 0, ptr::null_mut()) }
}

/// wait3(2).
///
/// # Safety
/// As wait3(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn wait3(
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    // SAFETY: by contract.
    unsafe { wait4(-1, status, options, usage) }
}

/// waitid(2).
///
/// # Safety
/// As waitid(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn waitid(
    kind: idtype_t,
    id: id_t,
    info: *mut siginfo_t,
    options: c_int,
) -> c_int {
    let call = |info: *mut siginfo_t, options: c_int| {
        let none = ptr::null_mut::<rusage>();
        // SAFETY: by contract, or a local in place of the caller's.
        unsafe { sys!(SYS_waitid, kind, id, info, options, none) }
    };
    if !on(Kind::Process) || options & libc::WNOHANG != 0 {
        return raw::int(call(info, options));
    }
    // Without waiting the call always succeeds. Its record tells if there is a child.
    // SAFETY: all zeros is a valid record.
    let mut own: siginfo_t = unsafe { std::mem::zeroed() };
    let place = if info.is_null() { &raw mut own } else { info };
    let attempt = || {
        // SAFETY: by contract there is room for a record, of which the kernel writes all or nothing.
        unsafe { place.write(std::mem::zeroed()) };
        let result = call(place, options | libc::WNOHANG);
        if result != 0 {
            return result;
        }
        // SAFETY: it was written just now.
        isize::from(unsafe { (*place).si_pid() } != 0)
    };
    let plain = || match call(place, options) {
        0 => 1,
        error => error,
    };
    let is_end = options & (libc::WSTOPPED | libc::WCONTINUED) == 0;
    let result = match (kind, RawFd::try_from(id)) {
        (libc::P_PIDFD, Ok(fd)) if is_end => by_descriptor(fd, attempt, plain),
        (libc::P_PID, Ok(pid)) if is_end => for_child(pid, attempt, plain),
        _ => for_any(attempt),
    };
    raw::int(result.min(0))
}
