//! `JoinHandle`: the right to the result of a green thread, and the wait for it. `end.rs` tells how a thread ends.
#![allow(
    unsafe_code,
    reason = "who may touch the result is decided by the state word"
)]

use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

use crate::green::awaited::{Awaited, On};
use crate::green::green_thread::{Header, Task};
use crate::green::handle::GreenThread;
use crate::wait::wait_queue::{Interrupt, Woken};
use crate::wait::waiter;

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
        let on = On::object(Awaited::Join, header);
        let woken = header.joiners.wait_on(on, done, deadline, interruptible);
        match woken {
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
/// let handle = weald::spawn(|| "done");
/// assert_eq!(handle.join().unwrap(), "done");
/// ```
pub struct JoinHandle<T> {
    thread: GreenThread,
    _result: PhantomData<T>,
}

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
