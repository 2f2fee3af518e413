//! Poisoning: a lock whose holder has unwound tells that to the threads that take it next, as std's locks do.
//!
//! The thread that unwinds is the green or plain thread, and not the OS thread: on the same OS thread another green
//! thread may wait in the middle of its unwinding.

use std::sync::{LockResult, PoisonError};

use weald_scheduler::io;

use crate::shim::atomic::{AtomicBool, Ordering};

/// Set after a holder has unwound. The lock orders the accesses, so they are relaxed.
#[derive(Debug)]
pub(crate) struct Poison(AtomicBool);

/// Whether the thread was already unwinding when it took the lock. If so, it does not poison the lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before(bool);

impl Poison {
    constructor! {
        pub(crate) const fn new() -> Self {
            Self(AtomicBool::new(false))
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn before() -> Before {
        Before(io::is_unwinding())
    }

    /// Notes that the holder releases the lock.
    #[inline]
    pub(crate) fn after(&self, before: Before) {
        if !before.0 && io::is_unwinding() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn wrap<G>(&self, guard: G) -> LockResult<G> {
        if self.is_set() {
            Err(PoisonError::new(guard))
        } else {
            Ok(guard)
        }
    }
}
