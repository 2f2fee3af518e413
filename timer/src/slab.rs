//! The memory of a wheel's entries, shared with the handles that cancel from other threads.
//!
//! Entries lie in chunks. Each chunk is twice as long as the one before. A chunk never moves, and is freed
//! with the slab. So a stale key always leads to an entry, and the entry's generation refuses the key.
//! The position of an entry is its chunk, counted from 1, and its offset there. So no bits are searched to find it.
//! [`Owner`] is the right to do what only one thread may do. Each slab has one.
//!
//! These are the steps if another thread cancels a timer, and what may race with each step:
//! 1. The canceller wins the word (`Entry::claim_remotely`) and reads the value. Before this step the
//!    owner may fire, cancel or move the timer. After it the owner only moves the links.
//! 2. The canceller counts the timer as cancelled, so that `len` is right when the call returns.
//! 3. The canceller pushes the entry on the list of the cancelled. That is a stack whose links are in the
//!    state words. After this step the canceller does not touch the entry.
//! 4. At an insert, an advance or a drain the owner swaps the whole list out. It takes the entries of
//!    that list, one by one, out of the wheel's lists (unless they are detached), and makes
//!    them FREE. It may stop and go on with them at a later call. When none is left, it swaps the next list out.
//!
//! Between steps 1 and 4 the owner may want to fire a timer and find that it is CANCELLED. Then the owner
//! *detaches* the entry: it takes the entry out of the wheel's lists, and leaves the rest to
//! step 4. A detached entry is its own predecessor.
//!
//! The memory of entries that nobody needs goes back in blocks ([`Owner::trim`]). Its pages read as zero then,
//! which is a FREE entry without a generation, so it refuses stale keys as well. To find such blocks the owner looks
//! at all entries from the first to the last, in steps; `scan` is the position up to which it has come. FREE entries
//! before `scan` are on the free list. FREE entries behind `scan` are on no list, and the look will find them. If all
//! entries of a block are FREE, the block is *bare* from then on. The FREE entries of other blocks go on the free list.
//!
//! Invariant 1: all entries before `next` exist, in the order of chunk and offset. Each [`Index`]
//! is the position of one of them.
//! Invariant 2: an entry is on the list of the cancelled at most once, because only the winner of
//! its word pushes it, and only the owner's swap takes it off. The swap takes the whole list, so the
//! stack has no ABA problem.
//! Invariant 3: a FREE entry that can be used again is in exactly one of these: on the free list, behind `scan`, or in
//! a bare block and not renewed.
//! Orderings: the store to `next` releases a new entry and its chunk's pointer, and the load in `find`
//! acquires both. A push releases the canceller's last touch of the entry. The swap acquires that of all
//! pushers, because each push continues the release sequence of the pushes below it.
//! Checked by `loom-tests/tests/timer_entry.rs`.
#![allow(
    unsafe_code,
    reason = "chunks are raw memory; the owner's right opens the links"
)]

mod owner;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::{fmt, ptr};

use crate::entry::{Entry, Index, Key};
use crate::shim::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::shim::bounds;

pub(crate) use self::owner::Owner;

/// The part that the owner and the cancellers share.
pub(crate) struct Slab<T> {
    /// Null until the owner needs the chunk; written by the owner alone.
    chunks: [AtomicPtr<Entry<T>>; CHUNKS_END],
    /// The position of the first entry that does not exist yet; written by the owner alone.
    next: AtomicU32,
    /// How many timers were inserted, minus those that the owner took out itself. Minus `cancelled.count` this is the
    /// number of living timers. Written by the owner alone.
    armed: AtomicUsize,
    cancelled: Cancelled,
    /// Without it the atomic pointers would make the slab `Send` and `Sync` for every `T`.
    _values: PhantomData<*mut T>,
}

/// The part that the cancellers write. It has cache lines of its own: 128 bytes, because processors fetch
/// lines of 64 bytes in pairs.
#[repr(align(128))]
struct Cancelled {
    /// The top of the list of the cancelled, 0 if it is empty. Cancellers push, the owner swaps.
    head: AtomicU32,
    /// Timers that other threads have cancelled, ever.
    count: AtomicUsize,
}

