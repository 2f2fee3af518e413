//! Exceptions: errors that are raised *in* a thread. Where they wait, and in which order and how often they are
//! raised.
//!
//! A thread is its own alarm clock. `timeout` puts its deadline into the thread's
//! [`Local`](crate::green::exception::Local), and `exc_after` into its [`Inbox`](crate::green::exception::Inbox). A wait
//! ends at the earliest of them, so the wheel holds an entry only while the thread waits. A blocking call that need not
//! wait compares the clock with the earliest, if there is one. This is the same on a green thread and on an OS thread.
//! What other threads raise (`throw`, `kill`) goes through the inbox, which has a lock, and through the state word's
//! PENDING.
//!
//! | source       | raised                          | tag        |
//! |--------------|---------------------------------|------------|
//! | `kill`       | in every blocking call          | `Kill`     |
//! | `timeout`    | in every blocking call inside the closure | `Timeout(n)` |
//! | the others   | in one blocking call            | `Once`     |
//!
//! Invariant 1: `Local` is touched by its own thread alone. An `exc_after` is live as long as it is
//! in the inbox: the thread that takes it out, to raise or to cancel it, has won.
//! Invariant 2: nothing is raised while the thread unwinds. While it holds exceptions (`hold`), only
//! timeouts that it entered since then are raised.
//! Invariant 3: PENDING is set and cleared under the inbox's lock, so it is set whenever the inbox
//! holds something to raise.

mod catch;
mod defer;
mod pending;
mod raise;
#[cfg(not(loom))]
mod reported;

pub use self::catch::catch;
pub(crate) use self::catch::{go_on, or_reported};
pub(crate) use self::defer::Hold;
pub use self::defer::{defer, is_deferred};
pub(crate) use self::pending::{
    Raise, admits, check, check_may_wait, holds, is_due, is_quiet, is_unwinding,
};
pub(crate) use self::raise::{cancel_alarm, close, is_killed, kill};
#[cfg(not(loom))]
pub use self::reported::Pending;
#[cfg(not(loom))]
pub(crate) use self::reported::{overslept, peek};
pub(crate) use crate::green::exception::{AlarmKey, Tag, is_kill};
pub use crate::green::exception::{Elapsed, Exception, Killed};
