//! Who may leave its stack, and those who do so in the middle of unwinding.
//!
//! std counts panics per OS thread. Where green threads have no thread-locals of their own, one that
//! waits while it unwinds comes back to the same OS thread, and none is started there meanwhile.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use crate::current;
use crate::exception;
use crate::green_thread::Header;
use crate::shim::atomic::Ordering;

use super::Carrier;

/// True if the running thread may leave its stack and others may run on its OS thread.
#[inline]
pub(crate) fn can_suspend(header: &Header) -> bool {
    if !header.is_green() {
        return false;
    }
    let carrier = current::carrier();
    #[cfg(loom)]
    if carrier.is_null() {
        // One of `thin.rs`, an OS thread of its own.
        return false;
    }
    // SAFETY: a green thread runs on a carrier.
    let away = unsafe { (*carrier).is_away() };
    !away && (!std::thread::panicking() || can_suspend_panicking(header))
}

/// The green thread's panic count goes with it, so that it may unwind anywhere.
fn owns_locals(header: &Header) -> bool {
    // SAFETY: a thread that runs keeps its runtime.
    unsafe { (*header.runtime).settings.own.is_some() }
}

/// A thread that unwinds leaves its stack only if it comes back to the same OS thread.
#[cold]
#[inline(never)]
fn can_suspend_panicking(header: &Header) -> bool {
    if owns_locals(header) {
        return true;
    }
    if !exception::own_unwinding(header) {
        return true;
    }
    header.home.load(Ordering::Relaxed) != 0
}

/// Keeps the count of threads that wait on this OS thread while unwinding; made before the switch.
#[derive(Debug)]
pub(crate) struct Unwinding(Option<*const Carrier>);

impl Unwinding {
    #[inline]
    pub(crate) fn note(header: &Header) -> Self {
        if !std::thread::panicking() || owns_locals(header) || !exception::own_unwinding(header) {
            return Self(None);
        }
        exception::note_unwinding(header);
        let carrier = current::carrier();
        // SAFETY: a green thread runs on a carrier; this one stays with it.
        let unwinding = unsafe { &(*carrier).unwinding };
        unwinding.set(unwinding.get() + 1);
        Self(Some(carrier))
    }
}

impl Drop for Unwinding {
    fn drop(&mut self) {
        if let Some(carrier) = self.0 {
            // SAFETY: carriers live as long as the runtime; the thread is still on this one.
            let unwinding = unsafe { &(*carrier).unwinding };
            unwinding.set(unwinding.get() - 1);
        }
    }
}
