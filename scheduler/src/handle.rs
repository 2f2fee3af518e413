//! What users hold of a thread: its number, and a handle that wakes it or raises exceptions in it.
#![allow(unsafe_code, reason = "acts on the verdict of the state word, once")]

use std::fmt;
use std::num::NonZeroU64;

use crate::exception;
use crate::green_thread::{Header, Hint, Task};

/// A number that no other thread of the process has, green or not.
///
/// # Examples
/// ```
/// let id = weald_scheduler::current().id();
/// assert_eq!(id, weald_scheduler::current().id());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GreenThreadId(NonZeroU64);

impl GreenThreadId {
    pub(crate) fn next() -> Self {
        Self::block(1)
    }

    /// The first of `count` fresh numbers.
    pub(crate) fn block(count: u64) -> Self {
        // Not part of any protocol, so std's also in a model.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let first = NEXT.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        Self(NonZeroU64::new(first).expect("2^64 threads are never made"))
    }

    /// The number that many after this one; within a block.
    pub(crate) fn offset(self, by: u64) -> Self {
        Self(self.0.checked_add(by).expect("2^64 threads are never made"))
    }

    pub(crate) fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for GreenThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GreenThreadId({})", self.0)
    }
}

/// A handle to a thread, green or not: whom to wake, or to raise an exception in.
///
/// It keeps nothing alive but a small record: the thread may have ended. Cloning it is cheap.
///
/// # Examples
/// ```
/// let rt = weald_scheduler::Runtime::builder().workers(1).build()?;
/// rt.run(|| {
///     let waiter = weald_scheduler::spawn(|| weald_scheduler::park());
///     waiter.thread().unpark();
///     waiter.join().unwrap();
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct GreenThread(pub(crate) Task);

impl GreenThread {
    pub(crate) fn has_ended(&self) -> bool {
        self.0.state.is_done()
    }

    /// The thread's number.
    pub fn id(&self) -> GreenThreadId {
        self.0.id
    }

    /// The thread's name, as given to [`Builder::name`](crate::Builder::name).
    pub fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Ends the thread's [`park`](crate::park), or its next one if it is not parked. Never blocks.
    ///
    /// As with std's threads, several calls before one `park` count as one.
    #[inline]
    pub fn unpark(&self) {
        let wake = self.0.state.unpark();
        // SAFETY: the verdict is fresh and this handle keeps the header alive.
        unsafe { Header::deliver(&raw const *self.0, wake, Hint::Peer) };
    }

    /// Raises `exc` in the thread: at once if it waits in a blocking call, else in the next one
    /// that it enters. Returns at once. A thread that has ended drops it.
    ///
    /// An exception that must unwind and cannot ends the process, after a message: where an `extern "C"`
    /// function is on the stack, such as a callback of C's, and in a program that is built with
    /// `panic = "abort"`.
    ///
    /// # Examples
    /// ```
    /// let rt = weald_scheduler::Runtime::builder().workers(1).build()?;
    /// rt.run(|| {
    ///     let sleeper = weald_scheduler::spawn(|| weald_scheduler::park());
    ///     sleeper.thread().throw("no need any more");
    ///     let payload = sleeper.join().unwrap_err();
    ///     let exc = payload.downcast::<weald_scheduler::Exception>().unwrap();
    ///     assert_eq!(exc.to_string(), "no need any more");
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn throw<E>(&self, exc: E)
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        exception::throw(&self.0, exc.into());
    }

    /// Ends the thread: [`Killed`](crate::Killed) is raised in the blocking call where it waits or
    /// in the next one, and again in every later one. A thread that has not started never runs its
    /// body. Returns at once.
    ///
    /// As with [`throw`](GreenThread::throw), an exception that must unwind and cannot ends the process:
    /// with an `extern "C"` function on the stack, or with `panic = "abort"`.
    ///
    /// # Examples
    /// ```
    /// let rt = weald_scheduler::Runtime::builder().workers(1).build()?;
    /// rt.run(|| {
    ///     let server = weald_scheduler::spawn(|| loop {
    ///         weald_scheduler::park();
    ///     });
    ///     server.thread().kill();
    ///     assert!(server.join().is_err());
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn kill(&self) {
        exception::kill(&self.0);
    }
}

impl fmt::Debug for GreenThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GreenThread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
