//! Stack traces of suspended green threads, taken by other threads.
//!
//! A thread that leaves its stack notes where (`LeftAt`: three stores), and its carrier notes when (one store). To take
//! a trace, one copies the stack, checks that the thread was suspended all the time, and unwinds the copy by the call
//! frame information of the code (DWARF 5, section 6.4), as a debugger does with a core file.
//!
//! Invariant 1: the notes are good while the state word says PARKED; it is published after them and
//! withdrawn before the thread goes on.
//! Invariant 2: only the system reads the stack: it copies bytes or says that there are none (`/proc/self/mem`,
//! proc(5)). So it does no harm if the thread goes on, ends, and gives its stack away during the copy. The copy counts
//! only if the state word is the same afterwards: each wait has its own epoch in it.
//! Invariant 3: the copy ends at the thread's suspender, whose address the thread notes when it begins. What
//! lies beyond leads into the stack of an OS thread. If the note is not there yet, there is no trace.

use std::fmt;
use std::sync::Arc;

#[cfg(all(
    feature = "traces",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
))]
mod names;
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
use self::names as lines;
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
mod addresses;
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
use self::addresses as lines;
#[cfg(not(all(
    feature = "traces",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(loom, miri))
)))]
use none as taking;

mod frame;

pub use self::frame::Frame;
pub(crate) use taking::Tracer;

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

    /// Looks up the calls, the innermost first, as far as the thread's closure. A call that the compiler has inlined is
    /// a frame of its own, with the address of the one it is inlined in.
    ///
    /// The first look-up in a process reads its debug information, which takes some milliseconds or more. It blocks the OS thread.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// let parked = rt.spawn(weald::park);
    /// while rt.metrics().parked < 1 {
    ///     std::thread::yield_now();
    /// }
    /// for frame in rt.dump().threads[0].trace.frames() {
    ///     println!("{} in {:?}", frame.function.as_deref().unwrap_or("?"), frame.file);
    /// }
    /// parked.thread().unpark();
    /// # parked.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn frames(&self) -> Vec<Frame> {
        lines::frames(&self.0)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.frames().iter()).try_for_each(|frame| writeln!(f, "    {frame}"))
    }
}
