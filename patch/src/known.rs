//! What is known of a descriptor number, so that a call that waits need not ask the kernel each time: that the user's
//! calls on it block and have no limit, its kind of file, and which poller tells of it.
//!
//! The knowledge may be wrong. The hooks see what this process does to a descriptor by libc's functions: `close`,
//! `dup2`, `fcntl`, `ioctl`, `setsockopt` and similar ones. They do not see system calls made without libc, io_uring,
//! or another process that shares the file and sets `O_NONBLOCK`. So a wait that relies on what is known doubts it
//! after `TRUST` (`wait.rs`), asks the kernel for everything, and then goes on. A change that the hooks have not seen
//! makes a call late by that time, and never makes it wait for ever.
//!
//! Why there is one count for all changes of settings: `O_NONBLOCK` and the limits belong to the open file. Other
//! numbers may share the file, and nobody knows which. Only changes that may contradict a fact are counted: taking a
//! limit away is not counted, as nothing is lost then.
//!
//! | word    | holds                                               | leaves by                          |
//! |---------|-----------------------------------------------------|------------------------------------|
//! | `facts` | `Settings` and `changes` when it was asked, 3 facts | another `Settings`, or `changes`   |
//! | `kind`  | `changes` when it was asked, asked, events are true | another `changes`                  |
//! | `armed` | `changes` when it was armed, poller, directions     | another `changes`, another poller  |
//!
//! Invariant 1: a thread takes the stamp before it asks for a fact, and a thread that changes something counts after
//! the change. So a fact that is stamped with the current counts was asked after the last change that has returned.
//! Invariant 2: a number's `changes` are counted before it is closed, so nothing is known of the next file with this
//! number. They are counted again after the close, as another thread may have learned of the old file in between.
//! Invariant 3: `armed` is written under the lock of the poller that it names, and the events asked of a poller never
//! shrink between two changes. So each value that is read is true of that poller, whichever thread wrote it.
//!
//! Orderings: counting releases the change, and a stamp acquires it.
//! The counts are cut to 30 bits. An old fact could be taken for a new one only after a billion changes, and then
//! `TRUST` ends the mistake.
//! Checked by `loom-tests/tests/known.rs`.

use crate::shim::atomic::{AtomicU32, AtomicU64, Ordering};

/// The part of a count that a word holds.
const COUNT: u32 = (1 << 30) - 1;

/// A fact: the user's calls block.
pub(crate) const BLOCKS: u64 = 1;
/// A fact: no `SO_RCVTIMEO`.
pub(crate) const READS_WITHOUT_LIMIT: u64 = 2;
/// A fact: no `SO_SNDTIMEO`.
pub(crate) const WRITES_WITHOUT_LIMIT: u64 = 4;
const FACTS: u32 = 3;

const ASKED: u32 = 1 << 30;
const TRUE_EVENTS: u32 = 1 << 31;

/// Counts the changes of settings of open files, anywhere in the process.
pub(crate) struct Settings(AtomicU32);

impl Settings {
    constructor! {
        pub(crate) const fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// Counts a change: a file was set not to block, or got a limit.
    pub(crate) fn changed(&self) {
        let order = relaxed_if!("known_counts_relaxed", Ordering::Release);
        self.0.fetch_add(1, order);
    }
}

/// When a fact was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

/// See the module.
pub(crate) struct Known {
    changes: AtomicU32,
    kind: AtomicU32,
    facts: AtomicU64,
    armed: AtomicU64,
}

impl Known {
    pub(crate) fn new() -> Self {
        Self {
            changes: AtomicU32::new(0),
            kind: AtomicU32::new(0),
            facts: AtomicU64::new(0),
            armed: AtomicU64::new(0),
        }
    }

    /// Forgets all facts: the number is about to be closed, was closed, or nothing is certain any more.
    pub(crate) fn forget(&self) {
        let order = relaxed_if!("known_forgets_relaxed", Ordering::Release);
        self.changes.fetch_add(1, order);
    }

    /// Returns how often the facts were forgotten. Taken before the kernel is asked for a kind, or asked to tell of
    /// events.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire) & COUNT
    }

    /// Returns a stamp. Taken before a fact is asked for.
    pub(crate) fn stamp(&self, settings: &Settings) -> Stamp {
        let settings = settings.0.load(Ordering::Acquire) & COUNT;
        Stamp((u64::from(settings) << 30 | u64::from(self.changes())) << FACTS)
    }

    /// Learns a fact that was asked for after the stamp was taken.
    pub(crate) fn learn(&self, stamp: Stamp, fact: u64) {
        let old = self.facts.load(Ordering::Relaxed);
        let others = (1 << FACTS) - 1;
        // Another thread may learn at the same time. Then one of the two facts is asked for again.
        let kept = if old & !others == stamp.0 {
            old & others
        } else {
            0
        };
        self.facts.store(stamp.0 | kept | fact, Ordering::Relaxed);
    }

    /// Tells if the fact is known. If not, ask for it.
    #[inline]
    pub(crate) fn knows(&self, settings: &Settings, fact: u64) -> bool {
        let facts = self.facts.load(Ordering::Relaxed);
        facts & fact != 0 && facts >> FACTS == self.stamp(settings).0 >> FACTS
    }

    pub(crate) fn learn_kind(&self, changes: u32, has_true_events: bool) {
        let events = if has_true_events { TRUE_EVENTS } else { 0 };
        self.kind.store(changes | ASKED | events, Ordering::Relaxed);
    }

    /// Tells if an event follows each `EAGAIN` once the call can be tried again. `None`: ask for it.
    #[inline]
    pub(crate) fn has_true_events(&self) -> Option<bool> {
        let kind = self.kind.load(Ordering::Relaxed);
        (kind & ASKED != 0 && kind & COUNT == self.changes()).then_some(kind & TRUE_EVENTS != 0)
    }

    /// Notes that the poller, under whose lock this is called, tells of these directions.
    pub(crate) fn arm(&self, changes: u32, poller: u32, directions: u8) {
        let word = u64::from(changes) << 34 | u64::from(poller) << 2 | u64::from(directions & 3);
        self.armed.store(word, Ordering::Relaxed);
    }

    /// Returns the directions that the poller tells of; none if that is not known.
    #[inline]
    pub(crate) fn armed(&self, poller: u32) -> u8 {
        let word = self.armed.load(Ordering::Relaxed);
        if word >> 2 == u64::from(self.changes()) << 32 | u64::from(poller) {
            (word & 3) as u8
        } else {
            0
        }
    }
}
