//! Gives blocks of the pool that were not needed for a while back to the C library.
//!
//! What `malloc` keeps for a thread belongs to the OS thread (`heap.rs`), so a block whose thread has ended holds
//! nothing of it. But if it is not known what `malloc` keeps, it may be in the block. Then only the C library could free
//! it, when a thread ends, by a function that others cannot call. In that case blocks are kept for ever.
//!
//! 1. A block goes back only if the C library's part of it is as in a new block, apart from `malloc`'s words. What a thread has left there (a buffer for a message, the resolver's sockets) is freed
//!    first (`kept.rs`). Others are kept.
#![allow(
    unsafe_code,
    reason = "reads and frees what the C library keeps in a block"
)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::block::Block;
use super::heap::Heap;
use super::ids::FIRST;
use super::libraries::thread_segment;
use super::memory::read;
use super::own::Support;
use super::pool::{LEN, kept, pool, put};
use super::self_test::support;
use super::{machine, slabs};

/// Blocks that nobody has needed for so long are given back. The same time as for stacks.
const WINDOW: Duration = Duration::from_millis(500);

/// The pause between two steps of [`trim`].
const PAUSE: Duration = Duration::from_millis(4);

/// How many blocks are given back before the clock is looked at. Each takes some 0.5 us.
const BATCH: usize = 16;

/// Gives back blocks that nobody has needed for a while, until `stop` returns true. For a worker that is about to sleep.
/// Returns after how long to call this again; `None`: nothing is left to give back.
///
/// If there are no blocks in the pool, it costs one load.
pub(crate) fn trim(now: Instant, stop: impl Fn() -> bool) -> Option<Duration> {
    if LEN.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let own = support().ok()?;
    let fresh = Fresh::of(own)?;
    loop {
        let batch: Vec<Block> = {
            let mut pool = pool();
            if pool.excess == 0 {
                let mark = *pool.next_mark.get_or_insert(now);
                if mark > now {
                    return Some((mark - now).max(PAUSE));
                }
                pool.excess = pool.low;
                pool.low = pool.blocks.len();
                pool.next_mark = Some(now + WINDOW);
            }
            let count = pool.excess.min(BATCH);
            pool.excess -= count;
            pool.low -= count;
            let batch = pool.blocks.drain(..count).collect();
            let len = pool.blocks.len();
            LEN.store(len, Ordering::Relaxed);
            if len == 0 {
                pool.blocks.shrink_to(64);
            }
            batch
        };
        let last = batch.len() < BATCH;
        for block in batch {
            // SAFETY: the block is out of the pool, so nobody else has it.
            if let Err(block) = unsafe { fresh.give_back(own, block) } {
                kept().push(block);
            }
        }
        if LEN.load(Ordering::Relaxed) == 0 {
            return None;
        }
        if !last && stop() {
            return Some(PAUSE);
        }
    }
}

/// Gives back all blocks of the pool that can be given back.
pub(crate) fn give_back_all() {
    {
        let mut pool = pool();
        pool.low = pool.blocks.len();
        pool.excess = pool.low;
    }
    let _nothing_left: Option<Duration> = trim(Instant::now(), || false);
}

/// What a block looks like that nobody has run on.
#[derive(Debug)]
struct Fresh {
    /// Frees a block.
    deallocate: unsafe extern "C" fn(*mut c_void, bool),
    /// The thread-locals of the C library, of a block that has just been made.
    new: Vec<(isize, Word)>,
}

/// A word of a block, as far as it can be the same in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Same(usize),
    /// An address inside the block, from the thread pointer on.
    Inside(isize),
    /// It may be anything.
    Any,
}

