//! The shim of a model check: loom's types under the names of the build's shim.
#![allow(
    unreachable_pub,
    reason = "the items are re-exported by the module above"
)]

pub mod atomic {
    pub use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

pub mod sync {
    pub use loom::sync::Arc;
}

pub mod cell {
    pub use loom::cell::UnsafeCell;
}

pub mod bounds {
    /// A first chunk of one entry, so that a model with two timers sees a slab grow.
    pub const FIRST_CHUNK_BITS: u32 = 0;

    /// Three chunks hold 1 + 2 + 4 entries; the crowds of `loom-tests/shuttle` need more.
    pub const CHUNKS: usize = if cfg!(shuttle) { 9 } else { 3 };
}
