//! One timer's entry: a state word that fire and cancel race for, the value that the winner takes,
//! and links that only the owner of the wheel touches.
//!
//! | state     | value there | whose cell                        | leaves by                       |
//! |-----------|-------------|-----------------------------------|---------------------------------|
//! | FREE      | no          | the owner's                       | `arm` (owner) -> ARMED          |
//! | ARMED     | yes         | nobody's, then the winner's       | `claim` (owner) -> FREE, or     |
//! |           |             |                                   | `claim_remotely` -> CANCELLED   |
//! | CANCELLED | till taken  | the canceller's until it has      | `recycle` (owner) -> FREE       |
//! |           |             | pushed the entry on the list of   |                                 |
//! |           |             | the cancelled, then the owner's   |                                 |
//!
//! The word; only the methods of [`Word`] move it:
//!
//! | bits   | what                                                                            |
//! |--------|---------------------------------------------------------------------------------|
//! | 0..2   | the state                                                                       |
//! | 2..32  | CANCELLED: the next entry on the list of the cancelled, 0 at its end; else 0    |
//! | 32..64 | the generation, never 0 while the entry can be armed                            |
//!
//! Invariant 1: the side that moved the word out of ARMED, and no other, reads the value of that
//! generation, once. Both moves are a compare-and-swap from the exact word, so one of them wins.
//! Invariant 2: each step to FREE raises the generation, so a key of an earlier life of the entry
//! matches nothing. When the 32 bits are used up, the entry gets the generation 0 and stays FREE for ever. This costs
//! the memory of one entry for 2^32 timers, and no old key can ever hit a new timer. An entry that was
//! discarded (`slab.rs`) has the generation 0, too. When it is renewed it gets a generation that is later than all
//! that it has had.
//! Invariant 3: only the owner touches the links, and only the owner steps from FREE and to FREE.
//! There is no state FIRED, because the owner fires and frees in one step.
//!
//! Orderings: `arm` releases the value, `claim_remotely` acquires it. The canceller's read of the
//! value is released by its push on the list of the cancelled and acquired by the owner's drain
//! (`slab.rs`), so the owner's next `arm` does not race with it. `claim` needs no ordering: the owner
//! reads what it wrote itself.
//! Rejected: a flag that saves the atomic steps for wheels without a remote handle. In the scheduler each wheel has
//! such a handle.
//! Checked by `loom-tests/tests/timer_entry.rs`.
#![allow(
    unsafe_code,
    reason = "the value and the links are shared; the word says whose they are"
)]

use std::mem::MaybeUninit;
use std::num::{NonZeroU32, NonZeroU64};

use crate::Tick;
use crate::shim::atomic::{AtomicU64, Ordering};
use crate::shim::cell::UnsafeCell;

/// Names one timer of one wheel, from its insertion until it has fired or been cancelled.
///
/// After that the key is stale. Every operation refuses it, even if the memory of its entry
/// belongs to a new timer by then. If a key is used with a wheel that did not make it, it names no timer or a
/// wrong one; that is a mistake, but memory safe.
///
/// A key has 64 bits, which are never all zero. So an `Option<Key>` has 64 bits as well.
///
/// # Examples
/// ```
/// use weald_timer::{Key, Tick, Wheel};
///
/// let mut wheel = Wheel::new(Tick::ZERO);
/// let key = wheel.insert(Tick::from_nanos_ceil(1_000_000), "tea");
/// assert_eq!(wheel.cancel(key), Some("tea"));
/// assert_eq!(wheel.cancel(key), None, "the key is stale now");
/// assert_eq!(size_of::<Option<Key>>(), 8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(NonZeroU64);

impl Key {
    /// The key as a number, which is never zero. So an atomic can hold a key, or zero for none.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::{Key, Tick, Wheel};
    ///
    /// let mut wheel = Wheel::new(Tick::ZERO);
    /// let key = wheel.insert(Tick::MAX, ());
    /// assert_eq!(Key::from_bits(key.to_bits()), Some(key));
    /// ```
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The key of that number; `None` for zero. A number that did not come from [`to_bits`](Self::to_bits) makes a key
    /// that names no timer or any timer; using it is memory safe.
    ///
    /// # Examples
    /// ```
    /// use weald_timer::Key;
    /// assert_eq!(Key::from_bits(0), None);
    /// ```
    #[inline]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    #[inline]
    fn new(index: Index, generation: u32) -> Self {
        let position = NonZeroU64::from(index.0);
        Self(position | u64::from(generation) << GENERATION_SHIFT)
    }

