//! `exc_after`: raises an error in the caller later.

use std::error::Error;
use std::time::Duration;

use crate::shim::sync::Mutex;
use crate::verbs::sleep;
use crate::verbs::timer::{Alarm, Timer};
use crate::wait::os_header;

/// Raises `exc` in the caller, a green or an OS thread, after `delay`: in the blocking call in which it
/// waits then, else in the next one that it enters. Returns at once.
///
/// `exc` is raised at most once, and never early. It is not raised if the thread has ended by then, or if the timer
/// was cancelled. [`Duration::MAX`] means never.
///
/// If an exception must unwind and cannot, it ends the process, after a message. That is so if an `extern "C"`
/// function is on the stack, such as a callback of C's, or if the program is built with
/// `panic = "abort"`.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let result = std::panic::catch_unwind(|| {
///     weald::exc_after(Duration::from_millis(1), "too late");
///     weald::park();
/// });
/// let payload = result.unwrap_err();
/// let exception = payload.downcast_ref::<weald::Exception>().unwrap();
/// assert_eq!(exception.to_string(), "too late");
/// ```
#[allow(unsafe_code, reason = "the running thread's own part")]
pub fn exc_after(delay: Duration, exc: impl Into<Box<dyn Error + Send + Sync>>) -> Timer {
    let error = exc.into();
    let owner = os_header::current().0;
    let (key, never) = match sleep::deadline(delay) {
        None => (None, Some(error)),
        Some(deadline) => {
            // SAFETY: the running thread's own part, held for this statement.
            let (key, late) = unsafe { owner.local() }.add_alarm(&owner, deadline, error);
            drop(late);
            (Some(key), None)
        }
    };
    Timer::alarm(Alarm {
        owner,
        key,
        never: Mutex::new(never),
    })
}
