//! [`Timer`]: the right to cancel a call in the future, or an `exc_after`.

use std::error::Error;
use std::fmt;

use weald_timer::Key;

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::green::call::{CANCELLED, Call};
use crate::green::green_thread::Task;
use crate::parts::timer_place::Found;
use crate::shim::atomic::Ordering;
use crate::shim::sync::{Arc, Mutex, Weak};
use crate::wait::exception::{self, AlarmKey};

/// When other threads have cancelled so many timers of a worker, it is woken to take back the memory: 160 KiB.
const CANCELLED_BATCH: usize = 4096;

/// Takes a timer out of a worker's wheel. This happens at once if the worker is the caller's.
fn take_out(inner: &Arc<Inner>, worker: usize, key: u64) {
    let Some(key) = Key::from_bits(key) else {
        return;
    };
    let worker = &inner.workers[worker];
    let here = carrier::with_core(Inner::address(inner), |own, core| {
        std::ptr::eq(own, worker).then(|| core.disarm(key))
    });
    // The timer's value comes out of the wheel, and is dropped here, outside the door.
    if let Some(entry) = here.flatten() {
        drop(entry);
        return;
    }
    let cancelled = worker.timers.cancel(key).is_some();
    // The worker may sleep for long. Now and then it must wake and take the entries back.
    if cancelled && !cfg!(loom) && worker.timers.cancelled().is_multiple_of(CANCELLED_BATCH) {
        worker.poller.unpark();
    }
}

/// The right to cancel a `call_after` or an `exc_after`. Dropping it cancels nothing.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let timer = weald::call_after(Duration::from_secs(60), || println!("late"));
/// assert!(timer.cancel());
/// assert!(!timer.cancel());
/// ```
pub struct Timer(Kind);

enum Kind {
    Call(Arc<Call>, Weak<Inner>),
    Alarm(Alarm),
}

impl Timer {
    pub(crate) fn call(call: Arc<Call>, runtime: Weak<Inner>) -> Self {
        Self(Kind::Call(call, runtime))
    }

    pub(crate) fn alarm(alarm: Alarm) -> Self {
        Self(Kind::Alarm(alarm))
    }

    /// Cancels the timer. True: it will never fire, and what it held has been dropped. False: it has
    /// fired, or was cancelled before. Never blocks.
    ///
    /// A `call_after` has fired when its closure was handed to its green thread. An `exc_after` has fired
    /// when its error was raised. So an `exc_after` that is overdue and was not raised yet can be cancelled.
    pub fn cancel(&self) -> bool {
        match &self.0 {
            Kind::Call(call, runtime) => call.cancel(runtime),
            Kind::Alarm(alarm) => alarm.cancel(),
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind: &dyn fmt::Debug = match &self.0 {
            Kind::Call(call, _) => call,
            Kind::Alarm(alarm) => alarm,
        };
        f.debug_tuple("Timer").field(kind).finish()
    }
}

impl Call {
    /// `runtime`: the runtime in which the timer was set.
    fn cancel(&self, runtime: &Weak<Inner>) -> bool {
        let Some(body) = self.claim(CANCELLED) else {
            return false;
        };
        let found = self.place.withdraw();
        if let Some(inner) = runtime.upgrade() {
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

/// An `exc_after` of a thread. It is live as long as it is in the thread's inbox.
#[derive(Debug)]
pub(crate) struct Alarm {
    pub(crate) owner: Task,
    /// `None`: the `exc_after` is never due, and to cancel it only drops the error.
    pub(crate) key: Option<AlarmKey>,
    pub(crate) never: Mutex<Option<Box<dyn Error + Send + Sync>>>,
}

impl Alarm {
    pub(crate) fn cancel(&self) -> bool {
        let Some(key) = self.key else {
            return self.never.lock().take().is_some();
        };
        exception::cancel_alarm(&self.owner, key)
    }
}
