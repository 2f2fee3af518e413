//! What glibc's `malloc` keeps for a thread: a green thread uses what its OS thread has.
//!
//! `malloc` has two words in the C library's thread-locals: the address of a cache of freed memory,
//! which may hold tens of KiB, and that of the *arena* that the thread gets new memory from. With words
//! of its own each green thread would fill a cache of its own. So the OS thread lends each block that
//! it runs on its own two words.
//!
//! 1. No green thread leaves its stack inside of `malloc`, which calls nothing of the program's. So one
//!    thread at a time uses the words of an OS thread, as `malloc` expects.
//! 2. When a block becomes the running one, it has the words of this OS thread. The block remembers whose
//!    words it has by a number that no two OS threads have ([`Lent`]): the addresses of an OS thread
//!    that has ended, its cache's among them, may be those of another one later.
//! 3. A block that nobody runs on may have the words of an OS thread that has ended. Who calls a function
//!    there lends it others first (`Own::on_block`).
//! 4. The words of an OS thread do not change from its first `malloc` until it ends, with one exception:
//!    where the main arena has no memory, `malloc` gives the thread another arena and counts it out of
//!    the main one. If the word were lent, it would be counted out several times. So the address of the main
//!    arena is not lent, and a block has there what a new thread has: its thread asks for an arena by itself. The
//!    main arena is a variable of the C library, so it is known by where it lies. The same holds for
//!    the empty cache that threads of glibc 2.42 begin with.
//! 5. Which words these are is tried out ([`Heap::find`]): on a new block `malloc` is called for the first
//!    time, and what changes there are the words. If a second block is given them, it must get
//!    the memory that was freed on the first, and nothing else may change there. Otherwise
//!    nothing is lent.
#![allow(
    unsafe_code,
    reason = "reads and writes thread-locals of the C library's"
)]

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::block::{Block, release};
use super::layout::{Own, read, symbol, write};
use super::libraries::{libraries, place};
use super::machine;

/// Words that `malloc` has in the C library's thread-locals.
const WORDS: usize = 2;

/// Bytes of the pieces of memory that are asked for: small enough for any cache.
const PIECE: usize = 24;

/// What `malloc` keeps for a thread in the C library's thread-locals.
#[derive(Debug)]
pub(super) enum Heap {
    /// Nothing. What another `malloc` keeps elsewhere is its own affair.
    Nothing,
    /// These words.
    Words(Words),
    /// Something that is not understood: it stays with its block.
    Unknown,
}

/// The words, each by its distance from the thread pointer. Where there is only one, it is there twice.
#[derive(Debug)]
pub(super) struct Words {
    places: [isize; WORDS],
    /// What a new thread has there.
    new: [usize; WORDS],
    /// The C library's own memory, whose addresses are not lent.
    library: Range<usize>,
    allocator: Allocator,
}

/// `malloc` and `free` of the C library.
#[derive(Clone, Copy, Debug)]
struct Allocator {
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

/// What an OS thread lends to the blocks that it runs on. Only that OS thread touches it.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    /// Zero: nothing is lent.
    id: Cell<usize>,
    words: [Cell<usize>; WORDS],
}

impl Lent {
    #[inline(always)]
    pub(crate) fn id(&self) -> usize {
        self.id.get()
    }
}

impl Own {
    /// Notes what the running OS thread lends from now on.
    pub(crate) fn note_lent(&self, lent: &Lent) {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let Heap::Words(words) = &self.heap else {
            return;
        };
        words.allocator.use_once();
        let its = words.lendable(words.of(machine::pointer()));
        for (cell, word) in lent.words.iter().zip(its) {
            cell.set(word);
        }
        lent.id.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// Lends a block what the OS thread has.
    ///
    /// # Safety
    /// The block is the caller's, nobody runs on it, and it will run on this OS thread next.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn lend(&self, pointer: usize, lent: &Lent) {
        if let Heap::Words(words) = &self.heap {
            // SAFETY: by contract; the places are those of two words of each block.
            unsafe { words.write(pointer, lent.words.each_ref().map(Cell::get)) };
        }
    }