// SAFETY: what is shared is atomic or guarded by the state words; a value goes to the one thread
// that wins it (entry.rs, invariant 1), and that needs `T: Send` only.
unsafe impl<T: Send> Send for Slab<T> {}
// SAFETY: as above; no two threads ever see the same value through it.
unsafe impl<T: Send> Sync for Slab<T> {}

impl<T> Slab<T> {
    fn new() -> Self {
        Self {
            chunks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            next: AtomicU32::new(FIRST),
            armed: AtomicUsize::new(0),
            cancelled: Cancelled {
                head: AtomicU32::new(0),
                count: AtomicUsize::new(0),
            },
            _values: PhantomData,
        }
    }

    /// Cancels a timer from any thread: steps 1 to 3 above.
    pub(crate) fn cancel_remotely(&self, key: Key) -> Option<T> {
        let index = self.find(key)?;
        let entry = self.entry(index);
        let value = entry.claim_remotely(key.generation())?;
        // Releases for `len`: if it counts this cancellation, it must count the insertion, too.
        self.cancelled.count.fetch_add(1, Ordering::Release);
        self.push_cancelled(index, entry);
        Some(value)
    }

    /// How many timers will fire unless they are cancelled. It is never negative, not even while other threads
    /// cancel, because each insertion was counted before its cancellation.
    pub(crate) fn len(&self) -> usize {
        // Acquires what the cancellers released, so `armed` below is at least as new.
        let cancelled = self.cancelled.count.load(Ordering::Acquire);
        self.armed.load(Ordering::Relaxed).saturating_sub(cancelled)
    }

    /// Timers that other threads have cancelled, ever.
    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.count.load(Ordering::Relaxed)
    }

    fn push_cancelled(&self, index: Index, entry: &Entry<T>) {
        // Releases the read of the value and the link to the owner's swap.
        let success = relaxed_if!("timer_relaxed_push", Ordering::Release);
        let head = &self.cancelled.head;
        let mut top = head.load(Ordering::Relaxed);
        loop {
            // SAFETY: what is on the list was pushed with an index, so an entry is there.
            let next = NonZeroU32::new(top).map(|position| unsafe { Index::new(position) });
            entry.set_next_cancelled(next);
            match head.compare_exchange_weak(top, index.get(), success, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => top = newer,
            }
        }
    }

    /// The entry that a key names, whatever its generation. `None`: this slab never had such an entry.
    #[inline]
    fn find(&self, key: Key) -> Option<Index> {
        let position = key.position()?;
        let (chunk, offset) = split(position.get());
        // Acquires the entry and its chunk's pointer, which the store in `grow` released.
        let next = self.next.load(Ordering::Acquire);
        let exists = (FIRST..next).contains(&position.get()) && offset < chunk_len(chunk);
        // SAFETY: all entries before `next` exist (invariant 1).
        exists.then(|| unsafe { Index::new(position) })
    }

    #[inline]
    fn entry(&self, index: Index) -> &Entry<T> {
        let (chunk, offset) = split(index.get());
        let first = self.chunks[chunk].load(Ordering::Relaxed);
        debug_assert!(!first.is_null());
        // SAFETY: an index proves that its entry exists (invariant 1), therefore the chunk does,
        // is long enough and lives as long as the slab. Entries are only ever shared.
        unsafe { &*first.add(offset) }
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        // The values are gone: the owner has dropped those that nobody claimed.
        let (last_chunk, used) = split(self.next.load(Ordering::Relaxed));
        for (chunk, first) in self.chunks.iter().enumerate() {
            let first = first.load(Ordering::Relaxed);
            if first.is_null() {
                continue;
            }
            let len = chunk_len(chunk);
            for offset in 0..if chunk < last_chunk { len } else { used } {
                // SAFETY: all entries before `next` exist (invariant 1) and nobody else is left.
                unsafe { first.add(offset).drop_in_place() };
            }
            let chunk = ptr::slice_from_raw_parts_mut(first.cast::<MaybeUninit<Entry<T>>>(), len);
            // SAFETY: `add_chunk` made it as a box of this length, and nobody else is left.
            drop(unsafe { Box::from_raw(chunk) });
        }
    }
}

impl<T> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The chunk and the offset of a position.
#[inline]
fn split(position: u32) -> (usize, usize) {
    let offset = position & ((1 << OFFSET_BITS) - 1);
    ((position >> OFFSET_BITS) as usize, offset as usize)
}

