//! Spans in which exceptions stay pending: `defer` ends the call, a `Hold` lets it go on.
#![allow(unsafe_code, reason = "the thread's own part of its header")]

use std::error::Error;
use std::io;

use super::catch::{go_on, take};
use super::pending::Deferred;
use crate::green::green_thread::Header;
use crate::wait::os_header;

/// Runs a call that an exception may end without being raised in it. The call then ends with an error that
/// [`is_deferred`] recognises, and the exception stays pending: it is raised in the thread's next blocking call. For calls that have already done something that they must report.
///
/// # Errors
/// Those of `f`.
pub fn defer<T>(f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let defers = Defers::new();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    drop(defers);
    match result {
        Ok(result) => result,
        Err(payload) => match take::<Deferred>(payload) {
            Ok(deferred) => Err(io::Error::other(*deferred)),
            Err(payload) => go_on(payload),
        },
    }
}

/// True for the error of a call inside [`defer`] that an exception ended.
pub fn is_deferred(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(<dyn Error + Send + Sync>::is::<Deferred>)
}

/// While this value lives, nothing is raised in its thread but `Deferred`.
struct Defers(*const Header);

impl Defers {
    fn new() -> Self {
        let header = os_header::header();
        // SAFETY: the thread speaks of itself.
        unsafe { (*header).local() }.begin_defer();
        Self(header)
    }
}

impl Drop for Defers {
    fn drop(&mut self) {
        // SAFETY: a `Defers` is neither `Send` nor does it leave its thread's stack.
        unsafe { (*self.0).local() }.end_defer();
    }
}

/// While this value lives, nothing is raised in the thread that made it, except timeouts that
/// it enters meanwhile.
#[derive(Debug)]
pub(crate) struct Hold(*const Header);

impl Hold {
    pub(crate) fn new() -> Self {
        let header = os_header::header();
        // SAFETY: the thread speaks of itself.
        unsafe { (*header).local() }.begin_hold();
        Self(header)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // SAFETY: a `Hold` is neither `Send` nor does it leave its thread's stack.
        unsafe { (*self.0).local() }.end_hold();
    }
}
