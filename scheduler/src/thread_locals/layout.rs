//! Where things lie in a thread's block and control block: found out, not known.
//!
//! The C library describes its control block to debuggers (`_thread_db_*`), gives some offsets by
//! public names, and the rest can be seen in a thread that it has just made. Two threads are asked;
//! what they do not agree on is a surprise.
#![allow(
    unsafe_code,
    reason = "reads the C library's own structures, after checks"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::AtomicUsize;

use super::machine;
use crate::current;

/// Pointers in the first level of a thread's table of pthread values, and values in the second:
/// part of the C library's ABI with debuggers, checked against its description.
const KEY_BLOCK: usize = 32;

/// Where the length of a thread's table of thread-local blocks is, from the table on.
pub(super) const TABLE_LENGTH: isize = -16;

/// Entries of a new table for libraries that may be loaded later: `DTV_SURPLUS` of glibc. The table
/// grows when it must.
pub(super) const TABLE_SURPLUS: usize = 14;

/// An error is a surprise, in words.
pub(super) type Found<T> = Result<T, &'static str>;

/// How the C library of this process lays out a thread, and its functions that make one.
#[derive(Debug)]
pub(crate) struct Own {
    /// Makes a block of thread-locals with an empty control block.
    pub(super) allocate: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    /// Runs the destructors of the running thread's thread-locals.
    pub(super) call_destructors: unsafe extern "C" fn(),
    /// `realloc`, the one that the C library calls.
    pub(super) reallocate: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    /// The length of a table of thread-local blocks is where it should be.
    pub(super) trims: bool,
    /// Makes the running thread's tables of character classes.
    pub(super) init_ctype: unsafe extern "C" fn(),
    /// Of all libraries but the C library.
    pub(super) images: Box<[Image]>,
    /// Where the C library and its loader begin.
    pub(super) excluded: [usize; 3],
    /// The last library that was there; more may come behind it.
    pub(super) anchor: *const LinkMap,
    /// What all threads have in common, from the thread that looked.
    pub(super) common: Vec<(usize, u64)>,
    pub(super) places: Places,
    pub(super) keys: Keys,
    pub(super) rseq: Option<isize>,
    /// For the next made-up thread id.
    pub(super) ids: AtomicUsize,
}

// SAFETY: the pointers are to what the C library never frees, and are only read.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

/// Offsets in bytes from the thread pointer, the same in every thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// `pthread_self()`.
    pub(super) control: isize,
    pub(super) tid: isize,
    /// Links of the list of all threads.
    pub(super) list: isize,
    /// The head of the list of robust mutexes.
    pub(super) robust: isize,
    /// The first level of the pthread values.
    pub(super) values: isize,
    /// The first block of the second level.
    pub(super) first_values: isize,
    pub(super) errno: isize,
    /// `__resp`, a thread-local that points to the resolver's state.
    pub(super) resolver: isize,
    /// The resolver's state in the control block of a thread that is not the first.
    pub(super) resolver_state: isize,
    /// What the runtime keeps of the running thread.
    pub(super) here: isize,
}

/// The thread-locals of one library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// From the thread pointer.
    pub(super) offset: isize,
    pub(super) start: *const u8,
    /// Bytes that are copied; the others are zero.
    pub(super) copied: usize,
    pub(super) bytes: usize,
    number: usize,
}

/// Where the process's pthread keys are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys(pub(super) *const Key);

#[repr(C)]
#[derive(Debug)]
pub(super) struct Key {
    pub(super) sequence: usize,
    pub(super) destructor: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// A thread's value for a key.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Value {
    pub(super) sequence: usize,
    pub(super) data: *mut c_void,
}

/// `struct link_map` of `link.h`: its public part.
#[repr(C)]
#[derive(Debug)]
pub(super) struct LinkMap {
    address: usize,
    name: *const c_char,
    dynamic: *const c_void,
    pub(super) next: *const LinkMap,
    previous: *const LinkMap,
}

