//! What a selection needs of an arm, and how long the selection waits.
#![allow(unsafe_code, reason = "an arm tells others of places in itself")]

use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Selection};

use crate::shim::clock;
use crate::shim::sync::Mutex;

/// One arm of a selection.
///
/// # Safety
/// What `register` tells others about stays in place until `forget`.
pub unsafe trait Arm {
    /// Returns the lock of the channel. An event has none.
    fn mutex(&self) -> Option<&Mutex<()>> {
        None
    }

    /// Returns when the clock makes the arm ready.
    fn time(&self) -> Option<Instant> {
        None
    }

    /// Does the arm's part if that is possible at once. Or begins it, if a waiting partner will end it. Returns true
    /// if it did.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn try_commit(&mut self) -> bool;

    /// Takes the lock and does what `try_commit` does.
    fn try_alone(&mut self) -> bool;

    /// Guesses, without the lock, if `try_alone` is worth trying.
    fn seems_ready(&self) -> bool {
        true
    }

    /// Tells if `try_commit` would do its part.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn is_ready(&self) -> bool;

    /// Lets partners find the selection.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn register(&mut self, selection: &Selection, index: usize);

    /// Lets others tell the selection that the arm is ready, without taking part.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn watch(&mut self, selection: &Selection, index: usize);

    /// Undoes `register` and `watch`.
    ///
    /// # Safety
    /// The lock is held.
    unsafe fn forget(&mut self);

    /// Ends what was begun, after the arm was chosen, without the lock. Returns false if it came to nothing.
    fn settle(&mut self) -> bool {
        true
    }
}

/// How long a selection waits.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// It does not wait: there is a `default` arm.
    Now,
    /// It waits until this time; `None`: for ever.
    Until(Option<Instant>),
}

impl Limit {
    /// Returns a limit that long from now.
    pub fn within(limit: Duration) -> Self {
        Self::Until(io::deadline(limit))
    }

    pub(super) fn is_over(self) -> bool {
        match self {
            Self::Now => true,
            Self::Until(deadline) => deadline.is_some_and(|at| clock::now() >= at),
        }
    }

    /// Returns the earlier one of this limit and of the arms' own times.
    pub(super) fn first(self, arms: &[&mut dyn Arm]) -> Option<Instant> {
        let Self::Until(deadline) = self else {
            return None;
        };
        let times = arms.iter().filter_map(|arm| arm.time());
        times.chain(deadline).min()
    }
}
