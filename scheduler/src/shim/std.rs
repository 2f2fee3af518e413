//! The shim of a build: std under loom's interface.
#![allow(
    unreachable_pub,
    reason = "the items are re-exported by the module above"
)]

pub mod atomic {
    pub use std::sync::atomic::Ordering;
    pub use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};

    /// As std's. On x86-64 any read-modify-write is a full fence too, and several times faster than
    /// the `mfence` that std's compiles to: 3 ns instead of 25 on a Zen core.
    #[inline(always)]
    #[allow(unsafe_code, reason = "an instruction that changes nothing")]
    pub fn fence(order: Ordering) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if order == Ordering::SeqCst {
            // SAFETY: it writes back what it has read, on the running thread's own stack. The compiler must assume that
            // it touches any memory, so no access moves across it.
            unsafe { std::arch::asm!("lock or dword ptr [rsp], 0", options(nostack)) };
            return;
        }
        std::sync::atomic::fence(order);
    }
}

pub mod sync {
    pub use std::sync::{Arc, Weak};

    #[cfg(weald_sanitizer = "thread")]
    use crate::shim::in_sight as locks;
    #[cfg(not(weald_sanitizer = "thread"))]
    use std::sync as locks;

    pub use self::locks::{Condvar, MutexGuard};

    /// A reference that does not keep the value.
    pub fn downgrade<T>(value: &Arc<T>) -> Weak<T> {
        Arc::downgrade(value)
    }

    /// A mutex whose `lock` cannot fail: what it guards stays consistent even if a holder panics.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(locks::Mutex<T>);

    impl<T> Mutex<T> {
        pub const fn new(value: T) -> Self {
            Self(locks::Mutex::new(value))
        }

        #[inline]
        pub fn lock(&self) -> MutexGuard<'_, T> {
            match self.0.try_lock() {
                Ok(guard) => guard,
                Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) => self.lock_slow(),
            }
        }

        #[cold]
        fn lock_slow(&self) -> MutexGuard<'_, T> {
            let _bypass = super::super::bypass::Bypass::enter();
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    /// Waits for a notification; wakes spuriously, as condition variables do.
    pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let _bypass = super::super::bypass::Bypass::enter();
        condvar
            .wait(guard)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits for a notification or until the duration has passed.
    pub fn wait_for<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        limit: std::time::Duration,
    ) -> MutexGuard<'a, T> {
        let _bypass = super::super::bypass::Bypass::enter();
        condvar
            .wait_timeout(guard, limit)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0
    }
}

pub mod cell {
    /// `std`'s cell under loom's interface: access only inside a closure, so that a model sees it.
    #[derive(Debug, Default)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// What a model watches to see that something is used by one OS thread at a time. In a build: nothing.
pub mod token {
    #[derive(Debug, Default)]
    pub struct Token;

    /// Until it is dropped, the use of something lasts.
    #[derive(Debug)]
    pub struct Held;

    impl Token {
        pub const fn new() -> Self {
            Self
        }

        #[inline(always)]
        #[allow(clippy::unused_self, reason = "as a model's")]
        pub fn hold(&self) -> Held {
            Held
        }
    }
}

pub mod thread {
    pub use std::thread::yield_now;
}

pub mod clock {
    pub use std::time::Instant;

    /// The monotonic clock.
    #[inline]
    pub fn now() -> Instant {
        Instant::now()
    }
}

pub mod bounds {
    /// Dispatches between two looks at injector and poller; Go and tokio use 61 as well. A prime,
    /// so that it falls into step with no pattern of the program's.
    pub const FAIRNESS_INTERVAL: u32 = 61;
}
