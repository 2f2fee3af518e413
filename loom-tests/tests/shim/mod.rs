//! What the channels and `select!` take from their crate's shim, in the models that include them.

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    // The turn of the fair choice, a static, which a model must not depend on.
    pub(crate) use std::sync::atomic::AtomicU64;
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
