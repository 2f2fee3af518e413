//! For `on_deadlock`: decides when somebody is to look whether green threads wait for each other for ever.
//!
//! The monitor asks for a look when all workers have slept for [`SILENCE`]. The look itself, which may take long, is made on another OS
//! thread (`watch/silence.rs`).
//!
//! Waits of threads that block their OS thread (`own_thread`, or inside of `blocking`) are dispatches of no worker. Such a thread may begin the
//! last wait of a circle when a look has found nothing yet. So it leaves a sign (`Monitor::waits_in_place`), and there is one more
//! look, half a second after the monitor has seen the sign. Many such waits make one look each half second, no more.

use std::time::{Duration, Instant};

use crate::engine::inner::Inner;
use crate::engine::settings::Answer;
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;

/// A program that is silent for so long may be stuck. Usually it only waits for a client. A look takes milliseconds.
const SILENCE: Duration = Duration::from_millis(500);

/// What the monitor knows of the silence.
#[derive(Debug)]
pub(super) struct Silence {
    /// Since when no worker has dispatched anything, or when the last sign was seen.
    since: Instant,
    /// The sum of all workers' dispatches at that time.
    ticks: u64,
    /// There was a look in this silence.
    is_known: bool,
    answer: Answer,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            ticks: 0,
            is_known: false,
            answer: Answer::new(),
        }
    }

    /// While all workers sleep: asks once in each long silence, until a deadlock was found. Returns when to look again, if
    /// nothing happens until then.
    pub(super) fn look(&mut self, inner: &Arc<Inner>, now: Instant) -> Option<Instant> {
        let on_silence = inner.settings.on_silence.as_ref()?;
        let ticks = inner.workers.iter().fold(0_u64, |sum, worker| {
            sum.wrapping_add(worker.ticks.load(Ordering::Relaxed))
        });
        if ticks != self.ticks {
            (self.since, self.ticks, self.is_known) = (now, ticks, false);
        }
        if self.answer.is_found() {
            return None;
        }
        if self.is_known {
            if !inner.monitor.take_sign() {
                return None;
            }
            (self.since, self.is_known) = (now, false);
        }
        if now.saturating_duration_since(self.since) < SILENCE {
            return Some(self.since + SILENCE);
        }
        // An earlier look may still go on, if there are very many threads.
        if !self.answer.begin() {
            return Some(now + SILENCE);
        }
        self.is_known = true;
        (on_silence.0)(inner, &self.answer);
        // A wait that has left its sign before this look may have begun after it.
        inner.monitor.take_sign().then(|| {
            (self.since, self.is_known) = (now, false);
            now + SILENCE
        })
    }
}
