//! The shim of a model check: loom's types under the names of the build's shim.
#![allow(
    unreachable_pub,
    reason = "the items are re-exported by the module above"
)]

pub mod atomic {
    pub use loom::sync::atomic::Ordering;
    pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, fence};
}

/// Both sides are real fences: what the kernel does for the light one, loom cannot know.
pub mod barrier {
    use loom::sync::atomic::{Ordering, fence};

    pub fn prepare() {}

    pub fn light() {
        fence(Ordering::SeqCst);
    }

    pub fn heavy() -> bool {
        fence(Ordering::SeqCst);
        true
    }
}

pub mod sync {
    pub use loom::sync::{Arc, Condvar, MutexGuard};

    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar
            .wait(guard)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// loom's condition variable has no time-outs: a limited wait is modelled as one that ends by
    /// a notification, so a model that needs the limit to pass drives the clock itself.
    pub fn wait_for<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        _limit: std::time::Duration,
    ) -> MutexGuard<'a, T> {
        wait(condvar, guard)
    }
}

pub mod cell {
    pub use loom::cell::UnsafeCell;
}

pub mod thread {
    pub use loom::thread::{JoinHandle, yield_now};

    pub fn spawn(
        _name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        Ok(loom::thread::spawn(body))
    }
}

pub mod clock {
    pub use std::time::Instant;

    loom::lazy_static! {
        static ref ORIGIN: Instant = Instant::now();
        static ref TICKS: loom::sync::atomic::AtomicU64 = loom::sync::atomic::AtomicU64::new(0);
    }

    /// The model's clock: it stands still unless the model moves it.
    pub fn now() -> Instant {
        *ORIGIN
            + std::time::Duration::from_millis(TICKS.load(loom::sync::atomic::Ordering::Relaxed))
    }

    /// Moves the model's clock.
    pub fn advance(by: std::time::Duration) {
        let millis = u64::try_from(by.as_millis()).expect("models use short times");
        TICKS.fetch_add(millis, loom::sync::atomic::Ordering::Relaxed);
    }
}

pub mod bounds {
    pub const FAIRNESS_INTERVAL: u32 = 2;
}
