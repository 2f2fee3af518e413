//! The flight recorder, for programs: switched on and off, marks and spans of the user's.

use std::io;
use std::marker::PhantomData;

use crate::engine::record::{self, Kind};
#[cfg(not(loom))]
use crate::engine::settings::out_of_range;
#[cfg(not(loom))]
use crate::parts::recorder::{PAGE, book::Words};
use crate::watch::recording::Recording;

/// How much the recorder keeps.
#[derive(Clone, Debug)]
#[must_use = "settings do nothing before `start`"]
pub struct Options {
    memory: usize,
}

/// What it keeps if nothing is said.
const MEMORY: usize = 16 << 20;

#[cfg(not(loom))]
const BOUNDS: std::ops::RangeInclusive<usize> = (64 << 10)..=(4 << 30);

impl Options {
    /// 16 MiB of memory.
    pub fn new() -> Self {
        Self { memory: MEMORY }
    }

    /// The memory for events in bytes: 64 KiB to 4 GiB. An event takes 24 bytes, and a text some more. When the memory is full the
    /// oldest events are overwritten, some hundred at a time. An OS thread that writes holds at least 12 KiB of it.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// Switches the recorder on, for all runtimes of the process.
///
/// Blocks nobody. While it is on, a switch between green threads costs some 60 to 100 ns more, most of which is the look at
/// the processor's counter.
///
/// # Errors
/// `InvalidInput` for memory out of its range, with value and bound in the text; `AlreadyExists` if the recorder is on
/// already.
///
/// # Examples
/// ```
/// use weald::trace;
///
/// trace::start(trace::Options::new())?;
/// weald::spawn(|| trace::mark("here")).join().unwrap();
/// let recording = trace::stop();
/// let is_mark = |event: &trace::Event| matches!(&event.what, trace::What::Mark { label, .. } if &**label == "here");
/// assert!(recording.events().iter().any(is_mark));
/// # Ok::<(), std::io::Error>(())
/// ```
#[cfg(not(loom))]
#[allow(
    clippy::needless_pass_by_value,
    reason = "settings are made for one call"
)]
pub fn start(options: Options) -> io::Result<()> {
    let Options { memory } = options;
    if !BOUNDS.contains(&memory) {
        let what = "memory of the recorder in bytes";
        return Err(out_of_range(what, memory, BOUNDS));
    }
    // The caller's own calls of libc may be hooked.
    let _bypass = crate::shim::bypass::Bypass::enter();
    if crate::parts::recorder::start(memory / (PAGE * size_of::<Words>())) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "the recorder is on already",
    ))
}

/// As the environment's `WEALD_TRACE` says. True: traces are to be written.
#[cfg(not(loom))]
pub(crate) fn begin_if_wanted() -> bool {
    let pages = MEMORY / (PAGE * size_of::<Words>());
    crate::watch::trace_file::begin(pages)
}

/// In a model nothing is recorded.
///
/// # Errors
/// Always `Unsupported`.
#[cfg(loom)]
#[allow(clippy::needless_pass_by_value, reason = "as in a build")]
pub fn start(options: Options) -> io::Result<()> {
    let _ = options.memory;
    Err(io::ErrorKind::Unsupported.into())
}

/// Switches the recorder off, gives its memory back, and returns what it has recorded. If it is off, the recording is
/// empty.
///
/// Waits for nobody. It computes for about half a second per million events.
///
/// # Examples
/// ```
/// assert!(weald::trace::stop().is_empty());
/// ```
pub fn stop() -> Recording {
    #[cfg(not(loom))]
    {
        let _bypass = crate::shim::bypass::Bypass::enter();
        crate::parts::recorder::stop().map_or_else(Recording::default, |copy| tell(&copy))
    }
    #[cfg(loom)]
    Recording::default()
}

/// Returns what has been recorded until now; the recorder goes on. If it is off, the recording is empty.
///
/// Stops nobody, and computes as [`stop`] does. What is recorded meanwhile may overwrite the oldest events before they are
/// read.
///
/// # Examples
/// ```
/// use weald::trace;
///
/// trace::start(trace::Options::new().memory(1 << 20))?;
/// weald::spawn(|| ()).join().unwrap();
/// assert!(!trace::snapshot().is_empty());
/// assert!(trace::is_on());
/// trace::stop();
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn snapshot() -> Recording {
    #[cfg(not(loom))]
    {
        let _bypass = crate::shim::bypass::Bypass::enter();
        crate::parts::recorder::read().map_or_else(Recording::default, |copy| tell(&copy))
    }
    #[cfg(loom)]
    Recording::default()
}

#[cfg(not(loom))]
use crate::watch::story::tell;

/// Whether the recorder is on.
pub fn is_on() -> bool {
    record::is_on()
}

/// Records a mark at this moment, in the green or OS thread that runs here. Of the label 112 bytes are kept.
///
/// Costs a look at a word while the recorder is off, and some 50 ns while it is on.
///
/// # Examples
/// ```
/// weald::trace::mark("the cache was empty");
/// ```
#[inline]
pub fn mark(label: &str) {
    if record::is_on() {
        record::note_text(Kind::Mark, record::running(), 0, label);
    }
}

/// Records that something begins here, in the green or OS thread that runs here. When the guard is dropped it ends. The
/// thread may wait and migrate meanwhile. Spans of one thread nest.
///
/// Costs as much as two [`mark`]s.
///
/// # Examples
/// ```
/// {
///     let _span = weald::trace::span("a request");
///     weald::sleep(std::time::Duration::from_millis(1));
/// }
/// ```
#[inline]
#[must_use = "the span ends when the guard is dropped"]
pub fn span(label: &str) -> Span {
    let is_recorded = record::is_on();
    if is_recorded {
        record::note_text(Kind::Begin, record::running(), 0, label);
    }
    Span {
        is_recorded,
        _stays: PhantomData,
    }
}

/// Lasts as long as what [`span`] has recorded.
#[derive(Debug)]
pub struct Span {
    /// Its beginning was.
    is_recorded: bool,
    /// It ends in the thread in which it began.
    _stays: PhantomData<*const ()>,
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if self.is_recorded && record::is_on() {
            record::note(Kind::Finish, record::running(), 0);
        }
    }
}
