//! The blocks that no worker keeps, and how those that nobody has needed for a while go back to the C
//! library.
//!
//! A block that is over holds what `malloc` keeps there for a thread: a cache of freed memory. The C
//! library empties it when a thread ends, by a function that nobody else can call. So it is found out
//! where the cache's address is (`Heap::find`), in a new block that asks for memory for the first
//! time, and the cache is emptied by asking for as much as lies in it. Anything unexpected there, and
//! blocks are kept for ever, as they are where the C library's `malloc` is another one's with values
//! of its own that nobody can explain.
//!
//! 1. Only a block whose part of the C library is as in a new one, but for `malloc`'s two words, goes
//!    back. What a thread has left there (a buffer for a message, the resolver's sockets) is freed
//!    first (`kept.rs`). Others are kept.
//! 2. What `low` and `excess` mean is told in `stack/cache.rs`; it is the same here.
#![allow(
    unsafe_code,
    reason = "reads and frees what the C library keeps in a block"
)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::block::Block;
use super::ids::FIRST;
use super::layout::{Own, read, thread_segment, write};
use super::machine;
use super::self_test::support;
use super::slabs;

/// Blocks that nobody has needed for so long are given back. As for stacks.
const WINDOW: Duration = Duration::from_millis(500);

/// Between two steps of [`trim`].
const PAUSE: Duration = Duration::from_millis(4);

/// Blocks that are given back before the clock is looked at, at some 0.5 us each.
const BATCH: usize = 16;

struct Pool {
    /// The hottest last.
    blocks: Vec<Block>,
    low: usize,
    excess: usize,
    next_mark: Option<Instant>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    blocks: Vec::new(),
    low: 0,
    excess: 0,
    next_mark: None,
});

/// How many are there.
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Blocks that can never go back (invariant 1). They are used first.
static KEPT: Mutex<Vec<Block>> = Mutex::new(Vec::new());

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kept() -> MutexGuard<'static, Vec<Block>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes up to so many blocks, the hottest last.
pub(super) fn take(most: usize, into: &mut Vec<Block>) {
    let mut pool = pool();
    let rest = pool.blocks.len().saturating_sub(most);
    into.extend(pool.blocks.drain(rest..));
    pool.low = pool.low.min(rest);
    pool.excess = pool.excess.min(rest);
    LEN.store(rest, Ordering::Relaxed);
    drop(pool);
    if into.is_empty() {
        let mut kept = kept();
        let rest = kept.len().saturating_sub(most);
        into.extend(kept.drain(rest..));
    }
}

/// Takes blocks in, the hottest last.
pub(super) fn put(blocks: impl Iterator<Item = Block>) {
    let mut pool = pool();
    pool.blocks.extend(blocks);
    LEN.store(pool.blocks.len(), Ordering::Relaxed);
}

