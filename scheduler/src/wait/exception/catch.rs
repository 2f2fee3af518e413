//! The end of an exception that unwinds: it is caught, it goes on, or it is the outcome of its thread.

use std::any::Any;
use std::error::Error;
use std::panic::resume_unwind;

use super::pending::note_exception;
#[cfg(not(loom))]
use super::reported::reported;
use crate::engine::record::{self, Kind};
use crate::green::exception::Exception;
use crate::green::green_thread::Header;

/// Runs `f` and catches the exceptions raised in it whose error is an `E`.
///
/// Everything else, panics and other exceptions, goes on unwinding.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald::{catch, exc_after, park};
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

pub(super) fn take<E: Error + 'static>(
    payload: Box<dyn Any + Send>,
) -> Result<Box<E>, Box<dyn Any + Send>> {
    let exception = payload.downcast::<Exception>()?;
    let tag = exception.tag;
    match exception.error.downcast::<E>() {
        Ok(error) => Ok(error),
        Err(error) => Err(Box::new(Exception { error, tag })),
    }
}

/// The result of a body that has ended. If an exception was reported to patched code by an error and not raised since,
/// the exception takes the place of the value.
pub(crate) fn or_reported<T>(
    header: &Header,
    result: std::thread::Result<T>,
) -> std::thread::Result<T> {
    if record::is_on()
        && let Err(payload) = &result
        && !payload.is::<Exception>()
    {
        record::note(Kind::Panic, header.id.get(), 0);
    }
    #[cfg(not(loom))]
    if result.is_ok()
        && let Some(exception) = reported(header)
    {
        // A panic of the value's destructor has nowhere to go.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(result)));
        return Err(Box::new(exception));
    }
    let _ = header;
    result
}

/// Unwinds on with a payload that was caught.
pub(crate) fn go_on(payload: Box<dyn Any + Send>) -> ! {
    if payload.is::<Exception>() {
        note_exception();
    }
    resume_unwind(payload)
}
