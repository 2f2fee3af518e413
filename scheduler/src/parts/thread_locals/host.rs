//! Runs a function on the thread-locals of the OS thread, in the middle of a green thread.
//!
//! 1. The function returns before the green thread can leave its stack. So no other thread runs on the OS thread's
//!    block meanwhile, and it is still the same OS thread when the function returns.
//! 2. The compiler treats the thread pointer as a constant of a function. So the function that sets the pointer is
//!    never inlined and touches no thread-local, and it calls by an address that the compiler cannot follow.
//! 3. A signal handler that comes in between runs on the OS thread's block, as one between two green
//!    threads does.
#![allow(unsafe_code, reason = "switches thread-locals")]

use std::hint::black_box;

use super::machine;
use crate::shim::here;

/// Whether the running thread-locals are not those of the OS thread.
pub(crate) fn is_elsewhere() -> bool {
    let host = here::host_pointer();
    host != 0 && host != machine::pointer()
}

/// Calls `f` with `data` on the thread-locals of the OS thread.
///
/// # Safety
/// `f` may be called with `data`, never suspends the green thread, and does not unwind.
#[inline]
pub(crate) unsafe fn on_host(f: unsafe fn(*mut ()), data: *mut ()) {
    let running = machine::pointer();
    let host = here::host_pointer();
    if host == 0 || host == running {
        // SAFETY: by contract.
        unsafe { f(data) };
    } else {
        // SAFETY: by contract, and this is the OS thread whose carrier has noted its pointer.
        unsafe { call_on(host, running, black_box(f), data) };
    }
}

/// # Safety
/// As `on_host`. `host` is the OS thread's own pointer, `running` is the pointer that is set now.
#[inline(never)]
unsafe fn call_on(host: usize, running: usize, f: unsafe fn(*mut ()), data: *mut ()) {
    // SAFETY: by contract; no thread-local is touched here.
    unsafe {
        machine::set_pointer(host);
        f(data);
        machine::set_pointer(running);
    }
}

/// The running OS thread's pointer.
pub(crate) fn host_pointer() -> usize {
    machine::pointer()
}
