//! Channels whose messages come by the clock. They have no timer of their own: a thread that waits for such a message
//! waits until its time.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::shim::atomic::{AtomicBool, Ordering};
use crate::shim::clock;
use crate::shim::sync::Mutex;

/// One message at its time.
pub(crate) struct After {
    time: Option<Instant>,
    taken: AtomicBool,
}

impl After {
    pub(crate) fn new(time: Option<Instant>) -> Self {
        Self {
            time,
            taken: AtomicBool::new(false),
        }
    }

    /// When the message comes, or came, if nobody has taken it.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.time.filter(|_| !self.taken.load(Ordering::Relaxed))
    }

    pub(crate) fn take(&self) -> Option<Instant> {
        let time = self.next()?;
        if clock::now() < time {
            return None;
        }
        if fault!("after_is_taken_by_store") {
            self.taken.store(true, Ordering::Relaxed);
            return Some(time);
        }
        (!self.taken.swap(true, Ordering::Relaxed)).then_some(time)
    }
}

/// A message each time that the period has passed.
pub(crate) struct Tick {
    next: Mutex<Option<Instant>>,
    period: Duration,
}

impl Tick {
    pub(crate) fn new(period: Duration) -> Self {
        Self {
            next: Mutex::new(clock::now().checked_add(period)),
            period,
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self) -> Option<Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let time = next.filter(|&time| time <= now)?;
        if fault!("tick_lets_go_to_step") {
            drop(next);
            next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        }
        // If this was late by more than a period, the missed messages do not come.
        *next = now.max(time).checked_add(self.period);
        Some(time)
    }
}
