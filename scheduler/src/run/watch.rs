//! The monitor: one OS thread that looks at the workers while any of them runs. It looks each millisecond, or each
//! fourth millisecond while all workers dispatch often and there are no hogs.
//!
//! A *hog* is a green thread that computes, or blocks its OS thread in a call that weald knows
//! nothing of: its worker dispatches nothing, so its queues, its timers and its sockets wait.
//!
//! | it sees                                            | it does                                  |
//! |----------------------------------------------------|------------------------------------------|
//! | a worker that dispatched nothing since the last    | marks it late: its poller may be drained;|
//! | look                                               | the thread in `RunNext` goes where       |
//! |                                                    | thieves find it (carrier held out)       |
//! | a late worker with events or timers that are due,  | wakes an idle worker; at the next look,  |
//! | or with threads that wait: after `PATIENCE`, or  | or if there is none, takes the seat from |
//! | at once if it is in `blocking`, or besieged        | the hog for a spare carrier (`door.rs`)  |
//! | a late worker whose thread has forks that nobody   | makes a green thread of the oldest, if a |
//! | has begun (`fork_join.rs`)                         | worker sleeps, or after `PATIENCE`     |
//! | such forks of a hog that has lost the seat         | makes green threads of all, after `PATIENCE` |
//! | a hog that was alone for [`ALONE`]                 | takes the seat, so that it can sleep     |
//! | a hog that has kept its OS thread too long         | says so, once                            |
//! | a backlog beside a sleeping worker                 | wakes that one                           |
//! | every worker asleep                                | sleeps until one wakes                   |
//! | every worker asleep for long (`silence.rs`)        | has an OS thread look for deadlocks      |
//! | that a second has passed (`limits.rs`)             | asks how many workers the system allows  |
//!
//! A hog that has lost the seat goes on undisturbed. Its carrier notices when the hog next enters the scheduler. If the
//! hog only gives way then, it goes on there, still without a seat. If another carrier runs it later, that carrier gives
//! its seat away first (`without_seat.rs`). If no carrier is left for the seat, the hog keeps it; this is counted and
//! logged.
//!
//! A worker is *besieged* if its seat was taken, not long ago, from a hog that waited inside the kernel (`hogs.rs`). The
//! next threads will perhaps do the same: a thousand of them may wait for one lock of std. During a siege the looks are
//! more frequent, and a hog that waits inside the kernel loses the seat at the first look that finds it there. A hog
//! that computes does not lose it: it needs a CPU, and the next carrier would need one too.
//!
//! `monitor.rs` has its sleep. Checked by `loom-tests/tests/monitor.rs`.
#![allow(
    unsafe_code,
    reason = "forks of a thread that is held where it is, slots of a worker"
)]

use std::time::{Duration, Instant};

use super::hogs::{ASKED, Hog, PATIENCE, Stretch, TICK};
use super::limits::Limits;
use super::seen::{Pace, Seen};
use super::silence::Silence;
use crate::engine::carrier::Carrier;
use crate::engine::inner::Inner;
use crate::engine::record;
use crate::engine::seat::Shortage;
use crate::engine::share_forks;
use crate::engine::worker::Worker;
use crate::green::blocked;
use crate::green::trace::{Trace, Tracer};
use crate::parts::os_thread;
use crate::shim::atomic::{Ordering, fence};
use crate::shim::clock;
use crate::shim::sync::{Arc, wait_for};

/// The time between two looks while all is well, but not right after a sleep. The first hog may add so much to the
/// bound above. A look costs a busy server some 20 us, because it displaces what is in the cache: one each millisecond
/// cost 2 to 4 % of an echo with 1000 connections. Go waits up to 10 ms.
const CALM_TICK: Duration = Duration::from_millis(4);

/// A worker that has dispatched so often since the last look dispatches *often*.
const BRISK: u64 = 16;

