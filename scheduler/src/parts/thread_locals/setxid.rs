//! By POSIX `setuid(2)` and its family change a whole process, but the kernel changes only one thread. So the C library
//! sends a signal to each other thread. Its handler makes the same change there, and then marks the thread's control
//! block. The caller waits for the mark.
//!
//! On an OS thread that runs a green thread, the handler would mark the green thread's block, and the
//! caller would wait for ever. So a handler of ours comes first. It makes the OS thread's block the
//! running one, and calls the C library's handler.
//!
//! 1. The C library installs its handler when it starts the first thread, before this file is asked
//!    (`layout.rs` has started one), and never again.
//! 2. `sigaction(3)` does not touch this signal, so the kernel is asked.
#![allow(unsafe_code, reason = "installs a signal handler")]

use std::ffi::{c_int, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::machine;
use super::memory::Found;
use crate::shim::here;

/// `SIGSETXID` of the C library: the second of the kernel's signals that it keeps for itself.
const SIGNAL: c_int = 33;

/// What the kernel calls a `struct sigaction`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Action {
    handler: usize,
    flags: c_ulong,
    /// Where the handler returns to; unused on AArch64, but there.
    restorer: usize,
    mask: u64,
}

/// The C library's handler.
static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Puts our handler before the C library's. Called once.
pub(super) fn install() -> Found<()> {
    // SAFETY: all zeros is a valid structure.
    let mut action: Action = unsafe { std::mem::zeroed() };
    // SAFETY: the structures are the kernel's, and the length that of its mask.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            SIGNAL,
            ptr::null::<Action>(),
            &raw mut action,
            size_of::<u64>(),
        )
    };
    if asked != 0 || action.handler == libc::SIG_DFL || action.handler == libc::SIG_IGN {
        return Err("the C library does not tell its threads of setuid as expected");
    }
    // Release: pairs with the load in `handle`.
    HANDLER.store(action.handler, Ordering::Release);
    let ours: extern "C" fn(c_int, *mut c_void, *mut c_void) = handle;
    action.handler = ours as usize;
    // SAFETY: as above; the handler takes what the C library's takes, and calls it.
    let set = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            SIGNAL,
            &raw const action,
            ptr::null_mut::<Action>(),
            size_of::<u64>(),
        )
    };
    if set != 0 {
        return Err("the handler of setuid's signal cannot be set");
    }
    Ok(())
}

extern "C" fn handle(signal: c_int, info: *mut c_void, context: *mut c_void) {
    type Handler = extern "C" fn(c_int, *mut c_void, *mut c_void);
    let handler = HANDLER.load(Ordering::Acquire);
    // SAFETY: it was the handler of this signal, of which the C library wants `SA_SIGINFO`.
    let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
    let running = machine::pointer();
    let host = here::host_pointer();
    if host == 0 || host == running {
        handler(signal, info, context);
    } else {
        // SAFETY: the OS thread is here, in a handler, so nobody else runs on its block; the
        // handler is called by pointer, and the green thread's block is back when it returns.
        unsafe { call_on(host, running, handler, signal, info, context) };
    }
}

/// # Safety
/// `host` is the OS thread's own pointer, `running` is the pointer that is set now.
#[inline(never)]
unsafe fn call_on(
    host: usize,
    running: usize,
    handler: extern "C" fn(c_int, *mut c_void, *mut c_void),
    signal: c_int,
    info: *mut c_void,
    context: *mut c_void,
) {
    // SAFETY: by contract; no thread-local is touched here.
    unsafe {
        machine::set_pointer(host);
        handler(signal, info, context);
        machine::set_pointer(running);
    }
}
