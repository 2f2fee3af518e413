//! `timeout`: a limit on everything that a closure waits for.
#![allow(unsafe_code, reason = "the running thread's own part")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::verbs::sleep;
use crate::wait::exception::{self, Elapsed, Exception, Tag};
use crate::wait::os_header;

/// Runs `f` with a limit. If the limit passes, the blocking call in which `f` waits, or the next one that it enters, is
/// interrupted, and `timeout` returns `Err(Elapsed)`.
///
/// A call that returns `io::Result` returns [`TimedOut`](std::io::ErrorKind::TimedOut), once. Every
/// other call unwinds with an [`Exception`], and so does every later call inside `f`. If `f` enters no blocking call
/// after the limit has passed, the limit has no effect: `f` is never stopped between two blocking calls. If `f` was
/// interrupted and returns a value all the same, the value is dropped. Nested timeouts do not disturb each other: each
/// returns `Err` only for its own limit. On a plain OS thread it works as on a green thread, for
/// weald's calls.
///
/// If an exception must unwind and cannot, it ends the process, after a message. That is so if an `extern "C"`
/// function is on the stack, such as a callback of C's, or if the program is built with
/// `panic = "abort"`. In such a program use a limit only around calls that return `io::Result`, and let `f` return
/// when a call has failed.
///
/// A [`scope`](crate::scope()) inside `f` waits for its children before the limit is raised: `timeout` around a scope
/// whose child sleeps 2 s returns `Ok` after 2 s. A [`group`](crate::group()) ends its children.
///
/// In code made green by `weald-patch` the limit cannot unwind through C. There a call that the limit ends
/// fails (`ETIMEDOUT`) or returns early (a sleep), and a call that cannot fail (a lock of std's) goes on
/// to its own end. In both cases `timeout` returns `Err` when `f` returns.
///
/// # Errors
/// [`Elapsed`] if the limit's exception was raised and `f` returned, or unwound with it. Any other
/// panic or exception goes on.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald::{Elapsed, park, timeout};
/// let limit = Duration::from_millis(1);
/// assert!(matches!(timeout(limit, park), Err(Elapsed { .. })));
/// assert_eq!(timeout(Duration::MAX, || 42).unwrap(), 42);
/// ```
pub fn timeout<T>(limit: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    let header = os_header::header();
    let deadline = sleep::deadline(limit);
    // SAFETY: the running thread's own part, held for this statement; the thread keeps its header.
    let id = unsafe { (*header).local() }.push_scope(deadline);
    let result = catch_unwind(AssertUnwindSafe(f));
    // SAFETY: as above.
    let raised = unsafe { (*header).local() }.pop_scope(id);
    match result {
        Ok(value) if raised => {
            drop(value);
            Err(Elapsed(()))
        }
        Ok(value) => Ok(value),
        Err(payload) => {
            let own = payload.downcast_ref::<Exception>().map(Exception::tag);
            if own == Some(Tag::Timeout(id)) {
                return Err(Elapsed(()));
            }
            exception::go_on(payload)
        }
    }
}
