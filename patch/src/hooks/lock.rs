//! Locks of files, and settings: `flock`, `fcntl`, `ioctl`. `fcntl` waits with `F_SETLKW` and `F_OFD_SETLKW`.
//! flock(2), fcntl(2).
//!
//! They are tried without waiting, and again after pauses, because nothing tells when another process unlocks. If
//! this process unlocks by these calls or by `close`, the pauses end at once. So a waiting call holds no OS thread
//! and no permit, and an exception ends the wait. The kernel does not see the waits, so `deadlock.rs` finds processes
//! that wait for each other's `F_SETLKW`.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::sync::atomic::{AtomicUsize, Ordering, fence};

use libc::{c_int, c_ulong};
use weald_scheduler::io::WaitQueue;
use weald_scheduler::patch;

use crate::Kind;
use crate::deadlock::Watch;
use crate::hooks::on;
use crate::hooks::run::failed;
use crate::pauses::{Ended, Pauses, errno_of};
use crate::raw::{self, error_of, sys};
use crate::slot::SETTINGS;

/// The calls that wait for a lock of any file.
static WAITERS: WaitQueue = WaitQueue::new();
/// How many calls wait.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Wakes the waiters: something may have been unlocked. Pairs with the fence of `Counted`: either this call sees the
/// waiter, or the waiter's next try sees that the lock is free.
#[inline]
pub(crate) fn unlocked() {
    fence(Ordering::SeqCst);
    if COUNT.load(Ordering::Relaxed) > 0 && patch::may_wake() {
        WAITERS.wake_all();
    }
}

/// Counts a waiter from before its last try to its end.
struct Counted;

impl Counted {
    fn begin() -> Self {
        COUNT.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tries until the lock is not held by another, or until that would never happen.
fn locked(attempt: impl Fn() -> isize, mut is_deadlock: impl FnMut() -> bool) -> isize {
    let is_others = |result| error_of(result) == Some(libc::EWOULDBLOCK);
    let first = attempt();
    if !is_others(first) {
        patch::spend();
        return first;
    }
    if let Some(pending) = patch::pending() {
        return failed(errno_of(pending));
    }
    let _counted = Counted::begin();
    let mut pauses = Pauses::default();
    loop {
        let result = attempt();
        if !is_others(result) {
            return result;
        }
        if let Ended::Failed(errno) = pauses.wait(Some(&WAITERS), None) {
            return failed(errno);
        }
        if is_deadlock() {
            return failed(libc::EDEADLK);
        }
    }
}

/// Returns the process that holds the lock that is in the way. `None`: no process does, or one that the kernel cannot
/// name.
///
/// # Safety
/// The argument is that of an `fcntl` for locks, and the kernel has accepted it.
unsafe fn holder(fd: c_int, argument: c_ulong) -> Option<libc::pid_t> {
    let argument = usize::try_from(argument).ok()?;
    // SAFETY: by contract.
    let mut lock = unsafe { *std::ptr::with_exposed_provenance::<libc::flock>(argument) };
    // SAFETY: a pointer to a local.
    let answer = unsafe { sys!(SYS_fcntl, fd, libc::F_GETLK, &raw mut lock) };
    let is_locked = answer == 0 && libc::c_int::from(lock.l_type) != libc::F_UNLCK;
    (is_locked && lock.l_pid > 0).then_some(lock.l_pid)
}

/// flock(2).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn flock(fd: c_int, operation: c_int) -> c_int {
    // SAFETY: no pointers.
    let call = |operation: c_int| unsafe { sys!(SYS_flock, fd, operation) };
    if operation & !libc::LOCK_NB == libc::LOCK_UN {
        let result = call(operation);
        unlocked();
        return raw::int(result);
    }
    if !on(Kind::Files) || operation & libc::LOCK_NB != 0 {
        return raw::int(call(operation));
    }
    raw::int(locked(|| call(operation | libc::LOCK_NB), || false))
}

/// fcntl(2). The variadic function takes at most one word.
///
/// # Safety
/// As fcntl(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    // SAFETY: by contract.
    let call = |command: c_int| unsafe { sys!(SYS_fcntl, fd, command, argument) };
    match command {
        libc::F_SETLKW | libc::F_OFD_SETLKW if on(Kind::Files) => {
            let result = if command == libc::F_SETLKW {
                let mut watch = Watch::new();
                // SAFETY: by contract; the kernel has read the lock when it was tried.
                let holder = || unsafe { holder(fd, argument) };
                locked(|| call(libc::F_SETLK), || watch.finds_deadlock(holder))
            } else {
                // The kernel does not find deadlocks of locks of open files either.
                locked(|| call(libc::F_OFD_SETLK), || false)
            };
            unlocked();
            raw::int(result)
        }
        libc::F_SETLK | libc::F_OFD_SETLK | libc::F_SETLKW | libc::F_OFD_SETLKW => {
            let result = call(command);
            unlocked();
            raw::int(result)
        }
        libc::F_GETOWN => owner(fd),
        libc::F_SETFL => {
            let result = raw::int(call(command));
            if result == 0 && argument & libc::O_NONBLOCK as c_ulong != 0 {
                SETTINGS.changed();
            }
            result
        }
        _ => raw::int(call(command)),
    }
}

