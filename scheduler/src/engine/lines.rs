//! The lines of carriers without a seat, and the seats without a carrier. All of it is under the lock of `Seats`, and
//! `seat.rs` says what the lines are for.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::shortage::Shortage;
use crate::shim::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::shim::clock;
use crate::shim::sync::Condvar;

/// After the system has refused an OS thread, no other one is tried during this time: a try costs some 50 us, and
/// would hardly succeed at once.
const PAUSE: Duration = Duration::from_millis(20);

/// What is looked at without the lock.
#[derive(Debug)]
pub(crate) struct Counts {
    /// The length of `Lines::waiting`.
    pub(super) waiting: AtomicUsize,
    /// The length of `Lines::free`.
    pub(super) free: AtomicUsize,
    /// How many times a seat found no carrier, because the bound was reached or no OS thread could be started.
    pub(crate) stranded: AtomicU64,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            free: AtomicUsize::new(0),
            stranded: AtomicU64::new(0),
        }
    }
}

/// Carriers without a seat, each in a line, and seats without a carrier.
#[derive(Debug)]
pub(super) struct Lines {
    /// Seats without a carrier.
    pub(super) free: Vec<usize>,
    /// Carriers that have threads of their own to run.
    pub(super) waiting: VecDeque<usize>,
    /// Carriers that have nothing to do.
    pub(super) spares: Vec<usize>,
    /// Carriers that have retired, or whose OS thread was refused.
    pub(super) unborn: Vec<usize>,
    /// All carriers that have ever been hired, by index. Carriers beyond these are unborn as well.
    pub(super) hired: Vec<Hired>,
    /// The greatest number of carriers.
    pub(super) bound: usize,
    pub(super) stopping: bool,
    /// When the system refused an OS thread last, and with which error.
    pub(super) refused: Option<(Instant, io::Error)>,
    /// How many carriers have an OS thread that has not ended.
    pub(super) alive: usize,
}

/// A carrier that was hired at least once.
#[derive(Debug)]
pub(super) struct Hired {
    /// The carrier sleeps on this while it has no seat.
    pub(super) bell: std::sync::Arc<Condvar>,
    /// The seat that it was given and has not taken yet.
    pub(super) assigned: Option<usize>,
    pub(super) line: Line,
}

/// Which line a carrier stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    None,
    Waiting,
    Spares,
}

impl Lines {
    /// Makes room for at most so many carriers.
    pub(super) fn new(bound: usize) -> Self {
        Self {
            free: Vec::new(),
            waiting: VecDeque::new(),
            spares: Vec::new(),
            unborn: Vec::new(),
            hired: Vec::new(),
            bound,
            stopping: false,
            refused: None,
            alive: 0,
        }
    }

    /// Takes the next carrier that has an OS thread out of its line.
    pub(super) fn next_idle(&mut self, counts: &Counts) -> Option<usize> {
        let next = match self.waiting.pop_front() {
            Some(carrier) => {
                counts.waiting.store(self.waiting.len(), Ordering::Relaxed);
                Some(carrier)
            }
            None => self.spares.pop(),
        };
        if let Some(carrier) = next {
            self.hired[carrier].line = Line::None;
        }
        next
    }

    pub(super) fn take_out_of_line(&mut self, counts: &Counts, carrier: usize) {
        match std::mem::replace(&mut self.hired[carrier].line, Line::None) {
            Line::None => {}
            Line::Waiting => {
                self.waiting.retain(|&c| c != carrier);
                counts.waiting.store(self.waiting.len(), Ordering::Relaxed);
            }
            Line::Spares => self.spares.retain(|&c| c != carrier),
        }
    }

    /// Why nobody can be hired now; `None`: somebody can.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        if self.stopping {
            return Some(Shortage::Stopping);
        }
        if self.unborn.is_empty() && self.hired.len() >= self.bound {
            return Some(Shortage::Bound(self.bound));
        }
        let (at, error) = self.refused.as_ref()?;
        (clock::now().saturating_duration_since(*at) < PAUSE)
            .then(|| Shortage::Refused(error.to_string()))
    }

    /// Chooses a carrier whose OS thread the caller must start. It counts as if it were there from now on.
    pub(super) fn hire(&mut self) -> Result<usize, Shortage> {
        if let Some(shortage) = self.shortage() {
            return Err(shortage);
        }
        let carrier = self.unborn.pop().unwrap_or_else(|| {
            self.hired.push(Hired {
                bell: std::sync::Arc::new(Condvar::new()),
                assigned: None,
                line: Line::None,
            });
            self.hired.len() - 1
        });
        self.alive += 1;
        Ok(carrier)
    }

    pub(super) fn put_free(&mut self, counts: &Counts, worker: usize) {
        counts.stranded.fetch_add(1, Ordering::Relaxed);
        if !fault!("seat_keeps_what_no_thread_took") {
            self.free.push(worker);
            counts.free.store(self.free.len(), Ordering::Relaxed);
        }
    }

    pub(super) fn take_free(&mut self, counts: &Counts) -> Option<usize> {
        let worker = self.free.pop();
        counts.free.store(self.free.len(), Ordering::Relaxed);
        worker
    }
}
