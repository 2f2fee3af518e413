//! The scheduler's own system calls on a green thread's stack, which must not suspend that thread.
//!
//! A [`Bypass`] raises a count of the running thread. A hooked call of libc (`patch.rs`) looks at that count. An OS
//! thread has such a count, too, but nobody looks at it.
#![allow(unsafe_code, reason = "the running thread's own count")]

use super::here::{self, Front};

/// While this value lives, hooked calls of the running thread do what libc's do.
#[derive(Debug)]
pub struct Bypass(*const Front);

impl Bypass {
    /// For the thread that runs here.
    #[inline]
    pub fn enter() -> Self {
        let running = here::running();
        // SAFETY: what runs here is alive.
        match unsafe { running.as_ref() } {
            Some(running) => Self::of(running),
            None => Self(running),
        }
    }

    /// For the running thread, whose header begins with this [`Front`].
    #[inline]
    pub(crate) fn of(running: &Front) -> Self {
        running.bypass.set(running.bypass.get() + 1);
        Self(running)
    }
}

impl Drop for Bypass {
    #[inline]
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: a `Bypass` stays on the stack of the thread that made it.
            let bypass = unsafe { &(*self.0).bypass };
            bypass.set(bypass.get() - 1);
        }
    }
}
