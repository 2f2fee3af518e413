//! Finds out where things lie in a thread's block and control block.
//!
//! The C library describes its control block to debuggers (`_thread_db_*`), and has public names for some offsets. The
//! rest can be seen in a thread that it has just made. Two threads are looked at; if they
//! do not agree, that is a surprise.
#![allow(
    unsafe_code,
    reason = "reads the C library's own structures, after checks"
)]

use std::ffi::{c_int, c_void};
use std::ptr;

use super::libraries::{TABLE_LENGTH, libraries, place};
use super::machine;
use super::memory::{Found, between, field, read, size, symbol, write};
use crate::shim::here::{self, Here};

/// Pointers in the first level of a thread's table of pthread values, and values in the second:
/// part of the C library's ABI with debuggers, checked against its description.
const KEY_BLOCK: usize = 32;

/// Entries of a new table for libraries that may be loaded later: `DTV_SURPLUS` of glibc. The table
/// grows when it must.
pub(super) const TABLE_SURPLUS: usize = 14;

/// How the C library of this process lays out a thread, and its functions that make one.
#[derive(Debug)]
pub(super) struct CLibrary {
    /// Makes a block of thread-locals with an empty control block.
    pub(super) allocate: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    /// Gives back what `allocate` has made, with the memory of the block itself.
    pub(super) deallocate: unsafe extern "C" fn(*mut c_void, bool),
    /// Runs the destructors of the running thread's thread-locals.
    pub(super) call_destructors: unsafe extern "C" fn(),
    /// `realloc` and `free`, those that the C library calls.
    pub(super) reallocate: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub(super) free: unsafe extern "C" fn(*mut c_void),
    /// Whether the length of a table of thread-local blocks is where it should be.
    pub(super) trims: bool,
    /// Makes the running thread's tables of character classes.
    pub(super) init_ctype: unsafe extern "C" fn(),
    /// Where these begin: the C library, its loader, and its library for threads (older versions).
    pub(super) excluded: [usize; 3],
    /// The words that are the same in all threads, as the thread that looked has them.
    pub(super) common: Vec<(usize, u64)>,
    pub(super) offsets: Offsets,
    pub(super) keys: Keys,
    pub(super) rseq: Option<isize>,
}

impl CLibrary {
    /// Where it begins in memory.
    pub(super) fn begins(&self) -> usize {
        self.excluded[0]
    }
}

// SAFETY: the pointers are to what the C library never frees, and are only read.
unsafe impl Send for CLibrary {}
// SAFETY: as above.
unsafe impl Sync for CLibrary {}

/// Offsets in bytes from the thread pointer, the same in every thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offsets {
    /// `pthread_self()`.
    pub(super) control: isize,
    pub(super) tid: isize,
    /// The state of cancellation, and of a change by `setuid(2)`.
    pub(super) cancel: isize,
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

impl Offsets {
    /// What the runtime keeps of the thread that has this block.
    #[inline(always)]
    pub(super) fn here_of(&self, pointer: usize) -> *const Here {
        ptr::with_exposed_provenance(pointer.wrapping_add_signed(self.here))
    }

    /// Makes the list of robust mutexes an empty one, which leads to itself.
    ///
    /// # Safety
    /// The block is the caller's or the running thread's.
    #[inline]
    pub(super) unsafe fn empty_robust(&self, pointer: usize) {
        let robust = self.robust;
        let head = pointer.wrapping_add_signed(robust);
        // SAFETY: by contract; the head of the list has a link back before it, and the mutex that
        // is being locked in its third word.
        unsafe {
            write(pointer, robust - 8, [head; 2]);
            write(pointer, robust + 16, 0_usize);
        }
    }
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

/// Where the library that has this address begins, as `dl_iterate_phdr` tells it too.
fn library_of(address: *const c_void) -> Found<usize> {
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
    // SAFETY: all zeros is a valid structure; the call fills in both. A `struct link_map` of `link.h`
    // begins with the address.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let mut map = ptr::null_mut();
        if dladdr1(address, &raw mut info, &raw mut map, LINK_MAP) == 0 || map.is_null() {
            return Err("a function of the C library is in no library");
        }
        Ok(map.cast::<usize>().read())
    }
}

/// What one thread sees.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    offsets: Offsets,
    common: Vec<(usize, u64)>,
    trims: bool,
}

/// Looks at the running thread's table of thread-locals. Returns its length, and the highest number of
/// a library. `here`: a thread-local of this crate.
fn look_at_table(pointer: usize, here: usize) -> Found<(usize, usize)> {
    // SAFETY: the table of thread-locals has two words an entry and begins with a counter; it lies in
    // memory of the loader's or of malloc's, which begins before it, with the table's length.
    let (table, length) = unsafe {
        let table = read::<usize>(pointer, machine::TABLE.cast_signed());
        (table, read::<usize>(table, TABLE_LENGTH))
    };
    let (mut found, mut highest) = (false, 0);
    for library in libraries() {
        highest = highest.max(library.number);
        // A library that was loaded later, and whose thread-locals this thread has not used.
        if library.here == 0 {
            continue;
        }
        // SAFETY: as above; a library that has thread-locals here has an entry.
        let entry: usize = unsafe { read(table, (16 * library.number).cast_signed()) };
        if library.number > length || entry != library.here {
            return Err("the table of thread-locals is laid out in another way");
        }
        // SAFETY: as above, of the running thread.
        let is_static = unsafe { place(pointer, library.number) }.is_some();
        let place = library.here..library.here + library.bytes;
        found |= is_static && place.contains(&here);
    }
    if !found {
        return Err("the runtime's own thread-locals are in no library that each thread has");
    }
    Ok((length, highest))
}

