//! Synchronisation for green threads and OS threads, in any mix: the shapes of `std::sync` and of
//! crossbeam's channels.
//!
//! This crate is a part of `weald`, which re-exports what programs use as `weald::sync`.
