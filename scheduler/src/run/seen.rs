//! What the monitor has seen of one worker, and how that worker gets on.

use std::time::Instant;

use super::hogs::Siege;

/// What was seen of a worker at the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) ticks: u64,
    pub(super) holder: Option<usize>,
    /// The first look that saw this.
    pub(super) since: Instant,
    /// Looks that saw this, since the last fork that was taken there.
    pub(super) looks: u32,
    /// An idle worker was woken to help.
    pub(super) woke: bool,
    /// There was no carrier that could take the seat.
    pub(super) refused: bool,
    pub(super) siege: Siege,
}

impl Seen {
    /// What is noted of a worker before the first look.
    pub(super) fn nothing(now: Instant) -> Self {
        Self {
            ticks: 0,
            holder: None,
            since: now,
            looks: 0,
            woke: false,
            refused: false,
            siege: Siege {
                seats: 0,
                last: now,
            },
        }
    }
}

/// How a worker gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It dispatches often, or sleeps.
    Brisk,
    /// It dispatches now and then, or has a new carrier.
    Slow,
    /// It has dispatched nothing since the last look.
    Late,
}