    /// The position in the slab that the key claims to name. It was checked against no slab.
    #[inline]
    pub(crate) fn position(self) -> Option<NonZeroU32> {
        NonZeroU32::new(low_half(self.0.get()))
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        high_half(self.0.get())
    }
}

/// The position of an entry in its slab. Holding an index proves that the entry exists. An index
/// never leaves the wheel, so it is only used with the slab from which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index(NonZeroU32);

impl Index {
    /// # Safety
    /// The slab has an entry at this position.
    #[inline]
    pub(crate) unsafe fn new(position: NonZeroU32) -> Self {
        Self(position)
    }

    #[inline]
    pub(crate) fn get(self) -> u32 {
        self.0.get()
    }
}

/// What the state word holds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    #[inline]
    const fn free(generation: u32) -> Self {
        Self((generation as u64) << GENERATION_SHIFT | FREE)
    }

    #[inline]
    const fn armed(generation: u32) -> Self {
        Self((generation as u64) << GENERATION_SHIFT | ARMED)
    }

    #[inline]
    fn cancelled(generation: u32, next: Option<Index>) -> Self {
        let link = u64::from(next.map_or(0, Index::get)) << LINK_SHIFT;
        Self(u64::from(generation) << GENERATION_SHIFT | link | CANCELLED)
    }

    #[inline]
    const fn state(self) -> u64 {
        self.0 & STATE_MASK
    }

    #[inline]
    fn generation(self) -> u32 {
        high_half(self.0)
    }

    /// The next entry on the list of the cancelled.
    #[inline]
    fn next(self) -> Option<Index> {
        debug_assert_eq!(self.state(), CANCELLED);
        NonZeroU32::new(low_half(self.0) >> LINK_SHIFT).map(Index)
    }
}

/// What only the owner touches of an entry: its links and its deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) deadline: Tick,
    /// The entry before this one. `None`: this is the head of its list.
    pub(crate) prev: Option<Index>,
    /// The entry behind this one. `None`: this is the tail of its list. Of a FREE entry: the next one of the free list.
    pub(crate) next: Option<Index>,
}

/// The memory of one timer, used again and again: 24 bytes and the value.
pub(crate) struct Entry<T> {
    /// Every side may read it and try to move it out of ARMED. The table above has the other moves.
    word: AtomicU64,
    /// The word says which side may touch it (invariant 1).
    value: UnsafeCell<MaybeUninit<T>>,
    /// The owner's alone (invariant 3).
    links: UnsafeCell<Links>,
}

