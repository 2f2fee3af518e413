//! What a thread waits for, as it notes it when a wait begins: kind and address in one word, for `dump`.
//!
//! ```text
//! 63        62     56 55       48 47                                  0
//! +---------+---------+-----------+------------------------------------+
//! | LIMITED | kind    | ends      | address of what it waits for, or 0 |
//! +---------+---------+-----------+------------------------------------+
//! ```
//!
//! The note costs one plain store for each wait. The state word tells a reader for which wait the note is good
//! (`trace/mod.rs`, invariant 1).
//!
//! Of some kinds the first bytes at the address are known, so that `dump` can read them by the system, as it reads
//! stacks (`trace/mod.rs`, invariant 2):
//!
//! | kind                 | bytes 0 to 3 | bytes 4 to 7    | bytes 8 to 11   |
//! |----------------------|--------------|-----------------|-----------------|
//! | `Mutex`, `Once`      | its state    | owner's [`Mark`] |                 |
//! | `ReadLock`, `WriteLock` | its state | its state       | the [`Mark`] of the writer or of a reader |
//!
//! For other kinds there is a count at *ends* words behind the address: the number of senders for `Message`, of receivers
//! for `Room`, of members for `WaitGroup`.
//!
//! Invariant: a mark is in a lock only while its thread holds the lock (or is inside `call_once` and so on). The thread
//! sets it after it has taken the lock, and clears it before it lets the lock go. `dump` looks whether the thread is
//! parked, then whether its mark is in the lock, then whether the thread is still parked in the same wait. If so, the
//! thread has held the lock all the while.

use std::fmt;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

/// What a green thread waits for, by its kind: see [`WaitsFor`](crate::WaitsFor).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Awaited {
    /// Something that has no name here.
    Other,
    /// [`GreenThread::unpark`](crate::GreenThread::unpark).
    Unpark,
    /// A time: it sleeps.
    Time,
    /// A `Mutex`.
    Mutex,
    /// An `RwLock`, to read.
    ReadLock,
    /// An `RwLock`, to write.
    WriteLock,
    /// A notification of a `Condvar`.
    Condvar,
    /// A permit of a `Semaphore`.
    Semaphore,
    /// The end of the closure of a `Once`, `OnceLock` or `LazyLock`, which another thread runs.
    Once,
    /// An `Event`.
    Event,
    /// The value of a `Promise`.
    Promise,
    /// The others of a `WaitGroup`.
    WaitGroup,
    /// The end of a green thread.
    Join,
    /// The children of a [`scope`](crate::scope()) or [`group`](crate::group()).
    Children,
    /// A message of a channel.
    Message,
    /// Room in a channel, or a receiver for its message.
    Room,
    /// Several things at once: `select!`.
    Several,
    /// A descriptor: a socket, a pipe.
    Descriptor,
    /// A word of memory that others change: a lock or a channel of std, made green by `weald-patch`.
    Futex,
}

/// In the order of their numbers.
const ALL: [Awaited; 19] = [
    Awaited::Other,
    Awaited::Unpark,
    Awaited::Time,
    Awaited::Mutex,
    Awaited::ReadLock,
    Awaited::WriteLock,
    Awaited::Condvar,
    Awaited::Semaphore,
    Awaited::Once,
    Awaited::Event,
    Awaited::Promise,
    Awaited::WaitGroup,
    Awaited::Join,
    Awaited::Children,
    Awaited::Message,
    Awaited::Room,
    Awaited::Several,
    Awaited::Descriptor,
    Awaited::Futex,
];

impl Awaited {
    /// All of them, in the order of their numbers.
    #[cfg(all(test, not(any(loom, miri))))]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter()
    }

    /// Returns a short name for programs: it never changes. `Display` gives words for people.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(weald::Awaited::ReadLock.name(), "read_lock");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Unpark => "unpark",
            Self::Time => "time",
            Self::Mutex => "mutex",
            Self::ReadLock => "read_lock",
            Self::WriteLock => "write_lock",
            Self::Condvar => "condvar",
            Self::Semaphore => "semaphore",
            Self::Once => "once",
            Self::Event => "event",
            Self::Promise => "promise",
            Self::WaitGroup => "wait_group",
            Self::Join => "join",
            Self::Children => "children",
            Self::Message => "message",
            Self::Room => "room",
            Self::Several => "several",
            Self::Descriptor => "descriptor",
            Self::Futex => "futex",
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Other => "something",
            Self::Unpark => "an unpark",
            Self::Time => "a time",
            Self::Mutex => "a mutex",
            Self::ReadLock => "a read lock",
            Self::WriteLock => "a write lock",
            Self::Condvar => "a condition variable",
            Self::Semaphore => "a permit of a semaphore",
            Self::Once => "the closure of a `Once`",
            Self::Event => "an event",
            Self::Promise => "a promise",
            Self::WaitGroup => "a wait group",
            Self::Join => "the end of a thread",
            Self::Children => "the children of a scope",
            Self::Message => "a message of a channel",
            Self::Room => "room in a channel",
            Self::Several => "several things (`select!`)",
            Self::Descriptor => "a descriptor",
            Self::Futex => "a futex",
        })
    }
}

