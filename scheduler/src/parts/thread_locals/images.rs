//! The thread-locals of libraries, made new in a block that is used again: the *static* ones, which lie in each
//! thread's block, and the *dynamic* ones, which the loader makes for a thread at its first access (libraries opened
//! by `dlopen` have those as a rule).
//!
//! When a block is used again, its static thread-locals are copied from their images, and its dynamic ones are
//! freed. The loader is not asked, because its lock and list would cost each start of a green thread 200 ns:
//!
//! 1. The images are ours: copies of what the loader has put into a block that nobody has run on.
//!    So no memory of a library is read, which might be closed meanwhile.
//! 2. The copies are made again when libraries with thread-locals have come or gone. The version in `libraries.rs`
//!    changes then.
//! 3. A thread that has started before a library came finds the library's static thread-locals as they were in
//!    its block, which nobody has written.
//! 4. If a table of thread-locals has an entry to free, there are dynamic thread-locals, even if their library
//!    is gone.
#![allow(
    unsafe_code,
    reason = "reads and writes thread-locals of the libraries"
)]

use std::ptr;
use std::sync::Arc;

use super::layout::CLibrary;
use super::libraries::{ENTRY, Library, Slots, TABLE_LENGTH, UNALLOCATED, libraries, place};
use super::machine;
use super::memory::{Found, read, write};

/// How often libraries may come or go while they are looked at.
const TRIES: usize = 100;

/// The thread-locals of one library that each block holds.
#[derive(Debug)]
struct Image {
    /// From the thread pointer.
    offset: isize,
    start: Box<[u8]>,
    /// Behind that.
    zeros: usize,
}

/// The static thread-locals of all libraries except the C library, at one version.
#[derive(Debug)]
pub(super) struct Images {
    version: usize,
    all: Box<[Image]>,
    /// Numbers of the libraries that may have dynamic thread-locals.
    dynamic: std::ops::RangeInclusive<usize>,
}

impl Images {
    #[inline]
    pub(super) fn are_of(&self, version: usize) -> bool {
        self.version == version
    }

    /// Makes the thread-locals of all these libraries new.
    ///
    /// # Safety
    /// The block is the caller's, and nobody runs on it.
    #[inline]
    pub(super) unsafe fn renew(&self, library: &CLibrary, pointer: usize) {
        for image in &self.all {
            // SAFETY: the loader has laid the library's thread-locals out so in every block.
            unsafe {
                let to: *mut u8 =
                    ptr::with_exposed_provenance_mut(pointer.wrapping_add_signed(image.offset));
                ptr::copy_nonoverlapping(image.start.as_ptr(), to, image.start.len());
                to.add(image.start.len()).write_bytes(0, image.zeros);
            }
        }
        if !self.dynamic.is_empty() {
            // SAFETY: by contract.
            unsafe { self.free_dynamic(library, pointer) };
        }
    }

    /// Frees the dynamic thread-locals, as the C library does at the end of a thread.
    ///
    /// # Safety
    /// As in `renew`.
    #[inline(never)]
    unsafe fn free_dynamic(&self, library: &CLibrary, pointer: usize) {
        // SAFETY: the table is the block's; `layout.rs` has seen its length and its entries there.
        unsafe {
            let table: usize = read(pointer, machine::TABLE.cast_signed());
            let length: usize = read(table, TABLE_LENGTH);
            for number in *self.dynamic.start()..=length.min(*self.dynamic.end()) {
                let entry = ENTRY * number.cast_signed();
                let to_free: usize = read(table, entry + 8);
                if to_free != 0 {
                    write(table, entry, [UNALLOCATED, 0]);
                    (library.free)(ptr::with_exposed_provenance_mut(to_free));
                }
            }
        }
    }

    /// Looks at the static thread-locals of all libraries.
    #[cold]
    pub(super) fn look(library: &CLibrary, slots: Option<&Slots>) -> Found<Arc<Self>> {
        for _ in 0..TRIES {
            let version = version_of(slots);
            // SAFETY: null asks for memory of the library's; nothing else is expected.
            let pointer = unsafe { (library.allocate)(ptr::null_mut()) }.expose_provenance();
            if pointer == 0 {
                return Err("no memory for a block");
            }
            let present = libraries();
            // SAFETY: the block is new, and nobody runs on it; it is given back once and as it came.
            let (all, dynamic) = unsafe {
                let found = (
                    images_of(library, pointer, &present),
                    dynamic_of(slots, pointer, &present),
                );
                (library.deallocate)(ptr::with_exposed_provenance_mut(pointer), true);
                found
            };
            if version_of(slots) == version {
                return Ok(Arc::new(Self {
                    version,
                    all,
                    dynamic,
                }));
            }
        }
        Err("libraries come and go all the time")
    }
}

/// The version of what the loader knows of.
#[inline]
pub(super) fn version_of(slots: Option<&Slots>) -> usize {
    slots.map_or(0, Slots::version)
}

/// # Safety
/// The block is as the loader has made it.
unsafe fn images_of(library: &CLibrary, pointer: usize, present: &[Library]) -> Box<[Image]> {
    let image = |found: &Library| {
        if library.excluded.contains(&found.base) {
            return None;
        }
        // SAFETY: by contract; the loader has put the library's image there.
        let (place, start) = unsafe {
            let place = place(pointer, found.number)?;
            let start: *const u8 = ptr::with_exposed_provenance(place);
            (place, std::slice::from_raw_parts(start, found.copied))
        };
        Some(Image {
            offset: place.wrapping_sub(pointer).cast_signed(),
            start: start.into(),
            zeros: found.bytes - found.copied,
        })
    };
    present.iter().filter_map(image).collect()
}

/// # Safety
/// As `images_of`.
unsafe fn dynamic_of(
    slots: Option<&Slots>,
    pointer: usize,
    present: &[Library],
) -> std::ops::RangeInclusive<usize> {
    // Without the loader's slots nothing would show libraries that come later.
    let slots = slots.map_or(usize::MAX, Slots::last);
    let highest = present.iter().map(|library| library.number).max();
    let last = slots.max(highest.unwrap_or(0));
    // SAFETY: by contract.
    let is_static = |number: &usize| unsafe { place(pointer, *number) }.is_some();
    let first = 1 + (1..=last).take_while(is_static).count();
    first..=last
}
