//! For `on_deadlock`: decides when the monitor asks whether green threads wait for each other for ever.

use std::time::{Duration, Instant};

use crate::engine::inner::Inner;
use crate::shim::atomic::Ordering;

/// A program that is silent for so long may be stuck. Usually it only waits for a client. A look takes milliseconds.
const SILENCE: Duration = Duration::from_millis(500);

/// Since when no worker has dispatched anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    since: Instant,
    /// The sum of all workers' dispatches at that time.
    ticks: u64,
    /// In this silence a look for deadlocks was made.
    is_known: bool,
    /// A deadlock was found and reported.
    found: bool,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            ticks: 0,
            is_known: false,
            found: false,
        }
    }

    /// Called while all workers sleep. Asks for deadlocks once in each long silence, until one was found. Returns when to
    /// look again, if nothing happens until then.
    pub(super) fn look(&mut self, inner: &Inner, now: Instant) -> Option<Instant> {
        let on_silence = inner.settings.on_silence.as_ref()?;
        let ticks = inner.workers.iter().fold(0_u64, |sum, worker| {
            sum.wrapping_add(worker.ticks.load(Ordering::Relaxed))
        });
        if ticks != self.ticks {
            (self.since, self.ticks, self.is_known) = (now, ticks, false);
        }
        if self.is_known || self.found {
            return None;
        }
        if now.saturating_duration_since(self.since) < SILENCE {
            return Some(self.since + SILENCE);
        }
        self.is_known = true;
        self.found = (on_silence.0)(inner);
        None
    }
}
