//! `call_after`: a function in the future; and the [`Timer`] that cancels it.
//!
//! | state     | closure is                    | leaves by                                       |
//! |-----------|-------------------------------|-------------------------------------------------|
//! | WAITING   | in the cell                   | `fire` -> FIRED, `cancel` -> CANCELLED          |
//! | FIRED     | the new green thread's        | never                                           |
//! | CANCELLED | dropped by who cancelled; if  | never                                           |
//! |           | a carrier did, by a new green |                                                 |
//! |           | thread                        |                                                 |
//!
//! Invariant: the step out of WAITING is one compare-and-swap, and its winner owns the closure.
//! The entry in a wheel is only the alarm clock: it goes at once if the canceller knows it.
#![allow(unsafe_code, reason = "the closure belongs to the winner of a step")]

use std::fmt;
use std::time::{Duration, Instant};

use weald_timer::Key;

use crate::carrier;
use crate::coroutine::Control;
use crate::current;
use crate::exc_after::Alarm;
use crate::green_thread::Task;
use crate::place::{Found, Place};
use crate::quietly::drop_quietly;
use crate::runtime::Inner;
use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::cell::UnsafeCell;
use crate::shim::sync::{Arc, Weak, downgrade};
use crate::sleep;
#[cfg(loom)]
use crate::spawn::Request;
use crate::spawn::{self, Birth};
use crate::worker::{RemoteTimer, Worker};

const WAITING: usize = 0;
const FIRED: usize = 1;
const CANCELLED: usize = 2;

