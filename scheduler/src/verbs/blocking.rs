//! `blocking`: runs a call that blocks the OS thread, in place, while the other green threads go on.
//!
//! If other threads wait, the worker goes to a spare carrier at once. Else its carrier keeps it until threads
//! wait, which the monitor sees within two looks.
//!
//! There are two kinds of calls, and permits for each ([`Lasts`]): calls that end by themselves, such as a
//! read of a file, and calls that may last until another green thread has done something, such as a
//! wait for a lock. One kind never waits for a permit of the other: the holder of a lock can write its
//! file, however many threads wait for the lock. At most as many calls of the second kind run at a time as
//! there are spare carriers, so each worker keeps a carrier. A further call waits as a green thread, behind those
//! that came before it (`permits.rs`). Calls of the first kind need no carriers of their own: if none is left, the worker
//! waits until the call has ended, which is soon.
#![allow(unsafe_code, reason = "the running thread's own part")]

use crate::engine::blocking_calls::Lasts;
use crate::engine::carrier::{self, Away};
use crate::engine::inner::Inner;
use crate::engine::permits::Permits;
use crate::engine::share_forks;
use crate::green::green_thread::Header;
use crate::shim::bypass::Bypass;
use crate::wait::exception::Hold;
use crate::wait::os_header;
use crate::wait::wait_queue::Interrupt;
use crate::wait::waiter;

/// Undoes what `blocking` has set up, in the right order, even if `f` panics.
struct Inside<'a> {
    header: &'a Header,
    away: Option<Away>,
    permits: &'a Permits,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // SAFETY: the running thread's own part, held for this statement.
        unsafe { self.header.local() }.blocking -= 1;
        // The thread may leave the OS thread here, because the seat may be gone.
        drop(self.away.take());
        self.permits.give();
    }
}

/// Runs `f`, which may block its OS thread: a call into C, a file, a foreign lock. The other green
/// threads go on meanwhile.
///
/// `f` runs in place, on the same OS thread from beginning to end, so it needs neither `Send` nor
/// `'static`. Weald's calls work in `f` as anywhere. An exception is raised before `f` begins or
/// after it has ended. Only a [`timeout`](crate::timeout()) that `f` has entered is raised inside `f`. If other threads
/// were waiting for the worker, they go on at once, else within some milliseconds. In a runtime that pins
/// ([`ThreadLocals::Pinned`](crate::ThreadLocals))
/// the green threads that were started on this OS thread wait until `f` has ended.
///
/// At most [`RuntimeBuilder::spare_threads`](crate::RuntimeBuilder::spare_threads) such calls run at a time. A further
/// call waits until one of them ends. So do not let `f` wait for a green thread that enters `blocking` itself: if all
/// running calls do so, none of them ever ends. The docs of `spare_threads` say how you learn of that.
///
/// On a plain OS thread it just calls `f`, as in a green thread that has one for itself
/// ([`Builder::own_thread`](crate::Builder::own_thread)).
///
/// # Examples
/// ```
/// let text = weald::blocking(|| std::fs::read_to_string("Cargo.toml"));
/// assert!(text?.contains("[package]"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn blocking<T>(f: impl FnOnce() -> T) -> T {
    call(Lasts::UntilOthersAct, f)
}

/// As [`blocking`], for a call of either kind.
pub(crate) fn call<T>(lasts: Lasts, f: impl FnOnce() -> T) -> T {
    waiter::enter();
    call_entered(lasts, f).unwrap_or_else(|interrupt| interrupt.unwind())
}

/// As [`call`], for a caller that has looked for exceptions already. `Err`: an exception has ended the wait
/// for a permit, and `f` has not begun.
#[inline]
pub(crate) fn call_entered<T>(lasts: Lasts, f: impl FnOnce() -> T) -> Result<T, Interrupt> {
    // SAFETY: the running thread's header is alive.
    let header = unsafe { &*os_header::header() };
    if is_plain(header) {
        return Ok(f());
    }
    if header.forks.is_used() {
        share_forks::share_all(header);
    }
    // SAFETY: a green thread that runs keeps its runtime.
    let permits = unsafe { Inner::of(header) }.blocking.permits(lasts);
    permits.take()?;
    Ok(with_permit(header, permits, f))
}

