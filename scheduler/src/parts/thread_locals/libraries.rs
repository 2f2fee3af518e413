//! The libraries of the process that have thread-locals: those whose thread-locals lie in each
//! thread's block (*static* ones), and those whose thread-locals the loader makes for a thread at
//! its first access (*dynamic* ones, which libraries opened by `dlopen` have as a rule).
//!
//! A block that is used again gets the static ones anew from their images, and its dynamic ones are
//! freed. Neither asks the loader, whose lock and list would cost each start of a green thread 200 ns:
//!
//! 1. The images are ours: copies of what the loader has put into a block that nobody has run on.
//!    So no memory of a library is read, which might be closed meanwhile.
//! 2. The copies are made again when libraries with thread-locals have come or gone. The loader
//!    numbers such changes, and notes with each library's slot the number of its last one, for
//!    debuggers too (`_thread_db_*`). The largest of them is the *version*; to see it costs a load or two, as
//!    slots are used in their order: the first one that was never used ends the search.
//! 3. Whoever starts a green thread after `dlopen` has returned sees the library's slot. A thread that
//!    has started before finds static thread-locals of the library as they were in its block, which nobody
//!    has written.
//! 4. A table of thread-locals that has an entry to free has dynamic thread-locals there, whatever
//!    has become of their library.
#![allow(
    unsafe_code,
    reason = "reads the loader's own structures, after checks"
)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::layout::{Found, Own, TABLE_LENGTH, field, read, size, symbol, thread_segment, write};
use super::machine;

/// An entry of a table for a library whose thread-locals this thread has not got yet.
const UNALLOCATED: usize = usize::MAX;

/// Bytes of an entry of a thread's table: an address, and what to free.
const ENTRY: isize = 16;

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

/// The static thread-locals of all libraries but the C library, as of one version.
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
    pub(super) unsafe fn renew(&self, own: &Own, pointer: usize) {
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
            unsafe { self.free_dynamic(own, pointer) };
        }
    }

    /// Frees the dynamic thread-locals, as the C library does at the end of a thread.
    ///
    /// # Safety
    /// As in `renew`.
    #[inline(never)]
    unsafe fn free_dynamic(&self, own: &Own, pointer: usize) {
        // SAFETY: the table is the block's; `layout.rs` has seen its length and its entries there.
        unsafe {
            let table: usize = read(pointer, machine::TABLE.cast_signed());
            let length: usize = read(table, TABLE_LENGTH);
            for number in *self.dynamic.start()..=length.min(*self.dynamic.end()) {
                let entry = ENTRY * number.cast_signed();
                let to_free: usize = read(table, entry + 8);
                if to_free != 0 {
                    write(table, entry, [UNALLOCATED, 0]);
                    (own.free)(ptr::with_exposed_provenance_mut(to_free));
                }
            }
        }
    }
}

/// The loader's list of slots, one for each number that a library may have.
#[derive(Debug)]
pub(super) struct Slots {
    /// The first node, which is never freed, nor is any other.
    list: usize,
    length: isize,
    next: isize,
    entries: isize,
    change: isize,
    library: isize,
    size: usize,
    /// The first slot of a library that was not there when the program started.
    first: usize,
}

impl Slots {
    /// `None`: the C library does not describe them.
    fn find() -> Option<Self> {
        let offset = |name: &CStr| field(name, 64, 1).ok();
        let global = symbol(c"_rtld_global").ok()?.expose_provenance();
        let list = offset(c"_thread_db_rtld_global__dl_tls_dtv_slotinfo_list")?;
        let entries = symbol(c"_thread_db_dtv_slotinfo_list_slotinfo").ok()?;
        // SAFETY: every such name is an array of three words.
        let [bits, _, entries] = unsafe { entries.cast::<[u32; 3]>().read() };
        let size = size(c"_thread_db_sizeof_dtv_slotinfo").ok()?;
        if usize::try_from(bits).ok()? != 8 * size {
            return None;
        }
        let mut found = Self {
            // SAFETY: the C library says that the pointer is there.
            list: unsafe { read(global, list) },
            length: offset(c"_thread_db_dtv_slotinfo_list_len")?,
            next: offset(c"_thread_db_dtv_slotinfo_list_next")?,
            entries: isize::try_from(entries).ok()?,
            change: offset(c"_thread_db_dtv_slotinfo_gen")?,
            library: offset(c"_thread_db_dtv_slotinfo_map")?,
            size,
            first: 1,
        };
        if found.list == 0 {
            return None;
        }
        // A library that was there at the start has no change. A slot that is given to another
        // library has none for a moment, in the middle of `dlopen`, which a look-up of a symbol waits for.
        let at_start = |found: &Self| {
            let mut count = 0;
            found.each(|_, change, library| {
                let at_start = change == 0 && library != 0;
                count += usize::from(at_start);
                at_start
            });
            count
        };
        let count = at_start(&found);
        symbol(c"_rtld_global").ok()?;
        found.first = 1 + count.min(at_start(&found));
        Some(found)
    }

    /// Calls `f` with the number of each slot from the first one on, its last change, and its library or zero,
    /// until it returns false or slots follow that were never used.
    #[inline]
    fn each(&self, mut f: impl FnMut(usize, usize, usize) -> bool) {
        let (mut list, mut below) = (self.list, 0);
        for number in self.first.. {
            // SAFETY: the list's nodes are never freed, and have so many slots; what others may write
            // meanwhile is read as atomics. A library's address is only compared.
            let (change, library) = unsafe {
                while number - below >= read::<usize>(list, self.length) {
                    below += read::<usize>(list, self.length);
                    // Acquire: pairs with the loader's release of a node that it has made.
                    list = word(list, self.next).load(Ordering::Acquire);
                    if list == 0 {
                        return;
                    }
                }
                let slot = self.entries + ((number - below) * self.size).cast_signed();
                (
                    word(list, slot + self.change).load(Ordering::Relaxed),
                    word(list, slot + self.library).load(Ordering::Relaxed),
                )
            };
            if change == 0 && library == 0 || !f(number, change, library) {
                return;
            }
        }
    }