/// For so long after the last hog the looks stay frequent.
const ALERT: Duration = Duration::from_millis(100);

/// After so long the seat is taken although nobody waits. So the next thread that comes finds a carrier at once, and the
/// monitor need not look any more. A hand-over costs some 20 us, much less than this.
const ALONE: Duration = Duration::from_millis(50);

/// A hog without a seat that has lasted so long is looked at only so often: there may be thousands.
const SETTLED: Duration = Duration::from_millis(100);

/// That workers stand still, or that green threads wait to enter `blocking`, is logged again after this.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// What the monitor remembers from look to look.
struct Watch {
    seen: Vec<Seen>,
    hogs: Vec<Hog>,
    /// Hogs without a seat that have lasted for [`SETTLED`].
    settled: Vec<Hog>,
    /// The last look at hogs, and at settled ones.
    looked_at: [Instant; 2],
    /// That workers stand still was logged.
    logged: Option<Instant>,
    /// That green threads wait to enter `blocking` was logged.
    told_of_calls: Option<Instant>,
    /// Until then the looks stay frequent because of hogs.
    alert_until: Instant,
    /// If somebody wants to know what blocks.
    tracer: Option<Tracer>,
    silence: Silence,
    limits: Limits,
}

/// The monitor's OS thread.
pub(crate) fn watch(inner: &Arc<Inner>) {
    let this = &inner.monitor;
    let mut watch = Watch::new(inner, clock::now());
    let mut tick = TICK;
    loop {
        let stop = this.stop.lock();
        if *stop {
            return;
        }
        drop(wait_for(&this.bell, stop, tick));
        let now = clock::now();
        tick = watch.look(inner, now);
        watch.limits.look(inner, now);
        if inner.all_idle() {
            this.asleep.store(true, Ordering::Relaxed);
            unless!("monitor_sleeps_without_fence", fence(Ordering::SeqCst));
            let is_idle = fault!("monitor_sleeps_without_a_second_look") || inner.all_idle();
            // A thread that began to wait before its worker went idle is seen here.
            if is_idle && !watch.has_to_tell_of_calls(inner, clock::now()) {
                this.stalled.store(0, Ordering::Relaxed);
                let silence = watch.silence.look(inner, clock::now());
                let report = watch.next_report(inner);
                this.sleep(report.into_iter().chain(silence).min());
                // The thread that wakes up may compute.
                tick = TICK;
            }
            this.asleep.store(false, Ordering::Relaxed);
        }
    }
}

impl Watch {
    fn new(inner: &Inner, now: Instant) -> Self {
        Self {
            seen: vec![Seen::nothing(now); inner.idle.all_workers()],
            hogs: Vec::new(),
            settled: Vec::new(),
            looked_at: [now; 2],
            logged: None,
            told_of_calls: None,
            alert_until: now,
            tracer: blocked::is_wanted().then(Tracer::new),
            silence: Silence::new(now),
            limits: Limits::new(now),
        }
    }

    /// Returns the time until the next look.
    fn look(&mut self, inner: &Arc<Inner>, now: Instant) -> Duration {
        let (mut all_brisk, mut backlog) = (true, false);
        let (mut stalled, mut soonest) = (0, TICK);
        // Workers that sleep are brisk. A worker that sleeps has dispatched since it was last seen awake.
        let _: Option<()> = inner.idle.find_awake(0, |worker| {
            let worker = &inner.workers[worker];
            self.make_room(worker, now);
            let pace = self.look_at(inner, worker, now);
            all_brisk &= pace == Pace::Brisk;
            backlog |= pace == Pace::Late || worker.has_stealable();
            let seen = &self.seen[worker.index];
            stalled += usize::from(seen.refused);
            if seen.siege.is_on(now) {
                soonest = soonest.min(seen.siege.tick());
            }
            None
        });
        if inner.monitor.stalled.load(Ordering::Relaxed) != stalled {
            inner.monitor.stalled.store(stalled, Ordering::Relaxed);
        }
        if backlog && inner.idle.several() && inner.idle.somebody_sleeps() {
            inner.notify();
        }
        inner.seats.retry(inner);
        if self.has_to_tell_of_calls(inner, now) {
            self.tell_of_calls(inner, now);
        }
        self.look_at_hogs(inner, now);
        if !self.hogs.is_empty() {
            self.alert_until = now + ALERT;
        }
        if all_brisk && now >= self.alert_until {
            CALM_TICK
        } else {
            soonest
        }
    }

