//! The double of a worker: what the monitor looks at.

use std::time::Instant;

use crate::seat::Seat;
use crate::shim::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) ticks: crate::shim::atomic::AtomicU64,
    pub(crate) late: AtomicBool,
    pub(crate) seat: Seat,
    pub(crate) poller: Poller,
    pub(crate) queue: AtomicUsize,
    pub(crate) has_due_timers: AtomicBool,
    pub(crate) reserved: Nobody,
}

/// Nobody is to start on a worker of the model's choice.
pub(crate) struct Nobody;

impl Nobody {
    #[allow(clippy::unused_self, reason = "as the real one")]
    pub(crate) fn is_empty(&self) -> bool {
        true
    }
}

impl Worker {
    pub(crate) fn has_stealable(&self) -> bool {
        self.queued() > 0
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.load(Ordering::Relaxed)
    }

    /// Thieves find all there is.
    #[allow(clippy::unused_self, reason = "as the real one")]
    pub(crate) fn hides_some(&self) -> bool {
        false
    }

    pub(crate) unsafe fn share_all(&self) {
        unreachable!("nothing is hidden in {}", self.index);
    }

    pub(crate) fn has_due_timers(&self, _: Instant, _: Instant) -> bool {
        self.has_due_timers.load(Ordering::Relaxed)
    }
}

pub(crate) struct Poller;

impl Poller {
    #[allow(clippy::unused_self, reason = "as the real one")]
    pub(crate) fn has_events(&self) -> bool {
        false
    }
}
