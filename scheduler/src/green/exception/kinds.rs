//! Exceptions: where they come from, and the payload that they unwind with.

use std::any::Any;
use std::error::Error;
use std::fmt;

/// The error of an exception.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The payload that an exception unwinds with. `join` returns it for a thread that an exception has ended.
///
/// # Examples
/// ```
/// use weald::{Exception, Killed, Runtime, park, spawn};
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
    pub(crate) error: BoxError,
    pub(crate) tag: Tag,
}

/// Where an exception came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Kill,
    Timeout(u64),
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

/// Whether a payload is that of a kill.
pub(crate) fn is_kill(payload: &(dyn Any + Send)) -> bool {
    let exception = payload.downcast_ref::<Exception>();
    exception.is_some_and(|it| it.downcast_ref::<Killed>().is_some())
}
