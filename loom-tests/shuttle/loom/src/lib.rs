//! What weald takes from loom, over shuttle: the same production code that loom looks at, with `--cfg
//! loom`, runs in shuttle's tasks, which may be many and whose order is random. Everything here is
//! sequentially consistent, so missing fences and orderings are not seen; loom sees those.

/// One for each execution.
pub use shuttle::lazy_static;
/// One for each of shuttle's tasks.
pub use shuttle::thread_local;

/// OS threads: shuttle's tasks.
pub mod thread {
    pub use shuttle::thread::{JoinHandle, ThreadId, current, spawn, yield_now};
}

/// What may be used by one task at a time; nothing is looked at here.
pub mod cell {
    pub use std::cell::Cell;

    /// `std`'s under loom's interface.
    #[derive(Debug, Default)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// With this in it.
        pub const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        /// To read.
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// To write.
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }

        /// To write for a while.
        pub fn get_mut(&self) -> MutPtr<T> {
            MutPtr(self.0.get())
        }
    }

    /// For as long as something is written.
    #[derive(Debug)]
    pub struct MutPtr<T>(#[expect(dead_code, reason = "loom watches it")] *mut T);
}

/// Locks and atomics.
pub mod sync {
    pub use shuttle::sync::{Arc, Condvar, MutexGuard};
    use std::cell::Cell;
    use std::sync::{LockResult, PoisonError};

    use shuttle::scheduler::TaskId;

    /// Shuttle's atomics. All orderings are `SeqCst`.
    pub mod atomic {
        pub use shuttle::sync::atomic::{
            AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
        };
    }

    /// Never poisoned, as loom's: an exception in a green thread is no bug of the program.
    #[derive(Debug, Default)]
    pub struct Mutex<T> {
        inner: shuttle::sync::Mutex<T>,
        /// The task that had it last.
        holder: Cell<Option<TaskId>>,
    }

    // SAFETY: shuttle's tasks share one OS thread, and none leaves it.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    std::thread_local! {
        static AWAITED: Cell<Option<TaskId>> = const { Cell::new(None) };
    }

    /// The task that has the lock for which an unwinding task waits.
    #[must_use]
    pub fn awaited() -> Option<TaskId> {
        AWAITED.get()
    }

    impl<T> Mutex<T> {
        /// As std's.
        #[track_caller]
        pub const fn new(value: T) -> Self {
            Self {
                inner: shuttle::sync::Mutex::new(value),
                holder: Cell::new(None),
            }
        }

        /// As std's.
        ///
        /// # Errors
        /// None.
        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            if std::thread::panicking() {
                AWAITED.set(self.holder.get());
            }
            let guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            AWAITED.set(None);
            self.holder.set(Some(shuttle::current::me()));
            Ok(guard)
        }

        /// As std's.
        ///
        /// # Errors
        /// None.
        pub fn into_inner(self) -> LockResult<T> {
            Ok(self
                .inner
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner))
        }
    }

    /// A wait for it may end as if nobody had notified.
    #[derive(Debug, Default)]
    pub struct Notify;

    impl Notify {
        /// As loom's.
        #[must_use]
        pub fn new() -> Self {
            Self
        }

        /// There is one notice.
        pub fn notify(&self) {}

        /// The others may come first, or not.
        pub fn wait(&self) {
            use shuttle::rand::Rng;
            if shuttle::rand::thread_rng().r#gen() {
                shuttle::thread::yield_now();
            }
        }
    }
}

/// What `weald::model` is built on. Programs of users are searched by loom.
pub mod model {
    /// Loom's settings.
    #[derive(Debug, Default)]
    pub struct Builder {
        /// Loom's.
        pub max_permutations: Option<usize>,
        /// Loom's.
        pub max_duration: Option<std::time::Duration>,
        /// Loom's.
        pub preemption_bound: Option<usize>,
        /// Loom's.
        pub max_branches: usize,
    }

    impl Builder {
        /// As loom's.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }

        /// Nothing is searched here.
        ///
        /// # Panics
        /// Always.
        pub fn check<F>(&self, _program: F)
        where
            F: Fn() + Send + Sync + 'static,
        {
            panic!("`weald::model` is loom's");
        }
    }
}
