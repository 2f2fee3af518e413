//! The memory of blocks: slabs of our own, so that memory goes back to the system when blocks are given back.
//! `malloc` gives memory back only from the top of its heap. There a single block in use would keep the memory of a
//! hundred thousand others.
//!
//! A slab is a mapping with room for 64 blocks. A new slab is made when no other has room. The lowest slab with
//! room is used first. A slab is unmapped when none of its blocks is in use.
//!
//! The C library can make a thread's block in memory that it is given, as it does on a thread's stack. The memory must be
//! zeros. At one end is the control block, whose size the C library tells debuggers, and beside it are the
//! thread-locals, whose size it tells sanitizers. The self-test runs on such blocks, so
//! it finds out if this does not hold.
#![allow(unsafe_code, reason = "maps memory and has blocks made there")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::machine;
use super::memory::size;

/// How many blocks a slab has. Each has a bit in a word.
const SLOTS: usize = 64;

/// How the memory of a block is laid out.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// The distance from one block to the next.
    stride: usize,
    /// The distance from a block's beginning to its thread pointer.
    pointer: usize,
}

#[derive(Debug)]
struct Slab {
    /// The slots that hold no block.
    free: u64,
    /// The slots that have held one: they are not zeros any more.
    used: u64,
}

struct Slabs {
    /// All slabs, by their addresses.
    all: BTreeMap<usize, Slab>,
    /// Slabs that have a free slot.
    with_room: BTreeSet<usize>,
}

static SLABS: Mutex<Slabs> = Mutex::new(Slabs {
    all: BTreeMap::new(),
    with_room: BTreeSet::new(),
});

fn slabs() -> MutexGuard<'static, Slabs> {
    SLABS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None`: blocks are made in memory of the C library's.
fn layout() -> Option<Layout> {
    static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();
    *LAYOUT.get_or_init(|| {
        let (mut bytes, mut align) = (0_usize, 0_usize);
        // SAFETY: the name is that of a function of this type in every version of the C library that
        // has it: sanitizers rely on it.
        unsafe {
            let ask = libc::dlsym(libc::RTLD_DEFAULT, c"_dl_get_tls_static_info".as_ptr());
            if ask.is_null() {
                return None;
            }
            let ask = std::mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut usize, *mut usize),
            >(ask);
            ask(&raw mut bytes, &raw mut align);
        }
        let control = size(c"_thread_db_sizeof_pthread").ok()?;
        let fits = align.is_power_of_two() && align <= 4096 && bytes < 1 << 20;
        let (bytes, pointer) = machine::layout(bytes, align, control).filter(|_| fits)?;
        Some(Layout {
            stride: bytes.next_multiple_of(align),
            pointer,
        })
    })
}

/// Makes a block in memory of a slab, or of the C library. `None`: there is no memory.
pub(super) fn make(
    allocate: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
) -> Option<NonZeroUsize> {
    let made = |memory: *mut c_void| {
        // SAFETY: null asks for memory of the library's; what is not null is a free slot, zeros, with
        // room for all that is written.
        NonZeroUsize::new(unsafe { allocate(memory) }.expose_provenance())
    };
    let Some(layout) = layout() else {
        return made(ptr::null_mut());
    };
    let pointer = take(layout)?;
    let block = made(ptr::with_exposed_provenance_mut(pointer));
    if block.is_none() {
        put(layout, pointer);
    }
    block
}

/// Frees a block that nobody uses.
///
/// # Safety
/// The block was made by `make`, and is the caller's.
pub(super) unsafe fn free(deallocate: unsafe extern "C" fn(*mut c_void, bool), pointer: usize) {
    let layout = layout();
    // SAFETY: by contract; the memory is the library's where it gave it.
    unsafe { deallocate(ptr::with_exposed_provenance_mut(pointer), layout.is_none()) };
    if let Some(layout) = layout {
        put(layout, pointer);
    }
}

/// A free slot, by its thread pointer. All of it is zeros.
fn take(layout: Layout) -> Option<usize> {
    let mut slabs = slabs();
    let base = if let Some(&base) = slabs.with_room.first() {
        base
    } else {
        let base = map(layout)?;
        let slab = Slab {
            free: u64::MAX,
            used: 0,
        };
        slabs.all.insert(base, slab);
        slabs.with_room.insert(base);
        base
    };
    let slab = slabs.all.get_mut(&base).expect("it has room");
    let slot = slab.free.trailing_zeros();
    let bit = 1 << slot;
    let used = slab.used & bit != 0;
    slab.free &= !bit;
    slab.used |= bit;
    if slab.free == 0 {
        slabs.with_room.remove(&base);
    }
    drop(slabs);
    let start = base + slot as usize * layout.stride;
    if used {
        let memory = ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: the slot is ours, and so long.
        unsafe { memory.write_bytes(0, layout.stride) };
    }
    Some(start + layout.pointer)
}

fn put(layout: Layout, pointer: usize) {
    let mut slabs = slabs();
    let found = slabs.all.range_mut(..=pointer).next_back();
    let (&base, slab) = found.expect("the block was taken from a slab");
    slab.free |= 1 << ((pointer - base) / layout.stride);
    if slab.free != u64::MAX {
        slabs.with_room.insert(base);
        return;
    }
    slabs.all.remove(&base);
    slabs.with_room.remove(&base);
    drop(slabs);
    // SAFETY: nobody has a block in it, and nobody will get one.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(base), bytes(layout)) };
}

fn bytes(layout: Layout) -> usize {
    // `mmap` and `munmap` round up to pages.
    SLOTS * layout.stride
}

fn map(layout: Layout) -> Option<usize> {
    // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes(layout),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    (base != libc::MAP_FAILED).then(|| base.expose_provenance())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such C library")]
    fn slots_are_zeros_and_apart_and_their_slabs_go() {
        let Some(layout) = layout() else { return };
        let fill = |pointer: usize, with: u8| {
            let start = ptr::with_exposed_provenance_mut::<u8>(pointer - layout.pointer);
            // SAFETY: the slot is the test's.
            unsafe {
                let zeros = std::slice::from_raw_parts(start, layout.stride);
                assert!(zeros.iter().all(|byte| *byte == 0));
                start.write_bytes(with, layout.stride);
            }
        };
        let mut slots: Vec<_> = (0..1000).map(|_| take(layout).unwrap()).collect();
        for &pointer in &slots {
            fill(pointer, 7);
        }
        // Other slots are taken and put back in between.
        for round in 0..1000 {
            let pointer = slots.swap_remove(round * 7919 % slots.len());
            put(layout, pointer);
            let pointer = take(layout).unwrap();
            fill(pointer, 9);
            slots.push(pointer);
        }
        slots.sort_unstable();
        assert!(slots.windows(2).all(|two| two[1] - two[0] >= layout.stride));
        let bases: Vec<usize> = slots
            .iter()
            .map(|pointer| pointer - layout.pointer)
            .collect();
        for pointer in slots {
            put(layout, pointer);
        }
        let left = slabs();
        let gone = |base: &usize| {
            let below = left.all.range(..=*base).next_back();
            below.is_none_or(|(at, slab)| base - at >= bytes(layout) || slab.free != u64::MAX)
        };
        assert!(bases.iter().all(gone));
    }
}
