//! Which threads may leave their stack, and how a thread does so while it unwinds.
//!
//! std counts panics per OS thread. A green thread takes its own panics off that count before it leaves its
//! stack, and adds them to the count of the OS thread on which it goes on (`panic_count.rs`). In `Own` it
//! has a count of its own. So the running thread is unwinding if and only if std says so.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use super::here;
use crate::engine::inner::Inner;
use crate::green::green_thread::Header;
#[cfg(not(any(loom, miri)))]
use crate::parts::panic_count;

/// True if the running thread may leave its stack and others may run on its OS thread.
#[inline]
pub(crate) fn can_suspend(header: &Header) -> bool {
    if !header.runs_on_carriers() {
        return false;
    }
    let carrier = here();
    #[cfg(loom)]
    if carrier.is_null() {
        // A thread of `thin.rs`, which is an OS thread.
        return false;
    }
    // SAFETY: the running thread is one that carriers run.
    !unsafe { (*carrier).is_away() }
}

/// The green thread's count of panics goes with it, in its thread-locals. So it may unwind on any OS thread.
fn owns_locals(header: &Header) -> bool {
    // SAFETY: a thread that runs keeps its runtime.
    unsafe { Inner::of(header) }.settings.own.is_some()
}

/// The panics of a thread that has left its stack. Made before the switch, dropped after it.
#[derive(Debug)]
pub(crate) struct Unwinding {
    panics: usize,
}

impl Unwinding {
    /// Sets the panics aside of a thread that is about to leave its stack. `None`: it must not leave it.
    #[inline]
    pub(crate) fn set_aside(header: &Header) -> Option<Self> {
        if std::thread::panicking() && !owns_locals(header) {
            panic_count::take().map(|panics| Self { panics })
        } else {
            Some(Self { panics: 0 })
        }
    }
}

impl Drop for Unwinding {
    #[inline]
    fn drop(&mut self) {
        if self.panics > 0 {
            panic_count::give_back(self.panics);
        }
    }
}

/// All threads of a model run on one OS thread, whose count is nobody's; Miri runs no coroutines.
#[cfg(any(loom, miri))]
mod panic_count {
    pub(super) fn take() -> Option<usize> {
        cfg!(loom).then_some(0)
    }

    pub(super) fn give_back(_panics: usize) {}
}
