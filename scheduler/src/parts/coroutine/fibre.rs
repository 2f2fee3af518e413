//! Tells ThreadSanitizer of coroutines (`--cfg 'weald_sanitizer="thread"'`). To it a coroutine is a *fibre*,
//! with clocks and a shadow stack of its own. The calls are those of LLVM's `tsan_interface.h`.
//!
//! On an OS thread each switch orders what comes before it before what comes after it, as the program's
//! order does. Between OS threads ThreadSanitizer must see the order in weald's own atomics.
//!
//! 1. Code that switches stacks names the fibre that it goes to, and then runs nothing else before the switch: a
//!    function that is entered on one shadow stack must be left on the same. So everything here is inlined.
//! 2. A coroutine leaves on the OS thread on which it was last resumed, and goes to its resumer. The resumer may be a
//!    coroutine as well (`panic_count.rs`). So it keeps the former value of the thread-local and puts it back.
#![allow(unsafe_code, reason = "calls the sanitizer's runtime")]
#![expect(
    clippy::inline_always,
    reason = "a call would be entered on one shadow stack and left on another (1)"
)]

use std::cell::Cell;
use std::ffi::{c_uint, c_void};
use std::ptr;

unsafe extern "C" {
    fn __tsan_get_current_fiber() -> *mut c_void;
    fn __tsan_create_fiber(flags: c_uint) -> *mut c_void;
    fn __tsan_destroy_fiber(fibre: *mut c_void);
    fn __tsan_switch_to_fiber(fibre: *mut c_void, flags: c_uint);
}

/// The switch orders.
const ORDERED: c_uint = 0;

thread_local! {
    /// The fibre that goes on when the running coroutine leaves.
    static PARENT: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
}

/// A coroutine's fibre.
pub(super) struct Fibre(*mut c_void);

impl Fibre {
    pub(super) fn new() -> Self {
        // SAFETY: the call has no preconditions.
        Self(unsafe { __tsan_create_fiber(0) })
    }

    /// The caller is about to switch to the coroutine. Returns what it passes to [`came_back`] when the coroutine
    /// has left.
    #[inline(always)]
    pub(super) fn enter(&self) -> *mut c_void {
        // SAFETY: the fibre is there until `self` is dropped, and nobody else runs it.
        unsafe {
            let before = PARENT.replace(__tsan_get_current_fiber());
            __tsan_switch_to_fiber(self.0, ORDERED);
            before
        }
    }
}

/// The coroutine that the caller has entered has left.
#[inline(always)]
pub(super) fn came_back(before: *mut c_void) {
    PARENT.set(before);
}

impl Drop for Fibre {
    fn drop(&mut self) {
        // SAFETY: a coroutine that is dropped does not run.
        unsafe { __tsan_destroy_fiber(self.0) }
    }
}

/// The running coroutine is about to switch back.
#[inline(always)]
pub(super) fn switch_back() {
    // SAFETY: whoever has resumed it waits for it.
    unsafe { __tsan_switch_to_fiber(PARENT.get(), ORDERED) }
}
