//! The shim of a build: std under loom's interface.
#![allow(
    unreachable_pub,
    reason = "the items are re-exported by the module above"
)]

pub mod atomic {
    pub use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

pub mod sync {
    pub use std::sync::Arc;
}

pub mod cell {
    /// `std`'s cell under loom's interface: access only inside a closure, so that a model sees it.
    #[derive(Debug, Default)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

pub mod bounds {
    /// Two to this power is the number of entries in the first chunk of a slab: 64 entries, one
    /// page for a value of 24 bytes and the price of a worker that uses few timers.
    pub const FIRST_CHUNK_BITS: u32 = 6;

    /// Chunks of a slab, each twice as long as the one before: 2^26 - 64 entries in all, 67 million
    /// timers for each worker. Some hundred millions would still fit in a position.
    pub const CHUNKS: usize = 20;
}
