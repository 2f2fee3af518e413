//! The inbox of a thread: exceptions that other threads have thrown, and its own `exc_after`s. `raise.rs` has the
//! rules.

use std::time::Instant;

use super::alarms::Alarms;
use super::kinds::BoxError;

/// What is to be raised in a thread, apart from its `timeout`s.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) killed: bool,
    pub(crate) thrown: Vec<(Instant, BoxError)>,
    pub(crate) alarms: Alarms,
    /// Nothing of this will be raised any more: the thread's body has ended.
    pub(crate) closed: bool,
}

impl Inbox {
    /// When the first `exc_after` is due.
    pub(crate) fn first_alarm(&self) -> Option<Instant> {
        self.alarms.first_deadline()
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed
    }

    /// Whether other threads have raised something.
    pub(crate) fn is_pending(&self) -> bool {
        self.killed || !self.thrown.is_empty()
    }
}
