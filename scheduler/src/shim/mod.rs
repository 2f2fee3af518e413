//! The only way to atomics, cells, locks, OS threads, thread-locals and the clock.
//!
//! In a build these are std's. Under `--cfg loom` they are loom's; what loom lacks of std's is added here, so that the
//! code above needs no `cfg`. These are rules for that code, so that a model can see what it
//! does: sequential consistency comes only from [`fence`] or a read-modify-write, never from
//! `SeqCst` loads and stores; locks are taken only by `lock`; every spin yields; ring sizes and other bounds
//! come from [`bounds`].
//!
//! [`fence`]: atomic::fence

#[macro_use]
mod for_models;

/// Tells `weald::model` what the running thread waits for, from here to the end of the block.
macro_rules! waits_for {
    ($($what:tt)*) => {
        #[cfg(loom)]
        let _waits = crate::thin::Waits::begin(crate::thin::Wait::$($what)*);
    };
}

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    not(any(loom, miri))
))]
#[allow(
    unsafe_code,
    reason = "reads what the C library keeps of its memory, and writes a word of it"
)]
pub(crate) mod arena;
#[cfg(not(loom))]
pub(crate) mod barrier;
#[cfg_attr(
    loom,
    allow(unreachable_pub, reason = "`patch` re-exports it, which no model has")
)]
pub(crate) mod bypass;
pub(crate) mod here;
#[cfg(weald_sanitizer = "thread")]
pub mod in_sight;
#[cfg(all(target_os = "linux", target_env = "gnu", not(any(loom, miri))))]
#[allow(unsafe_code, reason = "starts OS threads by the C library")]
mod lean;
#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
pub(crate) mod os_threads;
#[cfg(not(loom))]
mod std;

/// std's locks, for code that no model looks at.
#[cfg_attr(loom, allow(unused_imports, reason = "a model has no pools"))]
pub(crate) mod plain {
    #[cfg(weald_sanitizer = "thread")]
    pub(crate) use super::in_sight::{Condvar, Mutex, MutexGuard};
    #[cfg(not(weald_sanitizer = "thread"))]
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
}

#[cfg(loom)]
pub(crate) use self::loom::*;
#[cfg(not(loom))]
pub(crate) use self::std::*;
