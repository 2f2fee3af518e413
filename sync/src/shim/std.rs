//! The shim of a build.

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

pub(crate) mod cell {
    pub(crate) use std::cell::Cell;
}

pub(crate) mod sync {
    #[cfg(not(weald_sanitizer = "thread"))]
    pub(crate) use std::sync::{Mutex, MutexGuard};
    #[cfg(weald_sanitizer = "thread")]
    pub(crate) use weald_scheduler::in_sight::{Mutex, MutexGuard};
}

pub(crate) mod clock {
    pub(crate) use std::time::Instant;

    #[inline]
    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}

pub(crate) use weald_scheduler::io::random;
