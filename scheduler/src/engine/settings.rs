//! The settings of a runtime, as its builder has found them good.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::green::green_thread::{Header, Task};
use crate::green::handle::GreenThread;
use crate::parts::stack;
use crate::parts::thread_locals;

/// Workers of one runtime; a bit each in the idle words, and far more than a machine has cores.
pub(crate) const WORKERS: std::ops::RangeInclusive<usize> = 1..=1024;

/// The settings of a runtime.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) workers: usize,
    pub(crate) stack_size: usize,
    /// Of each stack.
    pub(crate) guard: stack::Guard,
    /// The runtime's.
    pub(crate) name: String,
    pub(crate) thread_name: String,
    /// Started green threads stay on their OS thread.
    pub(crate) pins: bool,
    /// Green threads have thread-locals of their own.
    pub(crate) own: Option<&'static thread_locals::Support>,
    pub(crate) spares: usize,
    /// A green thread that has not come back for so long is logged.
    pub(crate) hog_report: Duration,
    pub(crate) dump_on_sigquit: bool,
    pub(crate) hooks: Option<Hooks>,
    pub(crate) on_silence: Option<OnSilence>,
    /// What `patched` said.
    pub(crate) patched: Option<bool>,
}

type Ask = dyn Fn(&dyn Any) -> bool + Send + Sync;

/// What the monitor asks, with the `Inner`, when the runtime has been silent for long: whether it has told of a deadlock.
#[derive(Clone)]
pub(crate) struct OnSilence(pub(crate) Arc<Ask>);

impl fmt::Debug for OnSilence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSilence")
    }
}

pub(crate) type Hook = Arc<dyn Fn(&GreenThread) + Send + Sync>;

/// What the user wants called around the life of each green thread.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) suspend: Option<Hook>,
    pub(crate) resume: Option<Hook>,
    pub(crate) end: Option<Hook>,
}

impl Hooks {
    #[cold]
    pub(crate) fn resumed(&self, task: &Task) {
        call(self.resume.as_ref(), task);
    }

    #[cold]
    pub(crate) fn suspended(&self, task: &Task) {
        call(self.suspend.as_ref(), task);
    }

    #[cold]
    pub(crate) fn ended(&self, header: &Header) {
        call(self.end.as_ref(), header);
    }
}

/// A hook that panics is told of and otherwise ignored: a worker never dies of the user's code.
fn call(hook: Option<&Hook>, header: &Header) {
    if let Some(hook) = hook {
        let thread = GreenThread(Task::from_header(header));
        let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hook(&thread)));
        if called.is_err() {
            log::error!("weald: a hook of the runtime panicked");
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// A stack size within its bounds, rounded up.
pub(crate) fn checked_stack_size(bytes: usize) -> io::Result<usize> {
    let range = stack::MIN_STACK..=stack::MAX_STACK;
    if range.contains(&bytes) {
        Ok(stack::round_up_to_class(bytes))
    } else {
        Err(out_of_range("stack size in bytes", bytes, range))
    }
}

pub(crate) fn out_of_range(
    what: &str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
) -> io::Error {
    let text = format!(
        "{what} must be between {} and {}, not {value}",
        range.start(),
        range.end()
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Why a thread cannot be patched in a runtime that could have been another.
pub(crate) const NEEDS_OWN: &str =
    "the runtime was built with ThreadLocals::Pinned, or shares them";

pub(crate) fn unsupported(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("green threads cannot have thread-locals of their own here: {reason}"),
    )
}
