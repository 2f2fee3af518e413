//! What a selection needs of an arm, and how long it waits.
#![allow(unsafe_code, reason = "an arm tells others of places in itself")]

use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Selection};

use crate::shim::clock;
use crate::shim::sync::Mutex;

/// One arm.
///
/// # Safety
/// What `register` tells others of stays where it is until `forget`.
pub unsafe trait Arm {
    /// The lock of the channel; an event has none.
    fn mutex(&self) -> Option<&Mutex<()>> {
        None
    }

    /// When it becomes ready by the clock.
    fn time(&self) -> Option<Instant> {
        None
    }

    /// Does its part, if it can at once; or begins it, if a partner that waits is to end it.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn try_commit(&mut self) -> bool;

    /// As `try_commit`, and takes the lock for it.
    fn try_alone(&mut self) -> bool;

    /// A guess, without the lock, whether `try_alone` is worth while.
    fn seems_ready(&self) -> bool {
        true
    }

    /// True if `try_commit` would do its part.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn is_ready(&self) -> bool;

    /// Lets partners find the selection.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn register(&mut self, selection: &Selection, index: usize);

    /// Lets the selection be told that the arm is ready, without taking part.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn watch(&mut self, selection: &Selection, index: usize);

    /// Undoes `register` and `watch`.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn forget(&mut self);

    /// Ends what was begun; after it was chosen, without the lock. False: it came to nothing.
    fn settle(&mut self) -> bool {
        true
    }
}

/// How long a selection waits.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// Not at all: a `default` arm.
    Now,
    /// Until then; `None`: for ever.
    Until(Option<Instant>),
}

impl Limit {
    /// That long from now.
    pub fn within(limit: Duration) -> Self {
        Self::Until(io::deadline(limit))
    }

    pub(super) fn is_over(self) -> bool {
        match self {
            Self::Now => true,
            Self::Until(deadline) => deadline.is_some_and(|at| clock::now() >= at),
        }
    }

    /// The earlier of this and of the arms' own times.
    pub(super) fn first(self, arms: &[&mut dyn Arm]) -> Option<Instant> {
        let Self::Until(deadline) = self else {
            return None;
        };
        let times = arms.iter().filter_map(|arm| arm.time());
        times.chain(deadline).min()
    }
}
