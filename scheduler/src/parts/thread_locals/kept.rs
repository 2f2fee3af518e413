//! What the C library keeps for each thread, and does not clean up by destructors: `errno`, the locale
//! of `uselocale(3)`, whether `pthread_cancel(3)` counts, the last error of `dlerror(3)`, the buffers
//! of `strerror(3)` and `strsignal(3)`, the resolver's state, what `malloc` has in reserve.
//!
//! A new OS thread begins without all that. So must a green thread, even on a block that was used before. What
//! `malloc` keeps belongs to the OS thread on which the green thread runs (`heap.rs`). If it is not known what `malloc`
//! keeps, it stays with the block, because only the C library could free it.
//!
//! Where things are is tried out (`kept_probe.rs`). The thread-locals of the C library are few words (18
//! of glibc 2.36):
//!
//! | words                           | in a block that is used again                       |
//! |---------------------------------|-----------------------------------------------------|
//! | `malloc`'s, the resolver's pointer | stay                                             |
//! | tables of character classes     | stay; the thread itself asks for them when it begins |
//! | what is to be freed             | is freed, then as in the image                      |
//! | all others                      | as in the image                                     |
//!
//! If nothing must be freed, a start calls nothing: it compares a few words, and copies the others.
#![allow(
    unsafe_code,
    reason = "reads, writes and frees what the C library keeps in a block"
)]

use std::ffi::{c_char, c_int};
use std::ptr;

use super::destructors::finish;
use super::heap::Heap;
use super::layout::CLibrary;
use super::memory::{read, write};
use super::visit::on_block;

/// Bytes of `struct __res_state`, the resolver's state, by its ABI.
pub(super) const RESOLVER_BYTES: usize = 568;

/// `LC_GLOBAL_LOCALE` of `locale.h`.
const GLOBAL_LOCALE: libc::locale_t = ptr::without_provenance_mut(usize::MAX);

/// Words that hold what the C library keeps, from the thread pointer, and what else is known of it.
#[derive(Debug)]
pub(super) struct Kept {
    /// The first of the C library's thread-locals.
    pub(super) start: isize,
    /// First, for each word, a mask of the bits that stay; then the values of the other bits. These are two lists, so
    /// that the compiler handles several words at a time.
    pub(super) stay: Box<[u64]>,
    pub(super) image: Box<[u64]>,
    /// Pointers to memory that is to be freed: null in a new thread.
    pub(super) buffers: Box<[isize]>,
    /// The error that `dlerror` tells of next: null in a new thread.
    pub(super) error: Option<isize>,
    /// Half words about cancellation, and what a new thread has there.
    pub(super) cancel: Box<[(isize, u32)]>,
    /// Closes the sockets of a resolver's state, and frees what it points to.
    pub(super) close_resolver: Option<unsafe extern "C" fn(usize)>,
}

impl Kept {
    /// Makes what the C library keeps like that of a new thread. The libraries' thread-locals are made new
    /// afterwards, because this may run code that uses them.
    ///
    /// # Safety
    /// The block is the caller's, and nobody runs on it.
    #[inline]
    pub(super) unsafe fn renew(&self, library: &CLibrary, heap: &Heap, pointer: usize) {
        let offsets = &library.offsets;
        // SAFETY: by contract; the offsets were found in a block of this layout.
        unsafe {
            // Seconds between tries, tries, options: set when the state is made.
            let resolver: [u64; 2] = read(pointer, offsets.resolver_state);
            let mut used = resolver[0] | resolver[1];
            for &offset in &self.buffers {
                used |= read::<u64>(pointer, offset);
            }
            if let Some(offset) = self.error {
                used |= read::<u64>(pointer, offset);
            }
            if used != 0 {
                self.free(library, heap, pointer);
            }
            let start = pointer.wrapping_add_signed(self.start);
            let words = std::slice::from_raw_parts_mut(
                ptr::with_exposed_provenance_mut::<u64>(start),
                self.stay.len(),
            );
            for ((word, stay), image) in words.iter_mut().zip(&self.stay).zip(&self.image) {
                *word = *word & stay | image;
            }
            for &(offset, half) in &self.cancel {
                write(pointer, offset, half);
            }
            offsets.empty_robust(pointer);
        }
    }

    /// Frees what the C library keeps for the last thread of the block.
    ///
    /// # Safety
    /// As in `renew`.
    #[cold]
    #[inline(never)]
    unsafe fn free(&self, library: &CLibrary, heap: &Heap, pointer: usize) {
        unsafe extern "C" {
            fn dlerror() -> *const c_char;
        }
        let resolver = pointer.wrapping_add_signed(library.offsets.resolver_state);
        // SAFETY: by contract; the words were seen to be pointers to memory of malloc's. The resolver's
        // state is complete if it has name servers.
        unsafe {
            let error = self.error.map_or(0, |offset| read(pointer, offset));
            if error != 0_usize {
                on_block(&library.offsets, heap, pointer, || {
                    // The thread may have used a locale that is gone.
                    libc::uselocale(GLOBAL_LOCALE);
                    // Tells of it, then frees it.
                    dlerror();
                    dlerror();
                    // Another `malloc` may have begun to keep something here. It must not use that when another thread has
                    // the block, or when the block is gone.
                    finish(library);
                });
            }
            for &offset in &self.buffers {
                let buffer: usize = read(pointer, offset);
                write(pointer, offset, 0_usize);
                (library.free)(ptr::with_exposed_provenance_mut(buffer));
            }
            let servers: c_int = read(resolver, 16);
            if servers != 0
                && let Some(close) = self.close_resolver
            {
                close(resolver);
            }
            ptr::with_exposed_provenance_mut::<u8>(resolver).write_bytes(0, RESOLVER_BYTES);
        }
    }
}
