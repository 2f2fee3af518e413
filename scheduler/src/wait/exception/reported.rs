//! Exceptions that are *reported* to calls of patched code: such a call fails because of the exception, or has waited over
//! it, and the exception stays pending. No model has patched code.
#![allow(unsafe_code, reason = "the thread's own part of its header")]

use super::pending::{check, is_due, is_quiet, is_unwinding};
use crate::green::exception::{Exception, Local};
use crate::green::green_thread::Header;
use crate::shim::clock;

/// An exception that waits to be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// The exception of a `timeout`.
    Elapsed,
    /// Any other.
    Other,
}

/// The exception that a blocking call would raise now. It stays pending. The caller will fail because of it. The
/// exception of a `timeout` counts as raised by that.
pub(crate) fn peek(header: &Header) -> Option<Pending> {
    if !is_due(header) {
        return None;
    }
    // SAFETY: the thread asks about itself.
    let local = unsafe { header.local() };
    local.report_limits(header);
    Some(if local.is_timeout_due(header) {
        Pending::Elapsed
    } else {
        local.reported = true;
        Pending::Other
    })
}

/// A call of patched code that no exception can end has waited, perhaps beyond a limit.
pub(crate) fn overslept(header: &Header) {
    if is_quiet(header) || is_unwinding() {
        return;
    }
    // SAFETY: the thread asks about itself.
    let local = unsafe { header.local() };
    local.report_limits(header);
    // The thread may end without another call of weald, and the kill must not be forgotten then.
    local.reported |= local.held(header).is_none() && header.state.is_pending();
}

/// The exception that must be the outcome of the thread's body: a call of patched code has failed because of it,
/// and nothing has raised it since.
pub(crate) fn reported(header: &Header) -> Option<Exception> {
    if is_quiet(header) {
        return None;
    }
    // SAFETY: the thread asks about itself.
    if !unsafe { header.local() }.reported {
        return None;
    }
    check(header).map(|raise| raise.exception)
}

impl Local {
    /// Limits that have passed were reported to a call of patched code. From now on they count as raised.
    fn report_limits(&mut self, header: &Header) {
        if self.earliest.is_none() {
            return;
        }
        let now = clock::now();
        let first = self.held(header).unwrap_or(0);
        for frame in self.frames.iter_mut().skip(first) {
            frame.reported |= frame.deadline.is_some_and(|deadline| deadline <= now);
        }
    }

    /// Whether the first of the exceptions that are due is a `timeout`'s.
    fn is_timeout_due(&self, header: &Header) -> bool {
        let held = self.held(header);
        if held.is_none() && header.state.is_pending() && header.cold().inbox.lock().is_killed() {
            return false;
        }
        let now = self.earliest.map(|_| clock::now());
        let first = held.unwrap_or(0);
        self.frames.iter().skip(first).any(|frame| {
            frame.raised || matches!((frame.deadline, now), (Some(d), Some(n)) if d <= n)
        })
    }
}
