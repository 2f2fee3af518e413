//! Green threads that do not come back: how long each has lasted, and when that is reported.
#![allow(
    unsafe_code,
    reason = "reads the name of a thread that is held where it is"
)]

use std::time::{Duration, Instant};

use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::record::{self, Kind};
use crate::engine::share_forks;
use crate::green::blocked;
use crate::green::trace::{Trace, Tracer};
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;

/// The time between two looks. So long, at most, nobody looks after the `RunNext` and the poller of a hog's worker.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// A green thread may keep other threads waiting for so long (Go's time slice). If events or timers wait, two looks
/// are enough.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);

/// A siege goes on for so long after the last seat was taken from a hog in the kernel, and for the same time again for
/// each further seat. After one seat it is short, but long enough for two looks at the next hog.
pub(super) const SIEGE: Duration = Duration::from_millis(2);

/// The longest siege.
pub(super) const LONGEST_SIEGE: Duration = Duration::from_millis(20);

/// [`TICK`] is halved for each seat, at most so many times: to pass a seat on takes about 62 us.
pub(super) const HALVINGS: u32 = 4;

/// So many hogs without a seat are asked for their forks at each look: there may be thousands.
pub(super) const ASKED: usize = 16;

/// So many forks of one hog become green threads at a look: meanwhile the monitor looks after nothing else.
const FORKS: usize = 64;

/// Hogs of one worker that waited inside the kernel, one soon after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Siege {
    pub(super) seats: u32,
    pub(super) last: Instant,
}

impl Siege {
    pub(super) fn is_on(&self, now: Instant) -> bool {
        let lasts = SIEGE.saturating_mul(self.seats + 1).min(LONGEST_SIEGE);
        self.seats > 0 && now.saturating_duration_since(self.last) <= lasts
    }

    pub(super) fn lost_a_seat(&mut self, now: Instant) {
        let seats = if self.is_on(now) { self.seats } else { 0 };
        *self = Self {
            seats: seats + 1,
            last: now,
        };
    }

    /// Until the next look.
    pub(super) fn tick(&self) -> Duration {
        TICK / (1 << self.seats.min(HALVINGS))
    }
}

/// A green thread that does not come back.
#[derive(Debug)]
pub(super) struct Hog {
    pub(super) carrier: usize,
    pub(super) stretch: Stretch,
    pub(super) since: Instant,
    pub(super) counted: bool,
    pub(super) reported: bool,
    /// Where its OS thread waits; only if the program asks for reports.
    pub(super) blocked: Option<Trace>,
    /// When the monitor next looks for forks of the hog, and the pause that led there.
    pub(super) forks: Option<(Instant, Duration)>,
}

/// What changes when the hog comes back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stretch {
    Seated { worker: usize, ticks: u64 },
    Seized { losses: usize },
}

impl Hog {
    pub(super) fn lasts(&self, inner: &Inner) -> bool {
        let carrier = &inner.carriers[self.carrier];
        match self.stretch {
            Stretch::Seated { worker, ticks } => {
                let worker = &inner.workers[worker];
                worker.seat.holder() == Some(self.carrier)
                    && worker.ticks.load(Ordering::Relaxed) == ticks
                    && carrier.door.is_outside()
            }
            Stretch::Seized { losses } => carrier.door.losses() == losses,
        }
    }

    /// Counts the hog and reports it when it is time. False: it has come back.
    pub(super) fn goes_on(
        &mut self,
        inner: &Inner,
        tracer: Option<&mut Tracer>,
        now: Instant,
    ) -> bool {
        let lasts = now.saturating_duration_since(self.since);
        if !self.lasts(inner) {
            if let Some(place) = self.blocked.take() {
                blocked::over(place, lasts);
            }
            return false;
        }
        if let Some(tracer) = tracer
            && self.blocked.is_none()
            && lasts >= PATIENCE
        {
            self.blocked = self.where_it_waits(inner, tracer);
            if let Some(place) = &self.blocked {
                blocked::seen(place);
            }
        }
        if !self.counted && lasts >= PATIENCE {
            self.counted = true;
            inner.monitor.hogs.fetch_add(1, Ordering::Relaxed);
            if record::is_on() {
                self.note(inner, lasts);
            }
        }
        if !self.reported && lasts >= inner.settings.hog_report {
            let carrier = &inner.carriers[self.carrier];
            self.reported = self.report(inner, carrier, now);
        }
        true
    }

    /// Notes for the flight recorder which thread it is.
    #[cold]
    fn note(&self, inner: &Inner, lasts: Duration) {
        if let Some(thread) = inner.carriers[self.carrier].running_thread()
            && self.lasts(inner)
        {
            let micros = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX);
            record::note(Kind::Hog, thread.id.get(), micros);
        }
    }

    /// Makes green threads of the hog's forks, if that is due and the hog has lost its seat: the hog may wait for one of
    /// them. Each look in vain doubles the time until the next look, because a look stops all CPUs of the process for a
    /// moment. False: no look was due.
    pub(super) fn gives_forks(&mut self, inner: &Arc<Inner>, now: Instant) -> bool {
        let (Stretch::Seized { .. }, Some((due, pause))) = (self.stretch, self.forks) else {
            return false;
        };
        if now < due {
            return false;
        }
        let carrier = &inner.carriers[self.carrier];
        let taken = carrier.door.hold_out(|| {
            if !self.lasts(inner) {
                return 0;
            }
            // SAFETY: the carrier is held outside its door, so the thread that runs there cannot end; and the
            // monitor's OS thread is no carrier.
            unsafe {
                let header = carrier.running.load(Ordering::Relaxed).as_ref();
                header.map_or(0, |header| {
                    share_forks::take_many_from(header, inner, FORKS)
                })
            }
        });
        let next = match taken {
            Some(FORKS) => TICK,
            Some(1..) => PATIENCE,
            _ => pause.saturating_mul(2),
        };
        self.forks = now.checked_add(next).map(|due| (due, next));
        true
    }

    /// Where the hog's OS thread waits, if it waits.
    pub(super) fn where_it_waits(&self, inner: &Inner, tracer: &mut Tracer) -> Option<Trace> {
        let carrier = &inner.carriers[self.carrier];
        let found = carrier.door.hold_out(|| {
            if !self.lasts(inner) {
                return None;
            }
            // SAFETY: as in `report`.
            let header = unsafe { carrier.running.load(Ordering::Relaxed).as_ref() }?;
            tracer.take_blocked(carrier.os_thread.load(Ordering::Relaxed), header)
        });
        found.flatten()
    }

    /// Logs which thread the hog is. False: it is just coming back.
    pub(super) fn report(&self, inner: &Inner, carrier: &Carrier, now: Instant) -> bool {
        let who = carrier.door.hold_out(|| {
            if !self.lasts(inner) {
                return None;
            }
            // SAFETY: the carrier is held outside its door, so the thread that runs there cannot
            // end: its carrier drops it inside.
            let header = unsafe { carrier.running.load(Ordering::Relaxed).as_ref() }?;
            if let Stretch::Seized { .. } = self.stretch {
                carrier.reported.store(true, Ordering::Relaxed);
            }
            Some((header.name().unwrap_or("<unnamed>").to_string(), header.id))
        });
        let Some(Some((name, id))) = who else {
            return false;
        };
        let lasts = now.saturating_duration_since(self.since);
        log::warn!(
            "weald: green thread {name} ({id:?}) has kept its OS thread for {lasts:?} without a \
             blocking call of weald's"
        );
        true
    }
}
