//! Fetching memory into the cache before it is used.
#![allow(unsafe_code, reason = "an instruction that only fetches")]

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// Begins to fetch so many bytes from an address on, and does not wait. Nothing happens where there is no
/// memory.
#[inline(always)]
pub(crate) fn prefetch(start: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for offset in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it neither faults nor changes anything, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (start, bytes, LINE);
}