/// For a worker that is about to sleep: gives blocks back that nobody has needed for a while, until
/// `stop` says so. Returns after how long to come again; `None`: there is nothing to give back any
/// more.
///
/// Without blocks in the pool it costs one load.
pub(crate) fn trim(now: Instant, stop: impl Fn() -> bool) -> Option<Duration> {
    if LEN.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let own = support().ok()?;
    let heap = Heap::of(own)?;
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
            if let Err(block) = unsafe { heap.give_back(own, block) } {
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

/// What is known of the C library's memory in a block.
#[derive(Debug)]
struct Heap {
    /// Frees a block.
    deallocate: unsafe extern "C" fn(*mut c_void, bool),
    /// The thread-locals of the C library, of a block that has just been made.
    new: Vec<(isize, Word)>,
    /// Where the address of a thread's cache of freed memory is. `None`: this `malloc` keeps nothing
    /// in the C library's thread-locals.
    cache: Option<isize>,
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

/// The cache of glibc 2.30 to 2.41, `tcache_perthread_struct`: for each of 64 sizes how many pieces lie
/// there, then the first of each.
#[repr(C)]
struct Cache {
    counts: [u16; SIZES],
    first: [usize; SIZES],
}

const SIZES: usize = 64;

/// Usable bytes of the smallest size, and from one to the next.
const LEAST: usize = 24;
const STEP: usize = 16;

/// Pieces in a cache: seven of each size, if nobody has set it otherwise.
const PIECES: usize = 7 * SIZES;

impl Heap {
    fn of(own: &'static Own) -> Option<&'static Self> {
        static HEAP: OnceLock<Option<Heap>> = OnceLock::new();
        if let Some(known) = HEAP.get() {
            return known.as_ref();
        }
        // Without memory for a block nothing is found out now, and nothing is remembered.
        let mut new = Some(own.make()?);
        let heap = HEAP.get_or_init(|| Self::find(own, new.take()?));
        if let Some(block) = new {
            put(std::iter::once(block));
        }
        heap.as_ref()
    }

    /// Looks at a new block before and after it has used memory for the first time.
    #[cold]
    fn find(own: &Own, block: Block) -> Option<Self> {
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
            libraries: own.excluded,
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
        let (mut first, mut second) = (ptr::null_mut::<c_void>(), ptr::null_mut());
        // SAFETY: the block is complete; the functions are called by addresses that the compiler does
        // not know, so it leaves neither out.
        unsafe {
            let malloc = std::hint::black_box(libc::malloc as unsafe extern "C" fn(_) -> _);
            let free = std::hint::black_box(libc::free as unsafe extern "C" fn(_));
            own.on_block(pointer, || {
                first = malloc(LEAST);
                second = malloc(LEAST);
                free(first);
                free(second);
            });
        }
        let used = look();
        let changed: Vec<(isize, Word)> = new
            .iter()
            .zip(&used)
            .filter(|(new, used)| new != used)
            .map(|(_, used)| *used)
            .collect();
        let caches: Vec<isize> = changed
            .iter()
            .filter(|(_, word)| is_cache(pointer, *word, second))
            .map(|(at, _)| *at)
            .collect();
        let cache = match (&*caches, changed.len()) {
            ([cache], 1 | 2) => Some(*cache),
            ([], 0) => None,
            // The block is lost: one.
            _ => return None,
        };
        let before = look();
        // SAFETY: the block is complete.
        unsafe { own.on_block(pointer, || register_and_run(own)) };
        let remembered: Vec<isize> = before
            .iter()
            .zip(&look())
            .filter(|(before, after)| before != after)
            .map(|(before, _)| before.0)
            .collect();
        // SAFETY: both calls have no preconditions.
        let errors = unsafe { [libc::__errno_location(), h_errno_location()] };
        let may_be_anything = |at: isize| {
            changed.iter().any(|(changed, _)| *changed == at)
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
        let heap = Self {
            deallocate,
            new,
            cache,
        };
        // SAFETY: the block is ours.
        match unsafe { heap.give_back(own, block) } {
            Ok(()) => Some(heap),
            Err(_lost) => None,
        }
    }

    /// Gives a block back to the C library, if nothing of its thread is left there.
    ///
    /// # Safety
    /// The block is idle, and the caller's alone.
    unsafe fn give_back(&self, own: &Own, block: Block) -> Result<(), Block> {
        let pointer = block.pointer();
        // SAFETY: the block is the caller's, and all places lie in it.
        unsafe {
            // `fork` changes both in the child, of a thread that ran then.
            let list = pointer.wrapping_add_signed(own.places.list);
            let id: i32 = read(pointer, own.places.tid);
            if read::<[usize; 2]>(list, 0) != [list; 2]
                || usize::try_from(id).map_or(true, |id| id < FIRST)
            {
                return Err(block);
            }
            own.renew_kept(pointer);
            // The byte behind the values tells whether there are any.
            if read::<u8>(pointer, own.places.values + 8 * 32) != 0 {
                return Err(block);
            }
            let is_new = |&(at, word): &(isize, Word)| {
                word == Word::Any || word == Word::of(pointer, read(pointer, at))
            };
            // The resolver's state begins with times and options, none of them 0 once it is used.
            let resolver: [usize; 2] = read(pointer, own.places.resolver_state);
            if !self.new.iter().all(is_new) || resolver != [0, 0] || !self.empty(own, pointer) {
                return Err(block);
            }
            // The first block of values lies in the block itself.
            for index in 1..32_isize {
                let values: *mut c_void = read(pointer, own.places.values + 8 * index);
                libc::free(values);
            }
            own.ids.give_back(id);
            slabs::free(self.deallocate, pointer);
        }
        Ok(())
    }

    /// Empties the cache of a block's thread and frees it. False: it has more than can be.
    ///
    /// # Safety
    /// As in `give_back`.
    unsafe fn empty(&self, own: &Own, pointer: usize) -> bool {
        let Some(at) = self.cache else { return true };
        // SAFETY: the word is `malloc`'s: null, or its cache of this thread.
        unsafe {
            let address: usize = read(pointer, at);
            if address == 0 {
                return true;
            }
            let counts = (*ptr::with_exposed_provenance::<Cache>(address)).counts;
            let count: usize = counts.iter().map(|&count| usize::from(count)).sum();
            if count > PIECES {
                return false;
            }
            let mut pieces = [ptr::null_mut(); PIECES];
            if count > 0 {
                let malloc = std::hint::black_box(libc::malloc as unsafe extern "C" fn(_) -> _);
                let mut places = pieces.iter_mut();
                own.on_block(pointer, || {
                    for (size, &count) in counts.iter().enumerate() {
                        for place in places.by_ref().take(usize::from(count)) {
                            *place = malloc(LEAST + STEP * size);
                        }
                    }
                });
            }
            write(pointer, at, 0_usize);
            for piece in &pieces[..count] {
                libc::free(*piece);
            }
            libc::free(ptr::with_exposed_provenance_mut(address));
        }
        true
    }
}

/// Whether a word of `malloc`'s is the address of its cache, in which two of the smallest pieces lie, `last`
/// being the first.
fn is_cache(pointer: usize, word: Word, last: *mut c_void) -> bool {
    let address = match word {
        Word::Same(address) => address,
        Word::Inside(offset) => pointer.wrapping_add_signed(offset),
        Word::Any => return false,
    };
    // A number, or null.
    if address < 4096 || !address.is_multiple_of(2 * size_of::<usize>()) {
        return false;
    }
    // SAFETY: what `malloc` puts there is the address of its cache or of its arena, and an arena, the
    // main one as well, has more than 2 KiB. Others may change it meanwhile.
    let cache = unsafe { ptr::with_exposed_provenance::<Cache>(address).read_volatile() };
    let is_alike = cache.counts[0] == 2
        && cache.first[0] == last.expose_provenance()
        && cache.counts[1..].iter().all(|&count| count == 0)
        && cache.first[1..].iter().all(|&first| first == 0);
    if !is_alike {
        return false;
    }
    // SAFETY: an arena, which is no piece that `malloc` gave out and must not be asked about, holds the
    // address of no such piece, but of what lies before one. So this is the cache, itself a piece.
    let usable = unsafe { libc::malloc_usable_size(ptr::with_exposed_provenance_mut(address)) };
    usable == size_of::<Cache>() + size_of::<usize>()
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

/// Begins as a thread does, registers a destructor, and ends as a thread does. The C library remembers which library the last one was of.
fn register_and_run(own: &Own) {
    // SAFETY: the destructor does nothing.
    unsafe {
        (own.init_ctype)();
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

    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn a_block_goes_back_whatever_a_thread_has_left_there() {
        let Ok(own) = support() else { return };
        let heap = Heap::of(own).unwrap();
        assert!(heap.cache.is_some());
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
                write(pointer, own.places.errno, libc::ENOENT);
                heap.give_back(own, block).unwrap();
            }
        }
        let block = own.make().unwrap();
        // SAFETY: as above.
        unsafe {
            own.on_block(block.pointer(), || {
                libc::strerror(123_456);
                libc::dlsym(libc::RTLD_DEFAULT, c"nobody has this name".as_ptr());
            });
            heap.give_back(own, block).unwrap();
        }
    }
}