    fn look_at(&mut self, inner: &Arc<Inner>, worker: &Worker, now: Instant) -> Pace {
        let seen = &mut self.seen[worker.index];
        let ticks = worker.ticks.load(Ordering::Relaxed);
        let holder = worker.seat.holder();
        let moved = (ticks, holder) != (seen.ticks, seen.holder);
        let sleeps = inner.idle.sleeps(worker.index);
        if moved || sleeps {
            let brisk = sleeps || ticks.wrapping_sub(seen.ticks) >= BRISK;
            *seen = Seen {
                ticks,
                holder,
                since: now,
                looks: 0,
                woke: false,
                refused: false,
                siege: seen.siege,
            };
            return if brisk { Pace::Brisk } else { Pace::Slow };
        }
        let stuck = now.saturating_duration_since(seen.since);
        worker.late.store(true, Ordering::Relaxed);
        let Some(holder) = holder else {
            return Pace::Late;
        };
        let carrier = &inner.carriers[holder];
        if !carrier.door.is_outside() || !std::ptr::eq(carrier.door.held(), worker) {
            return Pace::Late;
        }
        if inner.idle.several() && worker.hides_some() {
            // SAFETY: the holder of the seat is held out.
            let share = || unsafe { worker.share_all() };
            let _ = carrier.door.hold_out_of(worker, share);
        }
        seen.looks += 1;
        // If nothing is found the looks become rarer, because each look stops all CPUs of the process for a moment.
        if seen.looks.is_power_of_two()
            && (stuck >= PATIENCE || inner.idle.somebody_sleeps())
            && take_fork(inner, worker, carrier)
        {
            seen.looks = 0;
        }
        // A thread that has said that it blocks is believed at once. In a siege the system is believed, too, if it says
        // that the thread waits.
        let blocks = carrier.is_away();
        let waited_for = is_wanted(inner, worker);
        let os_thread = carrier.os_thread.load(Ordering::Relaxed);
        let mut in_kernel = None;
        if waited_for && !blocks && stuck < PATIENCE && seen.siege.is_on(now) {
            in_kernel = os_thread::waits_in_kernel(os_thread);
        }
        let patient = !(blocks || stuck >= PATIENCE || in_kernel == Some(true));
        let urgent = is_urgent(inner, worker, now);
        if !urgent && stuck < ALONE && (patient || !waited_for) {
            if !blocks {
                self.notice(holder, worker.index, ticks, now);
            }
            return Pace::Late;
        }
        if !seen.woke && inner.idle.somebody_sleeps() && stuck < ALONE {
            // The caller wakes a worker, which takes what it can. What it cannot take is seen at the next look.
            seen.woke = true;
            return Pace::Late;
        }
        if let Err(shortage) = inner.seats.prepare(inner) {
            if (urgent || waited_for) && !std::mem::replace(&mut seen.refused, true) {
                inner.monitor.unrelieved.fetch_add(1, Ordering::Relaxed);
                self.tell_of(&shortage, now);
            }
            if !blocks {
                self.notice(holder, worker.index, ticks, now);
            }
            return Pace::Late;
        }
        if !blocks && in_kernel.is_none() {
            in_kernel = os_thread::waits_in_kernel(os_thread);
        }
        let losses = carrier.door.losses();
        let (counted, reported, blocked) = known_of(&self.hogs, inner, holder);
        if !carrier.door.seize(worker) {
            return Pace::Late;
        }
        record::handed_over(inner, worker.index, holder);
        let since = seen.since;
        if in_kernel == Some(true) {
            seen.siege.lost_a_seat(now);
        }
        self.hogs.retain(|hog| hog.carrier != holder);
        worker.late.store(false, Ordering::Relaxed);
        if !blocks {
            inner.monitor.handovers.fetch_add(1, Ordering::Relaxed);
            self.hogs.push(Hog {
                carrier: holder,
                stretch: Stretch::Seized { losses },
                since,
                counted,
                reported,
                blocked,
                forks: now.checked_add(PATIENCE).map(|due| (due, PATIENCE)),
            });
        }
        inner.seats.give(inner, worker.index);
        Pace::Slow
    }

