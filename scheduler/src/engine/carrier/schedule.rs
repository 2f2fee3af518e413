//! Makes a thread ready: on this worker, on another one, or on the carrier that it belongs to.
#![allow(unsafe_code, reason = "runtimes and workers of threads that are alive")]

use crate::engine::inner::Inner;
use crate::engine::record;
use crate::engine::worker::count;
use crate::green::current;
use crate::green::green_thread::{Hint, Task};
use crate::shim::atomic::Ordering;
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
            inner.woken_without_seat.fetch_add(1, Ordering::Relaxed);
            inner.carriers[home - 1].send(inner, task);
            return;
        }
        let inside = carrier.door.section();
        if let Some(worker) = carrier.seat() {
            count(&worker.counters.wakes);
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
            inner.woken_without_seat.fetch_add(1, Ordering::Relaxed);
            carrier.private().push(task, hint);
            return;
        }
    }
    schedule_without_seat(task, home);
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
    inner.woken_without_seat.fetch_add(1, Ordering::Relaxed);
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
