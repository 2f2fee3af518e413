//! The primitives of `futex.rs` and `known.rs`. A model of these files has loom's instead.

use self::atomic::AtomicU32;

pub(crate) use weald_scheduler::patch::{Waited as Parked, Wakeup};

/// Waits for a wake-up, because of that word.
pub(crate) fn wait_for_wakeup(
    word: *const AtomicU32,
    until: Option<std::time::Instant>,
    publish: impl FnOnce(Wakeup) -> bool,
) -> Parked {
    use weald_scheduler::io::{Awaited, On};

    weald_scheduler::patch::wait_for_wakeup(On::object(Awaited::Futex, word), until, publish)
}

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

pub(crate) mod cell {
    /// std's primitive with the interface of loom's.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// Makes one more turn of a loop that waits for another thread.
pub(crate) fn spin(turn: u32) {
    if turn.is_multiple_of(64) {
        // The holder may have been taken off its core.
        std::thread::yield_now();
    }
    std::hint::spin_loop();
}