/// ioctl(2). `FIONBIO` is another way to set `O_NONBLOCK`. The variadic function takes at most one word.
///
/// # Safety
/// As ioctl(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int {
    // SAFETY: by contract.
    let result = raw::int(unsafe { sys!(SYS_ioctl, fd, request, argument) });
    let value = usize::try_from(argument).map(std::ptr::with_exposed_provenance::<c_int>);
    // SAFETY: after a success: the kernel has read an `int` there.
    let is_on = || value.is_ok_and(|value| unsafe { *value } != 0);
    if request == libc::FIONBIO && result == 0 && is_on() {
        SETTINGS.changed();
    }
    result
}

/// Makes `F_GETOWN` as libc does: the system call itself returns a group as a value that looks like an error.
fn owner(fd: c_int) -> c_int {
    /// `struct f_owner_ex` of fcntl(2).
    #[repr(C)]
    #[derive(Default)]
    struct Owner {
        kind: c_int,
        id: libc::pid_t,
    }
    const F_GETOWN_EX: c_int = 16;
    const F_OWNER_PGRP: c_int = 2;
    let mut owner = Owner::default();
    // SAFETY: a pointer to a local of that type.
    let result = raw::int(unsafe { sys!(SYS_fcntl, fd, F_GETOWN_EX, &raw mut owner) });
    match result {
        0 if owner.kind == F_OWNER_PGRP => -owner.id,
        0 => owner.id,
        error => error,
    }
}

/// lockf(3), by the lock that it is based on.
#[allow(clippy::cast_possible_truncation, reason = "small constants")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lockf(fd: c_int, command: c_int, length: libc::off_t) -> c_int {
    // SAFETY: all zeros is a valid lock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_whence = libc::SEEK_CUR as _;
    lock.l_len = length;
    let (kind, operation) = match command {
        libc::F_LOCK => (libc::F_WRLCK, libc::F_SETLKW),
        libc::F_TLOCK => (libc::F_WRLCK, libc::F_SETLK),
        libc::F_ULOCK => (libc::F_UNLCK, libc::F_SETLK),
        libc::F_TEST => (libc::F_RDLCK, libc::F_GETLK),
        _ => return raw::int(failed(libc::EINVAL)),
    };
    lock.l_type = kind as _;
    // SAFETY: a pointer to a local.
    let result = unsafe {
        fcntl(
            fd,
            operation,
            (&raw mut lock).expose_provenance() as c_ulong,
        )
    };
    // SAFETY: no pointers.
    let own = unsafe { sys!(SYS_getpid) };
    let is_free = lock.l_type == libc::F_UNLCK as _ || isize::try_from(lock.l_pid) == Ok(own);
    if command == libc::F_TEST && result == 0 && !is_free {
        return raw::int(failed(libc::EACCES));
    }
    result
}
