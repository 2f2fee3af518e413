//! The functions of libc that this crate defines in libc's place, a file for each kind.
//!
//! Each function first asks who calls it ([`on`]). If the caller is not patched, it makes the system call as libc
//! would. Its signature is exactly libc's.
//!
//! To add a call:
//! 1. Find out what the call waits for. A descriptor: [`run`](mod@run) tries, waits and tries again, and needs a form
//!    of the call that does not wait. Several descriptors: `crate::several`. Something without events:
//!    `crate::pauses`. A lock or a condition in memory: `crate::futex`. None of these: [`kept`] keeps the OS thread,
//!    and says so.
//! 2. Define the call in the file of its kind, `#[unsafe(no_mangle)]`, with the signature of the manual's page.
//!    `crate::original` finds libc's function, or the call is a system call (`crate::raw`).
//! 3. An error on an OS thread must be the same error here, at once: look before it waits.
//! 4. A pending exception ends the call with an error, or the table in the documentation of the crate says that it
//!    does not.
//! 5. Other names of the call in libc (`__read_chk`, `__poll`) go to [`twins`].
//! 6. Tests: `patch/tests/edges.rs` (errors, as on an OS thread); `patch/tests/quiet_waits.rs` (a call that waits for a
//!    descriptor uses no CPU while it waits) or `patch/tests/quiet_others.rs` (the same for all other calls that wait);
//!    and a row of that table.

use weald_scheduler::patch;

use crate::Kind;

pub(crate) mod close;
pub(crate) mod connect;
pub(crate) mod descriptor;
mod epoll_wait;
mod getaddrinfo;
mod kept;
mod limit;
pub(crate) mod lock;
mod offset;
pub(crate) mod open;
mod patience;
pub(crate) mod poll;
pub(crate) mod process;
mod pthread;
pub(crate) mod receive;
mod records;
mod run;
pub(crate) mod select;
mod semaphore;
pub(crate) mod send;
pub(crate) mod sleep;
pub(crate) mod socket;
pub(crate) mod sync;
pub(crate) mod threads;
mod transfer;
mod twins;

/// Whether the caller is a green thread whose calls of this kind are patched.
#[inline]
pub(crate) fn on(kind: Kind) -> bool {
    patch::caller() & kind.bit() != 0
}
