//! Waiting for child processes and for locks of files. waitpid(2), waitid(2), flock(2).
//!
//! One child is waited for by its pidfd (pidfd_open(2)), which is readable when the child has ended;
//! any child, a group, or a child that stops, on the OS thread, whose worker goes on elsewhere.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::ptr;

use libc::{c_int, id_t, idtype_t, pid_t, rusage, siginfo_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::descriptor::failed;
use crate::hooks::on;
use crate::raw::{self, error_of, sys};
use crate::wait::{self, Direction, Ended};

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
        // SAFETY: the descriptor is ours.
        unsafe { sys!(SYS_close, self.0) };
    }
}

/// `attempt` does not wait and says 0 while the child runs; `plain` waits.
fn for_child(pid: pid_t, attempt: impl Fn() -> isize, plain: impl FnOnce() -> isize) -> isize {
    if let Some(pending) = patch::pending() {
        return failed(wait::errno_of(pending));
    }
    let first = attempt();
    if first != 0 {
        patch::spend();
        return first;
    }
    let Some(pidfd) = Pidfd::open(pid) else {
        return patch::blocking_quietly(plain);
    };
    loop {
        match wait::wait(pidfd.0, Direction::Read, None) {
            Ended::Woken | Ended::TimedOut => {}
            Ended::Cancelled(errno) => return failed(errno),
            Ended::Unpollable => return patch::blocking_quietly(plain),
        }
        let result = attempt();
        if result != 0 {
            return result;
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
    if pid > 0 && options & (libc::WUNTRACED | libc::WCONTINUED) == 0 {
        return raw::int(for_child(
            pid,
            || call(options | libc::WNOHANG),
            || call(options),
        ));
    }
    raw::int(patch::blocking_quietly(|| call(options)))
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
    let call = |options: c_int| {
        // SAFETY: by contract.
        unsafe {
            sys!(
                SYS_waitid,
                kind,
                id,
                info,
                options,
                ptr::null_mut::<rusage>()
            )
        }
    };
    if !on(Kind::Process) || options & libc::WNOHANG != 0 {
        return raw::int(call(options));
    }
    let is_end = options & (libc::WSTOPPED | libc::WCONTINUED) == 0;
    if kind == libc::P_PIDFD
        && is_end
        && let Ok(fd) = RawFd::try_from(id)
    {
        loop {
            match wait::wait(fd, Direction::Read, None) {
                Ended::Cancelled(errno) => return raw::int(failed(errno)),
                Ended::Unpollable => break,
                Ended::Woken | Ended::TimedOut => {}
            }
            if super::poll::is_ready(fd, libc::POLLIN) {
                break;
            }
        }
        return raw::int(call(options));
    }
    raw::int(patch::blocking_quietly(|| call(options)))
}

/// flock(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn flock(fd: c_int, operation: c_int) -> c_int {
    // SAFETY: no pointers.
    let call = |operation: c_int| unsafe { sys!(SYS_flock, fd, operation) };
    if !on(Kind::Files) || operation & libc::LOCK_NB != 0 {
        return raw::int(call(operation));
    }
    let tried = call(operation | libc::LOCK_NB);
    if error_of(tried) == Some(libc::EWOULDBLOCK) {
        return raw::int(patch::blocking_quietly(|| call(operation)));
    }
    raw::int(tried)
}
