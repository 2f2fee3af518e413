//! What the files of `sync/` take from their crate's shim, in the models that include several of them.
#![allow(unused_imports, reason = "each model takes what it needs")]

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
    // Poison, which the lock orders.
    pub(crate) use std::sync::atomic::AtomicBool;
}

pub(crate) mod cell {
    pub(crate) use loom::cell::Cell;
}

pub(crate) mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

pub(crate) mod clock {
    use std::time::{Duration, Instant};

    /// The scheduler's clock, which stands still unless somebody waits until a limit.
    pub(crate) fn now() -> Instant {
        weald_scheduler::io::deadline(Duration::ZERO).expect("models use short times")
    }
}

/// Of the fair choice, which a model must not depend on.
#[allow(dead_code, reason = "only what selects asks")]
pub(crate) fn random() -> u64 {
    0
}
