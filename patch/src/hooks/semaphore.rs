//! `sem_wait` and similar calls. sem_wait(3).
//!
//! A green thread tries. While the semaphore is zero, it waits in a table of weald's (`futex.rs`). A signal handler
//! may call `sem_post`, and must not take a lock there. So `sem_post` writes to an eventfd if somebody waits, and the
//! poller that hears of it wakes the waiters whose semaphores are not zero.
//!
//! No event tells of a semaphore that processes share: it is tried again after pauses.
//!
//! An exception does not end such a wait: few programs check if `sem_wait` has failed.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libc::{c_int, clockid_t, sem_t, timespec};
use weald_scheduler::io::{EventSlot, Readiness};
use weald_scheduler::patch::{self, Bypass};

use crate::Kind;
use crate::futex::{Bucket, Waited};
use crate::hooks::on;
use crate::hooks::sync::{deadline, is_moment};
use crate::original::original;
use crate::raw::{error_of, set_errno, sys};

original! {
    SEM_POST: unsafe extern "C" fn(*mut sem_t) -> c_int = c"sem_post";
    SEM_WAIT: unsafe extern "C" fn(*mut sem_t) -> c_int = c"sem_wait";
    SEM_TIMEDWAIT: unsafe extern "C" fn(*mut sem_t, *const timespec) -> c_int = c"sem_timedwait";
    SEM_CLOCKWAIT: unsafe extern "C" fn(*mut sem_t, clockid_t, *const timespec) -> c_int
        = c"sem_clockwait";
}

/// Green threads that wait for any semaphore.
static WAITERS: Bucket = Bucket::new();

/// Where `sem_post` rings: a descriptor, plus one. Zero: nobody has waited yet.
static BELL: AtomicU32 = AtomicU32::new(0);
static BELL_AT: AtomicU32 = AtomicU32::new(0);
static BELL_EVENT: EventSlot = EventSlot { on_event: on_bell };

fn on_bell(_event: &'static EventSlot, _generation: u16, _readiness: Readiness) {
    WAITERS.wake_if(|semaphore| {
        // SAFETY: a waiter keeps its semaphore, and the first word of a semaphore is its value.
        unsafe { (*semaphore).load(Ordering::Relaxed) != 0 }
    });
}

/// Never called: weald's own sockets do not have this descriptor, so nobody takes it from the poller.
fn on_loss(_fd: RawFd) {}

