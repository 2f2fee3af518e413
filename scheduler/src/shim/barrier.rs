//! An asymmetric pair of fences: a light one for the side that passes often, a heavy one for the
//! side that seldom does. Together they order a store before a load on both sides, as two
//! `fence(SeqCst)` do.
//!
//! The heavy one is `membarrier(2)` with `PRIVATE_EXPEDITED`: the kernel runs a full fence on every
//! CPU that runs a thread of the process, and a thread that does not run passes a fence when it is
//! scheduled. So the light fence need only stop the compiler. If the kernel has no such call, or
//! refuses it, both are real fences. That is found out before anything uses them.
//!
//! A program may install a filter of system calls later, and then the call is refused. From then on
//! both are real fences. But a light side may have passed just before, with a fence for the compiler
//! only. So for the time [`SETTLE`] the heavy side concludes nothing. That is far longer than one CPU's store stays
//! invisible to others.
#![allow(unsafe_code, reason = "a system call without pointers")]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use std::time::{Duration, Instant};

use super::atomic::fence;

/// Whether the kernel makes the heavy fence. Set before the first carrier starts, cleared at most once.
static EXPEDITED: AtomicBool = AtomicBool::new(false);

/// When that flag was cleared. Written before the flag is cleared.
static REFUSED: OnceLock<Instant> = OnceLock::new();

const SETTLE: Duration = Duration::from_millis(1);

/// Finds out what the kernel can do. Called before any use of the fences.
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
    // Acquire: pairs with `refused`.
    if !EXPEDITED.load(Ordering::Acquire) {
        return REFUSED.get().is_none_or(|since| since.elapsed() >= SETTLE);
    }
    if expedite() {
        return true;
    }
    // The kernel may be short of memory for a moment. Any other error stays for ever.
    if io::Error::last_os_error().raw_os_error() != Some(libc::ENOMEM) {
        refused();
    }
    false
}

#[cold]
fn refused() {
    REFUSED.get_or_init(Instant::now);
    EXPEDITED.store(false, Ordering::Release);
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
