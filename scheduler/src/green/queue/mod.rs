//! What a run queue promises, and the three kinds: a worker's own run queues, its run-next slot, and
//! the injector for work from outside.
//!
//! Whatever is pushed is popped or stolen exactly once; none of them blocks but for the injector's
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
