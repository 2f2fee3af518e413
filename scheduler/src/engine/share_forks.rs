//! Makes green threads of forks, the second halves of `join`s. `forks.rs` has the list, `fork_join.rs` the halves and a
//! table of when this is done.
#![allow(
    unsafe_code,
    reason = "closures on the stack of a thread that waits until they have ended"
)]

use std::mem::ManuallyDrop;
use std::time::Duration;

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::green::green_thread::Header;
use crate::green::request::Request;
use crate::parts::coroutine::Control;
use crate::parts::forks::Fork;
use crate::shim::sync::Arc;

/// The least time between two forks that are given to sleeping workers. To make a green thread of a fork and to wake an
/// OS thread takes some microseconds; a program with tiny halves must not pay that each time.
const SHARE_PAUSE: Duration = Duration::from_micros(20);

/// The least time between two forks that begin because their thread gives way in a `join`. Each such fork is a thread
/// more. A long computation must not become thousands of threads, but each fork must begin at last.
const GIVE_WAY_PAUSE: Duration = Duration::from_millis(10);

/// A half without its type.
#[repr(C)]
pub(crate) struct Head {
    pub(crate) fork: Fork,
    /// Makes a green thread of the half.
    pub(crate) start: unsafe fn(*const Head, &Arc<Inner>, Request),
}

/// A fork was popped, and a taker may have taken it. Returns whether it was taken.
#[cold]
#[inline(never)]
pub(crate) fn is_taken(header: &Header, fork: *const Fork, number: usize) -> bool {
    // SAFETY: the thread itself, with the right to take.
    with_right(|| unsafe { header.forks.settle(fork, number) })
}

/// Calls `f` as the running green thread, with the right to take from its forks. `f` is short and runs nothing of
/// the user's.
fn with_right<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: a green thread runs on a carrier.
    let carrier = unsafe { &*carrier::here() };
    carrier.inside(f)
}

/// A worker has nothing to do: makes a green thread of the oldest fork, unless that was done just now.
#[cold]
#[inline(never)]
pub(crate) fn feed(header: &Header) {
    // SAFETY: a green thread runs on a carrier.
    if unsafe { &*carrier::here() }.may_share(SHARE_PAUSE) {
        share(header, true);
    }
}

/// Makes a green thread of the oldest fork. `is_for_others`: the thread must go where another worker finds it, because
/// this worker has enough to do. If this worker began the thread, the worker that was woken would find nothing; and in
/// `Pinned` no other worker could take the thread any more.
fn share(header: &Header, is_for_others: bool) {
    // SAFETY: the thread itself, with the right to take.
    let fork = with_right(|| unsafe { header.forks.take_own() });
    if let Some(fork) = fork {
        // SAFETY: a green thread that runs keeps its runtime, which this borrows.
        let inner = unsafe { ManuallyDrop::new(Arc::from_raw(header.runtime.cast::<Inner>())) };
        // SAFETY: the thread itself.
        let is_under_limit = unsafe { header.has_limit() };
        let how = How {
            control: Control::current(),
            is_under_limit,
            is_for_others,
        };
        // SAFETY: the fork has just been taken, and it lies on this stack, below.
        unsafe { start(fork, &inner, header, how) };
    }
}

/// The running thread is about to wait, or gives way. Its forks must not wait with it.
#[cold]
#[inline(never)]
pub(crate) fn share_all(header: &Header) {
    while header.forks.has_any() {
        share(header, false);
    }
}

/// The running thread gives way in a `join`. Its oldest fork begins, unless another one has begun not long ago.
#[cold]
#[inline(never)]
pub(crate) fn share_oldest(header: &Header) {
    // SAFETY: a green thread runs on a carrier.
    if header.forks.has_any() && unsafe { &*carrier::here() }.may_share(GIVE_WAY_PAUSE) {
        share(header, false);
    }
}

/// Takes the oldest fork of the thread that runs on a carrier and makes a green thread of it. True: there
/// was one.
///
/// # Safety
/// The caller holds the thread's carrier out of its door, and is on no carrier.
#[cold]
pub(crate) unsafe fn take_from(header: &Header, inner: &Arc<Inner>) -> bool {
    if inner.is_stopping() {
        return false;
    }
    // SAFETY: that gives the right to take, and the thread cannot end meanwhile.
    let Some(fork) = (unsafe { header.forks.take() }) else {
        return false;
    };
    let how = How {
        // The thread's present one is in the registers of another CPU, and cannot be read from here.
        control: header.control,
        // Only the thread itself could say that it has no limit.
        is_under_limit: true,
        is_for_others: true,
    };
    // SAFETY: it has just been taken; its thread waits for the right before it leaves the frame.
    unsafe { start(fork, inner, header, how) };
    true
}

/// As `take_from`, for the oldest `most` of its forks. Returns how many there were.
///
/// # Safety
/// As of `take_from`.
#[cold]
pub(crate) unsafe fn take_many_from(header: &Header, inner: &Arc<Inner>, most: usize) -> usize {
    let mut count = 0;
    // SAFETY: by contract.
    while count < most && unsafe { take_from(header, inner) } {
        count += 1;
    }
    count
}

/// What the caller of `start` knows.
#[derive(Clone, Copy)]
struct How {
    control: Control,
    is_under_limit: bool,
    is_for_others: bool,
}

/// # Safety
/// The caller has taken this fork of that thread, which will wait for it.
unsafe fn start(fork: *const Fork, inner: &Arc<Inner>, header: &Header, how: How) {
    let request = Request {
        stack_size: Some(header.stack_size()),
        #[cfg(not(loom))]
        patched: header.patched.into(),
        is_half: true,
        is_for_others: how.is_for_others,
        is_under_limit: how.is_under_limit,
        control: Some(how.control),
        ..Request::default()
    };
    let head: *const Head = fork.cast();
    // SAFETY: each fork is the first part of a half's head.
    unsafe { ((*head).start)(head, inner, request) };
}
