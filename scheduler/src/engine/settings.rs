//! The settings of a runtime, after its builder has checked them.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::green::green_thread::{Header, Task};
use crate::green::handle::GreenThread;
use crate::parts::stack;
use crate::parts::thread_locals;

/// How many workers a runtime may have. Each has a bit in the idle words. The bound is far beyond the number of CPUs of a
/// machine.
pub(crate) const WORKERS: std::ops::RangeInclusive<usize> = 1..=1024;

/// The settings of a runtime.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) workers: usize,
    /// Nobody has said how many workers: there are as many as the system allows, also when that changes.
    pub(crate) follows_limits: bool,
    pub(crate) stack_size: usize,
    /// The guard of each stack.
    pub(crate) guard: stack::Guard,
    /// The runtime's name.
    pub(crate) name: String,
    pub(crate) thread_name: String,
    /// Started green threads stay on their OS thread.
    pub(crate) pins: bool,
    /// Green threads have thread-locals of their own.
    pub(crate) own: Option<&'static thread_locals::Support>,
    pub(crate) spares: usize,
    /// If a green thread does not come back for so long, that is logged.
    pub(crate) hog_report: Duration,
    pub(crate) dump_on_sigquit: bool,
    pub(crate) hooks: Option<Hooks>,
    pub(crate) on_silence: Option<OnSilence>,
    /// The setting of `patched`, if there is one.
    pub(crate) patched: Option<bool>,
}

type Ask = dyn Fn(&dyn Any, &Answer) + Send + Sync;

/// What the monitor calls, with the `Arc<Inner>`, when the runtime has been silent for long. It looks for deadlocks beside the monitor, and
/// then answers.
#[derive(Clone)]
pub(crate) struct OnSilence(pub(crate) Arc<Ask>);

impl fmt::Debug for OnSilence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSilence")
    }
}

/// How far a look for deadlocks has come; shared by the monitor and the OS thread that looks.
#[derive(Clone, Debug)]
pub(crate) struct Answer(std::sync::Arc<std::sync::atomic::AtomicU8>);

/// Nobody looks.
const NOTHING: u8 = 0;
/// An OS thread looks.
const LOOKS: u8 = 1;
/// A deadlock was found, and told.
const FOUND: u8 = 2;

impl Answer {
    pub(crate) fn new() -> Self {
        Self(std::sync::Arc::default())
    }

    pub(crate) fn is_found(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) == FOUND
    }

    /// False: an earlier look goes on.
    pub(crate) fn begin(&self) -> bool {
        let (from, to) = (NOTHING, LOOKS);
        let order = std::sync::atomic::Ordering::Relaxed;
        self.0.compare_exchange(from, to, order, order).is_ok()
    }

    /// The look has ended.
    pub(crate) fn end(&self, is_found: bool) {
        let to = if is_found { FOUND } else { NOTHING };
        self.0.store(to, std::sync::atomic::Ordering::Relaxed);
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

/// Calls a hook. If the hook panics, that is logged and otherwise ignored, so the user's code never ends a worker.
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

/// Why a thread cannot be patched in this runtime, although it could be in a runtime with other settings.
pub(crate) const NEEDS_OWN: &str =
    "the runtime was built with ThreadLocals::Pinned, or shares them";

pub(crate) fn unsupported(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("green threads cannot have thread-locals of their own here: {reason}"),
    )
}
