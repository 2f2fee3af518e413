//! Handles timers that are due: waits end, calls start.
#![allow(unsafe_code, reason = "the timer keeps the header")]

use crate::engine::inner::Inner;
use crate::engine::worker::TimerEvent;
use crate::green::call::{CANCELLED, Call, FIRED};
use crate::green::green_thread::{Header, Hint};
use crate::parts::state::Why;
use crate::run::birth::{self, Birth};
use crate::shim::sync::Arc;

/// Handles timers that were due. Returns how many.
pub(crate) fn fire(inner: &Arc<Inner>, due: &mut Vec<TimerEvent>) -> usize {
    let count = due.len();
    for event in due.drain(..) {
        match event {
            TimerEvent::Wake(task, epoch) => {
                // SAFETY: the event keeps the header alive.
                unsafe { Header::wake(&raw const *task, epoch, Why::TIMED_OUT, Hint::Event) };
            }
            TimerEvent::Call(call) => Call::fire(call, inner),
        }
    }
    count
}

impl Call {
    /// The call's time has come. Starts its green thread, unless the call was cancelled. This is the carriers' loop, in
    /// which nothing of the user's may run. So if the closure must not be called, a green thread drops it. If
    /// the runtime closes, the shutdown may have counted all threads already. So no thread is started then, and the
    /// closure is dropped when the runtime ends.
    pub(crate) fn fire(this: Arc<Self>, inner: &Arc<Inner>) {
        if inner.is_closing() {
            inner.unfired.lock().push(this);
            return;
        }
        let late = this.owner_has_ended();
        match this.claim(if late { CANCELLED } else { FIRED }) {
            Some(body) if late => birth::discard(inner, body),
            Some(body) => {
                let control = this.control;
                let body = move || {
                    control.restore();
                    body();
                };
                birth::start_detached(inner, Birth::Ordinary, body);
            }
            None => {}
        }
    }
}
