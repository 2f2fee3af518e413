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
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Duration;

    pub use loom::sync::{Arc, Condvar};

    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            MutexGuard { mutex: self, guard }
        }
    }

    /// As std's; it knows its mutex, so that a limited wait can let go of it.
    #[derive(Debug)]
    pub struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        guard: loom::sync::MutexGuard<'a, T>,
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.guard
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.guard
        }
    }

    pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { mutex, guard } = guard;
        let guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex, guard }
    }

    /// loom's condition variable has no time-outs: a limited wait lets the others run and ends, with
    /// the clock at its limit. That the others come sooner, later or never is among the orders that
    /// a model tries.
    pub fn wait_for<'a, T>(
        _condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> MutexGuard<'a, T> {
        let mutex = guard.mutex;
        drop(guard);
        loom::thread::yield_now();
        super::clock::advance(limit);
        mutex.lock()
    }

    /// loom has no weak references: this one keeps its value, so a model that leaves one behind in
    /// what it refers to is told of a leak.
    #[derive(Debug)]
    pub struct Weak<T>(Arc<T>);

    impl<T> Weak<T> {
        pub fn upgrade(&self) -> Option<Arc<T>> {
            Some(self.0.clone())
        }
    }

    pub fn downgrade<T>(value: &Arc<T>) -> Weak<T> {
        Weak(value.clone())
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
    use std::sync::atomic::{AtomicU64, Ordering};

    pub use std::time::Instant;

    // std's atomic: that a read of the clock comes before or after another thread's sleep is no
    // race to explore, and loom's would make all threads depend on each other.
    loom::lazy_static! {
        static ref ORIGIN: Instant = Instant::now();
        static ref NANOS: AtomicU64 = AtomicU64::new(0);
    }

    /// The model's clock: it stands still unless somebody sleeps until a limit.
    pub fn now() -> Instant {
        *ORIGIN + std::time::Duration::from_nanos(NANOS.load(Ordering::Relaxed))
    }

    /// Moves the model's clock.
    pub fn advance(by: std::time::Duration) {
        let nanos = u64::try_from(by.as_nanos()).expect("models use short times");
        NANOS.fetch_add(nanos, Ordering::Relaxed);
    }
}

pub mod bounds {
    pub const FAIRNESS_INTERVAL: u32 = 2;
}
