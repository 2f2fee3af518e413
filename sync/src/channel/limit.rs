//! How long a send or a receive waits.

use std::time::{Duration, Instant};

use weald_scheduler::io;

use crate::shim::clock;

/// How long an operation waits. The clock is read only where it waits for the first time, be it for its
/// turn to run.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    Never,
    At(Instant),
    /// From now on; nothing was waited for yet.
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

    /// The time begins to count.
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
