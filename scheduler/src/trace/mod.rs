//! Stack traces of suspended green threads, taken from outside.
//!
//! A thread that leaves its stack notes where (`Left`: three stores), and its carrier when (one). Whoever wants its trace copies
//! the stack, sees that the thread was suspended all the while, and unwinds the copy by the call
//! frame information of the code (DWARF 5, section 6.4), as a debugger does with a core file.
//!
//! Invariant 1: the notes are good while the state word says PARKED; it is published after them and
//! withdrawn before the thread goes on.
//! Invariant 2: nothing of the stack is read but by the system, which copies bytes or says that there
//! are none (`/proc/self/mem`, proc(5)); so it does no harm that the thread may go on, end, and give its
//! stack away under the copy. The copy counts only if the state word is the same afterwards: each
//! wait has its own epoch in it.
//! Invariant 3: the copy ends at the thread's suspender, whose address the thread notes when it begins. What
//! lies beyond leads into the stack of some OS thread, and is not the thread's. Where the note is not there yet
//! there is no trace.

use std::fmt;
use std::sync::Arc;

use crate::shim::atomic::{AtomicUsize, Ordering};

#[cfg(all(
    feature = "traces",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
))]
mod native;
#[cfg(all(
    feature = "traces",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
))]
use native as taking;

#[cfg(not(all(
    feature = "traces",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
)))]
mod none;
#[cfg(not(all(
    feature = "traces",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
)))]
use none as taking;

pub(crate) use taking::Tracer;

/// Where and when a thread left its stack.
#[derive(Debug)]
pub(crate) struct Left {
    code: AtomicUsize,
    stack: AtomicUsize,
    frame: AtomicUsize,
    /// The end of what is the thread's on its stack.
    end: AtomicUsize,
    /// Milliseconds since its runtime's start.
    time: AtomicUsize,
}

impl Left {
    pub(crate) fn new() -> Self {
        Self {
            code: AtomicUsize::new(0),
            stack: AtomicUsize::new(0),
            frame: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            time: AtomicUsize::new(0),
        }
    }

    /// Notes the place of the call. Always inlined: it is the caller's frame that is there for the
    /// time of the wait.
    #[inline(always)]
    pub(crate) fn note(&self) {
        if let Some([code, stack, frame]) = taking::here() {
            self.code.store(code, Ordering::Relaxed);
            self.stack.store(stack, Ordering::Relaxed);
            self.frame.store(frame, Ordering::Relaxed);
        }
    }

    /// The thread begins to run; nothing beyond this address is its own.
    #[inline]
    pub(crate) fn begin(&self, end: usize) {
        // No model takes traces.
        if !cfg!(loom) {
            self.end.store(end, Ordering::Relaxed);
        }
    }

    /// When: by the clock as the worker last saw it.
    #[inline(always)]
    pub(crate) fn set_time(&self, millis: usize) {
        self.time.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn time(&self) -> usize {
        self.time.load(Ordering::Relaxed)
    }
}

/// The calls that a green thread was in, the innermost first. Its `Display` is a line for each, with
/// the function's name and, where the program has debug information, file and line; from the blocking
/// call to the thread's closure, without what weald did before that.
///
/// Names are looked up when it is displayed, which takes some milliseconds the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trace(Arc<[usize]>);

impl Trace {
    /// Addresses in the code: where the thread left, then where each call returns to.
    pub fn addresses(&self) -> &[usize] {
        &self.0
    }

    /// True if nothing is known: the thread runs or is about to, or traces are not taken here.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        taking::write(f, &self.0)
    }
}
