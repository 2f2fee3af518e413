//! The scheduler of weald: green threads on all cores, timers, exceptions.
//!
//! This crate is the lower half of `weald`, which re-exports what programs use; see there for the
//! tour. Each folder is a floor, and names only itself and those below it. From the top:
//!
//! | floor    | knows of                                                  |
//! |----------|-----------------------------------------------------------|
//! | `verbs`  | what programs call                                        |
//! | `watch`  | looking at a runtime from outside                         |
//! | `run`    | the loops: who runs next, the start and end of a thread   |
//! | `wait`   | the rules of waiting, wake-ups, exceptions, ends          |
//! | `engine` | what workers share; how a thread is made ready            |
//! | `green`  | a green thread as it lies in memory                       |
//! | `parts`  | nothing of green threads                                  |
//! | `shim`   | atomics, locks, OS threads: std or loom                   |

#![cfg_attr(
    loom,
    allow(dead_code, reason = "what only the real poller and deque need")
)]

#[macro_use]
mod shim;

mod engine;
mod green;
mod parts;
mod run;
#[cfg(loom)]
#[doc(hidden)]
pub mod thin;
mod verbs;
mod wait;
mod watch;

pub use crate::green::awaited::Awaited;
pub use crate::green::current::is_green;
pub use crate::green::handle::GreenThread;
pub use crate::green::id::GreenThreadId;
pub use crate::green::trace::{Frame, Trace};
#[cfg(weald_sanitizer = "thread")]
#[doc(hidden)]
pub use crate::shim::in_sight;
pub use crate::verbs::blocking::blocking;
pub use crate::verbs::builder::{RuntimeBuilder, ThreadLocals};
pub use crate::verbs::call_after::{call_after, call_after_local};
pub use crate::verbs::default_runtime::{dump, metrics, worker_metrics};
pub use crate::verbs::error::InstallError;
pub use crate::verbs::exc_after::exc_after;
pub use crate::verbs::fork_join::join;
pub use crate::verbs::group::{Group, group};
#[doc(hidden)]
pub use crate::verbs::io;
pub use crate::verbs::join::JoinHandle;
#[cfg(not(loom))]
pub use crate::verbs::on_os_thread::{
    OnOsThread, has_own_thread_locals, on_os_thread, on_os_thread_unsend,
};
pub use crate::verbs::outcome::Outcome;
#[doc(hidden)]
pub use crate::verbs::outcome::{Body, NeverReturns, Returns};
#[cfg(not(loom))]
#[doc(hidden)]
pub use crate::verbs::patch;
pub use crate::verbs::runtime::Runtime;
#[cfg(not(loom))]
pub use crate::verbs::runtime_handle::{RuntimeHandle, runtimes};
pub use crate::verbs::scope::{Scope, ScopedJoinHandle, scope};
pub use crate::verbs::sleep::{checkpoint, park, park_timeout, sleep, sleep_until, yield_now};
pub use crate::verbs::spawn::{Builder, spawn};
pub use crate::verbs::timeout::timeout;
pub use crate::verbs::timer::Timer;
pub use crate::wait::exception::{Elapsed, Exception, Killed, catch};
pub use crate::wait::green_local::LocalKey;
pub use crate::wait::os_header::current;
pub use crate::watch::changes::Changes;
pub use crate::watch::dump::{Deadlock, Doing, Dump, DumpedThread, WaitsFor};
pub use crate::watch::groups::DumpedGroup;
pub use crate::watch::metrics::Metrics;
pub use crate::watch::workers::{Latencies, WorkerMetrics};

/// A flight recorder: the last things that the runtimes have done, for a trace on demand.
///
/// [`start`](trace::start) switches it on, for all runtimes of the process, and [`stop`](trace::stop) off again. While it
/// is off it costs nothing that could be measured. While it is on, each OS thread notes what it does in memory: which
/// green thread runs, for what it waits, who wakes it. [`mark`](trace::mark) and [`span`](trace::span) add what the program
/// knows. When something is wrong, [`snapshot`](trace::snapshot) has the last events.
///
/// With `WEALD_TRACE=FILE` in its environment a program needs no line of code: the recorder is on from the first runtime on, and
/// writes a trace to the file when `SIGQUIT` comes, and at the first panic. A line on standard error says so. A panic
/// then takes up to a second longer.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// use weald::trace;
///
/// trace::start(trace::Options::new())?;
/// let begin = Instant::now();
/// {
///     let _span = trace::span("a request");
///     weald::sleep(Duration::from_millis(2));
/// }
/// if begin.elapsed() > Duration::from_millis(1) {
///     let recording = trace::snapshot();
///     println!("it was slow; {} events tell why", recording.events().len());
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub mod trace {
    pub use crate::verbs::trace::{Options, Span, is_on, mark, snapshot, span, start, stop};
    pub use crate::watch::recording::{Cause, Event, Recording, What};
}
