//! Short forms for what models ask of production code, so that they do not interrupt its reading.
//!
//! A *fault* is seeded by its name; `loom-tests/faults.txt` says which model must find it. In a build nothing of
//! it is left. With `--cfg weald_faults`, which only `loom-tests/run` sets, the environment (`WEALD_FAULT`) names
//! the fault that is shown, so one build has them all.
//!
//! Crates share no private macros, so each crate with models has a copy of this file; `tests/tidy.rs` checks that
//! the copies are the same.

#![allow(unused_macros, reason = "each crate takes what it needs")]

/// True while the fault of this name is shown.
#[cfg(not(weald_faults))]
macro_rules! fault {
    ($name:literal) => {
        false
    };
}

#[cfg(weald_faults)]
macro_rules! fault {
    ($name:literal) => {{
        static IS_SHOWN: ::std::sync::OnceLock<bool> = ::std::sync::OnceLock::new();
        *IS_SHOWN.get_or_init(|| ::std::env::var("WEALD_FAULT").is_ok_and(|shown| shown == $name))
    }};
}

/// A step of a protocol, which the fault of this name leaves out.
macro_rules! unless {
    ($name:literal, $step:expr) => {
        if !fault!($name) {
            $step;
        }
    };
}

/// The ordering that a step needs; relaxed while the fault of this name is shown.
macro_rules! relaxed_if {
    ($name:literal, $needed:expr) => {
        if fault!($name) {
            Ordering::Relaxed
        } else {
            $needed
        }
    };
}

/// A constructor that is `const`. In a model it is not: loom makes its atomics at run time.
macro_rules! constructor {
    ($(#[$attribute:meta])* $visible:vis const fn $($rest:tt)*) => {
        $(#[$attribute])*
        #[cfg(not(loom))]
        $visible const fn $($rest)*

        $(#[$attribute])*
        #[cfg(loom)]
        $visible fn $($rest)*
    };
}