impl<T> Entry<T> {
    /// Makes a FREE entry in its first life.
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(Word::free(1).0),
            value: UnsafeCell::new(MaybeUninit::uninit()),
            links: UnsafeCell::new(Links {
                deadline: Tick::ZERO,
                prev: None,
                next: None,
            }),
        }
    }

    /// FREE -> ARMED. The key names this life of the entry, which is at `index`.
    ///
    /// # Safety
    /// The caller is the owner and the entry is FREE.
    #[inline]
    pub(crate) unsafe fn arm(&self, index: Index, value: T) -> Key {
        let generation = self.load().generation();
        debug_assert!(self.load() == Word::free(generation));
        debug_assert_ne!(
            generation, 0,
            "an entry whose generations are used up was armed again"
        );
        self.value.with_mut(|cell| {
            // SAFETY: the entry is FREE and the caller the owner, so the cell is ours, and the
            // last canceller's read of it happened before (orderings).
            unsafe { (*cell).write(value) };
        });
        // Releases the value to the remote canceller that acquires it.
        self.word
            .store(Word::armed(generation).0, Ordering::Release);
        Key::new(index, generation)
    }

    /// Whether the timer of that generation is still ARMED. False is final; true may be out of date.
    #[inline]
    pub(crate) fn is_armed(&self, generation: u32) -> bool {
        self.load() == Word::armed(generation)
    }

    /// The owner's step from ARMED to FREE. It succeeds if no canceller was first and the generation is that of the
    /// key. The entry is still in its list.
    #[inline]
    pub(crate) fn claim(&self, generation: u32) -> Option<T> {
        let armed = Word::armed(generation).0;
        let free = Word::free(generation.wrapping_add(1)).0;
        let won = if fault!("timer_store_for_cas") {
            let won = self.word.load(Ordering::Acquire) == armed;
            if won {
                self.word.store(free, Ordering::Release);
            }
            won
        } else {
            self.word
                .compare_exchange(armed, free, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        // SAFETY: this call moved the word out of ARMED (invariant 1).
        won.then(|| unsafe { self.read_value() })
    }

    /// As `claim`, whatever the generation, which it returns with the value. For a timer that fires.
    #[inline]
    pub(crate) fn claim_any(&self) -> Option<(u32, T)> {
        let word = self.load();
        if word.state() != ARMED {
            return None;
        }
        let generation = word.generation();
        self.claim(generation).map(|value| (generation, value))
    }

    /// The step from ARMED to CANCELLED, which any thread may try. It succeeds if nobody was first and the generation is
    /// that of the key. The winner must push the entry on the list of the cancelled.
    #[inline]
    pub(crate) fn claim_remotely(&self, generation: u32) -> Option<T> {
        let generation = if fault!("timer_no_generation") {
            self.load().generation()
        } else {
            generation
        };
        // Acquires the value that `arm` released.
        let success = relaxed_if!("timer_relaxed_claim", Ordering::Acquire);
        let armed = Word::armed(generation).0;
        let cancelled = Word::cancelled(generation, None).0;
        let won = self
            .word
            .compare_exchange(armed, cancelled, success, Ordering::Relaxed)
            .is_ok();
        // SAFETY: this call moved the word out of ARMED (invariant 1).
        won.then(|| unsafe { self.read_value() })
    }

    /// Writes what comes behind this entry on the list of the cancelled. Only the canceller that
    /// won calls this, before its push succeeds; the push releases it.
    #[inline]
    pub(crate) fn set_next_cancelled(&self, next: Option<Index>) {
        let word = self.load();
        debug_assert_eq!(word.state(), CANCELLED);
        self.word.store(
            Word::cancelled(word.generation(), next).0,
            Ordering::Relaxed,
        );
    }

    /// CANCELLED -> FREE. Returns the generation that has ended, and the entry that comes behind this one on
    /// the list of the cancelled.
    ///
    /// # Safety
    /// The caller is the owner and took the entry off the list of the cancelled.
    #[inline]
    pub(crate) unsafe fn recycle(&self) -> (u32, Option<Index>) {
        let word = self.load();
        assert_eq!(
            word.state(),
            CANCELLED,
            "an entry was recycled that nobody had cancelled"
        );
        let generation = word.generation();
        self.word
            .store(Word::free(generation.wrapping_add(1)).0, Ordering::Relaxed);
        (generation, word.next())
    }

    /// # Safety
    /// The caller is the owner and changes no links meanwhile.
    #[inline]
    pub(crate) unsafe fn links(&self) -> Links {
        // Field by field: a copy of the whole is one wide load, which has to wait for the narrow
        // stores of the last edit (10 ns more on a Zen core).
        self.links.with(|links| Links {
            // SAFETY: only the owner touches the links (invariant 3), and it is here.
            deadline: unsafe { (*links).deadline },
            // SAFETY: as above.
            prev: unsafe { (*links).prev },
            // SAFETY: as above.
            next: unsafe { (*links).next },
        })
    }

    /// # Safety
    /// The caller is the owner, exclusively for the time of the call.
    #[inline]
    pub(crate) unsafe fn edit_links(&self, edit: impl FnOnce(&mut Links)) {
        // SAFETY: only the owner touches the links (invariant 3), and it is here and nowhere else.
        self.links.with_mut(|links| edit(unsafe { &mut *links }));
    }

    /// # Safety
    /// The caller has moved the word out of ARMED, and calls this once.
    #[inline]
    unsafe fn read_value(&self) -> T {
        self.value.with(|cell| {
            // SAFETY: the entry was ARMED, so a value is there, and the caller alone may read it.
            unsafe { (*cell).assume_init_read() }
        })
    }

    /// The generation of an entry that is FREE. Zero: the entry cannot be armed.
    #[inline]
    pub(crate) fn free_generation(&self) -> Option<u32> {
        let word = self.load();
        (word.state() == FREE).then(|| word.generation())
    }

    /// FREE -> FREE, with the generation 0. The entry cannot be armed until it is renewed.
    ///
    /// # Safety
    /// The caller is the owner and the entry is FREE.
    #[inline]
    pub(crate) unsafe fn discard(&self) {
        self.word.store(Word::free(0).0, Ordering::Relaxed);
    }

    /// Gives an entry without a generation one that is later than all that it has had.
    ///
    /// # Safety
    /// The caller is the owner and the entry was discarded.
    #[inline]
    pub(crate) unsafe fn renew(&self, generation: u32) {
        debug_assert!(self.load() == Word::free(0));
        self.word.store(Word::free(generation).0, Ordering::Relaxed);
    }

    #[inline]
    fn load(&self) -> Word {
        // This says nothing about the value: `claim` is the way to it.
        Word(self.word.load(Ordering::Relaxed))
    }

    /// Puts a FREE entry into its last life but `lives`, which would take hours to reach.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn age(&self, lives: u32) {
        assert_eq!(self.load().state(), FREE);
        self.word
            .store(Word::free(u32::MAX - lives).0, Ordering::Relaxed);
    }
}

