//! glibc's arenas. OS threads that need no arena of their own share some.
//!
//! If a thread without an arena calls `malloc` or `free`, it gets an arena of its own, until there are eight for each CPU.
//! The arena stays for ever: two mappings and 64 MiB of address space. A thousand spare carriers that block their
//! OS threads never run at the same time, so they share as many arenas as there are CPUs. The first spares
//! make these arenas. Green threads use what their OS thread has (`thread_locals/heap.rs`).
//!
//! glibc has no call to set a thread's arena: it is a word among the C library's thread-locals. [`find`] finds
//! out once where this word is, and tries it. `malloc` gives out a piece of memory, and the piece leads to its arena; the
//! word must hold the address of the same arena. (If a piece does not belong to the first arena, a bit is set in the
//! word before it, and the piece lies in a *heap*, aligned to its size, whose first word is the address of the arena.) If
//! anything is otherwise (another `malloc`, another C library), nothing is shared.
//!
//! Invariant 1: the C library never gives an arena back, so its address stays valid.
//! Invariant 2: the C library counts the threads of an arena. When a thread ends whose word is not null, it takes one off.
//! A borrower was not counted, so its word must be null again at its end ([`Borrowed`]).

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The alignment of heaps, and their greatest size, if memory has pages of the usual size.
const HEAP: usize = 64 << 20;

/// The bit in the word before a piece that means: the piece is not of the first arena.
const NOT_OF_THE_FIRST: usize = 4;

/// Pieces of so many bytes are never kept in a thread's cache. So such a piece comes from the thread's arena.
const PIECE: usize = 3000;

/// At most so many arenas are shared. More CPUs have no more.
const MOST: usize = 64;

/// The addresses of the shared arenas. Zero: not made yet.
static ARENAS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];

/// The distance to the word from `errno`, which is among the same thread-locals. `None`: nothing is shared.
static PLACE: OnceLock<Option<isize>> = OnceLock::new();

/// `malloc` is glibc's, as we know it.
static IS_GLIBC: OnceLock<bool> = OnceLock::new();

/// Which arena is used next.
static TURN: AtomicUsize = AtomicUsize::new(0);

fn errno() -> usize {
    // SAFETY: the call has no conditions.
    unsafe { libc::__errno_location() }.expose_provenance()
}

/// Looks up now what needs the loader's lock. Later a thread that waits for a spare may hold that lock.
pub(crate) fn prepare() {
    IS_GLIBC.get_or_init(is_glibc);
}

/// How many arenas may be shared.
fn many() -> usize {
    static MANY: OnceLock<usize> = OnceLock::new();
    *MANY.get_or_init(|| num_cpus::get().clamp(1, MOST))
}

/// As long as this lives, the running OS thread has one of the shared arenas.
#[derive(Debug)]
pub(crate) struct Borrowed {
    /// The thread's word, if it must be null again at the end.
    word: Option<*mut usize>,
    not_send: PhantomData<*mut ()>,
}

impl Borrowed {
    /// Called by an OS thread that has just begun, and has called neither `malloc` nor `free`.
    pub(crate) fn begin() -> Self {
        let mut borrowed = Self {
            word: None,
            not_send: PhantomData,
        };
        let arena = &ARENAS[TURN.fetch_add(1, Ordering::Relaxed) % many()];
        let known = arena.load(Ordering::Relaxed);
        if known == 0 {
            if let Some((own, _)) = PLACE.get().is_none_or(Option::is_some).then(find).flatten() {
                arena.store(own, Ordering::Relaxed);
            }
            return borrowed;
        }
        let Some(&Some(place)) = PLACE.get() else {
            return borrowed;
        };
        let word = ptr::with_exposed_provenance_mut(errno().wrapping_add_signed(place));
        // SAFETY: it is the running thread's own word, as `find` has seen in another thread; an arena stays
        // (invariant 1).
        unsafe {
            if *word == 0 {
                *word = known;
                borrowed.word = Some(word);
            }
        }
        borrowed
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(word) = self.word {
            // SAFETY: the running thread's own word; a thread without an arena asks for one (invariant 2).
            unsafe { *word = 0 };
        }
    }
}

