//! What glibc's `malloc` keeps for a thread: a green thread uses what its OS thread has.
//!
//! `malloc` has two words in the C library's thread-locals: the address of a cache of freed memory,
//! which may hold tens of KiB, and the address of the *arena* from which the thread gets new memory. If each green thread
//! had words of its own, each would fill a cache of its own. So the OS thread lends its two words to each block
//! on which it runs.
//!
//! 1. No green thread leaves its stack inside of `malloc`, because `malloc` calls nothing of the program's. So only one
//!    thread at a time uses the words of an OS thread, as `malloc` expects.
//! 2. When a block becomes the running one, it gets the words of this OS thread. The block remembers whose
//!    words it has, by a number that no two OS threads have ([`LentWords`]). Addresses would not do: when an OS thread has
//!    ended, another one may get the same addresses, also that of the cache.
//! 3. A block that nobody runs on may have the words of an OS thread that has ended. Code that calls a function
//!    on that block lends it other words first (`visit.rs`).
//! 4. The words of an OS thread do not change from its first `malloc` until it ends, with one exception:
//!    if the main arena has no memory, `malloc` gives the thread another arena and counts the thread out of
//!    the main one. If the word were lent, this would happen several times. So the address of the main
//!    arena is not lent. The block has the word of a new thread instead, and its thread asks for an arena by itself. The
//!    main arena is a variable of the C library, so its address lies in the C library. The same holds for
//!    the empty cache with which threads of glibc 2.42 begin.
//! 5. Which words these are is tried out (`heap_probe.rs`).
#![allow(
    unsafe_code,
    reason = "reads and writes thread-locals of the C library's"
)]

use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::machine;
use super::memory::{read, symbol, write};

/// Words that `malloc` has in the C library's thread-locals.
const WORDS: usize = 2;

/// Bytes of the pieces of memory that are asked for: small enough for any cache.
pub(super) const PIECE: usize = 24;

/// What `malloc` keeps for a thread in the C library's thread-locals.
#[derive(Debug)]
pub(super) enum Heap {
    /// Nothing. Another `malloc` may keep something elsewhere, which does not concern this file.
    Nothing,
    /// These words.
    Words(Words),
    /// Something unknown: it stays with its block.
    Unknown,
}

/// The words, each by its distance from the thread pointer. If there is only one word, it is here twice.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) offsets: [isize; WORDS],
    /// What a new thread has there.
    pub(super) new: [usize; WORDS],
    /// The C library's own memory, whose addresses are not lent.
    pub(super) library: Range<usize>,
    pub(super) allocator: Allocator,
}

/// `malloc` and `free` of the C library.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocator {
    pub(super) malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    pub(super) free: unsafe extern "C" fn(*mut c_void),
}

/// What an OS thread lends to the blocks on which it runs. Only that OS thread touches it.
#[derive(Debug, Default)]
pub(crate) struct LentWords {
    /// Zero: nothing is lent.
    id: Cell<usize>,
    words: [Cell<usize>; WORDS],
}

impl LentWords {
    #[inline(always)]
    pub(crate) fn id(&self) -> usize {
        self.id.get()
    }
}

impl Heap {
    /// Notes what the running OS thread lends from now on.
    pub(crate) fn note_lent_words(&self, lent: &LentWords) {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let Self::Words(words) = self else {
            return;
        };
        words.allocator.use_once();
        let its = words.lendable(words.of(machine::pointer()));
        for (cell, word) in lent.words.iter().zip(its) {
            cell.set(word);
        }
        lent.id.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// Lends the words of the OS thread to a block.
    ///
    /// # Safety
    /// The block is the caller's, nobody runs on it, and it will run on this OS thread next.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn lend(&self, pointer: usize, lent: &LentWords) {
        if let Self::Words(words) = self {
            // SAFETY: by contract; the offsets are those of two words of each block.
            unsafe { words.write(pointer, lent.words.each_ref().map(Cell::get)) };
        }
    }

    /// Calls `f` while a block has the words of the running thread. Afterwards the running thread has them again.
    ///
    /// # Safety
    /// The block is the caller's, and nobody runs on it but `f`.
    pub(super) unsafe fn while_lent(&self, pointer: usize, f: impl FnOnce()) {
        let Self::Words(words) = self else {
            f();
            return;
        };
        let host = machine::pointer();
        // SAFETY: by contract, and the running thread's own; `malloc` is not running.
        unsafe {
            words.write(pointer, words.of(host));
            f();
            words.write(host, words.of(pointer));
        }
    }
}

impl Words {
    /// What is there.
    pub(super) fn of(&self, pointer: usize) -> [usize; WORDS] {
        // SAFETY: the offsets are those of two words of each thread.
        self.offsets.map(|place| unsafe { read(pointer, place) })
    }

    /// # Safety
    /// The block is the caller's or the running thread's.
    pub(super) unsafe fn write(&self, pointer: usize, words: [usize; WORDS]) {
        for (place, word) in self.offsets.into_iter().zip(words) {
            // SAFETY: by contract; as in `of`.
            unsafe { write(pointer, place, word) };
        }
    }

    /// What is lent of these words (4).
    pub(super) fn lendable(&self, words: [usize; WORDS]) -> [usize; WORDS] {
        let mut its = words;
        for (word, new) in its.iter_mut().zip(self.new) {
            if *word == 0 || self.library.contains(word) {
                *word = new;
            }
        }
        its
    }

    pub(super) fn offsets(&self) -> &[isize] {
        &self.offsets
    }
}

impl Allocator {
    /// The functions of the C library, even if the program has another `malloc`.
    pub(super) fn of_the_library() -> Option<Self> {
        let pair = |malloc: &CStr, free: &CStr| {
            let (malloc, free) = (symbol(malloc).ok()?, symbol(free).ok()?);
            // SAFETY: the names are functions of these types.
            Some(unsafe {
                use std::mem::transmute;
                Self {
                    malloc: transmute::<*mut c_void, unsafe extern "C" fn(usize) -> *mut c_void>(
                        malloc,
                    ),
                    free: transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(free),
                }
            })
        };
        pair(c"__libc_malloc", c"__libc_free").or_else(|| pair(c"malloc", c"free"))
    }

    /// Gets a piece of memory and gives it back. Returns its address.
    pub(super) fn use_once(&self) -> usize {
        // SAFETY: `free` gets what `malloc` has made. Both are called by address, so that the compiler leaves
        // neither of them out.
        unsafe {
            let piece = (self.malloc)(PIECE);
            (self.free)(piece);
            piece.expose_provenance()
        }
    }
}
