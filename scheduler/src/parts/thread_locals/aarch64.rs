//! The thread pointer of AArch64: `tpidr_el0`, which user code may write.
#![allow(unsafe_code, reason = "reads and writes the thread pointer")]

use std::arch::asm;

/// The control block does not hold its own address.
pub(super) const SELF: &[usize] = &[];

/// Canary and pointer guard are globals here.
pub(super) const COMMON: &[usize] = &[];

/// Half a word that is the same in all threads, in bytes from the control block: whether the process has several threads.
/// If it says no, the C library's locks do not care for other threads.
pub(super) const COMMON_HALF: &[usize] = &[0];

/// The word that points to the table of thread-local blocks.
pub(super) const TABLE: usize = 0;

/// Why thread-locals cannot be moved here. This is asked first.
pub(super) fn refusal() -> Option<&'static str> {
    cfg!(any(weald_sanitizer = "address", weald_sanitizer = "thread"))
        .then_some("a sanitizer keeps what it knows of a thread in thread-locals")
}

/// Returns how many bytes a block has, and how many of them lie before the thread pointer, which has this alignment.
/// `bytes`: the size of the thread-locals, with the two words of the ABI that lie before them, at the thread pointer.
/// The control block lies before the thread pointer.
pub(super) fn layout(bytes: usize, align: usize, control: usize) -> Option<(usize, usize)> {
    let pointer = control.next_multiple_of(align);
    Some((pointer + bytes, pointer))
}

/// The running thread's pointer.
#[inline(always)]
pub(super) fn pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags)) };
    pointer
}

/// Makes another block of thread-locals the running thread's.
///
/// # Safety
/// `pointer` is the thread pointer of a complete block that nobody else runs on. Between this call and the call that
/// undoes it, the caller touches thread-locals only by calls of functions.
#[inline(always)]
pub(super) unsafe fn set_pointer(pointer: usize) {
    // SAFETY: by contract.
    unsafe { asm!("msr tpidr_el0, {}", in(reg) pointer, options(nostack, preserves_flags)) };
}
