//! All that is known of the C library of this process and of the libraries beside it; and what a carrier and a green
//! thread do with a block of thread-locals: begin on it, go to it, go away from it, end.
#![allow(
    unsafe_code,
    reason = "runs on other thread-locals than the compiler knows of"
)]

use std::ffi::c_int;
use std::sync::{Arc, Mutex};

use super::block::Block;
use super::heap::{Heap, LentWords};
use super::ids::Ids;
use super::images::{Images, version_of};
use super::kept::Kept;
use super::layout::{self, CLibrary};
use super::libraries::Slots;
use super::memory::{Found, write};
use super::visit::on_block;
use super::{destructors, heap_probe, kept_probe, machine};
use crate::shim::here::{self, Front, Host};

/// How thread-locals of a green thread's own work in this process.
#[derive(Debug)]
pub(crate) struct Support {
    pub(super) library: CLibrary,
    /// Tells when libraries come and go.
    slots: Option<Slots>,
    /// The newest images.
    images: Mutex<Option<Arc<Images>>>,
    /// What the C library keeps for each thread.
    pub(super) kept: Kept,
    /// What the C library's `malloc` keeps for each thread.
    pub(super) heap: Heap,
    /// Made-up thread ids.
    pub(super) ids: Ids,
}

impl Support {
    /// Finds all of it out. Called on an OS thread's own block.
    pub(super) fn find() -> Found<Self> {
        let (library, slots, ids) = (layout::find()?, Slots::find(), Ids::new());
        let heap = heap_probe::find(&library, &ids);
        let kept = kept_probe::find(&library, &heap, &ids)?;
        Ok(Self {
            library,
            slots,
            images: Mutex::new(None),
            kept,
            heap,
            ids,
        })
    }

    /// A new block. `None`: there is no memory for one.
    pub(super) fn make(&self) -> Option<Block> {
        Block::make(&self.library, &self.ids)
    }

    /// The version of what the loader knows of.
    #[inline]
    pub(super) fn version(&self) -> usize {
        version_of(self.slots.as_ref())
    }

    /// The images as they are now. `None`: there is no memory to look.
    #[cold]
    pub(super) fn newest_images(&self) -> Option<Arc<Images>> {
        let mut newest = self
            .images
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*newest {
            Some(images) if images.are_of(self.version()) => Some(Arc::clone(images)),
            _ => {
                let images = Images::look(&self.library, self.slots.as_ref()).ok()?;
                Some(Arc::clone(newest.insert(images)))
            }
        }
    }

    /// Calls functions of the C library on another block (`visit.rs`).
    ///
    /// # Safety
    /// As [`on_block`].
    pub(super) unsafe fn on_block(&self, pointer: usize, f: impl FnOnce()) {
        // SAFETY: by contract.
        unsafe { on_block(&self.library.offsets, &self.heap, pointer, f) };
    }

    /// Notes what the running OS thread lends from now on.
    pub(crate) fn note_lent_words(&self, lent: &LentWords) {
        self.heap.note_lent_words(lent);
    }

    /// Gives a block to a green thread. The block is like that of a new thread.
    #[inline]
    pub(crate) fn start(&self, block: &Block, header: *const Front) {
        let pointer = block.pointer();
        // SAFETY: the block is idle and the caller's.
        unsafe {
            write::<c_int>(pointer, self.library.offsets.errno, 0);
            // Nobody has lent it anything yet: `images.rs` has made `Here` new.
            here::arrive(self.library.offsets.here_of(pointer), header);
        }
    }

    /// The beginning of a thread. On the thread itself.
    #[inline]
    pub(crate) fn begin(&self) {
        // SAFETY: it writes thread-locals of the C library's, of the running thread.
        unsafe { (self.library.init_ctype)() };
    }

    /// Goes to the block, for a carrier that resumes the block's green thread next.
    ///
    /// This function is inlined, and so is everything up to [`depart`](Self::depart) that switches stacks: the
    /// processor never predicts a return right, if the stack was switched since the call, which costs 10 ns.
    ///
    /// The compiler takes the thread pointer for a constant. So the function into which this is inlined must not
    /// touch a thread-local itself, only by calls of functions that are not inlined. And the compiler must not move
    /// an access from outside to here. A call that is not inlined prevents that: there is one before this function,
    /// and one at the end of `depart`.
    ///
    /// # Safety
    /// The block is that of a green thread that the caller alone may run; `carrier` and `lent` are the
    /// running OS thread's.
    #[inline(always)]
    pub(crate) unsafe fn arrive(&self, block: &Block, carrier: *const Host, lent: &LentWords) {
        let pointer = block.pointer();
        // SAFETY: the block is complete, and nobody runs on it.
        unsafe {
            if !here::drive(self.library.offsets.here_of(pointer), carrier, lent.id()) {
                self.heap.lend(pointer, lent);
            }
            machine::set_pointer(pointer);
        }
    }

    /// Goes back to the OS thread's own block.
    ///
    /// # Safety
    /// `host` is the running OS thread's pointer.
    #[inline(always)]
    #[allow(clippy::unused_self, reason = "elsewhere there is nothing to do")]
    pub(crate) unsafe fn depart(&self, host: usize) {
        // SAFETY: by contract.
        unsafe { machine::set_pointer(host) };
        border();
    }

    /// The end of a thread: runs the destructors of its thread-locals. On the thread itself.
    pub(crate) fn finish(&self) {
        destructors::finish(&self.library);
    }
}

/// A call beyond which the compiler moves no instruction.
#[inline(never)]
fn border() {
    // SAFETY: it is empty.
    unsafe { std::arch::asm!("", options(nostack, preserves_flags)) };
}
