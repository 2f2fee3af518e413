//! Calls of functions of the C library on blocks that nobody runs on, to find out what it keeps there or to free it.
//!
//! They are made with all signals blocked, because a handler would run on that block, for example that of `setuid(2)`
//! (`setxid.rs`).
#![allow(unsafe_code, reason = "runs on blocks that nobody else runs on")]

use std::ptr;

use super::heap::Heap;
use super::layout::Offsets;
use super::machine;
use crate::shim::here;

/// Calls functions of the C library on another block. A hooked call there asks which carrier this is; it gets the same
/// answer as on the OS thread's own block. `malloc` uses the words of the OS thread.
///
/// # Safety
/// The block is complete and nobody runs on it; `f` touches no thread-local itself.
#[inline(never)]
pub(super) unsafe fn on_block(offsets: &Offsets, heap: &Heap, pointer: usize, f: impl FnOnce()) {
    let _blocked = Blocked::new();
    let (host, here) = (machine::pointer(), offsets.here_of(pointer));
    // SAFETY: by contract; the pointer is the OS thread's again when this returns.
    unsafe {
        here::arrive(here, ptr::null());
        here::drive(here, here::carrier(), 0);
        heap.while_lent(pointer, || {
            machine::set_pointer(pointer);
            f();
            machine::set_pointer(host);
        });
    }
}

/// While this value lives, no signal is handled on this OS thread, not even the C library's own signals. (The C
/// library's functions for masks would leave those out.)
pub(super) struct Blocked(u64);

impl Blocked {
    pub(super) fn new() -> Self {
        let mut before = 0;
        // SAFETY: the kernel's masks have 64 bits here.
        unsafe { set_mask(&u64::MAX, &raw mut before) };
        Self(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { set_mask(&self.0, ptr::null_mut()) };
    }
}

/// # Safety
/// `before` is null or valid.
unsafe fn set_mask(mask: &u64, before: *mut u64) {
    // SAFETY: by contract.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(mask),
            before,
            size_of::<u64>(),
        );
    }
}
