//! The end of a thread. `join.rs` waits for it.
//!
//! 1. The body has ended, or was dropped if it was not to run. From here on nothing is raised in the
//!    thread, so no destructor is cut short.
//! 2. If there is no handle, the result is dropped. Then the thread drops its values of `green_local!`, the exceptions
//!    that were to be raised in it, its own thread-locals, and what their destructors have made (`wind_up`).
//!    Meanwhile it is a thread like any other: it may wait, is counted, and shows in `dump`.
//! 3. It is counted as ended and steps to DONE (`state.rs`, `ends.rs`). It does not wait any more.
//! 4. Its carrier, off its stack, takes stack and block back, and wakes the joiners. A joiner has entered the
//!    queue and then announced itself by a step of the state word, which says whether DONE came first.
//!
//! So a thread that nobody waits for ends with one read-modify-write, and nothing of the user's runs
//! after it: the result belongs to the handle if there is one at DONE. If the handle is dropped between 2 and 3, nobody
//! has the result, and if an error is thrown between them, nobody has the error. The carrier starts a thread that
//! drops both ([`Orphan`]).
#![allow(
    unsafe_code,
    reason = "who may touch the result is decided by the state word"
)]

use crate::engine::inner::{Inner, RUNNING};
use crate::green::green_thread::{Header, Task};
use crate::parts::quietly::drop_quietly;
use crate::parts::state::Remains;
use crate::shim::atomic::Ordering;
use crate::wait::exception;

/// What a thread still has when it has wound up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// The result, because there was a handle.
    kept: bool,
    /// The thread has not closed its inbox, because nothing was ever raised in it.
    listens: bool,
}

/// Drops what is the user's and ends with the thread. On the thread, whose body has ended.
///
/// `hook`: to be called when the thread's values are gone. `destroy`: runs the destructors of
/// its own thread-locals.
#[inline]
pub(crate) fn wind_up(header: &Header, hook: impl FnOnce(), destroy: impl Fn()) -> Rest {
    header.ending.set(true);
    let kept = header.state.has_handle();
    if !kept {
        // Nobody will take the result. It is dropped first, because its destructor may use the thread's values.
        // SAFETY: without a handle the result is the thread's until DONE.
        unsafe { Task::drop_result(header) };
    }
    // SAFETY: the thread itself.
    unsafe { clear_locals(header) };
    hook();
    loop {
        let closed = exception::close(header);
        destroy();
        // Drops what the destructors have made.
        if header.cold_if_any().is_none() {
            return Rest {
                kept,
                listens: true,
            };
        }
        // SAFETY: the thread itself.
        unsafe {
            if closed && has_no_locals(header) {
                return Rest {
                    kept,
                    listens: false,
                };
            }
            clear_locals(header);
        }
    }
}

/// Steps to DONE. True: something is left to do, as [`State::remains`](crate::parts::state::State::remains) tells.
#[inline]
pub(crate) fn finish(header: &Header, rest: Rest) -> bool {
    header.state.finish(rest.kept, rest.listens)
}

/// Wakes the threads that wait for a thread that is DONE.
pub(crate) fn wake_joiners(header: &Header) {
    unless!("join_wakes_nobody", header.joiners.wake_all());
}

/// Ends a thread that has wound up on an OS thread. There is no carrier that would drop what it leaves.
pub(crate) fn end(header: &Header, rest: Rest) {
    finish(header, rest);
    let remains = header.state.remains();
    if remains.joiners {
        wake_joiners(header);
    }
    drop(Orphan::of(header));
}

/// What a thread that is DONE has left and nobody will take. It is dropped with this value.
#[derive(Debug)]
pub(crate) struct Orphan {
    task: Task,
    remains: Remains,
}

impl Orphan {
    /// Made once, by the caller that has ended the thread. `None`: nothing is left.
    pub(crate) fn of(header: &Header) -> Option<Self> {
        let remains = header.state.remains();
        (remains.result || remains.errors).then(|| Self {
            task: Task::from_header(header),
            remains,
        })
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if self.remains.errors {
            exception::close(&self.task);
        }
        if self.remains.result {
            // SAFETY: ORPHAN was set, and only the caller that made this was told so.
            unsafe { Task::drop_result(&self.task) };
        }
    }
}

/// Drops the thread's values, the last one first, and those that the destructors make.
///
/// # Safety
/// The caller runs on the thread.
#[inline]
unsafe fn clear_locals(header: &Header) {
    if header.cold_if_any().is_some() {
        // SAFETY: by contract.
        unsafe { clear_all_locals(header) };
    }
}

/// # Safety
/// As `clear_locals`.
#[inline(never)]
unsafe fn clear_all_locals(header: &Header) {
    loop {
        // SAFETY: by contract; not held over the destructor.
        let value = match unsafe { header.local_if_any() } {
            None => return,
            Some(local) => local.locals.take_last(),
        };
        let Some(value) = value else { return };
        drop_quietly(value);
    }
}

/// The thread has no values.
///
/// # Safety
/// The caller runs on the thread.
unsafe fn has_no_locals(header: &Header) -> bool {
    // SAFETY: by contract.
    unsafe { header.local_if_any() }.is_none_or(|local| local.locals.is_empty())
}

impl Inner {
    /// A green thread has been counted as ended.
    #[inline]
    pub(crate) fn one_ended(&self) {
        if self.phase.load(Ordering::Acquire) != RUNNING && self.live() == 0 {
            self.ending.wake_all();
        }
    }
}