    #[inline]
    pub(super) fn version(&self) -> usize {
        let mut version = 0;
        self.each(|_, change, _| {
            version = version.max(change);
            true
        });
        version
    }

    /// The last slot that was ever used.
    fn last(&self) -> usize {
        let mut last = self.first - 1;
        self.each(|number, _, _| {
            last = number;
            true
        });
        last
    }
}

/// # Safety
/// There is a word so far from the base, which is never freed.
unsafe fn word<'a>(base: usize, offset: isize) -> &'a AtomicUsize {
    // SAFETY: by contract.
    unsafe { &*ptr::with_exposed_provenance(base.wrapping_add_signed(offset)) }
}

/// What is asked of the loader about one library.
#[derive(Clone, Copy, Debug)]
pub(super) struct Library {
    /// Where it begins.
    pub(super) base: usize,
    /// Its place in a thread's table.
    pub(super) number: usize,
    /// Bytes of its image, and of its thread-locals.
    pub(super) copied: usize,
    pub(super) bytes: usize,
    /// Where its thread-locals are for the thread that asks; zero if it has none yet.
    pub(super) here: usize,
}

/// The libraries with thread-locals.
pub(super) fn libraries() -> Vec<Library> {
    let mut found: Vec<Library> = Vec::new();
    // SAFETY: the callback fits, and what it is given is such a list.
    unsafe { libc::dl_iterate_phdr(Some(library), (&raw mut found).cast()) };
    found
}

unsafe extern "C" fn library(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    found: *mut c_void,
) -> c_int {
    // SAFETY: the C library passes a valid structure, and back what it was given.
    let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Library>>()) };
    if let Some(segment) = thread_segment(info) {
        found.push(Library {
            base: info.dlpi_addr as usize,
            number: info.dlpi_tls_modid,
            copied: segment.p_filesz as usize,
            bytes: segment.p_memsz as usize,
            here: info.dlpi_tls_data as usize,
        });
    }
    0
}

/// Where the static thread-locals of a library are in a block; `None` if it has none there.
///
/// # Safety
/// The block is complete, and nobody else changes it.
pub(super) unsafe fn place(pointer: usize, number: usize) -> Option<usize> {
    // SAFETY: by contract; `layout.rs` has seen that the table's length is there.
    unsafe {
        let table: usize = read(pointer, machine::TABLE.cast_signed());
        if number > read(table, TABLE_LENGTH) {
            return None;
        }
        let [place, to_free]: [usize; 2] = read(table, ENTRY * number.cast_signed());
        (place != 0 && place != UNALLOCATED && to_free == 0).then_some(place)
    }
}

/// How the loader tells what comes and goes, if it does.
pub(super) fn find() -> Option<Slots> {
    Slots::find()
}

impl Own {
    /// The version of what the loader knows of.
    #[inline]
    pub(super) fn version(&self) -> usize {
        self.slots.as_ref().map_or(0, Slots::version)
    }

    /// Looks at the static thread-locals of all libraries.
    #[cold]
    pub(super) fn look_at_images(&self) -> Found<Arc<Images>> {
        for _ in 0..TRIES {
            let version = self.version();
            // SAFETY: null asks for memory of the library's; nothing else is expected.
            let pointer = unsafe { (self.allocate)(ptr::null_mut()) }.expose_provenance();
            if pointer == 0 {
                return Err("no memory for a block");
            }
            let present = libraries();
            // SAFETY: the block is new, and nobody runs on it; it is given back once and as it came.
            let (all, dynamic) = unsafe {
                let found = (
                    self.images_of(pointer, &present),
                    self.dynamic_of(pointer, &present),
                );
                (self.deallocate)(ptr::with_exposed_provenance_mut(pointer), true);
                found
            };
            if self.version() == version {
                return Ok(Arc::new(Images {
                    version,
                    all,
                    dynamic,
                }));
            }
        }
        Err("libraries come and go all the time")
    }

    /// # Safety
    /// The block is as the loader has made it.
    unsafe fn images_of(&self, pointer: usize, present: &[Library]) -> Box<[Image]> {
        let image = |library: &Library| {
            if self.excluded.contains(&library.base) {
                return None;
            }
            // SAFETY: by contract; the loader has put the library's image there.
            let (place, start) = unsafe {
                let place = place(pointer, library.number)?;
                let start: *const u8 = ptr::with_exposed_provenance(place);
                (place, std::slice::from_raw_parts(start, library.copied))
            };
            Some(Image {
                offset: place.wrapping_sub(pointer).cast_signed(),
                start: start.into(),
                zeros: library.bytes - library.copied,
            })
        };
        present.iter().filter_map(image).collect()
    }

    /// # Safety
    /// As `images_of`.
    unsafe fn dynamic_of(
        &self,
        pointer: usize,
        present: &[Library],
    ) -> std::ops::RangeInclusive<usize> {
        // Without slots nobody tells of those that come later.
        let slots = self.slots.as_ref().map_or(usize::MAX, Slots::last);
        let told = present.iter().map(|library| library.number).max();
        let last = slots.max(told.unwrap_or(0));
        // SAFETY: by contract.
        let is_static = |number: &usize| unsafe { place(pointer, *number) }.is_some();
        let first = 1 + (1..=last).take_while(is_static).count();
        first..=last
    }
}
