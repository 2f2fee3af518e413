//! What the files of `sync/` take from their crate's shim, in the models that include several of them.
#![allow(dead_code, unused_imports, reason = "each model takes what it needs")]

pub(crate) mod atomic {
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    #[cfg(not(loom))]
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

pub(crate) mod cell {
    pub(crate) use weald_loom_tests::cell::{Cell, UnsafeCell};
}

pub(crate) mod thread {
    pub(crate) use weald_loom_tests::thread::yield_now;

    /// In a model others must take a step before it is worth while to look again.
    pub(crate) fn spin() {
        yield_now();
    }
}

pub(crate) mod sync {
    #[cfg(loom)]
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    #[cfg(not(loom))]
    pub(crate) use std::sync::{Mutex, MutexGuard};
}

pub(crate) mod clock {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    /// How often somebody has asked, if time passes at all.
    pub(crate) static LOOKS: AtomicU32 = AtomicU32::new(0);
    /// 1 in a model where time passes.
    pub(crate) static PASSES: AtomicU32 = AtomicU32::new(0);

    /// The scheduler's clock, which stands still unless somebody waits until a limit; where time
    /// passes, a second later each time.
    pub(crate) fn now() -> Instant {
        let looks = LOOKS.fetch_add(PASSES.load(Ordering::Relaxed), Ordering::Relaxed);
        let passed = Duration::from_secs(looks.into());
        weald_scheduler::io::deadline(passed).expect("models use short times")
    }
}

/// Of the fair choice, which a model must not depend on.
pub(crate) fn random() -> u64 {
    0
}