/// Looks a name up in the libraries of the process.
fn symbol(name: &CStr) -> Found<*mut c_void> {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if found.is_null() {
        return Err("the C library lacks a name that is needed");
    }
    Ok(found)
}

/// A field of the C library's, as it describes it to debuggers: bits, count, offset.
fn field(name: &CStr, bits: u32, count: u32) -> Found<isize> {
    let described = symbol(name)?.cast::<[u32; 3]>();
    // SAFETY: every such name is an array of three words.
    let [size, number, offset] = unsafe { described.read() };
    if [size, number] != [bits, count] {
        return Err("a field of the C library has another size");
    }
    isize::try_from(offset).map_err(|_| "a field of the C library is far off")
}

pub(super) fn size(name: &CStr) -> Found<usize> {
    // SAFETY: every such name is a word.
    Ok(unsafe { symbol(name)?.cast::<u32>().read() } as usize)
}

/// # Safety
/// There is a `T` so far from the base.
pub(super) unsafe fn read<T: Copy>(base: usize, offset: isize) -> T {
    // SAFETY: by contract.
    unsafe { ptr::with_exposed_provenance::<T>(base.wrapping_add_signed(offset)).read() }
}

/// # Safety
/// There is room for a `T` so far from the base, and it is the caller's.
pub(super) unsafe fn write<T>(base: usize, offset: isize, value: T) {
    // SAFETY: by contract.
    unsafe { ptr::with_exposed_provenance_mut::<T>(base.wrapping_add_signed(offset)).write(value) };
}

fn between(from: usize, to: usize) -> isize {
    to.wrapping_sub(from).cast_signed()
}

/// Which libraries are there.
#[derive(Debug, Default)]
struct Libraries {
    pointer: usize,
    /// Of the C library and its loader.
    excluded: [usize; 3],
    images: Vec<Image>,
    /// The highest number of a library with thread-locals.
    highest: usize,
}

unsafe extern "C" fn library(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    libraries: *mut c_void,
) -> c_int {
    // SAFETY: the C library passes a valid structure, and back what it was given.
    let (info, libraries) = unsafe { (&*info, &mut *libraries.cast::<Libraries>()) };
    libraries.highest = libraries.highest.max(info.dlpi_tls_modid);
    if libraries.excluded.contains(&(info.dlpi_addr as usize)) {
        return 0;
    }
    let Some(segment) = thread_segment(info) else {
        return 0;
    };
    // A library that was loaded later, and whose thread-locals this thread has not used.
    if info.dlpi_tls_data.is_null() {
        return 0;
    }
    libraries.images.push(Image {
        offset: between(libraries.pointer, info.dlpi_tls_data as usize),
        start: ptr::with_exposed_provenance((info.dlpi_addr + segment.p_vaddr) as usize),
        copied: segment.p_filesz as usize,
        bytes: segment.p_memsz as usize,
        number: info.dlpi_tls_modid,
    });
    0
}

/// The part of a library that describes its thread-locals. Touches no thread-local.
pub(super) fn thread_segment(info: &libc::dl_phdr_info) -> Option<&libc::Elf64_Phdr> {
    (0..usize::from(info.dlpi_phnum)).find_map(|index| {
        // SAFETY: there are so many headers.
        let header = unsafe { &*info.dlpi_phdr.add(index) };
        (header.p_type == libc::PT_TLS && header.p_memsz > 0).then_some(header)
    })
}

/// Where the library that has this address begins, and its entry in the list of libraries.
fn library_of(address: *const c_void) -> Found<(usize, *const LinkMap)> {
    /// `RTLD_DL_LINKMAP` of `dlfcn.h`.
    const LINK_MAP: c_int = 2;
    unsafe extern "C" {
        fn dladdr1(
            address: *const c_void,
            info: *mut libc::Dl_info,
            extra: *mut *mut c_void,
            flags: c_int,
        ) -> c_int;
    }
    // SAFETY: all zeros is a valid structure; the call fills in both.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let mut map = ptr::null_mut();
        if dladdr1(address, &raw mut info, &raw mut map, LINK_MAP) == 0 || map.is_null() {
            return Err("a function of the C library is in no library");
        }
        let map = map.cast_const().cast::<LinkMap>();
        Ok(((*map).address, map))
    }
}

