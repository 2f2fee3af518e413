//! The thread pointer of AArch64: `tpidr_el0`, which user code may write.
#![allow(unsafe_code, reason = "reads and writes the thread pointer")]

use std::arch::asm;

/// The control block does not hold its own address.
pub(super) const SELF: &[usize] = &[];

/// Canary and pointer guard are globals here.
pub(super) const COMMON: &[usize] = &[];

/// Half a word that is the same, in bytes from the control block: whether the process has several threads, without which
/// the C library's locks take it for granted that nobody else is there.
pub(super) const COMMON_HALF: &[usize] = &[0];

/// The word that points to the table of thread-local blocks.
pub(super) const TABLE: usize = 0;

/// Why thread-locals cannot be moved here; before anything else is asked.
pub(super) fn refusal() -> Option<&'static str> {
    cfg!(any(weald_sanitizer = "address", weald_sanitizer = "thread"))
        .then_some("a sanitizer keeps what it knows of a thread in thread-locals")
}

/// Bytes of a block, and from its beginning to the thread pointer, which has this alignment. `bytes`: of the
/// thread-locals with the two words of the ABI that lie before them, at the thread pointer. Before that is the
/// control block.
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

/// Makes another thread-local block the running one's.
///
/// # Safety
/// `pointer` is the thread pointer of a complete block that nobody else runs on, and the caller
/// touches no thread-local between this and the call that undoes it but by calls of functions.
#[inline(always)]
pub(super) unsafe fn set_pointer(pointer: usize) {
    // SAFETY: by contract.
    unsafe { asm!("msr tpidr_el0, {}", in(reg) pointer, options(nostack, preserves_flags)) };
}
