//! The end of a thread, and who waits for it.
//!
//! 1. The body has ended, or was dropped if it was not to run. From here on nothing is raised in the
//!    thread, so no destructor is cut short.
//! 2. If there is no handle, the result is dropped. Then go the thread's values of `green_local!`, what
//!    was to be raised in it, its own thread-locals, and again what those have made (`wind_up`).
//!    Meanwhile it is a thread like any other: it may wait, is counted, and shows in `dump`.
//! 3. It is counted as ended and steps to DONE (`state.rs`, `ends.rs`). It does not wait any more.
//! 4. Its carrier, off its stack, takes stack and block back, and wakes who joins it. A joiner has put
//!    itself in the queue and then announced itself by a step of the state word, which says whether
//!    DONE came first.
//!
//! So a thread that nobody waits for ends with one read-modify-write, and nothing of the user's runs
//! after it: the result belongs to the handle if there is one at DONE. A handle that was dropped between
//! 2 and 3 leaves the result to nobody, as does an error that was thrown between them. The carrier
//! starts a thread of its own to drop those ([`Orphan`]).
#![allow(
    unsafe_code,
    reason = "who may touch the result is decided by the state word"
)]

use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

use crate::exception;
use crate::green_thread::{Header, Task};
use crate::handle::GreenThread;
use crate::locals;
use crate::state::Left;
use crate::wait_queue::{Interrupt, Woken};
use crate::waiter;

/// What a thread still has when it has wound up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// Its result, as there was a handle.
    kept: bool,
    /// It has not said that it looks at no exception any more: nobody had raised any.
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
        // Nobody will take it. As its destructor may use the thread's values, it goes first.
        // SAFETY: without a handle the result is the thread's until DONE.
        unsafe { Task::drop_result(header) };
    }
    // SAFETY: the thread itself.
    unsafe { locals::clear(header) };
    hook();
    loop {
        let closed = exception::close(header);
        destroy();
        // What the destructors have made.
        if header.cold_if_any().is_none() {
            return Rest {
                kept,
                listens: true,
            };
        }
        // SAFETY: the thread itself.
        unsafe {
            if closed && locals::is_empty(header) {
                return Rest {
                    kept,
                    listens: false,
                };
            }
            locals::clear(header);
        }
    }
}

/// Steps to DONE. True: somebody has to see to what is left, as [`State::left`](crate::state::State::left) tells.
#[inline]
pub(crate) fn finish(header: &Header, rest: Rest) -> bool {
    header.state.finish(rest.kept, rest.listens)
}

/// Wakes who waits for a thread that is DONE.
pub(crate) fn wake_joiners(header: &Header) {
    if !cfg!(weald_fault = "join_wakes_nobody") {
        header.joiners.wake_all();
    }
}

/// Ends a thread that has wound up on an OS thread, without a carrier to see to what it leaves.
pub(crate) fn end(header: &Header, rest: Rest) {
    finish(header, rest);
    let left = header.state.left();
    if left.joiners {
        wake_joiners(header);
    }
    drop(Orphan::of(header));
}

/// What a thread that is DONE has left to nobody. Dropping it drops that.
#[derive(Debug)]
pub(crate) struct Orphan {
    task: Task,
    left: Left,
}

impl Orphan {
    /// For who has ended the thread, once. `None`: there is nothing.
    pub(crate) fn of(header: &Header) -> Option<Self> {
        let left = header.state.left();
        (left.result || left.errors).then(|| Self {
            task: Task::from_header(header),
            left,
        })
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if self.left.errors {
            exception::close(&self.task);
        }
        if self.left.result {
            // SAFETY: ORPHAN was set, and told to the one that made this.
            unsafe { Task::drop_result(&self.task) };
        }
    }
}

/// Waits until the thread has ended.
fn wait(
    header: &Header,
    deadline: Option<Instant>,
    interruptible: bool,
) -> Result<bool, Interrupt> {
    loop {
        if header.state.is_done() {
            return Ok(true);
        }
        let done = || header.state.announce_joiner();
        match header.joiners.wait(done, deadline, interruptible) {
            Woken::Notified | Woken::Ready | Woken::Again => {}
            Woken::TimedOut => return Ok(header.state.is_done()),
            Woken::Interrupted(interrupt) => return Err(interrupt),
        }
    }
}

/// The right to the result of a green thread.
///
/// Dropping it detaches the thread, which goes on.
///
/// # Examples
/// ```
/// let handle = weald_scheduler::spawn(|| "done");
/// assert_eq!(handle.join().unwrap(), "done");
/// ```
pub struct JoinHandle<T> {
    thread: GreenThread,
    _result: PhantomData<T>,
}

/// The handle inside the crate.
pub(crate) type Packet<T> = JoinHandle<T>;

// SAFETY: the handle gives a `T` to whoever joins, and nothing of it before; so it is `Send` and
// `Sync` if a `T` may go to another thread.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: as above; shared access reads only the thread's state.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// # Safety
    /// `task` is the handle's reference of a thread whose result is a `T`.
    pub(crate) unsafe fn new(task: Task) -> Self {
        Self {
            thread: GreenThread(task),
            _result: PhantomData,
        }
    }

    /// Waits until the thread has ended, and returns its result or the payload of its panic.
    ///
    /// If an exception has ended the thread, [`kill`](GreenThread::kill) included, the payload is
    /// an [`Exception`](crate::Exception). A blocking call: an exception for the caller ends the
    /// wait, detaches the thread and unwinds.
    ///
    /// # Errors
    /// The payload of the panic or exception.
    pub fn join(self) -> std::thread::Result<T> {
        waiter::enter();
        let header = &self.thread.0;
        if header.state.is_done() {
            waiter::spend();
        } else if let Err(interrupt) = wait(header, None, true) {
            interrupt.unwind();
        }
        self.take()
    }

    /// As `join`, but no exception ends the wait: it is held.
    pub(crate) fn wait_to_end(self) -> std::thread::Result<T> {
        let waited = wait(&self.thread.0, None, false);
        debug_assert!(waited.is_ok(), "the wait admits no exceptions");
        self.take()
    }

    /// Waits without taking the result; for scopes.
    pub(crate) fn wait_only(&self) -> Result<(), Interrupt> {
        wait(&self.thread.0, None, true).map(|_| ())
    }

    fn take(self) -> std::thread::Result<T> {
        // SAFETY: the thread is DONE and this is its handle, whose result is a `T`.
        let result = unsafe { Task::take_result::<T>(&self.thread.0) };
        result.expect("a thread that has ended leaves a result, and its handle takes it once")
    }

    /// True once the thread has ended; `join` then returns at once.
    pub fn is_finished(&self) -> bool {
        self.thread.0.state.is_done()
    }

    /// The thread, to unpark it or to raise something in it.
    pub fn thread(&self) -> &GreenThread {
        &self.thread
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if self.thread.0.state.drop_handle() {
            // SAFETY: the handle was there at DONE, so the result is its (none if it was taken).
            unsafe { Task::drop_result(&self.thread.0) };
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}
