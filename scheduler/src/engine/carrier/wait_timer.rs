//! The timers of waits. A wait's timer is in the wheel of the worker on which the thread began to wait.
#![allow(unsafe_code, reason = "workers of the running thread's runtime")]

use std::ptr;
use std::time::Instant;

use weald_timer::Key;

use crate::engine::inner::Inner;
use crate::engine::worker::Worker;
use crate::green::green_thread::{Header, Note};
use crate::green::switch_out::switch_out;

use super::with_core;

/// The timer of a wait. If something else ends the wait, the thread cancels the timer.
#[derive(Debug)]
pub(crate) struct Armed {
    worker: *const Worker,
    key: Key,
}

/// Arms a timer for a wait of the running green thread. If the carrier has lost its seat, the thread suspends first,
/// and goes on where there is a seat.
#[inline]
pub(crate) fn arm(header: &Header, epoch: u32, at: Instant) -> Armed {
    // SAFETY: a thread that runs keeps its runtime.
    let start = unsafe { Inner::of(header) }.start;
    loop {
        let armed = with_core(header.runtime, |worker, core| Armed {
            worker,
            key: core.arm(worker, start, header, epoch, at),
        });
        match armed {
            Some(armed) => return armed,
            None => switch_out(header, Note::Requeue),
        }
    }
}

impl Armed {
    /// Cancels the timer: in the wheel itself if the thread is still on the same worker, else by its remote handle.
    #[inline]
    pub(crate) fn cancel(self, header: &Header) {
        // SAFETY: a thread that runs keeps its runtime, hence its workers.
        let worker = unsafe { &*self.worker };
        let here = with_core(header.runtime, |own, core| {
            ptr::eq(own, worker).then(|| core.disarm(self.key))
        });
        // The timer's task comes out of the wheel, and is dropped here, outside the door.
        match here.flatten() {
            Some(entry) => drop(entry),
            None => drop(worker.timers.cancel(self.key)),
        }
    }
}
