//! The thread pointer of x86-64: the FS base, which the processor lets user code write.
#![allow(unsafe_code, reason = "reads and writes the thread pointer")]

use std::arch::asm;

/// Words of the thread control block that hold its own address, in bytes from the thread pointer.
/// The first is part of the ABI, the second is what `pthread_self` reads.
pub(super) const SELF: &[usize] = &[0x00, 0x10];

/// Words that are the same in all threads of a process: stack canary and pointer guard, which
/// compiled code reads, and what the processor's shadow stacks may do.
pub(super) const COMMON: &[usize] = &[0x28, 0x30, 0x48];

/// Half a word that is the same in all threads, in bytes from the control block: whether the process has several threads
/// (older libraries).
pub(super) const COMMON_HALF: &[usize] = &[0x18];

/// The word that points to the table of thread-local blocks.
pub(super) const TABLE: usize = 0x08;

/// Why thread-locals cannot be moved here. This is asked first.
pub(super) fn refusal() -> Option<&'static str> {
    /// `HWCAP2_FSGSBASE` of `asm/hwcap2.h`: the kernel has allowed the instructions.
    const FSGSBASE: libc::c_ulong = 1 << 1;
    if cfg!(any(weald_sanitizer = "address", weald_sanitizer = "thread")) {
        return Some("a sanitizer keeps what it knows of a thread in thread-locals");
    }
    // SAFETY: the call has no preconditions.
    let answer = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    (answer & FSGSBASE == 0).then_some("user code may not write the FS base (no FSGSBASE)")
}

/// Returns how many bytes a block has, and how many of them lie before the thread pointer, which has this alignment.
/// `bytes`: the size of the thread-locals with the control block behind them, which begins at the thread pointer.
/// `None`: these do not fit together.
pub(super) fn layout(bytes: usize, align: usize, control: usize) -> Option<(usize, usize)> {
    let pointer = bytes.checked_sub(control)?;
    pointer.is_multiple_of(align).then_some((bytes, pointer))
}

/// The running thread's pointer.
#[inline(always)]
pub(super) fn pointer() -> usize {
    let pointer: usize;
    // SAFETY: by the ABI the first word of the control block is its address.
    unsafe { asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly)) };
    pointer
}

/// Makes another block of thread-locals the running thread's.
///
/// # Safety
/// `pointer` is the thread pointer of a complete block that nobody else runs on. Between this call and the call that
/// undoes it, the caller touches thread-locals only by calls of functions.
#[inline(always)]
pub(super) unsafe fn set_pointer(pointer: usize) {
    // SAFETY: by contract; `refusal` has seen that the instruction is allowed.
    unsafe { asm!("wrfsbase {}", in(reg) pointer, options(nostack, preserves_flags)) };
}
