//! Errors raised *in* a thread by someone else: where they wait, in which order and how often they
//! are raised.
//!
//! A thread is its own alarm clock: `timeout` puts its deadline in the thread's [`Local`] and
//! `exc_after` in its [`Inbox`]; a wait ends at the earliest of them (so the wheel holds an entry
//! only while the thread waits), and a blocking call that need not wait compares the clock with the
//! earliest, if there is one. It is the same on a green and on an OS thread. What others raise
//! (`throw`, `kill`) goes through the inbox, a lock, and the state word's PENDING.
//!
//! | source       | raised                          | tag        |
//! |--------------|---------------------------------|------------|
//! | `kill`       | in every blocking call          | `Kill`     |
//! | `timeout`    | in every one inside the closure | `Scope(n)` |
//! | the others   | in one                          | `Once`     |
//!
//! Invariant 1: `Local` is touched by its own thread alone. An `exc_after` is live as long as it is
//! in the inbox: who takes it out, to raise or to cancel it, has won.
//! Invariant 2: nothing is raised while the thread unwinds; and while it holds exceptions (`hold`)
//! only the timeouts that were entered since.
//! Invariant 3: PENDING is set and cleared under the inbox's lock, so it is set whenever the inbox
//! holds something to raise.
#![allow(unsafe_code, reason = "the thread's own part of its header")]

mod alarms;
mod defer;
mod inbox;
mod pending;

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::resume_unwind;

use crate::green_thread::Header;

pub(crate) use self::defer::Hold;
pub use self::defer::{defer, is_deferred};
pub(crate) use self::inbox::{AlarmKey, Inbox, cancel_alarm, close, is_killed, kill, throw};
#[cfg(not(loom))]
pub use self::pending::Pending;
#[cfg(not(loom))]
use self::pending::told;
pub(crate) use self::pending::{
    Local, Raise, admits, check, check_may_wait, holds, is_due, is_quiet, is_unwinding,
    note_exception,
};
#[cfg(not(loom))]
pub(crate) use self::pending::{overslept, peek};

/// The error of an exception.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// What an exception unwinds with, and what `join` hands on of a thread that one has ended.
///
/// # Examples
/// ```
/// use weald_scheduler::{Exception, Killed, Runtime, park, spawn};
///
/// let rt = Runtime::builder().workers(1).build()?;
/// rt.run(|| {
///     let thread = spawn(park);
///     thread.thread().kill();
///     let payload = thread.join().unwrap_err();
///     let exception = payload.downcast_ref::<Exception>().unwrap();
///     assert!(exception.downcast_ref::<Killed>().is_some());
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Exception {
    error: BoxError,
    tag: Tag,
}

/// Where an exception came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Kill,
    Scope(u64),
    Once,
}

impl Exception {
    pub(crate) fn killed() -> Self {
        Self {
            error: Box::new(Killed(())),
            tag: Tag::Kill,
        }
    }

    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// The error, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref::<E>()
    }

    /// The error itself.
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.error
    }
}

impl fmt::Debug for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exception").field(&self.error).finish()
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

/// The error that [`GreenThread::kill`](crate::GreenThread::kill) raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed(());

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the green thread was killed")
    }
}

impl Error for Killed {}

/// The error of a [`timeout`](crate::timeout) whose limit has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(pub(crate) ());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit has passed")
    }
}

impl Error for Elapsed {}

/// Runs `f` and catches the exceptions raised in it whose error is an `E`.
///
/// Everything else, panics and other exceptions, goes on unwinding.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald_scheduler::{catch, exc_after, park};
///
/// #[derive(Debug)]
/// struct TooLate;
/// impl std::fmt::Display for TooLate {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("too late")
///     }
/// }
/// impl std::error::Error for TooLate {}
///
/// let caught = catch::<TooLate, _>(|| {
///     exc_after(Duration::from_millis(1), TooLate);
///     park();
/// });
/// assert!(caught.is_err());
/// ```
///
/// # Errors
/// The error of the exception that was caught.
pub fn catch<E: Error + 'static, T>(f: impl FnOnce() -> T) -> Result<T, E> {
    let payload = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        Ok(value) => return Ok(value),
        Err(payload) => payload,
    };
    match take::<E>(payload) {
        Ok(error) => Err(*error),
        Err(payload) => go_on(payload),
    }
}

fn take<E: Error + 'static>(payload: Box<dyn Any + Send>) -> Result<Box<E>, Box<dyn Any + Send>> {
    let exception = payload.downcast::<Exception>()?;
    let tag = exception.tag;
    match exception.error.downcast::<E>() {
        Ok(error) => Ok(error),
        Err(error) => Err(Box::new(Exception { error, tag })),
    }
}

/// The result of a body that has ended: an exception that patched code was told of, by an error, and that
/// nothing has raised since is in place of its value.
pub(crate) fn or_told<T>(
    header: &Header,
    result: std::thread::Result<T>,
) -> std::thread::Result<T> {
    #[cfg(not(loom))]
    if result.is_ok()
        && let Some(exception) = told(header)
    {
        // A panic of the value's destructor has nowhere to go.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(result)));
        return Err(Box::new(exception));
    }
    let _ = header;
    result
}

/// Whether a payload is that of a kill.
pub(crate) fn is_kill(payload: &(dyn Any + Send)) -> bool {
    let exception = payload.downcast_ref::<Exception>();
    exception.is_some_and(|it| it.downcast_ref::<Killed>().is_some())
}

/// Unwinds on with a payload that was caught.
pub(crate) fn go_on(payload: Box<dyn Any + Send>) -> ! {
    if payload.is::<Exception>() {
        note_exception();
    }
    resume_unwind(payload)
}
