//! What every model of weald needs: a search that counts its permutations, counts what it has seen, and reports both.
//!
//! A model is a `#[test]` that calls [`check`] with a [`Model`] and a scenario. Under `--cfg loom`
//! the scenario runs once per permutation, the explored orders of one bounded search. Without it
//! the same scenario runs some thousand times on OS threads: this is the *referee*. So a double and the real thing
//! meet the same assertions. [`thread`] and [`sync`] are loom's or std's to match.
//!
//! A model passes only if the search is complete, has at least the permutations of its floor, and
//! has seen each of its witnesses: a scenario in which nothing was ever stolen proves nothing about
//! stealing. loom itself stops silently at its limits of time and permutations, so [`check`] never
//! sets those. It has a limit of its own, and a search that reaches it gets a verdict of its own.
//!
//! A panic in a scenario ends the process at once: unwinding through loom's threads mostly aborts,
//! and hides the report. Models are therefore run one process each; see `loom-tests/run`.

mod flag;
mod report;
mod search;
mod unexplored;
mod witness;

pub use self::flag::Flag;
pub use self::report::Deliberate;
pub use self::search::{EXHAUSTIVE, Model, check, check_outcomes};
#[cfg(loom)]
pub use self::search::{keep_to_cap, tell};
pub use self::unexplored::{explored, unexplored};
#[doc(hidden)]
pub use self::witness::saw;

/// Threads of a scenario: loom's in a model check, the system's in a referee run.
pub mod thread {
    #[cfg(loom)]
    pub use loom::thread::{JoinHandle, current, spawn, yield_now};
    #[cfg(not(loom))]
    pub use std::thread::{JoinHandle, current, spawn, yield_now};
}

/// What `shim/std.rs` of the scheduler takes from its crate. A model that includes that file re-exports this in its
/// root.
#[cfg(not(loom))]
pub mod bypass {
    /// Calls of libc block, as they do where nothing is patched.
    #[derive(Debug)]
    pub struct Bypass;

    impl Bypass {
        /// Nothing is patched.
        #[must_use]
        pub fn enter() -> Self {
            Self
        }
    }
}

/// Shared state of a scenario: loom's in a model check, std's in a referee run.
pub mod sync {
    #[cfg(loom)]
    pub use loom::sync::{Arc, Condvar, Mutex, atomic};
    #[cfg(not(loom))]
    pub use std::sync::{Arc, Condvar, Mutex, atomic};
}

/// A cell without a lock. loom reports two uses that are not ordered, and in a referee run Miri does.
pub mod cell {
    #[cfg(loom)]
    pub use loom::cell::{Cell, UnsafeCell};
    #[cfg(not(loom))]
    pub use std::cell::Cell;

    /// `std`'s under loom's interface.
    #[cfg(not(loom))]
    #[derive(Debug, Default)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    #[cfg(not(loom))]
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
    }
}
