//! One green thread's block of thread-locals, and the pool of blocks.
//!
//! | state | whose             | leaves by                                             |
//! |-------|-------------------|-------------------------------------------------------|
//! | idle  | a worker's or the pool's | [`Own::start`], which makes it as a new thread's |
//! | live  | one green thread's | [`Cache::put`], after [`Own::finish`] in the thread  |
//!
//! 1. A block is written from outside only while its thread does not run.
//! 2. It is freed when nobody has needed it for a while (`pool.rs`).
#![allow(
    unsafe_code,
    reason = "runs on other thread-locals than the compiler knows of"
)]

use std::ffi::c_int;
use std::num::NonZeroUsize;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::heap::Lent;
use super::layout::{Own, TABLE_LENGTH, TABLE_SURPLUS, Value, read, write};
use super::libraries::Images;
use super::{machine, pool, slabs};
use crate::parts::coroutine::{Coroutine, Resumed};
use crate::shim::here::{self, Front, Here, Host};

/// Blocks that a worker keeps; half of them go to the pool, or come from there, at a time.
const KEEP: usize = 32;

/// Rounds of destructors of pthread values: `PTHREAD_DESTRUCTOR_ITERATIONS` of `limits.h`.
const ROUNDS: usize = 4;

/// Robust mutexes that a thread may hold at its end: `ROBUST_LIST_LIMIT` of the kernel.
const ROBUST: usize = 2048;

/// A block, owned, by its thread pointer.
#[derive(Debug)]
#[must_use = "a block that is dropped is lost"]
pub(crate) struct Block(NonZeroUsize);

impl Block {
    #[inline(always)]
    pub(super) fn pointer(&self) -> usize {
        self.0.get()
    }
}

/// A worker's own blocks, the hottest last, and what they are made new from.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    blocks: Vec<Block>,
    images: Option<Arc<Images>>,
}

impl Cache {
    /// A block as a new thread's. `None`: there is no memory for one.
    #[inline]
    pub(crate) fn get(&mut self, own: &Own) -> Option<Block> {
        let version = own.version();
        if !self.images.as_ref().is_some_and(|it| it.are_of(version)) {
            self.images = Some(own.newest_images()?);
        }
        let block = self.blocks.pop().or_else(|| self.refill(own))?;
        let images = self.images.as_ref().expect("seen above");
        // SAFETY: the block is idle and ours.
        unsafe {
            own.renew_kept(block.pointer());
            images.renew(own, block.pointer());
        }
        Some(block)
    }

    #[cold]
    fn refill(&mut self, own: &Own) -> Option<Block> {
        pool::take(KEEP / 2, &mut self.blocks);
        self.blocks.pop().or_else(|| own.make())
    }

    /// Takes back a block whose thread has ended.
    #[inline]
    pub(crate) fn put(&mut self, block: Block) {
        if self.blocks.len() >= KEEP {
            pool::put(self.blocks.drain(..KEEP / 2));
        }
        self.blocks.push(block);
    }

