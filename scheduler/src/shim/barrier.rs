//! An asymmetric pair of fences: a light one for the side that passes often, a heavy one for the
//! side that seldom does. Together they order a store before a load on both sides, as two
//! `fence(SeqCst)` do.
//!
//! The heavy one is `membarrier(2)` with `PRIVATE_EXPEDITED`: the kernel runs a full fence on every
//! CPU that runs a thread of the process; a thread that does not run passes one when it is
//! scheduled. Then the light one need only hold the compiler. Where the kernel has no such call, or
//! refuses it, both are real fences; that is found out once, before anything uses them.
#![allow(unsafe_code, reason = "a system call without pointers")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use super::atomic::fence;

/// The kernel does the heavy side. Set before the first carrier starts, never unset.
static EXPEDITED: AtomicBool = AtomicBool::new(false);

/// Finds out what the kernel can do; before any use of the fences.
pub(crate) fn prepare() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| EXPEDITED.store(register(), Ordering::Relaxed));
}

/// The light side, between a store and a load.
#[inline(always)]
pub(crate) fn light() {
    if EXPEDITED.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The heavy side, between a store and a load. False: there was no fence, so nothing may be
/// concluded from the load.
pub(crate) fn heavy() -> bool {
    fence(Ordering::SeqCst);
    !EXPEDITED.load(Ordering::Relaxed) || expedite()
}

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED` of linux/membarrier.h, and the command that asks for it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
#[cfg(any(target_os = "linux", target_os = "android"))]
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

#[cfg(any(target_os = "linux", target_os = "android"))]
fn membarrier(command: libc::c_int) -> libc::c_long {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn register() -> bool {
    membarrier(REGISTER_PRIVATE_EXPEDITED) == 0
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn expedite() -> bool {
    membarrier(PRIVATE_EXPEDITED) == 0
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn register() -> bool {
    false
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn expedite() -> bool {
    false
}
