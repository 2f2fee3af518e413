//! A call in the future: `call_after` leaves it with a worker.
//!
//! | state     | closure is                    | leaves by                                       |
//! |-----------|-------------------------------|-------------------------------------------------|
//! | WAITING   | in the cell                   | `fire` -> FIRED, `cancel` -> CANCELLED          |
//! | FIRED     | the new green thread's        | never                                           |
//! | CANCELLED | dropped by the canceller; if  | never                                           |
//! |           | a carrier did, by a new green |                                                 |
//! |           | thread                        |                                                 |
//!
//! Invariant: the step out of WAITING is one compare-and-swap, and its winner owns the closure.
//! The timer in a wheel only starts the call. The canceller removes the timer at once if it knows where it is.
#![allow(unsafe_code, reason = "the closure belongs to the winner of a step")]

use std::fmt;

use weald_timer::Key;

use crate::green::green_thread::Task;
use crate::parts::coroutine::Control;
use crate::parts::quietly::drop_quietly;
use crate::parts::timer_place::TimerPlace;
use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::cell::UnsafeCell;

const WAITING: usize = 0;
pub(crate) const FIRED: usize = 1;
pub(crate) const CANCELLED: usize = 2;

/// A function that waits for its time.
pub(crate) struct Call {
    state: AtomicUsize,
    body: UnsafeCell<Option<Box<dyn FnOnce() + Send>>>,
    /// For `call_after_local`: if this thread has ended, the function is not called.
    owner: Option<Task>,
    /// The floating-point control of the thread that called `call_after`.
    pub(crate) control: Control,
    /// Where its timer is.
    pub(crate) place: TimerPlace,
}

// SAFETY: the body is `Send` and belongs to the winner of the step out of WAITING.
unsafe impl Sync for Call {}
// SAFETY: as above.
unsafe impl Send for Call {}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// A call that waits.
    pub(crate) fn new(
        owner: Option<Task>,
        body: Box<dyn FnOnce() + Send>,
        place: TimerPlace,
    ) -> Self {
        Self {
            state: AtomicUsize::new(WAITING),
            body: UnsafeCell::new(Some(body)),
            owner,
            control: Control::current(),
            place,
        }
    }

    /// Takes the closure. Only the winner calls this.
    pub(crate) fn claim(&self, state: usize) -> Option<Box<dyn FnOnce() + Send>> {
        if fault!("call_is_claimed_by_store") && self.state.load(Ordering::Acquire) == WAITING {
            self.state.store(state, Ordering::Release);
            // SAFETY: none: this is the fault.
            return self.body.with_mut(|body| unsafe { (*body).take() });
        }
        self.state
            .compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire)
            .ok()
            // SAFETY: the step makes the closure ours.
            .and_then(|_| self.body.with_mut(|body| unsafe { (*body).take() }))
    }

    /// Its timer is in a wheel now. False: the call was cancelled meanwhile.
    pub(crate) fn armed(&self, worker: usize, key: Key) -> bool {
        self.place.settle(worker, key.to_bits())
    }

    /// Drops the closure of a call that will never come, unless the call was cancelled.
    pub(crate) fn drop_closure(&self) {
        if let Some(body) = self.claim(CANCELLED) {
            drop_quietly(body);
        }
    }

    /// `call_after_local`: the thread that asked has ended.
    pub(crate) fn owner_has_ended(&self) -> bool {
        (self.owner.as_ref()).is_some_and(|owner| owner.state.is_done())
    }

    /// Runs the closure, in a thread that has waited for the call's time itself.
    #[cfg(loom)]
    pub(crate) fn run_here(&self) {
        let late = self.owner_has_ended();
        match self.claim(if late { CANCELLED } else { FIRED }) {
            Some(body) if late => drop_quietly(body),
            Some(body) => body(),
            None => {}
        }
    }
}
