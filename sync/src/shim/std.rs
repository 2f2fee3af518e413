//! The shim of a build.

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

pub(crate) mod cell {
    pub(crate) use std::cell::Cell;

    /// `std`'s under loom's interface.
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

pub(crate) mod thread {
    pub(crate) use std::thread::yield_now;

    /// Spends some nanoseconds.
    #[inline]
    pub(crate) fn spin() {
        std::hint::spin_loop();
    }
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
