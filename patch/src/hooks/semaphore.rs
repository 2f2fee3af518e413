//! `sem_wait` and its kin, which wait inside libc: tried first; if they would wait, the OS thread does,
//! and the worker goes on elsewhere at once. sem_wait(3).
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use libc::{c_int, clockid_t, sem_t, timespec};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::on;
use crate::original::next;
use crate::raw::set_errno;

/// Runs libc's own function, with the worker handed on if it will wait.
///
/// # Safety
/// As sem_wait(3).
unsafe fn wait(semaphore: *mut sem_t, original: Option<impl FnOnce() -> c_int>) -> c_int {
    let Some(original) = original else {
        set_errno(libc::ENOSYS);
        return -1;
    };
    if !on(Kind::Sync) {
        return original();
    }
    // SAFETY: by contract.
    if unsafe { libc::sem_trywait(semaphore) } == 0 {
        patch::spend();
        return 0;
    }
    patch::blocking_quietly(original)
}

/// sem_wait(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn sem_wait(semaphore: *mut sem_t) -> c_int {
    type Function = unsafe extern "C" fn(*mut sem_t) -> c_int;
    // SAFETY: the next definition of the name is libc's, of this type; the rest by contract.
    unsafe {
        let original = next::<Function>(c"sem_wait");
        wait(semaphore, original.map(|f| move || f(semaphore)))
    }
}

/// sem_timedwait(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn sem_timedwait(semaphore: *mut sem_t, limit: *const timespec) -> c_int {
    type Function = unsafe extern "C" fn(*mut sem_t, *const timespec) -> c_int;
    // SAFETY: as in `sem_wait`.
    unsafe {
        let original = next::<Function>(c"sem_timedwait");
        wait(semaphore, original.map(|f| move || f(semaphore, limit)))
    }
}

/// sem_clockwait(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn sem_clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    limit: *const timespec,
) -> c_int {
    type Function = unsafe extern "C" fn(*mut sem_t, clockid_t, *const timespec) -> c_int;
    // SAFETY: as in `sem_wait`.
    unsafe {
        let original = next::<Function>(c"sem_clockwait");
        wait(
            semaphore,
            original.map(|f| move || f(semaphore, clock, limit)),
        )
    }
}
