//! Whether the processor keeps a *shadow stack* of the running thread: a second stack, of return
//! addresses alone, which ordinary code cannot write. If a `ret` finds another address than the one on the
//! shadow stack, the process ends.
//!
//! Green threads do not support that: the first return on a green thread's stack would fault. So a
//! runtime does not start there. `ARCHITECTURE.md` says what support would take.
//!
//! | architecture | name          | asked by                                             |
//! |--------------|---------------|------------------------------------------------------|
//! | x86-64       | CET, `SHSTK`  | `arch_prctl(ARCH_SHSTK_STATUS)`, Linux 6.6           |
//! | AArch64      | GCS           | `prctl(PR_GET_SHADOW_STACK_STATUS)`, Linux 6.13      |
//!
//! The kernel answers for the thread that asks. The threads that it starts have the same status.
//! `WEALD_SHADOW_STACK_STATUS`, a number, replaces the kernel's answer, to test this file.
#![allow(unsafe_code, reason = "asks the kernel")]

use std::io;

/// `ARCH_SHSTK_SHSTK` of x86-64, `PR_SHADOW_STACK_ENABLE` of AArch64: the thread has one.
const ENABLED: u64 = 1;

/// The error of a runtime that does not start for this reason.
pub(crate) const REFUSAL: &str = "this process runs with hardware shadow stacks (x86 CET or AArch64 GCS), on which green \
     threads cannot switch stacks; start it without them, for instance with \
     GLIBC_TUNABLES=glibc.cpu.x86_shstk=off or glibc.cpu.aarch64_gcs=0";

/// An error where green threads would fault.
pub(crate) fn check() -> io::Result<()> {
    if is_on() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, REFUSAL));
    }
    Ok(())
}

pub(crate) fn is_on() -> bool {
    let said = std::env::var("WEALD_SHADOW_STACK_STATUS").ok();
    let said = said.and_then(|said| said.parse().ok());
    is_enabled(said.unwrap_or_else(status))
}

fn is_enabled(status: u64) -> bool {
    status & ENABLED != 0
}

/// The status word of the running thread. Zero where the kernel knows nothing of shadow stacks.
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(any(loom, miri))))]
fn status() -> u64 {
    /// `ARCH_SHSTK_STATUS` of `asm/prctl.h`.
    const STATUS: libc::c_int = 0x5005;
    let mut status = 0_u64;
    // SAFETY: the kernel writes a word to where there is room for it, or nothing.
    let asked = unsafe { libc::syscall(libc::SYS_arch_prctl, STATUS, &raw mut status) };
    if asked == 0 { status } else { 0 }
}

/// The status word of the running thread. Zero where the kernel knows nothing of shadow stacks.
#[cfg(all(target_os = "linux", target_arch = "aarch64", not(any(loom, miri))))]
fn status() -> u64 {
    /// `PR_GET_SHADOW_STACK_STATUS` of `linux/prctl.h`.
    const STATUS: libc::c_int = 74;
    let mut status = 0_u64;
    // SAFETY: the kernel writes a word to where there is room for it, or nothing.
    let asked = unsafe { libc::prctl(STATUS, &raw mut status, 0, 0, 0) };
    if asked == 0 { status } else { 0 }
}

/// Nobody knows of shadow stacks here.
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
)))]
fn status() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::{check, is_enabled};

    #[test]
    fn only_the_lowest_bit_says_that_there_is_a_shadow_stack() {
        assert!(!is_enabled(0));
        assert!(is_enabled(1));
        // Shadow stacks that could be written (x86-64), or pushed to (AArch64), if there were any.
        assert!(!is_enabled(2));
        assert!(is_enabled(3));
        assert!(!is_enabled(1 << 2));
    }

    #[test]
    fn this_process_has_none() {
        assert!(check().is_ok());
    }
}