    /// Leaves all blocks to the pool; for a worker that will sleep for long.
    pub(crate) fn flush(&mut self) {
        if !self.blocks.is_empty() {
            pool::put(self.blocks.drain(..));
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The same without a worker.
pub(crate) fn release(block: Block) {
    pool::put(std::iter::once(block));
}

impl Own {
    /// Makes a block, as the C library does for a new thread.
    #[cold]
    pub(super) fn make(&self) -> Option<Block> {
        let id = self.ids.make()?;
        let Some(pointer) = slabs::make(self.allocate) else {
            self.ids.give_back(id);
            return None;
        };
        let block = Block(pointer);
        let pointer = block.pointer();
        if self.trims {
            // SAFETY: the block is new and ours.
            unsafe { self.trim_table(pointer) };
        }
        let places = &self.places;
        let at = |offset: isize| pointer.wrapping_add_signed(offset);
        // SAFETY: the block is new and ours, and all places lie in its control block (`layout.rs`)
        // but for `resolver`, a thread-local of the C library's.
        unsafe {
            for &offset in machine::SELF {
                write(pointer, offset.cast_signed(), pointer);
            }
            for &(offset, word) in &self.common {
                write(pointer, offset.cast_signed(), word);
            }
            for &offset in machine::COMMON_HALF {
                let offset = places.control + offset.cast_signed();
                let word: u32 = read(machine::pointer(), offset);
                write(pointer, offset, word);
            }
            write(pointer, places.tid, id);
            // An empty list leads to itself. `fork` takes the thread out of this one.
            write(pointer, places.list, [at(places.list); 2]);
            self.empty_robust(pointer);
            // How far a mutex's word is from its link: the same for all.
            let distance: usize = read(machine::pointer(), places.robust + 8);
            write(pointer, places.robust + 8, distance);
            write(pointer, places.values, at(places.first_values));
            write(pointer, places.resolver, at(places.resolver_state));
            if let Some(offset) = self.rseq {
                // The kernel does not keep the number of the processor here: -2 says so.
                const UNREGISTERED: i32 = -2;
                write(pointer, offset + 4, UNREGISTERED);
            }
        }
        Some(block)
    }

    /// Gives back the room in the block's table for libraries that may be loaded later: 200 bytes
    /// of 300. The C library makes the table larger when it needs to, by `realloc`.
    ///
    /// # Safety
    /// The block is new and the caller's.
    unsafe fn trim_table(&self, pointer: usize) {
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
            let memory = (self.reallocate)(memory, ENTRY * (most + 2)).expose_provenance();
            if memory != 0 {
                write(memory, 0, most);
                let table = memory.wrapping_add_signed(-TABLE_LENGTH);
                write(pointer, machine::TABLE.cast_signed(), table);
            }
        }
    }

    /// The images as they are now. `None`: there is no memory to look.
    #[cold]
    fn newest_images(&self) -> Option<Arc<Images>> {
        let mut newest = self
            .images
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*newest {
            Some(images) if images.are_of(self.version()) => Some(Arc::clone(images)),
            _ => {
                let images = self.look_at_images().ok()?;
                Some(Arc::clone(newest.insert(images)))
            }
        }
    }

    /// Gives the block, which is as a new thread's, to this green thread.
    #[inline]
    pub(crate) fn start(&self, block: &Block, header: *const Front) {
        let pointer = block.pointer();
        // SAFETY: the block is idle and the caller's.
        unsafe {
            write::<c_int>(pointer, self.places.errno, 0);
            // Nobody has lent it anything yet: `libraries.rs` has made `Here` new.
            here::arrive(self.here(pointer), header);
        }
    }

    /// The beginning of a thread. On the thread itself.
    #[inline]
    pub(crate) fn begin(&self) {
        // SAFETY: it writes thread-locals of the C library's, of the running thread.
        unsafe { (self.init_ctype)() };
    }

    pub(super) fn here(&self, pointer: usize) -> *const Here {
        ptr::with_exposed_provenance(pointer.wrapping_add_signed(self.places.here))
    }

    /// Makes the block the running one, for a carrier that resumes its green thread next.
    ///
    /// Inlined, as is all between this and [`leave`](Self::leave) that switches stacks, because a
    /// return behind a switch is never predicted: 10 ns. The compiler takes the thread pointer for a
    /// constant, so the function that this is inlined into touches no thread-local itself but by
    /// calls that are not inlined; one of them on either side keeps out what it might move there.
    ///
    /// # Safety
    /// The block is that of a green thread that the caller alone may run; `carrier` and `lent` are the
    /// running OS thread's.
    #[inline(always)]
    pub(crate) unsafe fn arrive(&self, block: &Block, carrier: *const Host, lent: &Lent) {
        let pointer = block.pointer();
        // SAFETY: the block is complete, and nobody runs on it.
        unsafe {
            if !here::drive(self.here(pointer), carrier, lent.id()) {
                self.lend(pointer, lent);
            }
            machine::set_pointer(pointer);
        }
    }

    /// Makes the OS thread's own block the running one again.
    ///
    /// # Safety
    /// `host` is the running OS thread's pointer.
    #[inline(always)]
    #[allow(clippy::unused_self, reason = "elsewhere there is nothing to leave")]
    pub(crate) unsafe fn leave(&self, host: usize) {
        // SAFETY: by contract.
        unsafe { machine::set_pointer(host) };
        border();
    }

    /// Runs the green thread on its block until it leaves its stack.
    ///
    /// # Safety
    /// The coroutine is the one whose thread has the block; `host` is the running OS thread's
    /// pointer, `carrier` drives it, and `lent` is what it lends.
    #[inline(always)]
    pub(super) unsafe fn resume<N>(
        &self,
        coroutine: &mut Coroutine<(), N>,
        block: &Block,
        carrier: *const Host,
        lent: &Lent,
        host: usize,
    ) -> Resumed<N> {
        // SAFETY: by contract; no thread-local is touched in between, and the pointer is the OS
        // thread's again after it. `resume` does not unwind: no panic leaves a coroutine.
        unsafe {
            self.arrive(block, carrier, lent);
            let resumed = coroutine.resume(());
            self.leave(host);
            resumed
        }
    }

    /// The end of a thread: runs the destructors of its thread-locals. On the thread itself.
    pub(crate) fn finish(&self) {
        for _ in 0..ROUNDS {
            // SAFETY: the running thread's own.
            unsafe { (self.call_destructors)() };
            // The destructor of a value may have used a thread-local for the first time.
            if !self.drop_values() {
                break;
            }
        }
        self.leave_robust();
    }

    /// Runs the destructors of the running thread's pthread values, as the C library does at the
    /// end of a thread. False: there was none to run.
    fn drop_values(&self) -> bool {
        let pointer = machine::pointer();
        let table = self.places.values;
        // Behind the table: whether there are values at all.
        let used = table + 32 * 8;
        let mut any = false;
        // In one round more what is left is forgotten.
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
                        let key = self.keys.0.add(32 * block + index);
                        let known =
                            (*value).sequence == ptr::read_volatile(&raw const (*key).sequence);
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
    /// ends: whoever locks one next is told `EOWNERDEAD`.
    fn leave_robust(&self) {
        let pointer = machine::pointer();
        // SAFETY: the running thread's own control block.
        unsafe {
            let head = pointer.wrapping_add_signed(self.places.robust);
            if read::<usize>(head, 0) != head {
                self.leave_mutexes(pointer, head);
                self.empty_robust(pointer);
            }
        }
    }

    /// # Safety
    /// The block is the running thread's, and its list is not empty.
    #[cold]
    unsafe fn leave_mutexes(&self, pointer: usize, head: usize) {
        // SAFETY: the list leads from mutex to mutex that the thread has locked and not unlocked, and
        // so are valid; by the kernel's ABI (`struct robust_list_head`) the head tells how far from the
        // link a mutex's word is, and the lowest bit of a link is not part of it.
        unsafe {
            let id: u32 = read(pointer, self.places.tid);
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
                // Release: who locks it next sees what it guards as this thread has left it.
                let told = word.fetch_update(Ordering::Release, Ordering::Relaxed, died);
                if told.is_ok_and(|before| before & libc::FUTEX_WAITERS != 0) {
                    libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1);
                }
            }
        }
    }
}

/// A call beyond which the compiler moves no instruction.
#[inline(never)]
fn border() {
    // SAFETY: it is empty.
    unsafe { std::arch::asm!("", options(nostack, preserves_flags)) };
}

/// The running OS thread's pointer.
pub(crate) fn host_pointer() -> usize {
    machine::pointer()
}
