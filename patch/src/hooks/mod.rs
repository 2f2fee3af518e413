//! The functions of libc that this crate defines in libc's place, a file for each kind.
//!
//! Each asks first who calls ([`on`]); for whom it is not patched it makes the system call as libc
//! would. Its signature is libc's to the letter.

use weald_scheduler::patch;

use crate::Kind;

pub(crate) mod close;
pub(crate) mod descriptor;
mod kept;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod open;
mod patience;
pub(crate) mod poll;
pub(crate) mod process;
mod pthread;
mod semaphore;
pub(crate) mod sleep;
pub(crate) mod socket;
pub(crate) mod sync;
pub(crate) mod threads;
mod transfer;
mod twins;

/// The caller is a green thread whose calls of this kind are patched.
#[inline]
pub(crate) fn on(kind: Kind) -> bool {
    patch::caller() & kind.bit() != 0
}
