//! What only the owner of a slab may do. `slab.rs` has the steps and the invariants.
#![allow(
    unsafe_code,
    reason = "chunks are raw memory; the owner's right opens the links"
)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::num::NonZeroU32;

use super::{
    ALL_SEEN, BLOCK, CHUNKS_END, FIRST, MAX_ENTRIES, Slab, WORTH, chunk_len, split, successor,
};
use crate::entry::{Entry, Index, Key, Links};
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;

/// The right to insert, move and free the entries of a slab. Each slab has one owner. It can be sent
/// but not shared, so `&mut self` proves that nobody else touches the links.
pub(crate) struct Owner<T> {
    pub(super) slab: Arc<Slab<T>>,
    /// The free list: FREE entries that can be armed again. The entry that was freed last comes first, because it is in
    /// the CPU's cache.
    free: Option<Index>,
    /// The rest of the list of the cancelled that was swapped out last.
    taken: Option<Index>,
    /// The position up to which the look at all entries has come. [`ALL_SEEN`]: no look is under way.
    scan: u32,
    /// The first entries of blocks whose memory went back.
    bare: Vec<u32>,
    /// The bare block whose entries are used again now: its next entry, and how many entries are left.
    renewed: (u32, usize),
    /// A generation that is later than all that entries of bare blocks have had.
    generation: u32,
    /// How many entries were spare and how many timers were living when the last look ended.
    settled: (usize, usize),
    _not_sync: PhantomData<Cell<()>>,
}

impl<T> Owner<T> {
    pub(crate) fn new() -> Self {
        Self {
            slab: Arc::new(Slab::new()),
            free: None,
            taken: None,
            scan: ALL_SEEN,
            bare: Vec::new(),
            renewed: (FIRST, 0),
            generation: 1,
            settled: (0, 0),
            _not_sync: PhantomData,
        }
    }

    pub(crate) fn slab(&self) -> &Arc<Slab<T>> {
        &self.slab
    }

