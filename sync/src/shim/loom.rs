//! The shim of a model of a user's program (`weald::model`).

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

pub(crate) mod cell {
    pub(crate) use loom::cell::{Cell, UnsafeCell};
}

pub(crate) mod thread {
    pub(crate) use loom::thread::yield_now;

    /// In a model others must take a step before it is worth while to look again.
    pub(crate) fn spin() {
        yield_now();
    }
}

pub(crate) mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

pub(crate) mod clock {
    use std::time::Duration;
    pub(crate) use std::time::Instant;

    /// Returns the scheduler's time, which stands still unless a thread waits until a limit.
    pub(crate) fn now() -> Instant {
        weald_scheduler::io::deadline(Duration::ZERO).expect("models use short times")
    }
}

/// Returns the same number in each permutation.
pub(crate) fn random() -> u64 {
    weald_scheduler::thin::random()
}
