//! Calls that wait inside libc or the kernel and have no form that does not wait: messages and semaphores of System
//! V, signals, `system`. msgrcv(2), semop(2), sigwait(3), pause(2), system(3).
//!
//! Such a call keeps its OS thread, and says so: the worker continues with another OS thread at once. If there are
//! more such calls than OS threads in reserve, nobody else is stopped. If the limit of a `timeout` passes meanwhile,
//! the `timeout` reports it. No exception ends the call.
//!
//! A call for a message or a semaphore is first tried without waiting: a call that ends the waits of others must not
//! need the permits that those hold (`blocking`'s permits). So barriers are left to libc: the last call ends the
//! waits of the others, and nobody knows which call is the last.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use libc::{c_char, c_int, c_long, c_void, sembuf, siginfo_t, sigset_t, size_t, ssize_t, timespec};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::limit::duration_of;
use crate::hooks::on;
use crate::original::original;
use crate::raw::{self, error_of, sys};

macro_rules! kept {
    ($($name:ident $as_c:literal ($($arg:ident: $type:ty),*);)*) => {$(
        /// See the manual's page of that name.
        ///
        /// # Safety
        /// Those of the manual's page.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*) -> c_int {
            original! { PLAIN: unsafe extern "C" fn($($type),*) -> c_int = $as_c; }
            // SAFETY: by contract.
            let plain = || unsafe { PLAIN.get()($($arg),*) };
            if on(Kind::Process) {
                patch::blocking_until_others_act(plain)
            } else {
                plain()
            }
        }
    )*};
}

kept! {
    system c"system" (command: *const c_char);
    pause c"pause" ();
    sigsuspend c"sigsuspend" (mask: *const sigset_t);
    sigwait c"sigwait" (set: *const sigset_t, signal: *mut c_int);
    sigwaitinfo c"sigwaitinfo" (set: *const sigset_t, info: *mut siginfo_t);
    sigtimedwait c"sigtimedwait" (set: *const sigset_t, info: *mut siginfo_t, limit: *const timespec);
}

/// Makes a call that waits. For a patched caller it first tries a call that does not wait and that fails with one of
/// the errors if it would.
fn tried(
    would_wait: &[c_int],
    attempt: impl FnOnce() -> isize,
    plain: impl FnOnce() -> isize,
) -> isize {
    if !on(Kind::Sync) {
        return plain();
    }
    let result = attempt();
    if error_of(result).is_none_or(|error| !would_wait.contains(&error)) {
        patch::spend();
        return result;
    }
    patch::blocking_until_others_act(plain)
}

/// msgrcv(2).
///
/// # Safety
/// Those of msgrcv(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn msgrcv(
    queue: c_int,
    to: *mut c_void,
    size: size_t,
    kind: c_long,
    flags: c_int,
) -> ssize_t {
    // SAFETY: by contract.
    let call = |flags: c_int| unsafe { sys!(SYS_msgrcv, queue, to, size, kind, flags) };
    let quick = || call(flags | libc::IPC_NOWAIT);
    raw::result(if flags & libc::IPC_NOWAIT == 0 {
        tried(&[libc::ENOMSG], quick, || call(flags))
    } else {
        quick()
    })
}

/// msgsnd(2).
///
/// # Safety
/// Those of msgsnd(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn msgsnd(
    queue: c_int,
    from: *const c_void,
    size: size_t,
    flags: c_int,
) -> c_int {
    // SAFETY: by contract.
    let call = |flags: c_int| unsafe { sys!(SYS_msgsnd, queue, from, size, flags) };
    let quick = || call(flags | libc::IPC_NOWAIT);
    raw::int(if flags & libc::IPC_NOWAIT == 0 {
        tried(&[libc::EAGAIN], quick, || call(flags))
    } else {
        quick()
    })
}

/// semtimedop(2). An operation that is not to wait says `EAGAIN` too, and says it again in the second call.
///
/// # Safety
/// Those of semtimedop(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn semtimedop(
    set: c_int,
    operations: *mut sembuf,
    count: size_t,
    limit: *const timespec,
) -> c_int {
    // SAFETY: by contract, or with a pointer to a local.
    let call =
        |limit: *const timespec| unsafe { sys!(SYS_semtimedop, set, operations, count, limit) };
    // SAFETY: by contract it is null or valid.
    if unsafe { limit.as_ref() }.is_some_and(|limit| duration_of(*limit).is_none()) {
        // The call is an error, whether it would wait or not.
        return raw::int(call(limit));
    }
    let zero = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    raw::int(tried(
        &[libc::EAGAIN],
        || call(&raw const zero),
        || call(limit),
    ))
}

/// semop(2).
///
/// # Safety
/// Those of semop(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn semop(set: c_int, operations: *mut sembuf, count: size_t) -> c_int {
    // SAFETY: by contract.
    unsafe { semtimedop(set, operations, count, std::ptr::null()) }
}
