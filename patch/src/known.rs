//! What is known of a descriptor number, so that a call that waits need not ask the kernel each time: that the user's calls on it
//! block and have no limit, what kind of file it is, and which poller tells of it.
//!
//! It may be wrong. The hooks see what this process does to a descriptor by libc's functions: `close`, `dup2`, `fcntl`, `ioctl`,
//! `setsockopt` and their kin. They do not see a system call that is made without libc, what io_uring does, and a file that is shared with
//! another process, which sets `O_NONBLOCK`. So a wait that rests on what is known doubts it after `TRUST` (`wait.rs`), asks the kernel for
//! all of it, and then goes on. What the hooks have not seen makes a call late by that long, and never makes it wait for ever.
//!
//! Why a count of all changes of settings: `O_NONBLOCK` and the limits belong to the open file, which other numbers may share, and
//! nobody knows which. Only a change that a fact contradicts is counted: nothing is lost when a limit is taken away.
//!
//! | word    | holds                                               | leaves by                          |
//! |---------|-----------------------------------------------------|------------------------------------|
//! | `facts` | `Settings` and `changes` when it was asked, 3 facts | another `Settings`, or `changes`   |
//! | `kind`  | `changes` when it was asked, asked, events are true | another `changes`                  |
//! | `armed` | `changes` when it was armed, poller, directions     | another `changes`, another poller  |
//!
//! Invariant 1: who learns takes the stamp before it asks, and who changes something counts after the change. So what is stamped with
//! today's counts was asked after the last change that has returned.
//! Invariant 2: a number's `changes` are counted before it is closed, so the next file with this number begins with nothing known; and
//! once more after it was closed, as somebody may have learned of the old file in between.
//! Invariant 3: `armed` is written under the lock of the poller that it names, and what a poller is asked for never shrinks between two
//! changes: so each word that is read is true of that poller, whoever wrote it.
//!
//! Orderings: counting releases what was changed, a stamp acquires it.
//! The counts are cut to 30 bits. A fact would have to sleep through a billion changes to be mistaken for a new one, and then `TRUST`
//! ends the mistake.
//! Checked by `loom-tests/tests/known.rs`.

use crate::shim::atomic::{AtomicU32, AtomicU64, Ordering};

/// A count as it is kept in a word.
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

    /// After a file was told not to block, or given a limit.
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

    /// The number is about to be closed, was closed, or nobody knows any more.
    pub(crate) fn forget(&self) {
        let order = relaxed_if!("known_forgets_relaxed", Ordering::Release);
        self.changes.fetch_add(1, order);
    }

    /// How often that was said; taken before the kernel is asked for a kind, or to tell of events.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire) & COUNT
    }

    /// Taken before a fact is asked for.
    pub(crate) fn stamp(&self, settings: &Settings) -> Stamp {
        let settings = settings.0.load(Ordering::Acquire) & COUNT;
        Stamp((u64::from(settings) << 30 | u64::from(self.changes())) << FACTS)
    }

    /// Learns what was asked for after the stamp was taken.
    pub(crate) fn learn(&self, stamp: Stamp, fact: u64) {
        let old = self.facts.load(Ordering::Relaxed);
        let others = (1 << FACTS) - 1;
        // Another thread may learn at the same time: then one of the facts is asked for again.
        let kept = if old & !others == stamp.0 {
            old & others
        } else {
            0
        };
        self.facts.store(stamp.0 | kept | fact, Ordering::Relaxed);
    }

    /// False: it must be asked for.
    #[inline]
    pub(crate) fn knows(&self, settings: &Settings, fact: u64) -> bool {
        let facts = self.facts.load(Ordering::Relaxed);
        facts & fact != 0 && facts >> FACTS == self.stamp(settings).0 >> FACTS
    }

    pub(crate) fn learn_kind(&self, changes: u32, has_true_events: bool) {
        let events = if has_true_events { TRUE_EVENTS } else { 0 };
        self.kind.store(changes | ASKED | events, Ordering::Relaxed);
    }

    /// Whether an event follows each `EAGAIN`, once it can be tried again. `None`: it must be asked for.
    #[inline]
    pub(crate) fn has_true_events(&self) -> Option<bool> {
        let kind = self.kind.load(Ordering::Relaxed);
        (kind & ASKED != 0 && kind & COUNT == self.changes()).then_some(kind & TRUE_EVENTS != 0)
    }

    /// The poller, under whose lock this is called, tells of these directions.
    pub(crate) fn arm(&self, changes: u32, poller: u32, directions: u8) {
        let word = u64::from(changes) << 34 | u64::from(poller) << 2 | u64::from(directions & 3);
        self.armed.store(word, Ordering::Relaxed);
    }

    /// The directions that the poller tells of; none if nobody knows.
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
