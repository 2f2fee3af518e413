//! Makes a thread ready: on this worker, on another one, or on the carrier that it belongs to.
#![allow(unsafe_code, reason = "runtimes and workers of threads that are alive")]

use crate::engine::inner::Inner;
use crate::engine::record;
use crate::engine::worker::{count, latency, nanos_since};
use crate::green::current;
use crate::green::green_thread::{Header, Hint, Task};
use crate::shim::atomic::Ordering;
use crate::shim::clock;
use crate::shim::sync::Arc;

use super::{Carrier, carrier_of};

/// Queues a thread whose running reference is the caller's.
#[inline]
pub(crate) fn schedule(task: Task, hint: Hint) {
    if record::is_on() {
        record::woken(&task);
    }
    let home = task.home.load(Ordering::Relaxed);
    if let Some(carrier) = carrier_of(task.runtime) {
        // SAFETY: the carrier's OS thread keeps the runtime.
        let inner = unsafe { Inner::of(&task) };
        if home != 0 && home - 1 != carrier.index {
            count_without_seat(inner, &task);
            inner.carriers[home - 1].send(inner, task);
            return;
        }
        let inside = carrier.door.section();
        if let Some(worker) = carrier.seat() {
            if latency::is_sampled(count(&worker.counters.wakes)) {
                stamp(inner, &task, false);
            }
            if inside.is_nested() {
                // An event or a timer. These come many at once, so it takes a while until this one runs.
                task.prefetch();
            }
            if home != 0 {
                carrier.private().push(task, hint);
                return;
            }
            let asleep = inner.idle.several() && inner.idle.somebody_sleeps();
            // SAFETY: the seat is held; ends with the statement.
            let stealable = unsafe { worker.core() }.push_woken(worker, task, hint, asleep);
            drop(inside);
            // The loop shares what its timers and events have made ready when it is through with them.
            if stealable && inner.idle.several() && current::green().is_some() {
                inner.notify();
            }
            return;
        }
        drop(inside);
        if home != 0 {
            count_without_seat(inner, &task);
            carrier.private().push(task, hint);
            return;
        }
    }
    schedule_without_seat(task, home);
}

/// Counts a wake-up by a caller that holds no seat.
fn count_without_seat(inner: &Inner, task: &Header) {
    if latency::is_sampled(inner.woken_without_seat.fetch_add(1, Ordering::Relaxed)) {
        stamp(inner, task, false);
    }
}

/// The thread, which is about to be queued, is sampled. `is_new`: it was just made.
#[cold]
#[inline(never)]
pub(crate) fn stamp(inner: &Inner, task: &Header, is_new: bool) {
    task.left_at
        .stamp(nanos_since(inner.start, clock::now()), is_new);
}

#[cold]
fn schedule_without_seat(task: Task, home: usize) {
    // SAFETY: the thread is not DONE, so its runtime is alive; from here on we keep it, because the
    // thread may run and end as soon as it is queued.
    let inner = unsafe {
        let inner = task.runtime.cast::<Inner>();
        Arc::increment_strong_count(inner);
        Arc::from_raw(inner)
    };
    count_without_seat(&inner, &task);
    if home == 0 {
        inner.inject(task);
    } else {
        inner.carriers[home - 1].send(&inner, task);
    }
}

impl Carrier {
    /// Moves the mail into the private queues. True: there was some.
    pub(crate) fn take_mail(&self) -> bool {
        if !self.mail.is_there() {
            return false;
        }
        for task in self.mail.take() {
            self.private().push(task, Hint::Event);
        }
        true
    }

    /// Sends a thread that must run on this carrier. Called on another OS thread.
    fn send(&self, inner: &Inner, task: Task) {
        self.mail.put(task);
        // SAFETY: workers live as long as the runtime.
        match unsafe { self.door.held().as_ref() } {
            None => inner.seats.call(self.index),
            Some(worker) => worker.poller.unpark(),
        }
    }
}