/// What one thread sees.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    places: Places,
    images: Vec<Image>,
    common: Vec<(usize, u64)>,
    trims: bool,
}

// SAFETY: the pointers are to the images of libraries.
unsafe impl Send for Seen {}

/// Looks at the running thread. `fresh`: the C library has just made it.
fn look(excluded: [usize; 3], fresh: bool) -> Found<Seen> {
    let pointer = machine::pointer();
    // SAFETY: the call has no preconditions.
    let control = unsafe { libc::pthread_self() } as usize;
    let from_control = between(pointer, control);
    let size = size(c"_thread_db_sizeof_pthread")?;
    let inside = |address: usize| (control..control + size).contains(&address);
    // SAFETY (for all reads of this function): the addresses are of the running thread's control
    // block, or were given by the C library.
    for &offset in machine::SELF {
        // SAFETY: as above.
        if unsafe { read::<usize>(pointer, offset.cast_signed()) } != pointer {
            return Err("the control block does not hold its address");
        }
    }
    let tid = from_control + field(c"_thread_db_pthread_tid", 32, 1)?;
    // SAFETY: as above; the call has no preconditions.
    if unsafe { read::<i32>(pointer, tid) } != unsafe { libc::gettid() } {
        return Err("the thread's id is not where it should be");
    }
    let list = from_control + field(c"_thread_db_pthread_list", 128, 1)?;
    // SAFETY: as above.
    if unsafe { read::<usize>(pointer, list) == 0 || read::<usize>(pointer, list + 8) == 0 } {
        return Err("the thread is in no list");
    }
    let mut robust: *mut usize = ptr::null_mut();
    let mut length = 0_usize;
    // SAFETY: asks for the calling thread's list; both places are valid.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_get_robust_list,
            0,
            &raw mut robust,
            &raw mut length,
        )
    };
    let robust = robust.expose_provenance();
    if asked != 0 || !inside(robust) || !inside(robust - 8) || length != 24 {
        return Err("the list of robust mutexes is not in the control block");
    }
    // SAFETY: as above.
    let head = unsafe { [read::<usize>(robust, 0), read::<usize>(robust, -8)] };
    if fresh && head != [robust; 2] {
        return Err("a new thread's list of robust mutexes is not empty");
    }
    let values = from_control + field(c"_thread_db_pthread_specific", 64 * KEY_BLOCK as u32, 1)?;
    // SAFETY: as above.
    let first_values = unsafe { read::<usize>(pointer, values) };
    if !inside(first_values) {
        return Err("the first pthread values are not in the control block");
    }
    // SAFETY: the call has no preconditions.
    let errno = unsafe { libc::__errno_location() } as usize;
    let resolver_pointer = symbol(c"__resp")? as usize;
    // SAFETY: the symbol is a pointer.
    let resolver = unsafe { read::<usize>(resolver_pointer, 0) };
    if fresh && !inside(resolver) {
        return Err("the resolver's state is not in the control block");
    }
    // SAFETY: the table of thread-locals has two words an entry and begins with a counter.
    let table = unsafe { read::<usize>(pointer, machine::TABLE.cast_signed()) };
    let mut libraries = Libraries {
        pointer,
        excluded,
        ..Libraries::default()
    };
    // SAFETY: the callback fits, and what it is given is a `Libraries`.
    unsafe { libc::dl_iterate_phdr(Some(library), (&raw mut libraries).cast()) };
    let here = current::here() as usize;
    let mut found = false;
    for image in &libraries.images {
        let start = pointer.wrapping_add_signed(image.offset);
        found |= (start..start + image.bytes).contains(&here);
        // SAFETY: as above; a library that has thread-locals here has an entry.
        if unsafe { read::<usize>(table, (16 * image.number).cast_signed()) } != start {
            return Err("the table of thread-locals is laid out in another way");
        }
    }
    if !found {
        return Err("the runtime's own thread-locals are in no library");
    }
    // SAFETY: the table lies in memory of the loader's or of malloc's, which begins before it.
    let length = unsafe { read::<usize>(table, TABLE_LENGTH) };
    let trims = fresh && length == libraries.highest + TABLE_SURPLUS;
    let mut common = Vec::new();
    for &offset in machine::COMMON {
        // SAFETY: as above.
        common.push((offset, unsafe { read(pointer, offset.cast_signed()) }));
    }
    let places = Places {
        control: from_control,
        tid,
        list,
        robust: between(pointer, robust),
        values,
        first_values: between(pointer, first_values),
        errno: between(pointer, errno),
        resolver: between(pointer, resolver_pointer),
        resolver_state: between(pointer, resolver),
        here: between(pointer, here),
    };
    Ok(Seen {
        places,
        images: libraries.images,
        common,
        trims,
    })
}