/// A function that waits for its time.
pub(crate) struct Call {
    state: AtomicUsize,
    body: UnsafeCell<Option<Box<dyn FnOnce() + Send>>>,
    /// `call_after_local`: not if this thread has ended.
    owner: Option<Task>,
    runtime: Weak<Inner>,
    /// The floating-point control of who asked for it.
    control: Control,
    /// Where its entry is.
    place: Place,
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
    /// Takes the closure; for the winner.
    fn claim(&self, state: usize) -> Option<Box<dyn FnOnce() + Send>> {
        if cfg!(weald_fault = "call_is_claimed_by_store")
            && self.state.load(Ordering::Acquire) == WAITING
        {
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

    /// Its entry is in a wheel now. False: it was cancelled meanwhile.
    pub(crate) fn armed(&self, worker: &Worker, key: Key) -> bool {
        let settled = self.place.settle(worker.index, key.to_bits());
        if settled && let Some(inner) = self.runtime.upgrade() {
            // Now the wheel counts it.
            inner.alarms.fetch_sub(1, Ordering::Relaxed);
        }
        settled
    }

    /// Its time has come: starts its green thread, unless it was cancelled. In the carriers' loop, where
    /// nothing of the user's may run: if the closure is not to be called, a green thread drops it. In
    /// a runtime that closes no timer fires and no such thread starts, as the shutdown may have counted all threads
    /// already: the closure is left to its end.
    pub(crate) fn fire(this: Arc<Self>) {
        let Some(inner) = this.runtime.upgrade() else {
            return;
        };
        if inner.is_closing() {
            inner.unfired.lock().push(this);
            return;
        }
        let late = this.owner_has_ended();
        match this.claim(if late { CANCELLED } else { FIRED }) {
            Some(body) if late => spawn::discard(&inner, body),
            Some(body) => {
                let control = this.control;
                let body = move || {
                    control.restore();
                    body();
                };
                spawn::start_detached(&inner, Birth::Ordinary, body);
            }
            None => {}
        }
    }

    /// Drops the closure of a call that will not come any more, unless it was cancelled.
    pub(crate) fn drop_closure(&self) {
        if let Some(body) = self.claim(CANCELLED) {
            drop_quietly(body);
        }
    }

    /// `call_after_local`: the thread that asked has ended.
    fn owner_has_ended(&self) -> bool {
        (self.owner.as_ref()).is_some_and(|owner| owner.state.is_done())
    }

    /// Its time has come, in the thread that waited for it.
    #[cfg(loom)]
    fn run_here(&self) {
        let late = self.owner_has_ended();
        match self.claim(if late { CANCELLED } else { FIRED }) {
            Some(body) if late => drop_quietly(body),
            Some(body) => body(),
            None => {}
        }
    }

    fn cancel(&self) -> bool {
        let Some(body) = self.claim(CANCELLED) else {
            return false;
        };
        let found = self.place.leave();
        if let Some(inner) = self.runtime.upgrade() {
            match found {
                Found::OnTheWay => {
                    inner.alarms.fetch_sub(1, Ordering::Relaxed);
                }
                Found::InWheel(worker, key) => take_out(&inner, worker, key),
                Found::Nowhere => {}
            }
        }
        drop(body);
        true
    }
}

/// So many timers may be cancelled from elsewhere before their worker is woken to take back what they had: 160
/// KiB.
const CANCELLED_BATCH: usize = 4096;

/// Takes an entry out of a worker's wheel; at once if that is the caller's.
fn take_out(inner: &Arc<Inner>, worker: usize, key: u64) {
    let Some(key) = Key::from_bits(key) else {
        return;
    };
    let worker = &inner.workers[worker];
    let here = carrier::with_core(Arc::as_ptr(inner), |own, core| {
        std::ptr::eq(own, worker).then(|| core.disarm(key))
    });
    // What comes out is dropped here, outside the door.
    if let Some(entry) = here.flatten() {
        drop(entry);
        return;
    }
    let cancelled = worker.timers.cancel(key).is_some();
    // The worker may sleep for long: now and then it is to take the entries back.
    if cancelled && !cfg!(loom) && worker.timers.cancelled().is_multiple_of(CANCELLED_BATCH) {
        worker.poller.unpark();
    }
}

/// The right to cancel a `call_after` or an `exc_after`. Dropping it cancels nothing.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let timer = weald_scheduler::call_after(Duration::from_secs(60), || println!("late"));
/// assert!(timer.cancel());
/// assert!(!timer.cancel());
/// ```
#[derive(Debug)]
pub struct Timer(Kind);

#[derive(Debug)]
enum Kind {
    Call(Arc<Call>),
    Alarm(Alarm),
}

impl Timer {
    pub(crate) fn alarm(alarm: Alarm) -> Self {
        Self(Kind::Alarm(alarm))
    }

    /// Cancels it. True: it will never fire, and what it held has been dropped. False: it has
    /// fired, or was cancelled before. Never blocks.
    ///
    /// A `call_after` has fired when its closure was handed to its green thread; an `exc_after`
    /// when its error was raised, so one that is overdue and not yet raised can be cancelled.
    pub fn cancel(&self) -> bool {
        match &self.0 {
            Kind::Call(call) => call.cancel(),
            Kind::Alarm(alarm) => alarm.cancel(),
        }
    }
}

fn start(delay: Duration, owner: Option<Task>, body: Box<dyn FnOnce() + Send>) -> Timer {
    carrier::with_runtime_arc(|inner| start_in(inner, delay, owner, body))
}

fn start_in(
    inner: &Arc<Inner>,
    delay: Duration,
    owner: Option<Task>,
    body: Box<dyn FnOnce() + Send>,
) -> Timer {
    let deadline = sleep::deadline(delay);
    let call = Arc::new(Call {
        state: AtomicUsize::new(WAITING),
        body: UnsafeCell::new(Some(body)),
        owner,
        runtime: downgrade(inner),
        control: Control::current(),
        place: deadline.map_or_else(Place::nowhere, |_| Place::on_the_way()),
    });
    // One that is never due is kept by its `Timer` alone.
    if let Some(deadline) = deadline {
        arm(inner, deadline, &call);
    }
    Timer(Kind::Call(call))
}

fn arm(inner: &Arc<Inner>, deadline: Instant, call: &Arc<Call>) {
    #[cfg(loom)]
    if crate::thin::is_active() {
        // A thread that sleeps takes the place of the wheel.
        call.place.leave();
        let call = call.clone();
        let request = Request {
            name: Some("a call in the future".into()),
            ..Request::default()
        };
        let body = move || {
            sleep::sleep_until(deadline);
            call.run_here();
        };
        // SAFETY: the closure is `'static`.
        drop(unsafe { crate::thin::start(request, body) });
        return;
    }
    let here = carrier::with_core(Arc::as_ptr(inner), |worker, core| {
        let key = core.arm_call(worker, inner.start, deadline, Arc::clone(call));
        call.place.settle_first(worker.index, key.to_bits());
    });
    if here.is_none() {
        // The wheel counts it, or, until it is there, `alarms`.
        inner.alarms.fetch_add(1, Ordering::Relaxed);
        inner.any_worker().post_timer(RemoteTimer {
            deadline,
            call: Arc::clone(call),
        });
    }
}

/// Runs `f` in a green thread of its own after `delay`. `f` may block. Returns at once.
///
/// Never early; [`Duration::MAX`] means never. It fires whether or not the caller still runs; see
/// [`call_after_local`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald_scheduler::{call_after, current, park};
/// let me = current();
/// call_after(Duration::from_millis(1), move || me.unpark());
/// park();
/// ```
pub fn call_after(delay: Duration, f: impl FnOnce() + Send + 'static) -> Timer {
    start(delay, None, Box::new(f))
}

/// As [`call_after`], but not if the thread that asks, green or not, has ended by then. Then a green thread of
/// its own drops `f`.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let timer = weald_scheduler::spawn(|| {
///     weald_scheduler::call_after_local(Duration::from_millis(1), || unreachable!())
/// });
/// let timer = timer.join().unwrap();
/// weald_scheduler::sleep(Duration::from_millis(3));
/// # drop(timer);
/// ```
pub fn call_after_local(delay: Duration, f: impl FnOnce() + Send + 'static) -> Timer {
    start(delay, Some(current::current().0), Box::new(f))
}