    /// Calls `f` while a block has the words of the running thread, which then has them back.
    ///
    /// # Safety
    /// The block is the caller's, and nobody runs on it but `f`.
    pub(super) unsafe fn while_lent(&self, pointer: usize, f: impl FnOnce()) {
        let Heap::Words(words) = &self.heap else {
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
    fn of(&self, pointer: usize) -> [usize; WORDS] {
        // SAFETY: the places are those of two words of each thread.
        self.places.map(|place| unsafe { read(pointer, place) })
    }

    /// # Safety
    /// The block is the caller's or the running thread's.
    unsafe fn write(&self, pointer: usize, words: [usize; WORDS]) {
        for (place, word) in self.places.into_iter().zip(words) {
            // SAFETY: by contract; as in `of`.
            unsafe { write(pointer, place, word) };
        }
    }

    /// What is lent of these words (4).
    fn lendable(&self, words: [usize; WORDS]) -> [usize; WORDS] {
        let mut its = words;
        for (word, new) in its.iter_mut().zip(self.new) {
            if *word == 0 || self.library.contains(word) {
                *word = new;
            }
        }
        its
    }

    pub(super) fn places(&self) -> &[isize] {
        &self.places
    }
}

impl Allocator {
    /// The C library's, even where the program has another `malloc`.
    fn of_the_library() -> Option<Self> {
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

    /// Where the piece was that it got and gave back.
    fn use_once(&self) -> usize {
        // SAFETY: what the one has made the other frees; by address, so that the compiler leaves
        // neither out.
        unsafe {
            let piece = (self.malloc)(PIECE);
            (self.free)(piece);
            piece.expose_provenance()
        }
    }
}

impl Heap {
    /// Tries it out on two new blocks. `library`: where the C library begins.
    pub(super) fn find(own: &Own, library: usize) -> Self {
        let Some((first, second)) = own.make().zip(own.make()) else {
            return Self::Unknown;
        };
        let found = Self::try_out(own, library, &first, &second);
        // The cache of the first is lost: one piece.
        release(first);
        release(second);
        found.unwrap_or(Self::Unknown)
    }

    fn try_out(own: &Own, library: usize, first: &Block, second: &Block) -> Option<Self> {
        let allocator = Allocator::of_the_library()?;
        let (first, second) = (first.pointer(), second.pointer());
        let all = libraries();
        let its = all.iter().find(|it| it.base == library)?;
        // SAFETY: the block is complete.
        let start = unsafe { place(first, its.number) }?
            .wrapping_sub(first)
            .cast_signed();
        if start % 8 != 0 {
            return None;
        }
        let places: Vec<isize> = (0..its.bytes / 8)
            .map(|index| start + 8 * index.cast_signed())
            .filter(|&place| place != own.places.errno & !7)
            .collect();
        let look = |pointer: usize| {
            // SAFETY: all places lie in each block, whose layout is the same.
            let words = places.iter().map(|&place| unsafe { read(pointer, place) });
            words.collect::<Vec<usize>>()
        };
        let use_on = |pointer: usize| {
            let piece = Cell::new(0);
            // SAFETY: nobody runs on the block. What `malloc` gives is given back.
            unsafe { own.on_block(pointer, || piece.set(allocator.use_once())) };
            piece.get()
        };
        // They differ where a word points into its block.
        let (new, new_second) = (look(first), look(second));
        // The second time it is the same piece for good. The first time the cache may get all that an arena
        // has of this size, which another thread has left; then it is full, and does not take the piece back.
        use_on(first);
        let piece = use_on(first);
        let used = look(first);
        let changed: Vec<usize> = (0..new.len())
            .filter(|&index| new[index] != used[index])
            .collect();
        let (&one, &other) = match &*changed {
            [] => return Some(Self::Nothing),
            [one] => (one, one),
            [one, other] => (one, other),
            _ => return None,
        };
        let words = Words {
            places: [one, other].map(|index| places[index]),
            new: [one, other].map(|index| new[index]),
            library: memory_of(library)?,
            allocator,
        };
        // SAFETY: the block is new and ours.
        unsafe { words.write(second, words.of(first)) };
        let is_shared = use_on(second) == piece && use_on(first) == piece;
        let (first, second, second_block) = (look(first), look(second), second);
        // Two blocks that have one cache must never run at the same time, as they might if nothing is lent.
        // SAFETY: as above.
        unsafe { words.write(second_block, words.new) };
        let is_as_expected = |index: usize| {
            let expected = if changed.contains(&index) {
                &used
            } else {
                &new_second
            };
            first[index] == used[index] && second[index] == expected[index]
        };
        (is_shared && (0..new.len()).all(is_as_expected)).then_some(Self::Words(words))
    }
}

/// From the beginning of a library to its end.
fn memory_of(library: usize) -> Option<Range<usize>> {
    struct Asked {
        library: usize,
        end: usize,
    }
    unsafe extern "C" fn see(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        asked: *mut c_void,
    ) -> c_int {
        // SAFETY: the C library passes a valid structure, and back what it was given.
        let (info, asked) = unsafe { (&*info, &mut *asked.cast::<Asked>()) };
        if info.dlpi_addr as usize == asked.library {
            for index in 0..usize::from(info.dlpi_phnum) {
                // SAFETY: there are so many headers.
                let header = unsafe { &*info.dlpi_phdr.add(index) };
                if header.p_type == libc::PT_LOAD {
                    let end = asked.library + (header.p_vaddr + header.p_memsz) as usize;
                    asked.end = asked.end.max(end);
                }
            }
        }
        0
    }
    let mut asked = Asked { library, end: 0 };
    // SAFETY: the callback fits, and what it is given is such a structure.
    unsafe { libc::dl_iterate_phdr(Some(see), ptr::from_mut(&mut asked).cast()) };
    (asked.end > library).then_some(library..asked.end)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::ptr;

    use super::{Allocator, Heap, Lent, Own, PIECE, Words};
    use crate::parts::thread_locals::block::{Block, host_pointer, release};
    use crate::parts::thread_locals::layout;
    use crate::parts::thread_locals::self_test::support;

    fn words(own: &Own) -> &Words {
        match &own.heap {
            Heap::Words(words) => words,
            other => panic!("glibc's malloc is not understood: {other:?}"),
        }
    }

    /// As a green thread's turn, in which it uses `malloc`.
    #[inline(never)]
    fn run_on(own: &Own, block: &Block, lent: &Lent, allocator: Allocator, host: usize) -> usize {
        // SAFETY: the block is the caller's, and `host` the running OS thread's.
        unsafe {
            own.arrive(block, ptr::null(), lent);
            let piece = allocator.use_once();
            own.leave(host);
            piece
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn a_block_has_the_words_of_the_os_thread_that_runs_on_it() {
        let Ok(own) = support() else { return };
        let words = words(own);
        let block = own.make().unwrap();
        // Addresses of OS threads, and of their caches, come again.
        for _ in 0..200 {
            let turn = || {
                let lent = Lent::default();
                own.note_lent(&lent);
                let (host, allocator) = (host_pointer(), words.allocator);
                let piece = allocator.use_once();
                assert_eq!(run_on(own, &block, &lent, allocator, host), piece);
                assert_eq!(words.of(block.pointer()), words.lendable(words.of(host)));
                assert_eq!(run_on(own, &block, &lent, allocator, host), piece);
                assert_eq!(allocator.use_once(), piece);
            };
            std::thread::scope(|scope| scope.spawn(turn).join().unwrap());
        }
        release(block);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn what_others_have_left_in_an_arena_misleads_nobody() {
        let Ok(own) = support() else { return };
        let allocator = words(own).allocator;
        // Leaves an arena behind with many free pieces, which the next thread or block gets.
        let litter = move || {
            // SAFETY: what the one has made the other frees.
            unsafe {
                let pieces: Vec<_> = (0..100).map(|_| (allocator.malloc)(PIECE)).collect();
                for piece in pieces {
                    (allocator.free)(piece);
                }
            }
        };
        for _ in 0..20 {
            std::thread::spawn(litter).join().unwrap();
            // As at the first start in a process.
            let own = layout::find().unwrap();
            assert!(matches!(own.heap, Heap::Words(_)), "{:?}", own.heap);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn the_address_of_the_main_arena_is_not_lent() {
        let Ok(own) = support() else { return };
        let words = words(own);
        let (other, main) = (words.library.end, words.library.end - 1);
        assert_eq!(words.lendable([other, main]), [other, words.new[1]]);
        assert_eq!(words.lendable([main, other]), [words.new[0], other]);
        assert_eq!(words.lendable([0, other]), [words.new[0], other]);
    }
}
