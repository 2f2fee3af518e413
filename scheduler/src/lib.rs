//! The scheduler of weald: green threads on all cores, timers, exceptions.
//!
//! This crate is the lower half of `weald`, which re-exports what programs use; see there for the
//! tour. Its parts, from below:
//!
//! | part                                             | knows of                                |
//! |--------------------------------------------------|-----------------------------------------|
//! | `shim`                                           | atomics, locks, OS threads: std or loom |
//! | `queue`, `poller`, `stack`, `coroutine`          | nothing of green threads but a pointer  |
//! | `state`, `green_thread`, `waiter`, `wait_queue`, | one unit of work                        |
//! | `exception`, `locals`, `current`                 |                                         |
//! | `worker`, `carrier`, `seat`, `idle`, `monitor`,  | who runs what, where, when              |
//! | `registry`, `runtime`, `builder`                 |                                         |
//! | `spawn`, `join`, `scope`, `sleep`, `call_after`, | the verbs that programs call            |
//! | `exc_after`, `timeout`, `blocking`, `fork_join`  |                                         |

#![cfg_attr(
    loom,
    allow(dead_code, reason = "what only the real poller and deque need")
)]

mod engine;
mod green;
mod parts;
mod run;
mod shim;
#[cfg(loom)]
#[doc(hidden)]
pub mod thin;
mod verbs;
mod wait;
mod watch;

pub use crate::green::current::is_green;
pub use crate::green::handle::GreenThread;
pub use crate::green::id::GreenThreadId;
pub use crate::green::trace::Trace;
#[cfg(weald_sanitizer = "thread")]
#[doc(hidden)]
pub use crate::shim::in_sight;
pub use crate::verbs::blocking::blocking;
pub use crate::verbs::builder::{RuntimeBuilder, ThreadLocals};
pub use crate::verbs::call_after::{call_after, call_after_local};
pub use crate::verbs::default_runtime::dump;
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
pub use crate::verbs::scope::{Scope, ScopedJoinHandle, scope};
pub use crate::verbs::sleep::{checkpoint, park, park_timeout, sleep, sleep_until, yield_now};
pub use crate::verbs::spawn::{Builder, spawn};
pub use crate::verbs::timeout::timeout;
pub use crate::verbs::timer::Timer;
pub use crate::wait::exception::{Elapsed, Exception, Killed, catch};
pub use crate::wait::green_local::LocalKey;
pub use crate::wait::os_header::current;
pub use crate::watch::dump::{Doing, Dump, DumpedThread};
pub use crate::watch::metrics::Metrics;