/// The position behind this one: the next in the same chunk, or the first of the next chunk.
fn successor(position: u32) -> u32 {
    let (chunk, offset) = split(position);
    if offset + 1 < chunk_len(chunk) {
        position + 1
    } else {
        ((position >> OFFSET_BITS) + 1) << OFFSET_BITS
    }
}

#[inline]
fn chunk_len(chunk: usize) -> usize {
    debug_assert_ne!(chunk, 0);
    (1 << bounds::FIRST_CHUNK_BITS << chunk) >> 1
}

/// The bits of a position that are the offset in its chunk; the five above them are the chunk.
const OFFSET_BITS: u32 = 25;

/// The position of the first entry of a slab: chunks count from 1, so that no position is 0.
const FIRST: u32 = 1 << OFFSET_BITS;

/// The value of `scan` while no look at all entries is under way.
const ALL_SEEN: u32 = u32::MAX;

/// How many entries a block has, whose memory goes back at a time: some 48 KiB, which takes 10 us and is at least a
/// few pages.
const BLOCK: usize = if cfg!(miri) { 64 } else { 1024 };

/// From so many spare entries on a look at all entries is worth its time. They have some hundred KiB.
const WORTH: usize = 4 * BLOCK;

/// One more than the last chunk.
const CHUNKS_END: usize = bounds::CHUNKS + 1;

const MAX_ENTRIES: usize = ((1 << bounds::CHUNKS) - 1) << bounds::FIRST_CHUNK_BITS;

// An offset fits in its bits, and a position in the 30 of a link.
const _: () =
    assert!(bounds::FIRST_CHUNK_BITS as usize + bounds::CHUNKS - 1 <= OFFSET_BITS as usize);