impl Fresh {
    fn of(own: &'static Support) -> Option<&'static Self> {
        static FRESH: OnceLock<Option<Fresh>> = OnceLock::new();
        if let Some(known) = FRESH.get() {
            return known.as_ref();
        }
        // If there is no memory for a block, this finds nothing out and remembers nothing.
        let mut new = Some(own.make()?);
        let fresh = FRESH.get_or_init(|| Self::find(own, new.take()?));
        if let Some(block) = new {
            put(std::iter::once(block));
        }
        fresh.as_ref()
    }

    /// Looks at a new block. `None`: it cannot be found out whether a used block looks like a new one.
    #[cold]
    fn find(own: &Support, block: Block) -> Option<Self> {
        let heap = match &own.heap {
            Heap::Nothing => &[],
            Heap::Words(words) => words.offsets(),
            Heap::Unknown => return None,
        };
        // SAFETY: the name is that of a function of this type in every version of the C library that
        // has it.
        let deallocate = unsafe {
            let found = libc::dlsym(libc::RTLD_DEFAULT, c"_dl_deallocate_tls".as_ptr());
            if found.is_null() {
                return None;
            }
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, bool)>(found)
        };
        let mut segments = Segments {
            pointer: machine::pointer(),
            libraries: own.library.excluded,
            words: Vec::new(),
        };
        // SAFETY: the callback fits, and what it is given is a `Segments`.
        unsafe { libc::dl_iterate_phdr(Some(segment), (&raw mut segments).cast()) };
        let pointer = block.pointer();
        // SAFETY: the block is new and ours; the words lie in it, as they do in the running thread's.
        let look = || unsafe {
            let words = segments.words.iter();
            words
                .map(|&at| (at, Word::of(pointer, read(pointer, at))))
                .collect::<Vec<_>>()
        };
        let new = look();
        // SAFETY: the block is complete.
        unsafe { own.on_block(pointer, || register_and_run(own)) };
        let remembered: Vec<isize> = new
            .iter()
            .zip(&look())
            .filter(|(before, after)| before != after)
            .map(|(before, _)| before.0)
            .collect();
        // SAFETY: both calls have no preconditions.
        let errors = unsafe { [libc::__errno_location(), h_errno_location()] };
        let may_be_anything = |at: isize| {
            heap.contains(&at)
                || remembered.contains(&at)
                || errors.iter().any(|error| {
                    let error = (*error as usize)
                        .wrapping_sub(machine::pointer())
                        .cast_signed();
                    (at..at + size_of::<usize>().cast_signed()).contains(&error)
                })
        };
        let new = new
            .into_iter()
            .map(|(at, word)| (at, if may_be_anything(at) { Word::Any } else { word }))
            .collect();
        let fresh = Self { deallocate, new };
        // SAFETY: the block is ours.
        match unsafe { fresh.give_back(own, block) } {
            Ok(()) => Some(fresh),
            Err(_lost) => None,
        }
    }

    /// Gives a block back to the C library, if nothing of its thread is left there.
    ///
    /// # Safety
    /// The block is idle, and only the caller has it.
    unsafe fn give_back(&self, own: &Support, block: Block) -> Result<(), Block> {
        let pointer = block.pointer();
        // SAFETY: the block is the caller's, and all offsets lie in it.
        unsafe {
            // `fork` changes both of them, in the child, in the block of a thread that ran then.
            let list = pointer.wrapping_add_signed(own.library.offsets.list);
            let id: i32 = read(pointer, own.library.offsets.tid);
            if read::<[usize; 2]>(list, 0) != [list; 2]
                || usize::try_from(id).map_or(true, |id| id < FIRST)
            {
                return Err(block);
            }
            own.kept.renew(&own.library, &own.heap, pointer);
            // The byte behind the values tells whether there are any.
            if read::<u8>(pointer, own.library.offsets.values + 8 * 32) != 0 {
                return Err(block);
            }
            let is_new = |&(at, word): &(isize, Word)| {
                word == Word::Any || word == Word::of(pointer, read(pointer, at))
            };
            // The resolver's state begins with times and options, none of them 0 once it is used.
            let resolver: [usize; 2] = read(pointer, own.library.offsets.resolver_state);
            if !self.new.iter().all(is_new) || resolver != [0, 0] {
                return Err(block);
            }
            // The first block of values lies in the block itself.
            for index in 1..32_isize {
                let values: *mut c_void = read(pointer, own.library.offsets.values + 8 * index);
                libc::free(values);
            }
            own.ids.give_back(id);
            slabs::free(self.deallocate, pointer);
        }
        Ok(())
    }
}

