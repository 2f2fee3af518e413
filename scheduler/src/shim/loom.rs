//! The shim of a model check: loom's types under the names of the build's shim.
#![allow(
    unreachable_pub,
    reason = "the items are re-exported by the module above"
)]

pub mod atomic {
    pub use loom::sync::atomic::Ordering;
    pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, fence};
}

/// For a model that loom has given up by a panic. Unwinding must not go on to the
/// destructors of the program, because they would take steps of loom's, which has ended.
pub mod doom {
    use std::cell::Cell;

    thread_local! {
        static DOOMED: Cell<bool> = const { Cell::new(false) };
    }

    /// The model on this OS thread is given up.
    pub fn doom() {
        DOOMED.set(true);
    }

    /// This lives while loom takes a step that may be the last one.
    #[derive(Debug)]
    pub struct Step;

    impl Drop for Step {
        fn drop(&mut self) {
            while DOOMED.get() {
                std::thread::park();
            }
        }
    }
}

/// Both sides are real fences, because loom cannot know what the kernel does for the light side. But a model of a whole
/// runtime has no monitor, so nobody makes the heavy fence. There the light side does nothing: a fence of loom's would
/// order more than the light side of a build does.
pub mod barrier {
    use std::sync::atomic::AtomicBool;

    use loom::sync::atomic::{Ordering, fence};

    static WITHOUT_MONITOR: AtomicBool = AtomicBool::new(false);

    /// A runtime starts.
    pub fn prepare() {
        WITHOUT_MONITOR.store(true, Ordering::Relaxed);
    }

    pub fn light() {
        if !WITHOUT_MONITOR.load(Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
    }

    pub fn heavy() -> bool {
        fence(Ordering::SeqCst);
        true
    }
}

pub mod sync {
    use std::cell::Cell;
    use std::ops::{Deref, DerefMut};
    use std::sync::{OnceLock, PoisonError};
    use std::time::Duration;

    pub use loom::sync::{Arc, Condvar};

    /// The value is made at its first use, so that `new` can be a `const fn`, as in a build.
    #[derive(Debug)]
    pub struct Mutex<T> {
        made: OnceLock<loom::sync::Mutex<T>>,
        /// Until then.
        value: std::sync::Mutex<Option<T>>,
    }

    impl<T> Mutex<T> {
        pub const fn new(value: T) -> Self {
            Self {
                made: OnceLock::new(),
                value: std::sync::Mutex::new(Some(value)),
            }
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            let _step = super::doom::Step;
            let made = self.made.get_or_init(|| {
                let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
                loom::sync::Mutex::new(value.take().expect("it is made once"))
            });
            let guard = made.lock().unwrap_or_else(PoisonError::into_inner);
            MutexGuard { mutex: self, guard }
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    /// As std's. It knows its mutex, so that a limited wait can release the mutex.
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
        let _step = super::doom::Step;
        let MutexGuard { mutex, guard } = guard;
        let guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex, guard }
    }

    loom::thread_local! {
        static TIMED_WAITS: Cell<u32> = Cell::new(0);
    }

    /// How many limited waits of this thread may end before the others have done what they can.
    pub fn end_timed_waits(count: u32) {
        TIMED_WAITS.with(|left| left.set(count));
    }

    /// Both orders are tried: the thread goes on now, and the thread goes on only when no other can. loom offers just
    /// one choice that can be used for this: whether a wait for a notice that is there ends spuriously.
    fn choose_to_yield() {
        let choice = loom::sync::Notify::new();
        choice.notify();
        choice.wait();
    }

    /// loom's condition variable has no time-outs. So a limited wait lets the others run and then ends, with
    /// the clock at its limit. loom runs a thread that has yielded only when no other can go on. So only
    /// [`end_timed_waits`] tries that the wait ends earlier.
    pub fn wait_for<'a, T>(
        _condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> MutexGuard<'a, T> {
        let _step = super::doom::Step;
        let mutex = guard.mutex;
        drop(guard);
        let chooses = TIMED_WAITS.with(|left| left.replace(left.get().saturating_sub(1)) > 0);
        if chooses {
            choose_to_yield();
        } else {
            loom::thread::yield_now();
        }
        super::clock::advance(limit);
        mutex.lock()
    }

    /// loom has no weak references. This one keeps its value. So if a value holds a weak reference to itself, loom
    /// reports a leak.
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

/// By this a model sees that something is used by one OS thread at a time, if loom cannot see
/// the thing itself. It reports two uses at once. It also reports two uses of which the memory model does not say that
/// the later one comes after the earlier one.
pub mod token {
    use std::sync::Arc;

    use loom::cell::{MutPtr, UnsafeCell};
    use loom::sync::atomic::{AtomicBool, Ordering};

    #[derive(Debug)]
    pub struct Token {
        cell: UnsafeCell<()>,
        /// Steps between which another thread may come. Relaxed, because they must not order anything.
        in_use: Arc<AtomicBool>,
    }

    /// The use of something. It lasts until this is dropped.
    #[derive(Debug)]
    pub struct Held {
        cell: Option<MutPtr<()>>,
        in_use: Arc<AtomicBool>,
    }

    impl Token {
        pub fn new() -> Self {
            Self {
                cell: UnsafeCell::new(()),
                in_use: Arc::new(AtomicBool::new(false)),
            }
        }

        /// A use begins.
        #[track_caller]
        pub fn hold(&self) -> Held {
            let in_use = self.in_use.swap(true, Ordering::Relaxed);
            assert!(!in_use, "two users at once");
            Held {
                cell: Some(self.cell.get_mut()),
                in_use: Arc::clone(&self.in_use),
            }
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.cell = None;
            self.in_use.store(false, Ordering::Relaxed);
        }
    }
}

pub mod thread {
    pub use loom::thread::yield_now;
}

pub mod os_threads {
    /// An OS thread that has not been joined.
    #[derive(Debug)]
    pub struct Handle(loom::thread::JoinHandle<()>);

    impl Handle {
        pub fn join(self) {
            let _ = self.0.join();
        }
    }

    pub fn spawn(_name: String, body: impl FnOnce() + Send + 'static) -> std::io::Result<Handle> {
        Ok(Handle(loom::thread::spawn(body)))
    }

    pub fn spawn_lean(
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Handle> {
        spawn(name, body)
    }
}

pub mod clock {
    use std::sync::atomic::{AtomicU64, Ordering};

    pub use std::time::Instant;

    // std's atomic. Whether a read of the clock comes before or after another thread's sleep is no
    // race to explore, and an atomic of loom's would make all threads depend on each other.
    loom::lazy_static! {
        static ref ORIGIN: Instant = Instant::now();
        static ref NANOS: AtomicU64 = AtomicU64::new(0);
    }

    /// The model's clock. It stands still unless a thread sleeps until a limit.
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
