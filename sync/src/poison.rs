//! Poisoning: a lock whose holder unwound says so to those who take it next, as std's do.
//!
//! Who unwinds is the thread, green or not, and not the OS thread: another green thread may wait in
//! the middle of unwinding on the same one.

use std::sync::{LockResult, PoisonError};

use weald_scheduler::io;

use crate::shim::atomic::{AtomicBool, Ordering};

/// Set once a holder has unwound. The lock orders it, so the accesses are relaxed.
#[derive(Debug)]
pub(crate) struct Poison(AtomicBool);

/// Whether the thread was unwinding already when it took the lock: then it does not poison.
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

    /// The holder lets go.
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
