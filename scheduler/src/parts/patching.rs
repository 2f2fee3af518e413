//! Which kinds of libc's calls are patched: for the process, and for one green thread. `patch.rs` has the rules.
#![allow(
    missing_docs,
    reason = "hidden from users; the names say what they are"
)]
#![allow(unsafe_code, reason = "registers a function for children of forks")]

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::shim::bypass::Bypass;

/// Every kind of call.
pub const ALL: u32 = u32::MAX >> 1;

/// The kinds of calls that are patched if there is no other setting.
static ON: AtomicU32 = AtomicU32::new(0);

/// A bit of [`ON`] in the child of a fork: nothing is patched any more.
const FORKED: u32 = 1 << 31;

/// Patched threads may exist: a child of a fork must be told.
static MAY_BE_PATCHED: AtomicBool = AtomicBool::new(false);

/// The child has one OS thread and no running scheduler, only a copy of the parent's memory. It shares its epoll
/// instances with the parent. So its calls go to the system until it runs another program.
extern "C" fn in_child() {
    ON.store(FORKED, Ordering::Relaxed);
}

/// What the program has chosen for one green thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nothing: it follows the process.
    #[default]
    Process,
    On,
    Off,
}

impl From<Option<bool>> for Choice {
    fn from(choice: Option<bool>) -> Self {
        match choice {
            None => Self::Process,
            Some(true) => Self::On,
            Some(false) => Self::Off,
        }
    }
}

impl From<Choice> for Option<bool> {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Process => None,
            Choice::On => Some(true),
            Choice::Off => Some(false),
        }
    }
}

impl Choice {
    /// The kinds of calls that are patched for a green thread with this choice.
    #[inline]
    pub(crate) fn kinds(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Process => is_on() & !FORKED,
            Self::On => match is_on() {
                0 => ALL,
                on => on & !FORKED,
            },
        }
    }
}

/// Prepares the process for the first patched thread: from now on the child of a fork learns that nothing is
/// patched in it.
#[inline]
pub(crate) fn prepare() {
    if !MAY_BE_PATCHED.load(Ordering::Acquire) {
        prepare_slow();
    }
}

#[cold]
fn prepare_slow() {
    static ONCE: Once = Once::new();
    let _bypass = Bypass::enter();
    ONCE.call_once(|| {
        // SAFETY: the function touches one atomic, which may be done after a fork.
        if unsafe { libc::pthread_atfork(None, None, Some(in_child)) } != 0 {
            log::warn!(
                "weald: no room for a handler of fork: a child must not call what is patched"
            );
        }
        MAY_BE_PATCHED.store(true, Ordering::Release);
    });
}

/// This is the child of a fork, in which nothing is patched.
pub fn is_forked() -> bool {
    is_on() & FORKED != 0
}

/// Switches kinds of calls on, for the process.
pub fn switch_on(kinds: u32) {
    prepare();
    ON.fetch_or(kinds, Ordering::Relaxed);
}

/// The kinds that are on.
pub fn is_on() -> u32 {
    ON.load(Ordering::Relaxed)
}

/// A value of a header's `sleeps_to_end`: the pending exception has ended no sleep yet.
pub(crate) const FRESH: u8 = u8::MAX;
