//! The control block of a green thread: id, name, state, result.
//!
//! A green thread is one allocation, a `ThreadCell` (`task.rs`): the [`Header`] (`header.rs`), whose layout does not depend on
//! the closure, and behind it the closure, later its result. An OS thread that waits for something
//! of weald's, or that somebody holds a handle of, has a header of its own too, so that all waits
//! work alike.
//!
//! | part of the cell | whose                                                                    |
//! |------------------|--------------------------------------------------------------------------|
//! | state, refs      | all threads: atomics                                                     |
//! | coroutine, home  | the carrier that dispatches the thread                                   |
//! | stage: closure   | the thread itself                                                        |
//! | stage: result    | before DONE the thread itself, after it the handle, else the one that    |
//! |                  | `end.rs` chooses (`state.rs`, invariant 4)                               |
//! | cold.local       | the thread itself                                                        |
//! | cold.inbox       | all threads: a lock                                                      |
//! | forks            | the thread itself, and a taker (`forks.rs`)                              |
//!
//! Invariant 1: a [`Task`] keeps the cell alive. The queue a thread is in, its
//! carrier, or, while it is PARKED, its state word owns exactly one such reference ("the running
//! reference"), which `Wake::Won` hands to the waker.
//! Invariant 2: `coroutine` is touched only by the holder of the running reference.

mod header;
mod task;

#[cfg(not(loom))]
pub(crate) use self::header::Places;
pub(crate) use self::header::{AnyRuntime, Cold, Header, Hint, Links, Note, Settings};
pub(crate) use self::task::{Engine, Task, stack_payload};