    /// For a worker that was made since the last look.
    fn make_room(&mut self, worker: &Worker, now: Instant) {
        if self.seen.len() <= worker.index {
            self.seen.resize(worker.index + 1, Seen::nothing(now));
        }
    }

    /// Green threads wait to enter `blocking`, and this must be logged.
    #[inline]
    fn has_to_tell_of_calls(&self, inner: &Inner, now: Instant) -> bool {
        inner.blocking.waiting() > 0 && may_log(self.told_of_calls, now)
    }

    /// Logs that green threads wait to enter `blocking`.
    #[cold]
    fn tell_of_calls(&mut self, inner: &Inner, now: Instant) {
        self.told_of_calls = Some(now);
        log::error!(
            "weald: green threads wait to enter `blocking`, or a call that keeps its OS thread: {} such calls \
             run, which is the bound (RuntimeBuilder::spare_threads); if those wait for these, all wait for ever",
            inner.settings.spares
        );
    }

    /// Logs that a worker stands still.
    #[cold]
    fn tell_of(&mut self, shortage: &Shortage, now: Instant) {
        if *shortage == Shortage::Stopping || !may_log(self.logged, now) {
            return;
        }
        self.logged = Some(now);
        log::error!(
            "weald: a worker stands still: its green thread blocks or computes, others wait, and there \
             is no OS thread to go on with them: {shortage}"
        );
    }

    /// Remembers a hog that keeps its seat.
    fn notice(&mut self, carrier: usize, worker: usize, ticks: u64, now: Instant) {
        let since = self.seen[worker].since;
        if now.saturating_duration_since(since) < PATIENCE
            || self.hogs.iter().any(|hog| hog.carrier == carrier)
        {
            return;
        }
        self.hogs.push(Hog {
            carrier,
            stretch: Stretch::Seated { worker, ticks },
            since,
            counted: false,
            reported: false,
            blocked: None,
            forks: None,
        });
    }

    /// Counts and reports hogs that go on, and forgets the others. One look in each tick is enough for them, even when
    /// workers need more. But the monitor may sleep after any look, and must know when to report the next hog. So each
    /// look takes in the hogs that are expected.
    fn look_at_hogs(&mut self, inner: &Arc<Inner>, now: Instant) {
        let expected = std::mem::take(&mut *inner.monitor.expected.lock());
        self.hogs
            .extend(expected.into_iter().map(|(carrier, losses)| Hog {
                carrier,
                stretch: Stretch::Seized { losses },
                since: now,
                counted: false,
                reported: false,
                blocked: None,
                // The thread may make forks from now on.
                forks: now.checked_add(PATIENCE).map(|due| (due, PATIENCE)),
            }));
        let is_due = |last: &mut Instant, after: Duration| {
            let due = now.saturating_duration_since(*last) >= after;
            if due {
                *last = now;
            }
            due
        };
        if !is_due(&mut self.looked_at[0], TICK) {
            return;
        }
        let tracer = &mut self.tracer;
        let mut asked = 0;
        let mut goes_on = |hog: &mut Hog| {
            if asked < ASKED {
                asked += usize::from(hog.gives_forks(inner, now));
            }
            hog.goes_on(inner, tracer.as_mut(), now)
        };
        self.hogs.retain_mut(&mut goes_on);
        let settles = |hog: &mut Hog| {
            matches!(hog.stretch, Stretch::Seized { .. })
                && now.saturating_duration_since(hog.since) >= SETTLED
        };
        self.settled.extend(self.hogs.extract_if(.., settles));
        if is_due(&mut self.looked_at[1], SETTLED) {
            self.settled.retain_mut(&mut goes_on);
        }
    }

