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

mod birth;
mod blocked;
mod blocking;
mod blocking_calls;
mod builder;
mod call;
mod call_after;
mod carrier;
mod cells;
mod coroutine;
mod cpus;
mod current;
mod default_runtime;
mod door;
mod dump;
mod eager;
mod end;
mod ends;
mod engine;
mod errno;
mod error;
mod exc_after;
mod exception;
mod fire;
mod fork_join;
mod forks;
mod green_local;
mod green_thread;
mod group;
mod handle;
mod id;
mod idle;
mod inner;
#[doc(hidden)]
pub mod io;
mod join;
mod last_words;
mod left;
#[cfg(not(loom))]
mod leftovers;
#[cfg(not(loom))]
mod local_names;
mod locals;
mod metrics;
mod monitor;
#[cfg(not(loom))]
mod offload;
#[cfg(not(loom))]
mod on_os_thread;
mod os_header;
mod os_parker;
mod os_thread;
mod outcome;
#[cfg(not(any(loom, miri)))]
mod panic_count;
#[cfg(not(loom))]
mod panic_hook;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod patch;
#[cfg(not(loom))]
mod patching;
mod permits;
mod permits_wait;
mod place;
mod poller;
mod prefetch;
mod private;
mod queue;
mod queues;
mod quietly;
mod random;
mod registry;
mod request;
mod run;
mod runtime;
mod scope;
mod seat;
mod selection;
mod settings;
mod shadow_stack;
mod share_forks;
mod shim;
#[cfg(not(loom))]
mod sigquit;
mod sleep;
mod slice;
mod spawn;
mod stack;
mod start;
mod starts;
mod state;
mod switch_out;
#[cfg(loom)]
#[doc(hidden)]
pub mod thin;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    not(any(loom, miri))
))]
mod thread_locals;
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    not(any(loom, miri))
)))]
#[path = "thread_locals/none.rs"]
mod thread_locals;
mod threads;
mod timeout;
mod timer;
mod trace;
mod wait_list;
mod wait_queue;
mod waiter;
mod wake;
mod worker;
mod worker_timers;

pub use crate::blocking::blocking;
pub use crate::builder::{RuntimeBuilder, ThreadLocals};
pub use crate::call_after::{call_after, call_after_local};
pub use crate::current::is_green;
pub use crate::default_runtime::dump;
pub use crate::dump::{Doing, Dump, DumpedThread};
pub use crate::error::InstallError;
pub use crate::exc_after::exc_after;
pub use crate::exception::{Elapsed, Exception, Killed, catch};
pub use crate::fork_join::join;
pub use crate::green_local::LocalKey;
pub use crate::group::{Group, group};
pub use crate::handle::GreenThread;
pub use crate::id::GreenThreadId;
pub use crate::join::JoinHandle;
pub use crate::metrics::Metrics;
#[cfg(not(loom))]
pub use crate::on_os_thread::{
    OnOsThread, has_own_thread_locals, on_os_thread, on_os_thread_unsend,
};
pub use crate::os_header::current;
pub use crate::outcome::Outcome;
#[doc(hidden)]
pub use crate::outcome::{Body, NeverReturns, Returns};
pub use crate::runtime::Runtime;
pub use crate::scope::{Scope, ScopedJoinHandle, scope};
#[cfg(weald_sanitizer = "thread")]
#[doc(hidden)]
pub use crate::shim::in_sight;
pub use crate::sleep::{checkpoint, park, park_timeout, sleep, sleep_until, yield_now};
pub use crate::spawn::{Builder, spawn};
pub use crate::timeout::timeout;
pub use crate::timer::Timer;
pub use crate::trace::Trace;