/// The arena of the running OS thread, and where its word is. `None` if it is the first arena, or if anything
/// is not as expected. The answer is remembered in [`PLACE`], unless it is the first arena.
fn find() -> Option<(usize, isize)> {
    if IS_GLIBC.get() != Some(&true) {
        return None;
    }
    let arena = own_arena()?;
    let words = own_words()?;
    let mut found = words.filter(|&word| {
        // SAFETY: a word of the running thread's thread-locals.
        let value = unsafe { ptr::with_exposed_provenance::<usize>(word).read_volatile() };
        value == arena
    });
    let place = match (found.next(), found.next()) {
        (Some(word), None) => Some(word.wrapping_sub(errno()).cast_signed()),
        _ => None,
    };
    let known = *PLACE.get_or_init(|| place);
    known.filter(|_| known == place).map(|place| (arena, place))
}

/// Whether `malloc` is glibc's, as we know it.
fn is_glibc() -> bool {
    let symbol = |name: &CStr| {
        // SAFETY: the name is a string.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    let malloc = symbol(c"malloc");
    let has = |variable: &str, word: &str| {
        let value = std::env::var_os(variable).unwrap_or_default();
        value.to_string_lossy().contains(word)
    };
    !malloc.is_null()
        && malloc == symbol(c"__libc_malloc")
        && symbol(c"free") == symbol(c"__libc_free")
        // Heaps are smaller then, or addresses have tags.
        && !has("GLIBC_TUNABLES", "hugetlb")
        && !has("GLIBC_TUNABLES", "mem.tagging")
        // valgrind puts a `malloc` of its own in the place of the C library's.
        && !has("LD_PRELOAD", "vgpreload")
        && !cfg!(any(weald_sanitizer = "address", weald_sanitizer = "thread"))
}

/// The arena to which a piece of the running thread's leads, if that is not the first one.
fn own_arena() -> Option<usize> {
    // SAFETY: `malloc` is glibc's: a word lies before each piece, and if the bit is set in it, the piece lies in a
    // heap, which begins with the address of its arena. The addresses of the functions are hidden, so the
    // compiler does not leave the calls out.
    unsafe {
        let malloc = std::hint::black_box(libc::malloc as unsafe extern "C" fn(_) -> _);
        let free = std::hint::black_box(libc::free as unsafe extern "C" fn(_));
        let piece: *mut c_void = malloc(PIECE);
        if piece.is_null() {
            return None;
        }
        let before = piece.cast::<usize>().sub(1).read_volatile();
        let arena = if before & NOT_OF_THE_FIRST == 0 {
            None
        } else {
            let heap = piece.expose_provenance() & !(HEAP - 1);
            Some(ptr::with_exposed_provenance::<usize>(heap).read_volatile())
        };
        free(piece);
        arena
    }
}

/// The addresses of the words of the C library's thread-locals in the running thread.
fn own_words() -> Option<impl Iterator<Item = usize>> {
    struct Segment {
        /// An address in it.
        inside: usize,
        found: Option<(usize, usize)>,
    }

    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        segment: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: the C library passes a valid structure, and back what it was given.
        let (info, segment) = unsafe { (&*info, &mut *segment.cast::<Segment>()) };
        let start = info.dlpi_tls_data.addr();
        if start == 0 || info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the headers are there as long as the library.
        let headers =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_TLS) else {
            return 0;
        };
        let bytes = usize::try_from(header.p_memsz).unwrap_or(0);
        if (start..start + bytes).contains(&segment.inside) {
            segment.found = Some((start, bytes));
        }
        0
    }

    let mut segment = Segment {
        inside: errno(),
        found: None,
    };
    // SAFETY: the callback fits, and what it is given is a `Segment`.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut segment).cast()) };
    let (start, bytes) = segment.found?;
    let first = start.next_multiple_of(size_of::<usize>());
    let end = (start + bytes) & !(size_of::<usize>() - 1);
    Some((first..end).step_by(size_of::<usize>()))
}