/// Returns the eventfd. `None`: no descriptor is left.
fn bell() -> Option<RawFd> {
    static MAKING: Mutex<()> = Mutex::new(());
    let made = || RawFd::try_from(BELL.load(Ordering::Acquire).checked_sub(1)?).ok();
    if let Some(fd) = made() {
        return Some(fd);
    }
    let _bypass = Bypass::enter();
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fd) = made() {
        return Some(fd);
    }
    // SAFETY: no pointers.
    let fd = unsafe { sys!(SYS_eventfd2, 0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    BELL.store(fd.cast_unsigned() + 1, Ordering::Release);
    Some(fd)
}

/// The pauses of a wait without events, from the first to the longest.
const FIRST: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(10);

/// # Safety
/// As sem_wait(3).
unsafe fn wait_green(semaphore: *mut sem_t, until: Option<Instant>) -> c_int {
    // SAFETY: by contract.
    let attempt = || unsafe { libc::sem_trywait(semaphore) } == 0;
    // In glibc a semaphore has value and waiters in 8 bytes, and then whether processes share it.
    // SAFETY: the word is inside the semaphore; libc writes it when it makes the semaphore.
    let is_shared = unsafe { *semaphore.cast::<c_int>().add(2) } != 0;
    let rings = !is_shared
        && bell().is_some_and(|bell| {
            let interest = || Readiness::READABLE;
            patch::Home::of(&BELL_AT).is_some_and(|home| {
                home.arm(bell, &BELL_EVENT, interest, |_| {}, on_loss)
                    .is_ok()
            })
        });
    let mut pause = FIRST;
    loop {
        let net = (!rings).then(|| Instant::now() + pause);
        pause = (pause * 2).min(LONGEST);
        let limit = match (until, net) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let waited = WAITERS.wait_unless(semaphore.cast(), limit, attempt);
        if waited == Waited::NotAsExpected || attempt() {
            return 0;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            set_errno(libc::ETIMEDOUT);
            return -1;
        }
    }
}

/// Waits for any caller. `plain` waits on the OS thread.
///
/// # Safety
/// As sem_wait(3).
unsafe fn wait(
    semaphore: *mut sem_t,
    until: impl FnOnce() -> Result<Option<Instant>, ()>,
    plain: impl FnOnce() -> c_int,
) -> c_int {
    if !on(Kind::Sync) {
        return plain();
    }
    // SAFETY: by contract.
    if unsafe { libc::sem_trywait(semaphore) } == 0 {
        patch::spend();
        return 0;
    }
    match until() {
        // SAFETY: by contract.
        Ok(until) => unsafe { wait_green(semaphore, until) },
        Err(()) => patch::blocking_until_others_act(plain),
    }
}

/// Returns an absolute limit. `Err`: it is not valid, or its clock is one that only libc can watch.
///
/// # Safety
/// The pointer is null or valid.
unsafe fn limit_of(limit: *const timespec, clock: clockid_t) -> Result<Option<Instant>, ()> {
    // SAFETY: by contract.
    match (unsafe { limit.as_ref() }, clock) {
        (Some(limit), libc::CLOCK_REALTIME) => deadline(Some(*limit), true, true),
        (Some(limit), libc::CLOCK_MONOTONIC) => deadline(Some(*limit), true, false),
        _ => Err(()),
    }
}

/// sem_wait(3).
///
/// # Safety
/// Those of sem_wait(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn sem_wait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: by contract.
    unsafe { wait(semaphore, || Ok(None), || SEM_WAIT.get()(semaphore)) }
}

/// sem_timedwait(3).
///
/// # Safety
/// Those of sem_timedwait(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn sem_timedwait(semaphore: *mut sem_t, limit: *const timespec) -> c_int {
    // SAFETY: by contract.
    unsafe {
        if !is_moment(limit) {
            return SEM_TIMEDWAIT.get()(semaphore, limit);
        }
        let until = || limit_of(limit, libc::CLOCK_REALTIME);
        wait(semaphore, until, || SEM_TIMEDWAIT.get()(semaphore, limit))
    }
}

/// sem_clockwait(3).
///
/// # Safety
/// Those of sem_clockwait(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn sem_clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    limit: *const timespec,
) -> c_int {
    // SAFETY: by contract.
    unsafe {
        if !is_moment(limit) {
            return SEM_CLOCKWAIT.get()(semaphore, clock, limit);
        }
        let until = || limit_of(limit, clock);
        wait(semaphore, until, || {
            SEM_CLOCKWAIT.get()(semaphore, clock, limit)
        })
    }
}

/// sem_post(3). Signal handlers may call it: nothing here takes a lock.
///
/// # Safety
/// Those of sem_post(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn sem_post(semaphore: *mut sem_t) -> c_int {
    // SAFETY: by contract.
    let result = unsafe { SEM_POST.get()(semaphore) };
    if WAITERS.has_waiters()
        && !patch::is_forked()
        && let Some(bell) = BELL.load(Ordering::Acquire).checked_sub(1)
    {
        let one = 1_u64;
        // A counter that is full still makes the eventfd readable.
        // SAFETY: a pointer to a local of 8 bytes.
        let answer = unsafe { sys!(SYS_write, bell, &raw const one, 8) };
        debug_assert!(error_of(answer).is_none_or(|error| error == libc::EAGAIN));
    }
    result
}

#[cfg(test)]
mod tests {
    #[test]
    fn sem_post_is_found_before_main() {
        assert!(super::SEM_POST.is_found());
    }
}
