//! Which words `malloc` keeps for a thread (`heap.rs`): tried out.
//!
//! `malloc` is called for the first time on a new block. The words that change there are the words of `malloc`. Then a
//! second block gets these words. If the guess is right, `malloc` returns the memory on the second block that was freed
//! on the first, and changes nothing else there. Otherwise nothing is lent.
#![allow(
    unsafe_code,
    reason = "reads and writes thread-locals of the C library's"
)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;

use super::block::Block;
use super::heap::{Allocator, Heap, Words};
use super::ids::Ids;
use super::layout::CLibrary;
use super::libraries::{libraries, place};
use super::memory::read;
use super::pool;
use super::visit::on_block;

/// Tries it out on two new blocks.
pub(super) fn find(library: &CLibrary, ids: &Ids) -> Heap {
    let make = || Block::make(library, ids);
    let Some((first, second)) = make().zip(make()) else {
        return Heap::Unknown;
    };
    let found = try_out(library, &first, &second);
    // The cache of the first block is lost. It has one piece.
    pool::release(first);
    pool::release(second);
    found.unwrap_or(Heap::Unknown)
}

fn try_out(library: &CLibrary, first: &Block, second: &Block) -> Option<Heap> {
    let allocator = Allocator::of_the_library()?;
    let (first, second) = (first.pointer(), second.pointer());
    let all = libraries();
    let its = all.iter().find(|it| it.base == library.begins())?;
    // SAFETY: the block is complete.
    let start = unsafe { place(first, its.number) }?
        .wrapping_sub(first)
        .cast_signed();
    if start % 8 != 0 {
        return None;
    }
    let offsets: Vec<isize> = (0..its.bytes / 8)
        .map(|index| start + 8 * index.cast_signed())
        .filter(|&place| place != library.offsets.errno & !7)
        .collect();
    let look = |pointer: usize| {
        // SAFETY: all offsets lie in each block, whose layout is the same.
        let words = offsets.iter().map(|&place| unsafe { read(pointer, place) });
        words.collect::<Vec<usize>>()
    };
    let use_on = |pointer: usize| {
        let piece = Cell::new(0);
        // SAFETY: nobody runs on the block. What `malloc` gives is given back.
        unsafe {
            on_block(&library.offsets, &Heap::Unknown, pointer, || {
                piece.set(allocator.use_once());
            });
        }
        piece.get()
    };
    // If a word points into its block, it differs between the two blocks.
    let (new, new_second) = (look(first), look(second));
    // From the second time on it is always the same piece. The first time the cache may get all pieces of this size that
    // another thread has left in an arena. Then the cache is full, and does not take the piece back.
    use_on(first);
    let piece = use_on(first);
    let used = look(first);
    let changed: Vec<usize> = (0..new.len())
        .filter(|&index| new[index] != used[index])
        .collect();
    let (&one, &other) = match &*changed {
        [] => return Some(Heap::Nothing),
        [one] => (one, one),
        [one, other] => (one, other),
        _ => return None,
    };
    let words = Words {
        offsets: [one, other].map(|index| offsets[index]),
        new: [one, other].map(|index| new[index]),
        library: memory_of(library.begins())?,
        allocator,
    };
    // SAFETY: the block is new and ours.
    unsafe { words.write(second, words.of(first)) };
    let is_shared = use_on(second) == piece && use_on(first) == piece;
    let (first, second, second_block) = (look(first), look(second), second);
    // Two blocks with one cache must never run at the same time. They might, if nothing is lent.
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
    (is_shared && (0..new.len()).all(is_as_expected)).then_some(Heap::Words(words))
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

    use crate::parts::thread_locals::block::Block;
    use crate::parts::thread_locals::heap::{Allocator, Heap, LentWords, PIECE, Words};
    use crate::parts::thread_locals::host::host_pointer;
    use crate::parts::thread_locals::own::Support;
    use crate::parts::thread_locals::pool::release;
    use crate::parts::thread_locals::self_test::support;

    fn words(own: &Support) -> &Words {
        match &own.heap {
            Heap::Words(words) => words,
            other => panic!("glibc's malloc is not understood: {other:?}"),
        }
    }

    /// As a green thread's turn, in which it uses `malloc`.
    #[inline(never)]
    fn run_on(
        own: &Support,
        block: &Block,
        lent: &LentWords,
        allocator: Allocator,
        host: usize,
    ) -> usize {
        // SAFETY: the block is the caller's, and `host` the running OS thread's.
        unsafe {
            own.arrive(block, ptr::null(), lent);
            let piece = allocator.use_once();
            own.depart(host);
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
                let lent = LentWords::default();
                own.note_lent_words(&lent);
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
            let own = Support::find().unwrap();
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
