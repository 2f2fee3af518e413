//! Green threads for all cores: plain blocking Rust, a million of it at once.
//!
//! ```
//! let answer = weald::spawn(|| 6 * 7);
//! assert_eq!(answer.join().unwrap(), 42);
//! ```

pub use weald_scheduler::{
    Builder, Elapsed, Exception, GreenThread, GreenThreadId, InstallError, JoinHandle, Killed,
    LocalKey, Metrics, Runtime, RuntimeBuilder, Scope, ScopedJoinHandle, ThreadLocals, Timer,
    blocking, call_after, call_after_local, catch, checkpoint, current, exc_after, green_local,
    is_green, park, park_timeout, scope, sleep, sleep_until, spawn, timeout, yield_now,
};

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
