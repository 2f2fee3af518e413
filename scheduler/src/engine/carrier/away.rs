//! Blocking calls of green threads: the OS thread waits, and its seat is there for others.
#![allow(
    unsafe_code,
    reason = "the OS thread's own carrier, and what runs on it"
)]

use crate::engine::inner::Inner;
use crate::engine::seat::Waited;
use crate::engine::worker::Worker;
use crate::green::current;
use crate::green::green_thread::{Header, Note};
use crate::green::switch_out::switch_out;
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;

use super::{Carrier, current_runtime, here};

/// Says that the running thread blocks its OS thread; the guard that it has come back.
///
/// The seat goes to another carrier at once if others wait for it; else the carrier keeps it, and
/// the monitor takes it when somebody does.
#[derive(Debug)]
pub(crate) struct Away(*const Carrier);

impl Away {
    /// `None`: this OS thread is no carrier, or it has been said already.
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
    /// Others wait here, and the running thread will not come back soon.
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
        // One that unwinds waits here: on another OS thread it would need its panics (`unwinding.rs`).
        let inner = current_runtime().expect("a carrier has one");
        // Without one the runtime has stopped: the thread runs on without a seat, in place.
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

/// Before the running thread blocks its OS thread in a wait: others get the worker.
pub(crate) fn leave_seat_in_place(header: &Header) -> Option<Away> {
    if header.runs_on_carriers() {
        Away::begin()
    } else {
        None
    }
}
