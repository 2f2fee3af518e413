//! Made-up thread ids for the C library, one for each block.
//!
//! The C library compares threads' ids to find out which thread holds a lock: in recursive and
//! error-checking mutexes, and in its own locks, such as the loader's. So no two threads may have the same id:
//!
//! 1. No id is one of the kernel's: ids are above `PID_MAX_LIMIT`, which is 2^22.
//! 2. An id fits into a futex word (`FUTEX_TID_MASK`): it is below 2^30.
//! 3. No other copy of this crate in the process makes the same id. A program may hold two versions
//!    of the crate, which share no symbol, no static and no lock. But they share the process's address space: an
//!    id stands for 256 KiB of it, which are reserved, never touched, and never unmapped. The
//!    kernel gives no address twice, so no id is made twice.
//!
//! Reserved addresses cost no memory and no page tables, and do not count as committed. For the highest number of green
//! threads that were alive at a time, each has a quarter of a mebibyte. Stacks take as much by default.
#![allow(unsafe_code, reason = "reserves addresses")]

use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Addresses of user code have at most 48 bits, unless a program asks for more; on x86-64 they have 47. The numbers
/// of units have `UNIT_BITS` less.
const ADDRESS_BITS: u32 = if cfg!(target_arch = "x86_64") { 47 } else { 48 };

/// The lowest id: above the kernel's, and as many ids are above it as there are units.
pub(super) const FIRST: usize = 1 << 29;

/// Bits of the addresses that one id stands for: so that all units have an id.
const UNIT_BITS: u32 = ADDRESS_BITS - 29;

/// How many ids are reserved at a time: at first, and at the most.
const BATCH: [usize; 2] = [16, 1024];

/// Where one copy of the crate takes its ids from.
#[derive(Debug)]
pub(super) struct Ids(Mutex<Reserved>);

#[derive(Debug)]
struct Reserved {
    /// Ids that were given back.
    idle: Vec<i32>,
    /// Units of which no id was made yet.
    units: std::ops::Range<usize>,
    /// How many to ask for next.
    batch: usize,
}

impl Ids {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Reserved {
            idle: Vec::new(),
            units: 0..0,
            batch: BATCH[0],
        }))
    }

    /// An id that no other thread of the process has. `None`: there are no addresses left.
    pub(super) fn make(&self) -> Option<i32> {
        let mut reserved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = reserved.idle.pop() {
            return Some(id);
        }
        if reserved.units.is_empty() {
            // If addresses are scarce, a single id is enough.
            reserved.units = reserve(reserved.batch).or_else(|| reserve(1))?;
            reserved.batch = (2 * reserved.batch).min(BATCH[1]);
        }
        let unit = reserved.units.next()?;
        i32::try_from(FIRST + unit).ok()
    }

    /// Takes back an id that `make` has given, and that nobody has any more.
    pub(super) fn give_back(&self, id: i32) {
        let mut reserved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reserved.idle.push(id);
    }
}

/// Reserves the addresses of so many units.
fn reserve(count: usize) -> Option<std::ops::Range<usize>> {
    let unit = 1_usize << UNIT_BITS;
    // One unit more, because the addresses may begin anywhere.
    let bytes = (count + 1) * unit;
    // SAFETY: asks for addresses that nobody has, and touches nothing.
    let found = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if found == libc::MAP_FAILED {
        return None;
    }
    let first = found.addr().div_ceil(unit);
    // Nobody gets an address above these unless they ask for it; an id would be too large there.
    (first + count <= FIRST).then_some(first..first + count)
}