/// As [`call`] of a call that may last until others act, if it can begin at once and leave a permit for another such call. `Err`:
/// it cannot.
#[cfg(not(loom))]
pub(crate) fn call_if_spare<T, F: FnOnce() -> T>(f: F) -> Result<T, F> {
    // SAFETY: the running thread's header is alive.
    let header = unsafe { &*os_header::header() };
    if is_plain(header) {
        return Ok(f());
    }
    // Before a permit is taken: the call may wait for one of the forks.
    if header.forks.is_used() {
        share_forks::share_all(header);
    }
    // SAFETY: a green thread that runs keeps its runtime.
    let permits = unsafe { Inner::of(header) }
        .blocking
        .permits(Lasts::UntilOthersAct);
    if !permits.try_take_but_the_last() {
        return Err(f);
    }
    Ok(with_permit(header, permits, f))
}

/// Whether `blocking` only calls `f`: the thread has its OS thread for itself, or is in `blocking` already.
fn is_plain(header: &Header) -> bool {
    !header.runs_on_carriers()
        || carrier::here().is_null()
        // SAFETY: the running thread's own part, held for this statement.
        || unsafe { header.local() }.blocking > 0
}

/// Runs `f` by a permit that was taken for it.
fn with_permit<T>(header: &Header, permits: &Permits, f: impl FnOnce() -> T) -> T {
    let hold = Hold::new();
    // SAFETY: as above.
    unsafe { header.local() }.blocking += 1;
    let inside = Inside {
        header,
        away: Away::begin(),
        permits,
    };
    // The calls of `f` are meant for the system.
    let bypass = Bypass::enter();
    let value = f();
    drop(bypass);
    drop(inside);
    drop(hold);
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::sync::mpsc;

    use super::{Lasts, call};
    use crate::{Runtime, RuntimeBuilder, ThreadLocals};

    fn each_mode(check: impl Fn(&Runtime)) {
        let pinned: fn(RuntimeBuilder) -> RuntimeBuilder =
            |builder| builder.thread_locals(ThreadLocals::Pinned);
        // SAFETY: the threads of these tests use no thread-locals.
        let shared: fn(RuntimeBuilder) -> RuntimeBuilder =
            |builder| unsafe { builder.share_thread_locals() };
        for mode in [|builder| builder, pinned, shared] {
            for workers in [1, 2] {
                let builder = Runtime::builder().workers(workers).spare_threads(2);
                check(&mode(builder).build().unwrap());
            }
        }
    }

    /// Two calls of the first kind last until one of the second kind has ended, and the same number
    /// more wait for a permit.
    fn check_that_they_go_on(rt: &Runtime, that_wait: Lasts, that_ends: Lasts) {
        let (begun, wait_for_both) = mpsc::channel();
        let mut releases = Vec::new();
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let (release, until) = mpsc::channel::<()>();
                releases.push(release);
                let begun = begun.clone();
                rt.spawn(move || {
                    call(that_wait, || {
                        begun.send(()).unwrap();
                        until.recv().unwrap_err();
                    });
                })
            })
            .collect();
        wait_for_both.recv().unwrap();
        wait_for_both.recv().unwrap();
        rt.spawn(move || call(that_ends, || ())).join().unwrap();
        drop(releases);
        for thread in waiting {
            thread.join().unwrap();
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn calls_that_wait_for_others_never_use_up_what_brief_ones_need_nor_the_other_way_round() {
        each_mode(|rt| check_that_they_go_on(rt, Lasts::UntilOthersAct, Lasts::Briefly));
        each_mode(|rt| check_that_they_go_on(rt, Lasts::Briefly, Lasts::UntilOthersAct));
    }
}