    /// When the next hog is to be counted, reported, or asked for its forks.
    fn next_report(&self, inner: &Inner) -> Option<Instant> {
        let next = |hog: &Hog| {
            let after = if hog.counted {
                inner.settings.hog_report
            } else {
                PATIENCE
            };
            let report = (!hog.counted || !hog.reported)
                .then(|| hog.since.checked_add(after))
                .flatten();
            let forks = hog.forks.map(|(due, _)| due);
            report.into_iter().chain(forks).min()
        };
        // Nobody looks at settled hogs before that moment.
        let look = self.looked_at[1] + SETTLED;
        let settled = self.settled.iter().filter_map(next).map(|at| at.max(look));
        self.hogs.iter().filter_map(next).chain(settled).min()
    }
}

/// What is known of the hog on that carrier: whether it was counted, whether it was reported, and where it waits.
fn known_of(hogs: &[Hog], inner: &Inner, carrier: usize) -> (bool, bool, Option<Trace>) {
    let known = hogs.iter().find(|hog| hog.carrier == carrier);
    known
        .filter(|hog| hog.lasts(inner))
        .map_or((false, false, None), |hog| {
            (hog.counted, hog.reported, hog.blocked.clone())
        })
}

/// Makes a green thread of the oldest fork of the thread that runs there. True: there was one.
fn take_fork(inner: &Arc<Inner>, worker: &Worker, carrier: &Carrier) -> bool {
    let taken = carrier.door.hold_out_of(worker, || {
        // SAFETY: the carrier is held out, so the thread that runs there cannot end; and the monitor's OS
        // thread is no carrier.
        unsafe {
            let header = carrier.running.load(Ordering::Relaxed).as_ref();
            header.is_some_and(|header| share_forks::take_from(header, inner))
        }
    });
    taken == Some(true)
}

/// Whether something may be logged now that was last logged at that time, if ever.
fn may_log(logged: Option<Instant>, now: Instant) -> bool {
    logged.is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_AGAIN)
}

/// Events or timers of the worker wait.
fn is_urgent(inner: &Inner, worker: &Worker, now: Instant) -> bool {
    worker.has_due_timers(inner.start, now) || worker.poller.has_events()
}

/// Green threads wait on the worker, or could run there.
fn is_wanted(inner: &Inner, worker: &Worker) -> bool {
    worker.queued() > 0
        || !worker.reserved.is_empty()
        || !inner.injector.is_empty()
        || inner.seats.somebody_waits()
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use super::{Arc, Inner, TICK, Watch, clock};
    use crate::RuntimeBuilder;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no poller")]
    fn a_hog_that_is_expected_is_known_after_any_look() {
        let builder = RuntimeBuilder::new().workers(1).spare_threads(1);
        let nobody = |_: &_, _| Ok(());
        let inner = Arc::new(Inner::new(builder.settings().unwrap(), nobody).unwrap());
        let mut watch = Watch::new(&inner, clock::now());
        let now = clock::now() + TICK;
        watch.look_at_hogs(&inner, now);
        assert_eq!(watch.next_report(&inner), None);
        inner.monitor.expect(0, inner.carriers[0].door.losses());
        // As in a siege, and then the monitor sleeps.
        watch.look_at_hogs(&inner, now + TICK / 16);
        assert!(watch.next_report(&inner).is_some());
    }
}
