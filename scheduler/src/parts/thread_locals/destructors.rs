//! The end of a thread, as the C library does it: destructors of thread-locals, of pthread values, and the robust
//! mutexes that the thread holds.
#![allow(
    unsafe_code,
    reason = "reads and writes what the C library keeps in a block"
)]

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::layout::{CLibrary, Offsets, Value};
use super::machine;
use super::memory::{read, write};

/// How many rounds of destructors of pthread values there are: `PTHREAD_DESTRUCTOR_ITERATIONS` of `limits.h`.
const ROUNDS: usize = 4;

/// How many robust mutexes a thread may hold at its end: `ROBUST_LIST_LIMIT` of the kernel.
const ROBUST: usize = 2048;

/// Runs the destructors of the running thread's thread-locals, at its end.
pub(super) fn finish(library: &CLibrary) {
    for _ in 0..ROUNDS {
        // SAFETY: the running thread's own.
        unsafe { (library.call_destructors)() };
        // The destructor of a value may have used a thread-local for the first time.
        if !drop_values(library) {
            break;
        }
    }
    give_up_robust(&library.offsets);
}

/// Runs the destructors of the running thread's pthread values, as the C library does at the
/// end of a thread. False: there was none to run.
fn drop_values(library: &CLibrary) -> bool {
    let pointer = machine::pointer();
    let table = library.offsets.values;
    // Behind the table: whether there are values at all.
    let used = table + 32 * 8;
    let mut any = false;
    // One further round forgets the values that are left.
    for round in 0..=ROUNDS {
        // SAFETY: the running thread's own control block, checked in `layout.rs`, and what the
        // C library keeps there. Nothing is held over a destructor but the pointer.
        unsafe {
            if read::<u8>(pointer, used) == 0 {
                return any;
            }
            write(pointer, used, 0_u8);
            for block in 0..32_usize {
                let values: *mut Value = read(pointer, table + 8 * block.cast_signed());
                if values.is_null() {
                    continue;
                }
                for index in 0..32 {
                    let value = values.add(index);
                    let data = (*value).data;
                    if data.is_null() {
                        continue;
                    }
                    (*value).data = ptr::null_mut();
                    if round == ROUNDS {
                        continue;
                    }
                    let key = library.keys.0.add(32 * block + index);
                    let known = (*value).sequence == ptr::read_volatile(&raw const (*key).sequence);
                    if known && let Some(destructor) = (*key).destructor {
                        destructor(data);
                        any = true;
                    }
                }
            }
        }
    }
    any
}

/// Gives up the robust mutexes that the running thread holds, as the kernel does for a thread that
/// ends. The next thread that locks such a mutex gets `EOWNERDEAD`.
fn give_up_robust(offsets: &Offsets) {
    let pointer = machine::pointer();
    // SAFETY: the running thread's own control block.
    unsafe {
        let head = pointer.wrapping_add_signed(offsets.robust);
        if read::<usize>(head, 0) != head {
            give_up_mutexes(offsets, pointer, head);
            offsets.empty_robust(pointer);
        }
    }
}

/// # Safety
/// The block is the running thread's, and its list is not empty.
#[cold]
unsafe fn give_up_mutexes(offsets: &Offsets, pointer: usize, head: usize) {
    // SAFETY: the list leads from mutex to mutex that the thread has locked and not unlocked, and
    // so are valid; by the kernel's ABI (`struct robust_list_head`) the head tells how far from the
    // link a mutex's word is, and the lowest bit of a link is not part of it.
    unsafe {
        let id: u32 = read(pointer, offsets.tid);
        let distance: isize = read(head, 8);
        let mut link = read::<usize>(head, 0) & !1;
        for _ in 0..ROBUST {
            if link == head {
                break;
            }
            let word: &AtomicU32 =
                &*ptr::with_exposed_provenance(link.wrapping_add_signed(distance));
            link = read::<usize>(link, 0) & !1;
            let owned = |now: u32| now & libc::FUTEX_TID_MASK == id;
            let died =
                |now| owned(now).then_some(now & libc::FUTEX_WAITERS | libc::FUTEX_OWNER_DIED);
            // Release: the next owner sees the guarded data as this thread has left them.
            let before = word.fetch_update(Ordering::Release, Ordering::Relaxed, died);
            if before.is_ok_and(|before| before & libc::FUTEX_WAITERS != 0) {
                libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1);
            }
        }
    }
}
