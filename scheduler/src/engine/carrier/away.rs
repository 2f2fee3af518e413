//! Blocking calls of green threads: the OS thread waits, and its seat is there for others.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use crate::engine::inner::Inner;
use crate::engine::record;
use crate::engine::seat::Waited;
use crate::engine::worker::Worker;
use crate::green::current;
use crate::green::green_thread::{Header, Note};
use crate::green::switch_out::switch_out;
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;

use super::{Carrier, current_runtime, here};

/// Says that the running thread blocks its OS thread, until this guard is dropped.
///
/// If other threads wait for the worker, its seat goes to another carrier at once. Otherwise the carrier keeps the
/// seat, and the monitor takes it when other threads wait.
#[derive(Debug)]
pub(crate) struct Away(*const Carrier);

impl Away {
    /// `None`: this OS thread is no carrier, or a guard exists already.
    pub(crate) fn begin() -> Option<Self> {
        let carrier = here();
        if carrier.is_null() {
            return None;
        }
        // SAFETY: a carrier outlives what runs on its OS thread.
        let this = unsafe { &*carrier };
        if this.is_away() {
            return None;
        }
        this.away.store(true, Ordering::Relaxed);
        let _inside = this.door.section();
        // SAFETY: the seat is held; ends with the statement.
        let others_wait = |worker: &Worker| unsafe { worker.core() }.has_queued(worker);
        if this.seat().is_some_and(others_wait) {
            this.hand_over();
        }
        Some(Self(carrier))
    }
}

impl Carrier {
    /// Gives the seat away: others wait for the worker, and the running thread will not come back soon.
    #[cold]
    fn hand_over(&self) {
        let inner = current_runtime().expect("a carrier has one");
        if inner.seats.prepare(&inner).is_ok() {
            self.give_up_seat(&inner);
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn give_up_seat(&self, inner: &Arc<Inner>) {
        if let Some(worker) = self.seat() {
            self.sit(None);
            record::handed_over(inner, worker.index, self.index);
            inner.seats.release(inner, worker.index);
        }
    }

    /// The seat was lost while the running thread blocked.
    #[cold]
    fn come_back(&self) {
        if let Some(header) = current::green()
            && !std::thread::panicking()
        {
            self.away.store(false, Ordering::Relaxed);
            // The carrier's loop waits for a seat; a thread that may migrate goes on elsewhere.
            // SAFETY: the running thread's header is alive.
            switch_out(unsafe { &*header }, Note::Requeue);
            return;
        }
        // A thread that unwinds waits here: on another OS thread it would need its panics (`unwinding.rs`).
        let inner = current_runtime().expect("a carrier has one");
        // If there is no seat, the runtime has stopped. The thread goes on without a seat.
        if let Waited::Seated(index) = inner.seats.wait(&inner, self.index, || true, true) {
            let _inside = self.door.section();
            self.sit(Some(&inner.workers[index]));
            self.away.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // SAFETY: the thread did not leave the OS thread while it was away.
        let carrier = unsafe { &*self.0 };
        let inside = carrier.door.section();
        let seated = carrier.seat().is_some();
        drop(inside);
        if seated {
            carrier.away.store(false, Ordering::Relaxed);
        } else {
            carrier.come_back();
        }
    }
}

/// Gives the worker to others, if need be, before the running thread waits and blocks its OS thread.
pub(crate) fn away_in_place(header: &Header) -> Option<Away> {
    if header.runs_on_carriers() {
        Away::begin()
    } else {
        None
    }
}
