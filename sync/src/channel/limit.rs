//! How long a send or a receive waits.

use std::time::{Duration, Instant};

use weald_scheduler::io;

use crate::shim::clock;

/// How long an operation waits. The clock is read only when the operation waits for the first time: for the
/// channel, or because it gives way to other threads first.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    Never,
    At(Instant),
    /// So long from its first wait on, which has not begun.
    Within(Duration),
}

impl Limit {
    /// There is no time to wait.
    pub(super) fn is_over(self) -> bool {
        match self {
            Self::Never => false,
            Self::At(deadline) => clock::now() >= deadline,
            Self::Within(limit) => limit.is_zero(),
        }
    }

    /// The time begins to count now.
    pub(super) fn start(&mut self) {
        if let Self::Within(limit) = *self {
            *self = io::deadline(limit).map_or(Self::Never, Self::At);
        }
    }

    /// When a wait that begins now must end.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        self.start();
        match *self {
            Self::At(deadline) => Some(deadline),
            Self::Never | Self::Within(_) => None,
        }
    }
}