/// Whether the C library's id of the running thread is the kernel's. A green thread of another copy of this crate
/// has a made-up id.
pub(super) fn is_os_thread() -> Found<bool> {
    let tid = field(c"_thread_db_pthread_tid", 32, 1)?;
    // SAFETY: the calls have no preconditions; the C library says that the id is there in the running
    // thread's control block.
    unsafe { Ok(read::<i32>(libc::pthread_self() as usize, tid) == libc::gettid()) }
}

/// Looks at the running thread. `fresh`: the C library has just made it.
fn look(fresh: bool) -> Found<Seen> {
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
    if !is_os_thread()? {
        return Err("the thread's id is not where it should be");
    }
    let cancel = from_control + field(c"_thread_db_pthread_cancelhandling", 32, 1)?;
    let list = from_control + field(c"_thread_db_pthread_list", 128, 1)?;
    // SAFETY: as above.
    if unsafe { read::<usize>(pointer, list) == 0 || read::<usize>(pointer, list + 8) == 0 } {
        return Err("the thread is in no list");
    }
    let mut robust: *mut usize = ptr::null_mut();
    let mut length = 0_usize;
    // SAFETY: asks for the calling thread's list; both offsets are valid.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_get_robust_list,
            0,
            &raw mut robust,
            &raw mut length,
        )
    };
    let robust = if asked == 0 && length == 24 && !robust.is_null() {
        robust.expose_provenance()
    } else {
        // The call is not allowed here, or the C library was not allowed to give the list to the kernel. An
        // empty list leads to itself.
        let is_head = |&address: &usize| {
            // SAFETY: as above.
            unsafe {
                read::<[usize; 2]>(address, -8) == [address; 2] && read::<usize>(address, 16) == 0
            }
        };
        let mut words = (control + 8..control + size - 24).step_by(8);
        words.find(is_head).unwrap_or(0)
    };
    if !inside(robust) || !inside(robust - 8) {
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
    let here = here::here() as usize;
    let (length, highest) = look_at_table(pointer, here)?;
    let trims = fresh && length == highest + TABLE_SURPLUS;
    let mut common = Vec::new();
    for &offset in machine::COMMON {
        // SAFETY: as above.
        common.push((offset, unsafe { read(pointer, offset.cast_signed()) }));
    }
    let offsets = Offsets {
        control: from_control,
        tid,
        cancel,
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
        offsets,
        common,
        trims,
    })
}

/// Finds out how it is in this process.
pub(super) fn find() -> Found<CLibrary> {
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
    if pairs.iter().any(|(found, expected)| found != expected)
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
    let loader = library_of(allocate)?;
    let errno: unsafe extern "C" fn() -> *mut c_int = libc::__errno_location;
    let library = library_of(errno as *const c_void)?;
    // Not by `pthread_create`: the program may define one of its own.
    let threads = library_of(symbol(c"_thread_db_sizeof_pthread")?)?;
    if library == 0 || loader == 0 || threads == 0 {
        return Err("the C library is linked statically");
    }
    let mut here = look(false)?;
    let there = std::thread::Builder::new()
        .name(String::from("weald-probe"))
        .spawn(move || look(true))
        .map_err(|_| "no OS thread to look at")?
        .join()
        .map_err(|_| "the thread that looks has panicked")??;
    // The first thread has another one.
    here.offsets.resolver_state = there.offsets.resolver_state;
    here.trims = there.trims;
    if here != there {
        return Err("two threads are laid out in different ways");
    }
    // SAFETY: the names are functions of these types in every version of the C library that has
    // them; the self-test tries them.
    let library = unsafe {
        use std::mem::transmute;
        CLibrary {
            allocate: transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> *mut c_void>(
                allocate,
            ),
            deallocate: transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, bool)>(symbol(
                c"_dl_deallocate_tls",
            )?),
            call_destructors: transmute::<*mut c_void, unsafe extern "C" fn()>(call_destructors),
            init_ctype: transmute::<*mut c_void, unsafe extern "C" fn()>(init_ctype),
            reallocate: transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
            >(reallocate),
            free: transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(symbol(c"free")?),
            trims: here.trims,
            excluded: [library, loader, threads],
            common: here.common,
            offsets: here.offsets,
            keys: Keys(keys.cast_const().cast()),
            rseq,
        }
    };
    Ok(library)
}
