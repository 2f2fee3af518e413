//! What the loader says about the libraries that have thread-locals: which libraries there are, where their
//! thread-locals lie in a block, and when libraries come and go. `images.rs` uses this.
//!
//! 1. The loader numbers the changes. Each library's slot has the number of its last change, which debuggers see, too
//!    (`_thread_db_*`). The largest number is the *version*. It costs a load or two to see it, because
//!    slots are used in their order, and the first slot that was never used ends the search.
//! 2. If a green thread is started after `dlopen` has returned, the starter sees the library's slot.
#![allow(
    unsafe_code,
    reason = "reads the loader's own structures, after checks"
)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::machine;
use super::memory::{field, read, size, symbol};

/// An entry of a table for a library whose thread-locals this thread has not got yet.
pub(super) const UNALLOCATED: usize = usize::MAX;

/// Bytes of an entry of a thread's table: an address, and what to free.
pub(super) const ENTRY: isize = 16;

/// Where the length of a thread's table of thread-local blocks is, from the table on.
pub(super) const TABLE_LENGTH: isize = -16;

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
    pub(super) fn find() -> Option<Self> {
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
        // A library that was there at the start has no change. In the middle of `dlopen` a slot that is given to
        // another library has none either, for a moment. A look-up of a symbol waits for the end of that `dlopen`.
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
    pub(super) fn last(&self) -> usize {
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

/// What the loader says about one library.
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

/// The part of a library that describes its thread-locals. Touches no thread-local.
pub(super) fn thread_segment(info: &libc::dl_phdr_info) -> Option<&libc::Elf64_Phdr> {
    (0..usize::from(info.dlpi_phnum)).find_map(|index| {
        // SAFETY: there are so many headers.
        let header = unsafe { &*info.dlpi_phdr.add(index) };
        (header.p_type == libc::PT_TLS && header.p_memsz > 0).then_some(header)
    })
}
