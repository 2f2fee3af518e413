//! The looks of a carrier between two turns: at its mail, the injector, timers, the poller, and carriers that wait for a
//! seat.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use std::time::Instant;

use crate::engine::carrier::{Carrier, SLICE};
use crate::engine::inner::Inner;
use crate::engine::record::{self, Kind};
use crate::engine::worker::timers::{DUE_BATCH, DUE_SLICE};
use crate::engine::worker::{Worker, count};
use crate::green::green_thread::Task;
use crate::run::fire::fire;
use crate::shim::bounds::FAIRNESS_INTERVAL;
use crate::shim::clock;
use crate::shim::sync::Arc;

impl Carrier {
    /// Every 61 dispatches: takes the mail, and returns a thread of the injector or one that must start here, by turns.
    #[cold]
    #[inline(never)]
    pub(super) fn look_at_arrivals(&self, inner: &Inner, worker: &Worker) -> Option<Task> {
        self.take_mail();
        if inner.idle.is_retired(worker.index) {
            return None;
        }
        // SAFETY: the seat is held; ends with the statement.
        let looks = unsafe { worker.core() }.ticks() / FAIRNESS_INTERVAL;
        if looks.is_multiple_of(2) {
            let injected = inner.injector.pop();
            injected.or_else(|| self.next_reserved(inner))
        } else {
            let reserved = self.next_reserved(inner);
            reserved.or_else(|| inner.injector.pop())
        }
    }

    /// A thread that must start on this worker.
    #[inline(never)]
    pub(super) fn next_reserved(&self, inner: &Inner) -> Option<Task> {
        let worker = self.seat()?;
        if inner.idle.is_retired(worker.index) {
            return None;
        }
        let task = worker.reserved.pop()?;
        // SAFETY: it came out of a queue, so the running reference is ours.
        let is_bound = unsafe { (*task.coroutine.get()).is_some() };
        if is_bound {
            // Another worker has given it its stack (`admit`).
            self.settle(inner, &task);
        }
        Some(task)
    }

    /// Passes the seat to a carrier that waits for one, and the worker's queues with it. Threads in the carrier's own
    /// queues wait until it has a seat again. False: no carrier waits.
    pub(super) fn pass(&self, inner: &Inner, worker: &Worker) -> bool {
        if !inner.seats.somebody_waits() {
            return false;
        }
        self.sit(None);
        if inner.seats.pass(inner, worker.index) {
            return true;
        }
        self.sit(Some(worker));
        false
    }

    /// Looks at timers, events, and carriers that wait for a seat. False: such a carrier has the seat now.
    #[cold]
    #[inline(never)]
    pub(super) fn look_at_clock(&self, inner: &Arc<Inner>, worker: &Worker) -> bool {
        let now = clock::now();
        // SAFETY: the seat is held; ends before timers and events are handled.
        let core = unsafe { worker.core() };
        core.saw(now);
        let poll = core.poll_is_due(now, self.private().woken());
        let turn_is_over = || {
            let since = self.since.get().unwrap_or(now);
            now.saturating_duration_since(since) >= SLICE
        };
        if inner.seats.somebody_waits() && turn_is_over() && self.pass(inner, worker) {
            return false;
        }
        self.look(inner, worker, now, poll);
        if inner.idle.is_retired(worker.index) {
            Self::notice_retirement(inner, worker);
            Self::hand_on(inner, worker);
            return true;
        }
        if !inner.starts.is_empty() {
            self.admit(inner, worker);
            if self.seat().is_none() {
                return false;
            }
        }
        Self::share_with_new_workers(inner, worker);
        // If only one thread was made ready, this worker runs it next, unless the carrier's own come before it.
        let most = usize::from(self.private().is_empty());
        if inner.idle.somebody_sleeps() && worker.has_stealable() && worker.queued() > most {
            inner.notify();
        }
        true
    }

    /// Looks at timers, and at the poller if `poll`. Returns how many threads this may have made ready. If there is more
    /// to do, so that the next look must not wait, it returns at least one.
    pub(super) fn look(
        &self,
        inner: &Arc<Inner>,
        worker: &Worker,
        now: Instant,
        poll: bool,
    ) -> usize {
        self.take_mail();
        // SAFETY: the seat is held; ends with the statement.
        let remote =
            unsafe { worker.core() }.take_remote_timers(worker, inner.start, &inner.alarms);
        let mut found = usize::from(remote);
        // SAFETY: as above.
        let mut room = unsafe { worker.core() }.room_for_due(self.private().woken());
        loop {
            let limit = room.min(DUE_BATCH);
            // SAFETY: as above.
            let core = unsafe { worker.core() };
            let (mut due, more) = core.take_due(worker, inner.start, now, limit);
            let fired = fire(inner, &mut due);
            // SAFETY: as above, taken anew.
            unsafe { worker.core() }.give_back(due);
            found += fired;
            room -= fired;
            if !more {
                break;
            }
            if room == 0 || clock::now().saturating_duration_since(now) >= DUE_SLICE {
                // Timers that are due and have not fired wait for the next look. Other threads run first.
                found += 1;
                break;
            }
        }
        if poll {
            // SAFETY: as above.
            unsafe { worker.core() }.polled(now);
            count(&worker.counters.polls);
            let events = worker.poller.poll();
            if record::is_on() {
                record::note(Kind::Poll, 0, events as u64);
            }
            found += events;
        }
        found
    }
}
