//! Standard blocking code made green: the calls of libc that would block a thread suspend the green
//! thread instead. Nothing in that code need be changed, nor need it know of weald.
//!
//! This is eventlet's monkey patching. A program that is linked with this crate has it define `read`,
//! `recv`, `connect`, `poll`, `clock_nanosleep`, `syscall` (for futexes) and their kin in libc's
//! place; so std, all crates and C libraries of the process call them. There are two steps:
//!
//! 1. *Linked*: the program names this crate in its code, if only by `extern crate weald_patch as _;`.
//!    Whoever is no green thread notices nothing but some nanoseconds a call.
//! 2. *Switched on*: by [`all`] or one of its parts for the process, or by `Builder::patched(true)`
//!    for one green thread and `RuntimeBuilder::patched(true)` for those of a runtime.
//!
//! ```
//! # if weald_patch::all().is_err() { return }
//! use std::time::{Duration, Instant};
//!
//! let start = Instant::now();
//! let threads: Vec<_> = (0..100)
//!     .map(|_| weald_scheduler::spawn(|| std::thread::sleep(Duration::from_millis(50))))
//!     .collect();
//! for thread in threads {
//!     thread.join().unwrap();
//! }
//! assert!(start.elapsed() < Duration::from_secs(1)); // not 5 s
//! ```
//!
//! # What is promised
//! - In the child of a fork nothing is patched.
//! - Blocking is as it was: `O_NONBLOCK`, `SO_RCVTIMEO`, `SO_SNDTIMEO`, `MSG_DONTWAIT` are the user's,
//!   a blocking `write` takes all, and there is no table of descriptors: `dup`, `fork` and `close`
//!   need nothing of this crate.
//! - An exception (`exc_after`, `timeout`, `kill`) never unwinds through C. A call that it ends fails
//!   with `ECANCELED`, of a `timeout` with `ETIMEDOUT`, and the exception is raised at the next call of
//!   weald. One sleep returns early instead; a wait for a lock goes on, as locks cannot fail.
//! - Signals: a suspended green thread never sees `EINTR`.
//!
//! # What is not
//! - The end of a thread that ignores errors. Under `kill`, and so when its runtime is dropped, its
//!   calls fail, but a loop in code that knows nothing of weald may try for ever; `drop` leaves it
//!   behind after 5 s. Programs that are made of such code use a runtime that is never dropped, as
//!   `RuntimeBuilder::install` makes: their threads end with the process, as all threads do.
//! - What blocks inside libc: stdio's locks, `pthread_mutex_lock`. There the OS thread waits, and the
//!   monitor hands the worker on. `sem_wait` too, with the worker handed on at once.
//! - `ppoll` and its like with a signal mask block the OS thread, with the worker handed on.
//! - Points of cancellation of `pthread_cancel` are none in patched calls.
//! - A `pthread_t` of a green thread made by a patched `pthread_create` is good for `pthread_join`,
//!   `pthread_detach` and comparing. Other calls that take one (`pthread_kill`,
//!   `pthread_getcpuclockid`) know nothing of green threads and must not be given it.
//! - Inside `blocking` nothing is patched: there the program has asked for the system's call.
//! - A thread of std that its runtime refuses or ends before it has started, at shutdown, never runs;
//!   its `join` panics, as std's does for a thread that left no result.
//! - A `cdylib` that a foreign program opens by `dlopen` is too late to take libc's place.
//! - Two crates that both define `read` do not link.
//!
//! # What has blocked all the same
//! With `WEALD_PATCH_REPORT=1` in the environment the process tells on stderr, when it ends, which
//! calls have kept an OS thread waiting for more than 10 ms without weald's knowing, how often, for
//! how long, and with their stacks.
//!
//! It speaks for the whole process, so it is for programs, not for libraries.
//!
//! # Platform-specific behavior
//! Linux on x86-64. It needs thread-locals of the green threads' own (`ThreadLocals::Own`): std's
//! channels and others tell threads apart by thread-locals, and hang when two green threads share
//! them. Elsewhere [`all`] and its parts are errors that say why; so on AArch64 too, where this crate
//! compiles but `Own` is off as nobody has run it yet.

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("weald-patch knows Linux on x86-64 and AArch64");

// Without a dynamic glibc there are no thread-locals of their own, and `switch` says so.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod futex;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod hooks;
pub mod original;
mod raw;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod shim;
mod switch;
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
mod wait;

pub use crate::switch::{
    Kind, Unsupported, all, dns, files, is_patched, process, select, sleep, sockets, sync, threads,
    wrap_select_with_coroutine_select, wrap_socket_with_coroutine_socket,
};