/// How it is in this process.
pub(super) fn find() -> Found<Own> {
    let allocate = symbol(c"_dl_allocate_tls")?;
    let call_destructors = symbol(c"__call_tls_dtors")?;
    let init_ctype = symbol(c"__ctype_init")?;
    let reallocate = symbol(c"realloc")?;
    let keys = symbol(c"__pthread_keys")?;
    let pairs = [
        (field(c"_thread_db_pthread_key_struct_seq", 64, 1)?, 0),
        (field(c"_thread_db_pthread_key_struct_destr", 64, 1)?, 8),
        (field(c"_thread_db_pthread_key_data_seq", 64, 1)?, 0),
        (field(c"_thread_db_pthread_key_data_data", 64, 1)?, 8),
    ];
    if pairs.iter().any(|(told, expected)| told != expected)
        || size(c"_thread_db_sizeof_pthread_key_struct")? != size_of::<Key>()
        || size(c"_thread_db_sizeof_pthread_key_data")? != size_of::<Value>()
        || size(c"_thread_db_sizeof_pthread_key_data_level2")? != KEY_BLOCK * size_of::<Value>()
    {
        return Err("pthread keys are laid out in another way");
    }
    let rseq = match symbol(c"__rseq_offset") {
        // SAFETY: the name is a `ptrdiff_t` by the C library's manual.
        Ok(offset) => Some(unsafe { offset.cast::<isize>().read() }),
        Err(_) => None,
    };
    let (loader, anchor) = library_of(allocate)?;
    let errno: unsafe extern "C" fn() -> *mut c_int = libc::__errno_location;
    let (library, _) = library_of(errno as *const c_void)?;
    // Not by `pthread_create`: the program may define one of its own.
    let (threads, _) = library_of(symbol(c"_thread_db_sizeof_pthread")?)?;
    if library == 0 || loader == 0 || threads == 0 {
        return Err("the C library is linked statically");
    }
    let excluded = [library, loader, threads];
    let mut here = look(excluded, false)?;
    let there = std::thread::Builder::new()
        .name(String::from("weald-probe"))
        .spawn(move || look(excluded, true))
        .map_err(|_| "no OS thread to look at")?
        .join()
        .map_err(|_| "the thread that looks has panicked")??;
    // The first thread has another.
    here.places.resolver_state = there.places.resolver_state;
    here.trims = there.trims;
    if here != there {
        return Err("two threads are laid out in different ways");
    }
    // SAFETY: the names are functions of these types in every version of the C library that has
    // them; the self-test tries them.
    let own = unsafe {
        Own {
            allocate: std::mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut c_void) -> *mut c_void,
            >(allocate),
            call_destructors: std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(
                call_destructors,
            ),
            init_ctype: std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(init_ctype),
            reallocate: std::mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
            >(reallocate),
            trims: here.trims,
            images: here.images.into(),
            excluded,
            anchor,
            common: here.common,
            places: here.places,
            keys: Keys(keys.cast_const().cast()),
            rseq,
            ids: AtomicUsize::new(0),
        }
    };
    Ok(own)
}
