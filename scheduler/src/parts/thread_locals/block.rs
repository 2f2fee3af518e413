//! One green thread's block of thread-locals.
//!
//! | state | whose             | leaves by                                             |
//! |-------|-------------------|-------------------------------------------------------|
//! | idle  | a worker's (`cache.rs`) or the pool's (`pool.rs`) | `Support::start`, which makes it like a new thread's |
//! | live  | one green thread's | `Cache::put`, after `Support::finish` in the thread  |
//!
//! 1. A block is written by others only while its thread does not run.
//! 2. It is freed when nobody has needed it for a while (`excess.rs`).
#![allow(unsafe_code, reason = "writes what the C library keeps in a block")]

use std::num::NonZeroUsize;
use std::ptr;

use super::ids::Ids;
use super::layout::{CLibrary, TABLE_SURPLUS};
use super::libraries::TABLE_LENGTH;
use super::memory::{read, write};
use super::{machine, slabs};

/// The right to a block. The value is the block's thread pointer.
#[derive(Debug)]
#[must_use = "a block that is dropped is lost"]
pub(crate) struct Block(NonZeroUsize);

impl Block {
    #[inline(always)]
    pub(super) fn pointer(&self) -> usize {
        self.0.get()
    }

    /// Makes a block, as the C library does for a new thread.
    #[cold]
    pub(super) fn make(library: &CLibrary, ids: &Ids) -> Option<Self> {
        let id = ids.make()?;
        let Some(pointer) = slabs::make(library.allocate) else {
            ids.give_back(id);
            return None;
        };
        let block = Self(pointer);
        let pointer = block.pointer();
        if library.trims {
            // SAFETY: the block is new and ours.
            unsafe { trim_table(library, pointer) };
        }
        let offsets = &library.offsets;
        let at = |offset: isize| pointer.wrapping_add_signed(offset);
        // SAFETY: the block is new and ours, and all offsets lie in its control block (`layout.rs`)
        // except `resolver`, a thread-local of the C library's.
        unsafe {
            for &offset in machine::SELF {
                write(pointer, offset.cast_signed(), pointer);
            }
            for &(offset, word) in &library.common {
                write(pointer, offset.cast_signed(), word);
            }
            for &offset in machine::COMMON_HALF {
                let offset = offsets.control + offset.cast_signed();
                let word: u32 = read(machine::pointer(), offset);
                write(pointer, offset, word);
            }
            write(pointer, offsets.tid, id);
            // An empty list leads to itself. `fork` takes the thread out of this one.
            write(pointer, offsets.list, [at(offsets.list); 2]);
            offsets.empty_robust(pointer);
            // How far a mutex's word is from its link: the same for all.
            let distance: usize = read(machine::pointer(), offsets.robust + 8);
            write(pointer, offsets.robust + 8, distance);
            write(pointer, offsets.values, at(offsets.first_values));
            write(pointer, offsets.resolver, at(offsets.resolver_state));
            if let Some(offset) = library.rseq {
                // The kernel does not keep the number of the processor here: -2 says so.
                const UNREGISTERED: i32 = -2;
                write(pointer, offset + 4, UNREGISTERED);
            }
        }
        Some(block)
    }
}

/// Gives back the room that the block's table has for libraries that may be loaded later: 200 bytes of 300. The C
/// library makes the table larger by `realloc` when it needs to.
///
/// # Safety
/// The block is new and the caller's.
unsafe fn trim_table(library: &CLibrary, pointer: usize) {
    /// Bytes of an entry: an address and what to free.
    const ENTRY: usize = 16;
    // SAFETY: `look` has seen that the length is there, and that it is that of entries 1 and up;
    // entry 0 is a counter. An entry without a library is zero. The table's memory begins with the
    // length, and is malloc's.
    unsafe {
        let table: usize = read(pointer, machine::TABLE.cast_signed());
        let length: usize = read(table, TABLE_LENGTH);
        let Some(most) = length.checked_sub(TABLE_SURPLUS) else {
            return;
        };
        let entry = |index: usize| read::<[usize; 2]>(table, (ENTRY * index).cast_signed());
        if (most + 1..=length).any(|index| entry(index) != [0, 0]) {
            return;
        }
        let memory = ptr::with_exposed_provenance_mut(table.wrapping_add_signed(TABLE_LENGTH));
        let memory = (library.reallocate)(memory, ENTRY * (most + 2)).expose_provenance();
        if memory != 0 {
            write(memory, 0, most);
            let table = memory.wrapping_add_signed(-TABLE_LENGTH);
            write(pointer, machine::TABLE.cast_signed(), table);
        }
    }
}
