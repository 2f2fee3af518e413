//! The way of a green thread out of its stack.
#![allow(unsafe_code, reason = "the running thread's own stack")]

use crate::green::green_thread::{Header, Note};

/// Leaves the stack of the running green thread. The only place that does.
///
/// Never inlined, and it touches no thread-local: the OS thread may be another one afterwards.
#[inline(never)]
pub(crate) fn switch_out(header: &Header, note: Note) {
    header.left_at.note();
    if fault!("carrier_parks_before_the_switch")
        && let Note::Park { epoch, kind } = note
        && header.state.park(epoch, kind).is_err()
    {
        return;
    }
    // SAFETY: the suspender was set when the thread started, and lives on the stack that this call
    // runs on.
    unsafe { (*header.suspender.get()).suspend(note) };
}