    /// Arms an entry, which is in none of the wheel's lists yet and has no deadline.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> (Index, Key) {
        let index = match self.free {
            Some(index) => {
                self.free = self.links(index).next;
                index
            }
            None => self.grow(),
        };
        // Before the timer can be cancelled: a thread that sees the cancellation sees this count, too.
        self.set_armed(|armed| armed + 1);
        // SAFETY: we are the owner; the entry is FREE, because it came from the free list or is new.
        let key = unsafe { self.slab.entry(index).arm(index, value) };
        (index, key)
    }

    /// The timer's entry if it is ARMED. Another thread may cancel the timer in the next moment.
    #[inline]
    pub(crate) fn find_armed(&self, key: Key) -> Option<Index> {
        let index = self.slab.find(key)?;
        self.slab
            .entry(index)
            .is_armed(key.generation())
            .then_some(index)
    }

    /// Takes the value of a timer, if no canceller was first. The entry is FREE then, but still in its list. The
    /// caller must unlink it and call [`Owner::free`].
    #[inline]
    pub(crate) fn claim(&mut self, key: Key) -> Option<(Index, T)> {
        let index = self.slab.find(key)?;
        let value = self.slab.entry(index).claim(key.generation())?;
        self.set_armed(|armed| armed - 1);
        Some((index, value))
    }

    /// Takes the value of the timer at an index, whatever its generation, and returns the generation as well.
    /// `None`: another thread has cancelled the timer.
    #[inline]
    pub(crate) fn claim_any(&mut self, index: Index) -> Option<(u32, T)> {
        let claimed = self.slab.entry(index).claim_any()?;
        self.set_armed(|armed| armed - 1);
        Some(claimed)
    }

    /// Puts an entry on the free list, unless the generation that has just ended was its last
    /// (entry.rs, invariant 2). The entry is FREE and in no list.
    #[inline]
    pub(crate) fn free(&mut self, index: Index, generation: u32) {
        // The look at all entries will find an entry that is behind `scan` (invariant 3).
        if generation != u32::MAX && index.get() < self.scan {
            let next = self.free;
            self.edit_links(index, |links| links.next = next);
            self.free = Some(index);
        }
    }

    /// Whether other threads have cancelled timers that were not recycled.
    #[inline]
    pub(crate) fn has_cancelled(&self) -> bool {
        // A hint: what this misses is seen the next time, and the swap acquires.
        self.taken.is_some() || self.slab.cancelled.head.load(Ordering::Relaxed) != 0
    }

    /// The next of the cancelled entries, for [`Owner::recycle`].
    pub(crate) fn first_cancelled(&mut self) -> Option<Index> {
        if self.taken.is_none() {
            self.taken = self.take_cancelled();
        }
        self.taken
    }

    /// Takes the list of the cancelled.
    fn take_cancelled(&mut self) -> Option<Index> {
        let head = &self.slab.cancelled.head;
        // Acquires what every push released.
        let top = if fault!("timer_list_kept") {
            head.load(Ordering::Acquire)
        } else {
            head.swap(0, Ordering::Acquire)
        };
        // SAFETY: what is on the list was pushed with an index, so an entry is there.
        NonZeroU32::new(top).map(|position| unsafe { Index::new(position) })
    }

    /// Makes the first of the cancelled entries FREE. The caller has taken it out of the wheel's lists.
    pub(crate) fn recycle(&mut self, index: Index) {
        debug_assert_eq!(self.taken, Some(index));
        // SAFETY: we are the owner, and the entry came from the list of the cancelled.
        let (generation, next) = unsafe { self.slab.entry(index).recycle() };
        self.taken = next;
        self.free(index, generation);
    }

    /// Notes that a cancelled entry has left the wheel's lists before it was recycled.
    pub(crate) fn detach(&mut self, index: Index) {
        self.edit_links(index, |links| links.prev = Some(index));
    }

    pub(crate) fn is_detached(&self, index: Index) -> bool {
        self.links(index).prev == Some(index)
    }

    #[inline]
    pub(crate) fn links(&self, index: Index) -> Links {
        // SAFETY: we are the owner, and nobody edits the links while `self` is borrowed.
        unsafe { self.slab.entry(index).links() }
    }

    #[inline]
    pub(crate) fn edit_links(&mut self, index: Index, edit: impl FnOnce(&mut Links)) {
        // SAFETY: we are the owner, and `&mut self` says that this is the only place.
        unsafe { self.slab.entry(index).edit_links(edit) };
    }

    #[inline]
    fn set_armed(&mut self, change: impl FnOnce(usize) -> usize) {
        // A load and a store instead of an atomic addition, because nobody else writes it.
        let armed = &self.slab.armed;
        armed.store(change(armed.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// How many entries have no timer, and have not given their memory back.
    fn spare(&self) -> usize {
        let (chunk, offset) = split(self.slab.next.load(Ordering::Relaxed));
        // All chunks before this one have together as many entries as this one, minus the length of the first chunk.
        let grown = chunk_len(chunk) - chunk_len(1) + offset;
        let bare = self.bare.len() * BLOCK + self.renewed.1;
        grown - bare - self.slab.len().min(grown - bare)
    }

    /// Whether so much memory is spare that a look at all entries is worth its time, or a look is under way.
    pub(crate) fn can_trim(&mut self) -> bool {
        if self.scan != ALL_SEEN {
            return true;
        }
        let (spare, live) = (self.spare(), self.slab.len());
        self.settled.0 = self.settled.0.min(spare);
        // What the last look could not give back lies between living timers, and stays there as long as they live.
        let more = spare >= self.settled.0 + WORTH || live < self.settled.1 / 2;
        more && spare >= WORTH && spare / 4 >= live
    }

    /// Looks at all entries, or goes on with a look that has begun. Calls `discard` for each block in which no
    /// timer lives, with its address and its length in bytes. False: `stop` has returned true, and the look is not
    /// finished.
    ///
    /// # Safety
    /// `discard` leaves each byte of the memory as it is, or makes it zero.
    pub(crate) unsafe fn trim(
        &mut self,
        stop: impl Fn() -> bool,
        mut discard: impl FnMut(*mut u8, usize),
    ) -> bool {
        if self.scan == ALL_SEEN {
            self.free = None;
            self.scan = FIRST;
        }
        while self.scan != ALL_SEEN {
            if stop() {
                return false;
            }
            self.look_at_block(Some(&mut discard));
        }
        self.settled = (self.spare(), self.slab.len());
        true
    }

    /// A step of the look at all entries.
    fn look_at_block(&mut self, discard: Option<&mut dyn FnMut(*mut u8, usize)>) {
        /// A block whose entries have had more lives than this is kept. Otherwise renewed entries of all blocks would
        /// begin with so late a generation.
        const LIVES: u32 = u32::MAX / 2;
        let (start, next) = (self.scan, self.slab.next.load(Ordering::Relaxed));
        if start >= next {
            self.scan = ALL_SEEN;
            return;
        }
        let (chunk, offset) = split(start);
        let (last_chunk, used) = split(next);
        let end = if chunk < last_chunk {
            chunk_len(chunk)
        } else {
            used
        };
        let count = (end - offset).min(BLOCK);
        let count_u32 = u32::try_from(count).expect("a block is short");
        let positions = start..start + count_u32;
        self.scan = successor(start + (count_u32 - 1));
        let index = |position| {
            let position = NonZeroU32::new(position).expect("positions begin above zero");
            // SAFETY: all entries before `next` exist (invariant 1).
            unsafe { Index::new(position) }
        };
        let mut generations = positions
            .clone()
            .map(|position| self.slab.entry(index(position)).free_generation());
        // The latest generation of the block, if all its entries are FREE and none is retired or bare.
        let latest = generations.try_fold(0_u32, |latest, generation| {
            generation
                .filter(|&generation| generation != 0)
                .map(|generation| latest.max(generation))
        });
        match (discard, latest) {
            (Some(discard), Some(latest)) if count == BLOCK && latest < LIVES => {
                self.generation = self.generation.max(latest + 1);
                for position in positions {
                    // SAFETY: we are the owner. The entry is FREE, and on no list, because the look has just come here.
                    unsafe { self.slab.entry(index(position)).discard() };
                }
                self.bare.push(start);
                let first = self.slab.chunks[chunk].load(Ordering::Relaxed);
                // The offset is one of the chunk's.
                discard(
                    first.wrapping_add(offset).cast::<u8>(),
                    BLOCK * size_of::<Entry<T>>(),
                );
            }
            _ => {
                for position in positions.rev() {
                    let index = index(position);
                    let generation = self.slab.entry(index).free_generation();
                    if generation.is_some_and(|generation| generation != 0) {
                        let next = self.free;
                        self.edit_links(index, |links| links.next = next);
                        self.free = Some(index);
                    }
                }
            }
        }
    }

    /// An entry of a bare block, which is FREE and on no list. Its memory may have gone back.
    fn take_bare(&mut self) -> Option<Index> {
        if self.renewed.1 == 0 {
            self.renewed = (self.bare.pop()?, BLOCK);
            if self.bare.is_empty() {
                self.bare = Vec::new();
            }
        }
        let position = NonZeroU32::new(self.renewed.0).expect("positions begin above zero");
        self.renewed.0 += 1;
        self.renewed.1 -= 1;
        // SAFETY: all entries before `next` exist (invariant 1).
        let index = unsafe { Index::new(position) };
        // SAFETY: we are the owner, and the entry was discarded; if it reads as zeros, that is the same.
        unsafe { self.slab.entry(index).renew(self.generation) };
        Some(index)
    }

    /// An entry that is FREE and in no list. It is a new one only if there is no other.
    #[cold]
    fn grow(&mut self) -> Index {
        while self.scan != ALL_SEEN {
            self.look_at_block(None);
            if let Some(index) = self.free {
                self.free = self.links(index).next;
                return index;
            }
        }
        if let Some(index) = self.take_bare() {
            return index;
        }
        let position = self.slab.next.load(Ordering::Relaxed);
        let (chunk, offset) = split(position);
        assert!(
            chunk < CHUNKS_END,
            "one wheel holds at most {MAX_ENTRIES} timers"
        );
        if offset == 0 {
            self.add_chunk(chunk);
        }
        let first = self.slab.chunks[chunk].load(Ordering::Relaxed);
        // SAFETY: the chunk was added with its first entry. `successor` stays within its
        // length, and nobody looks at the memory before `next` says that an entry is there.
        unsafe { first.add(offset).write(Entry::new()) };
        // Releases the entry and its chunk's pointer to `find`.
        let publish = relaxed_if!("timer_relaxed_next", Ordering::Release);
        self.slab.next.store(successor(position), publish);
        let position = NonZeroU32::new(position).expect("positions begin above zero");
        // SAFETY: the entry is there since the lines above.
        unsafe { Index::new(position) }
    }

    fn add_chunk(&mut self, chunk: usize) {
        // The memory is not touched before its entries are used. Until then a large chunk costs only address space.
        let entries = Box::<[Entry<T>]>::new_uninit_slice(chunk_len(chunk));
        let first = Box::into_raw(entries).cast::<Entry<T>>();
        self.slab.chunks[chunk].store(first, Ordering::Relaxed);
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        /// Drops the values from here on. If the destructor of one panics, the others are dropped all the same.
        struct Rest<'a, T> {
            owner: &'a mut Owner<T>,
            position: u32,
        }

        impl<T> Rest<'_, T> {
            fn drop_values(&mut self) {
                let next = self.owner.slab.next.load(Ordering::Relaxed);
                while self.position < next {
                    let position = NonZeroU32::new(self.position).expect("positions begin above 0");
                    self.position = successor(self.position);
                    // SAFETY: all entries before `next` exist (invariant 1).
                    drop(self.owner.claim_any(unsafe { Index::new(position) }));
                }
            }
        }

        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                self.drop_values();
            }
        }

        Rest {
            owner: self,
            position: FIRST,
        }
        .drop_values();
    }
}