#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the lower half is what it is for"
)]
const fn low_half(bits: u64) -> u32 {
    bits as u32
}

#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "32 bits are left after the shift"
)]
const fn high_half(bits: u64) -> u32 {
    (bits >> GENERATION_SHIFT) as u32
}

const FREE: u64 = 0;
const ARMED: u64 = 1;
const CANCELLED: u64 = 2;
const STATE_MASK: u64 = 0b11;
const LINK_SHIFT: u32 = 2;
const GENERATION_SHIFT: u32 = 32;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn check_index(position: u32) -> Index {
        Index(NonZeroU32::new(position).expect("positions count from 1"))
    }

    #[test]
    fn an_entry_is_24_bytes_and_the_value() {
        assert_eq!(size_of::<Entry<()>>(), 24);
        assert_eq!(size_of::<Entry<[usize; 3]>>(), 24 + size_of::<[usize; 3]>());
    }

    #[test]
    fn a_word_keeps_its_three_parts_apart() {
        let last = check_index((1 << 30) - 1);
        let word = Word::cancelled(u32::MAX, Some(last));
        assert_eq!(word.state(), CANCELLED);
        assert_eq!(word.generation(), u32::MAX);
        assert_eq!(word.next(), Some(last));
        assert_eq!(Word::cancelled(7, None).next(), None);
        assert!(Word::armed(7) != Word::free(7));
    }

    #[test]
    fn only_the_first_claim_of_a_generation_wins() {
        let entry = Entry::new();
        let index = check_index(1);
        // SAFETY: this test is the owner, and a new entry is FREE.
        let key = unsafe { entry.arm(index, 'a') };
        assert_eq!(entry.claim_remotely(key.generation() + 1), None);
        assert_eq!(entry.claim(key.generation()), Some('a'));
        assert_eq!(entry.claim(key.generation()), None);
        assert_eq!(entry.claim_remotely(key.generation()), None);

        // SAFETY: this test is the owner, and a claimed entry is FREE.
        let newer = unsafe { entry.arm(index, 'b') };
        assert_ne!(newer, key);
        assert_eq!(
            entry.claim_remotely(key.generation()),
            None,
            "the old key hits nothing"
        );
        assert_eq!(entry.claim_remotely(newer.generation()), Some('b'));
        assert_eq!(entry.claim_any(), None);
    }
}