impl Word {
    fn of(pointer: usize, word: usize) -> Self {
        /// Far more than a block has on either side of the thread pointer.
        const FAR: isize = 1 << 20;
        let offset = word.wrapping_sub(pointer).cast_signed();
        if (-FAR..FAR).contains(&offset) {
            Self::Inside(offset)
        } else {
            Self::Same(word)
        }
    }
}

unsafe extern "C" {
    #[link_name = "__h_errno_location"]
    safe fn h_errno_location() -> *mut c_int;
    /// Registers a destructor of a thread-local of the running thread.
    fn __cxa_thread_atexit_impl(
        destructor: unsafe extern "C" fn(*mut c_void),
        object: *mut c_void,
        library: *mut c_void,
    ) -> c_int;
    /// Names this library to the C library.
    #[link_name = "__dso_handle"]
    static DSO: u8;
}

/// Begins as a thread does, registers a destructor, and ends as a thread does. The C library remembers to which library
/// the last destructor belonged.
fn register_and_run(own: &Support) {
    // SAFETY: the destructor does nothing.
    unsafe {
        (own.library.init_ctype)();
        __cxa_thread_atexit_impl(nothing, ptr::null_mut(), (&raw const DSO).cast_mut().cast());
    }
    own.finish();
}

unsafe extern "C" fn nothing(_object: *mut c_void) {}

/// Which words of a block are the C library's.
struct Segments {
    pointer: usize,
    libraries: [usize; 3],
    words: Vec<isize>,
}

unsafe extern "C" fn segment(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    segments: *mut c_void,
) -> c_int {
    // SAFETY: the C library passes a valid structure, and back what it was given.
    let (info, segments) = unsafe { (&*info, &mut *segments.cast::<Segments>()) };
    let base = info.dlpi_addr as usize;
    if segments.libraries.contains(&base)
        && !info.dlpi_tls_data.is_null()
        && let Some(segment) = thread_segment(info)
    {
        let start = (info.dlpi_tls_data as usize)
            .wrapping_sub(segments.pointer)
            .cast_signed();
        let bytes = (segment.p_memsz as usize).cast_signed();
        // Words at whole words from the thread pointer on, which is aligned.
        let first = (start + 7) & !7;
        segments.words.extend((first..start + bytes - 7).step_by(8));
    }
    0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use super::*;
    use crate::parts::thread_locals::memory::write;

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn a_block_goes_back_whatever_a_thread_has_left_there() {
        let Ok(own) = support() else { return };
        let fresh = Fresh::of(own).unwrap();
        let malloc = std::hint::black_box(libc::malloc as unsafe extern "C" fn(_) -> _);
        let free = std::hint::black_box(libc::free as unsafe extern "C" fn(_));
        for round in 0..10_000 {
            let block = own.make().unwrap();
            let pointer = block.pointer();
            // SAFETY: the block is new and ours.
            unsafe {
                own.on_block(pointer, || {
                    let mut pieces: [*mut c_void; 40] = [ptr::null_mut(); 40];
                    for (index, piece) in pieces.iter_mut().enumerate() {
                        *piece = malloc(1 + 100 * index % (round + 1));
                    }
                    for piece in pieces {
                        free(piece);
                    }
                });
                own.on_block(pointer, || register_and_run(own));
                write(pointer, own.library.offsets.errno, libc::ENOENT);
                fresh.give_back(own, block).unwrap();
            }
        }
        let block = own.make().unwrap();
        // SAFETY: as above.
        unsafe {
            own.on_block(block.pointer(), || {
                libc::strerror(123_456);
                libc::dlsym(libc::RTLD_DEFAULT, c"nobody has this name".as_ptr());
            });
            fresh.give_back(own, block).unwrap();
        }
    }
}