const KIND_SHIFT: u32 = 56;
const LIMITED: u64 = 1 << 63;
const ENDS_SHIFT: u32 = 48;
const ADDRESS: u64 = (1 << ENDS_SHIFT) - 1;

/// The note itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct On(u64);

impl On {
    /// The thread waits for nothing that has an address.
    #[inline(always)]
    pub const fn just(what: Awaited) -> Self {
        Self((what as u64) << KIND_SHIFT)
    }

    /// The thread waits for that object. If the kind has a layout (see the file's comment), the object has it.
    #[inline(always)]
    pub fn object<T: ?Sized>(what: Awaited, object: *const T) -> Self {
        // On no platform of weald's does an address of a process have higher bits. A tag there would only spoil the
        // note.
        Self(object.cast::<()>().addr() as u64 | Self::just(what).0)
    }

    /// The thread waits for that object. There is a count in it, so many bytes behind its beginning.
    #[inline(always)]
    pub fn counted<T>(what: Awaited, object: *const T, offset: usize) -> Self {
        let words = offset / size_of::<usize>();
        debug_assert!(
            words < 256 && offset.is_multiple_of(size_of::<usize>()),
            "it has 8 bits"
        );
        Self(Self::object(what, object).0 | (words as u64) << ENDS_SHIFT)
    }

    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// The wait ends by itself at some time.
    pub(crate) fn limited(self) -> Self {
        Self(self.0 | LIMITED)
    }

    pub(crate) fn is_limited(self) -> bool {
        self.0 & LIMITED != 0
    }

    pub(crate) fn what(self) -> Awaited {
        let kind = usize::try_from((self.0 & !LIMITED) >> KIND_SHIFT).unwrap_or(0);
        ALL.get(kind).copied().unwrap_or(Awaited::Other)
    }

    pub(crate) fn address(self) -> usize {
        usize::try_from(self.0 & ADDRESS).unwrap_or(0)
    }

    /// The address of the count, if the kind has one.
    pub(crate) fn count_at(self) -> usize {
        let words = (self.0 >> ENDS_SHIFT) & 0xff;
        self.address() + usize::try_from(words).unwrap_or(0) * size_of::<usize>()
    }
}

/// 32 bits that stand for a green thread, in a lock that it holds. Zero: nobody, or a thread of which nothing is known,
/// such as an OS thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark(u32);

impl Mark {
    /// The mark of nobody, and of threads of which nothing is known.
    pub const NONE: Self = Self(0);

    /// The mark that a lock's bytes hold.
    pub(crate) fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// The low half of a thread's number. After 2^32 threads two may have the same mark. A search for a mark then finds
    /// both.
    pub(crate) fn of_number(number: u64) -> Self {
        Self(u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0))
    }
}

/// The mark of the thread that holds a lock. It lies in the lock, beside the lock's word. It is written by plain stores,
/// and the lock does not depend on it.
#[cfg(not(loom))]
#[derive(Debug)]
#[repr(transparent)]
pub struct Owner(AtomicU32);

#[cfg(not(loom))]
impl Owner {
    /// Nobody.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The caller, whose mark this is, has taken the lock.
    #[inline(always)]
    pub fn set(&self, me: Mark) {
        self.0.store(me.0, Ordering::Relaxed);
    }

    /// The caller is about to let the lock go.
    #[inline(always)]
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// As `clear`, if the caller was the last to set the mark. If another thread sets its mark at the same time, that
    /// mark may be cleared.
    #[inline(always)]
    pub fn clear_own(&self, me: Mark) {
        if me != Mark::NONE && self.0.load(Ordering::Relaxed) == me.0 {
            self.clear();
        }
    }
}

/// No model dumps.
#[cfg(loom)]
#[derive(Debug)]
pub struct Owner;

#[cfg(loom)]
#[allow(clippy::unused_self, reason = "as in a build")]
impl Owner {
    /// Nobody.
    pub const fn new() -> Self {
        Self
    }

    /// Nothing.
    pub fn set(&self, _: Mark) {}

    /// Nothing.
    pub fn clear(&self) {}

    /// Nothing.
    pub fn clear_own(&self, _: Mark) {}
}

impl Default for Owner {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Awaited, On};

    #[test]
    fn a_note_gives_back_what_it_was_made_of() {
        let object = 5_u64;
        for what in ALL {
            let on = On::object(what, &raw const object);
            assert_eq!((on.what(), on.is_limited()), (what, false));
            assert_eq!(on.address(), (&raw const object).addr());
            let limited = on.limited();
            assert_eq!((limited.what(), limited.is_limited()), (what, true));
            assert_eq!(limited.address(), on.address());
            assert_eq!(On::from_word(limited.word()), limited);
        }
        let pair = (&raw const object).cast::<[usize; 3]>();
        let counted = On::counted(Awaited::Message, pair, size_of::<usize>());
        assert_eq!(counted.address(), pair.addr());
        assert_eq!(counted.count_at(), pair.addr() + size_of::<usize>());
        assert_eq!(On::from_word(u64::MAX).what(), Awaited::Other);
    }
}