const _: () = assert!(CHUNKS_END <= 1 << (30 - OFFSET_BITS));

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn positions_fill_the_chunks_one_behind_the_other() {
        let mut position = FIRST;
        for chunk in 1..6 {
            for offset in 0..chunk_len(chunk) {
                assert_eq!(split(position), (chunk, offset));
                position = successor(position);
            }
        }
        let lengths = (1..CHUNKS_END).map(chunk_len);
        assert_eq!(lengths.sum::<usize>(), MAX_ENTRIES);
    }

    #[test]
    fn an_entry_whose_generations_are_used_up_is_not_armed_again() {
        let mut owner = Owner::new();
        let (index, first) = owner.insert(0);
        assert!(owner.claim(first).is_some());
        owner.slab.entry(index).age(1);
        owner.free(index, first.generation());

        let mut keys = Vec::new();
        for value in 1..4 {
            let (index, key) = owner.insert(value);
            keys.push(key);
            assert_eq!(owner.claim(key), Some((index, value)));
            owner.free(index, key.generation());
        }
        assert_eq!(keys[0].position(), keys[1].position(), "its last two lives");
        assert_ne!(
            keys[1].position(),
            keys[2].position(),
            "then another entry takes over"
        );
        assert_eq!(owner.find_armed(first), None);
    }

    #[test]
    fn a_key_that_no_slab_gave_out_finds_nothing() {
        let mut owner = Owner::new();
        let (_, key) = owner.insert(());
        for bits in [
            1,
            1 << 32,
            u64::MAX,
            key.to_bits() + 1,
            key.to_bits() + (1 << 32),
        ] {
            let forged = Key::from_bits(bits).expect("not zero");
            assert_eq!(owner.find_armed(forged), None);
            assert_eq!(owner.claim(forged), None);
            assert_eq!(owner.slab.cancel_remotely(forged), None);
        }
        assert_eq!(owner.slab.len(), 1);
    }

    /// Gives back what it can; the bytes that went back, all zero now.
    fn trim<T>(owner: &mut Owner<T>) -> usize {
        let mut bytes = 0;
        let discard = |first: *mut u8, count: usize| {
            // SAFETY: the memory is an entry's, and by contract it may be made zero.
            unsafe { first.write_bytes(0, count) };
            bytes += count;
        };
        // SAFETY: the bytes are zero afterwards.
        assert!(unsafe { owner.trim(|| false, discard) });
        bytes
    }

    fn end<T>(owner: &mut Owner<T>, key: Key) -> Option<T> {
        let (index, value) = owner.claim(key)?;
        owner.free(index, key.generation());
        Some(value)
    }

    #[test]
    fn memory_that_goes_back_is_used_again_and_no_old_key_fits() {
        const MANY: usize = if cfg!(miri) { 300 } else { 100_000 };
        let mut owner = Owner::new();
        let mut old = Vec::new();
        for round in 0..3 {
            let keys: Vec<_> = (0..MANY).map(|n| owner.insert(n).1).collect();
            assert!(!owner.can_trim());
            // Some live on, at any place.
            let mut living: Vec<_> = keys.iter().copied().enumerate().step_by(MANY / 3).collect();
            for (n, &key) in keys.iter().enumerate() {
                if n % (MANY / 3) != 0 {
                    assert_eq!(end(&mut owner, key), Some(n));
                    old.push(key);
                }
            }
            assert!(owner.can_trim());
            let bytes = trim(&mut owner);
            let most = MANY * size_of::<Entry<usize>>();
            let least = most / if cfg!(miri) { 10 } else { 2 };
            assert!(bytes > least && bytes <= most, "{bytes} of {most}");
            assert!(!owner.can_trim(), "it comes to rest");
            for &key in &old {
                assert_eq!(owner.find_armed(key), None);
                assert_eq!(owner.slab.cancel_remotely(key), None);
            }
            // As many again take the same places, and the old keys fit none of them.
            let again: Vec<_> = (0..MANY).map(|n| owner.insert(n).1).collect();
            for &key in &old {
                assert_eq!(owner.claim(key).map(|_| ()), None);
            }
            let (last_chunk, _) = split(owner.slab.next.load(Ordering::Relaxed));
            assert!(chunk_len(last_chunk) <= 2 * MANY, "round {round} has grown");
            living.extend(again.iter().copied().enumerate());
            for (n, key) in living {
                assert_eq!(end(&mut owner, key), Some(n));
                old.push(key);
            }
        }
        assert_eq!(owner.slab.len(), 0);
    }

    #[test]
    fn timers_come_and_go_in_the_middle_of_a_look() {
        let many = WORTH + 10 * BLOCK;
        let mut owner = Owner::new();
        let keys: Vec<_> = (0..many).map(|n| owner.insert(n).1).collect();
        let mut others = Vec::new();
        for (n, &key) in keys.iter().enumerate() {
            if n % (many / 8) == 0 {
                others.push((n, key));
            } else {
                assert_eq!(end(&mut owner, key), Some(n));
            }
        }
        let steps = Cell::new(0);
        loop {
            // Two steps at a time.
            let stop = || {
                steps.set(steps.get() + 1);
                steps.get() % 3 == 0
            };
            // SAFETY: the bytes are zero afterwards.
            let is_over = unsafe { owner.trim(stop, |first, count| first.write_bytes(0, count)) };
            if is_over {
                break;
            }
            // Some end on either side of where the look has come to, some are cancelled by others, and new
            // ones take their places.
            for at in [0, others.len() / 2, others.len() - 1] {
                let (n, key) = others.swap_remove(at.min(others.len() - 1));
                assert_eq!(end(&mut owner, key), Some(n));
            }
            others.extend((0..5).map(|n| (n, owner.insert(n).1)));
            let (n, key) = others.swap_remove(others.len() / 3);
            assert_eq!(owner.slab.cancel_remotely(key), Some(n));
            let index = owner.first_cancelled().expect("one was cancelled");
            owner.recycle(index);
        }
        let places: std::collections::BTreeSet<_> =
            others.iter().map(|(_, key)| key.position()).collect();
        assert_eq!(places.len(), others.len(), "each has a place of its own");
        for (n, key) in others {
            assert_eq!(end(&mut owner, key), Some(n));
        }
        // Each free entry is there once.
        let next = owner.slab.next.load(Ordering::Relaxed);
        let (chunk, offset) = split(next);
        let grown = (1..chunk).map(chunk_len).sum::<usize>() + offset;
        let again: Vec<_> = (0..grown).map(|n| owner.insert(n).1).collect();
        assert_eq!(owner.slab.next.load(Ordering::Relaxed), next);
        let places: std::collections::BTreeSet<_> =
            again.iter().map(|key| key.position()).collect();
        assert_eq!(places.len(), grown);
    }
}
