//! What `scheduler/src/parts/door.rs`, and what has its right from the door, takes from the scheduler's shim.

pub(crate) mod atomic {
    pub(crate) use weald_loom_tests::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
}

pub(crate) mod barrier {
    use weald_loom_tests::sync::atomic::{Ordering, fence};

    pub(crate) fn light() {
        fence(Ordering::SeqCst);
    }

    pub(crate) fn heavy() -> bool {
        fence(Ordering::SeqCst);
        true
    }
}

pub(crate) mod sync {
    #[cfg(loom)]
    use loom::sync as real;
    #[cfg(not(loom))]
    use std::sync as real;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(real::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(real::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> real::MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics under the lock")
        }
    }
}
