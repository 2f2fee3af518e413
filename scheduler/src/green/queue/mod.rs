//! The three kinds of run queues: a worker's own queues, its `RunNext`, and the injector for threads
//! that callers on no carrier make ready.
//!
//! Each task that is pushed is popped or stolen exactly once. None of the queues blocks, except for the injector's
//! short lock. A thief learns one of three things: [`Steal`].

#[cfg_attr(loom, path = "deque_loom.rs")]
mod deque;
mod injector;
mod run_next;
mod run_queue;
mod steal;

use self::deque::{Owner, Stealer};

pub(crate) use self::injector::Injector;
pub(crate) use self::run_next::RunNext;
pub(crate) use self::run_queue::{Order, RunQueue, Thieves, shrink};
pub(crate) use self::steal::Steal;
