//! Where the C library keeps what it keeps for a thread (`kept.rs`): tried out on a block that nobody runs on. A
//! function of the C library is called there, and what has changed is what it keeps.
#![allow(
    unsafe_code,
    reason = "calls the C library on blocks that nobody runs on"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use super::block::Block;
use super::destructors::finish;
use super::heap::Heap;
use super::ids::Ids;
use super::kept::{Kept, RESOLVER_BYTES};
use super::layout::CLibrary;
use super::libraries::{libraries, place};
use super::memory::{Found, read, size, symbol};
use super::pool;
use super::visit::on_block;

/// Finds out where these things are.
pub(super) fn find(library: &CLibrary, heap: &Heap, ids: &Ids) -> Found<Kept> {
    let block = Block::make(library, ids).ok_or("no memory for a block")?;
    // SAFETY: the block is new, and goes to the pool as one that was used.
    let learned = unsafe {
        let learned = learn_on(library, heap, &block);
        // As at the end of a thread, because another `malloc` may know of this one.
        on_block(&library.offsets, heap, block.pointer(), || finish(library));
        learned
    };
    pool::release(block);
    learned
}

/// # Safety
/// The block is new.
unsafe fn learn_on(library: &CLibrary, heap: &Heap, block: &Block) -> Found<Kept> {
    unsafe extern "C" {
        fn strsignal(signal: c_int) -> *const c_char;
    }
    let pointer = block.pointer();
    let all = libraries();
    let own = all.iter().find(|it| it.base == library.begins());
    let own = own.ok_or("the C library has no thread-locals")?;
    // SAFETY: the block is complete.
    let start = unsafe { place(pointer, own.number) };
    let start = start.ok_or("the C library's thread-locals are not in the block")?;
    let start = start.wrapping_sub(pointer).cast_signed();
    let control = library.offsets.control;
    if start % 8 != 0 || control % 8 != 0 {
        return Err("the C library's thread-locals are not aligned");
    }
    let areas = Areas {
        pointer,
        library: (start, own.bytes / 8),
        control: (control, size(c"_thread_db_sizeof_pthread")? / 8),
    };
    let resolver = library.offsets.resolver_state - control;
    if resolver < 0 || resolver.cast_unsigned() + RESOLVER_BYTES > 8 * areas.control.1 {
        return Err("the resolver's state is not in the control block");
    }
    // Looked up here, because a name that does not exist is noted as an error in the block.
    let allocators = allocators();
    let image = areas.see();
    // SAFETY: the functions are the C library's, and nobody runs on the block. What they
    // allocate is freed below, or belongs to `malloc`.
    let (classes, malloc, cancel, buffers, error) = unsafe {
        let try_out = |f: &dyn Fn()| {
            let before = areas.see();
            on_block(&library.offsets, heap, pointer, f);
            areas.changed(&before)
        };
        let classes = try_out(&|| (library.init_ctype)());
        let mut malloc = try_out(&|| use_malloc(&allocators));
        malloc.extend(try_out(&|| use_malloc(&allocators)));
        let cancel = try_out(&|| {
            pthread_setcancelstate(1, ptr::null_mut());
            pthread_setcanceltype(1, ptr::null_mut());
        });
        let buffers = try_out(&|| {
            strsignal(1234);
            libc::strerror(123_456);
        });
        let error = try_out(&|| {
            libc::dlsym(libc::RTLD_DEFAULT, c"weald: nobody has this name".as_ptr());
        });
        (classes, malloc, cancel, buffers, error)
    };
    let is_errno = |offset: isize| offset == library.offsets.errno & !7;
    let stays = |offset: isize| {
        let learned = classes.contains(&offset) || malloc.contains(&offset);
        (learned || offset == library.offsets.resolver) && !is_errno(offset)
    };
    let word = |index: usize| {
        let offset = start + 8 * index.cast_signed();
        let stay = if stays(offset) { u64::MAX } else { 0 };
        (stay, image.0[index] & !stay)
    };
    let (stay, its_image): (Vec<u64>, Vec<u64>) = (0..areas.library.1).map(word).unzip();
    // Older versions keep buffers as pthread values, whose destructors free them.
    let values = library.offsets.values..library.offsets.values + 8 * 33;
    let first_values = library.offsets.first_values..library.offsets.first_values + 16 * 32;
    let other = |offset: &isize| {
        let is_value = values.contains(offset) || first_values.contains(offset);
        !is_errno(*offset) && !stays(*offset) && !is_value
    };
    let buffers: Box<[isize]> = buffers.into_iter().filter(other).collect();
    let error: Vec<isize> = error.into_iter().filter(other).collect();
    // SAFETY (for all reads): within the areas.
    let is_new = |offset: &isize| image.at(&areas, *offset) == 0;
    if error.len() > 1 || !error.iter().chain(&buffers).all(is_new) {
        return Err("the C library keeps its messages in another way");
    }
    let half = |offset: isize| {
        // Little-endian: the lower half comes first.
        let word = image.at(&areas, offset & !7);
        (offset, (word >> (8 * (offset & 4))) as u32)
    };
    let mut halves: Vec<_> = cancel
        .into_iter()
        .filter(other)
        .flat_map(|offset| [half(offset), half(offset + 4)])
        .collect();
    let bits = half(library.offsets.cancel);
    if !halves.contains(&bits) {
        halves.push(bits);
    }
    if halves.len() > 6 {
        return Err("the C library keeps what it knows of cancellation in another way");
    }
    let close = symbol(c"__res_nclose").ok();
    let kept = Kept {
        start,
        stay: stay.into(),
        image: its_image.into(),
        buffers,
        error: error.first().copied(),
        cancel: halves.into(),
        // SAFETY: the name is a function of this type in every version that has it.
        close_resolver: close.map(|close| unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(usize)>(close)
        }),
    };
    Ok(kept)
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int;
}

/// `malloc` and `free`.
type Allocator = (
    unsafe extern "C" fn(usize) -> *mut c_void,
    unsafe extern "C" fn(*mut c_void),
);

/// The `malloc` of the process, and that of the C library, which may be another one.
fn allocators() -> Vec<Allocator> {
    let names: [(&CStr, &CStr); 2] = [(c"malloc", c"free"), (c"__libc_malloc", c"__libc_free")];
    let pair = |(malloc, free)| {
        let (malloc, free) = (symbol(malloc).ok()?, symbol(free).ok()?);
        // SAFETY: the names are functions of these types.
        Some(unsafe {
            use std::mem::transmute;
            (
                transmute::<*mut c_void, unsafe extern "C" fn(usize) -> *mut c_void>(malloc),
                transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(free),
            )
        })
    };
    names.into_iter().filter_map(pair).collect()
}

/// Calls `malloc`, so that it makes what it keeps for a thread.
fn use_malloc(allocators: &[Allocator]) {
    for &(malloc, free) in allocators {
        for bytes in [24, 100, 1000, 100_000] {
            // SAFETY: what the one has made the other frees.
            unsafe { free(malloc(bytes)) };
        }
    }
}

/// The parts of a block where the C library keeps what it keeps: the first word of each, from the
/// thread pointer, and how many there are.
struct Areas {
    pointer: usize,
    library: (isize, usize),
    control: (isize, usize),
}

/// Reads the words.
struct Words(Vec<u64>, Vec<u64>);

impl Areas {
    fn see(&self) -> Words {
        let see = |(start, count): (isize, usize)| {
            // SAFETY: the areas lie in the block.
            let word =
                |index: usize| unsafe { read(self.pointer, start + 8 * index.cast_signed()) };
            (0..count).map(word).collect()
        };
        Words(see(self.library), see(self.control))
    }

    /// The offsets of the words that are not as before.
    fn changed(&self, before: &Words) -> Vec<isize> {
        let now = self.see();
        let of = |start: isize, before: &[u64], now: &[u64]| {
            let differ = (0..before.len()).filter(|&index| before[index] != now[index]);
            differ
                .map(|index| start + 8 * index.cast_signed())
                .collect::<Vec<_>>()
        };
        let mut changed = of(self.library.0, &before.0, &now.0);
        changed.extend(of(self.control.0, &before.1, &now.1));
        changed
    }
}

impl Words {
    /// The word at this place.
    fn at(&self, areas: &Areas, offset: isize) -> u64 {
        let index = |start: isize| ((offset - start) / 8).cast_unsigned();
        let (start, count) = areas.library;
        if offset >= start && index(start) < count {
            self.0[index(start)]
        } else {
            self.1[index(areas.control.0)]
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::cell::Cell;
    use std::mem::zeroed;

    use crate::parts::thread_locals::machine;
    use crate::parts::thread_locals::own::Support;
    use crate::parts::thread_locals::visit::Blocked;

    /// Each copy of the crate in a process finds out for itself how the C library lays out a thread,
    /// and makes up its own ids.
    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn a_recursive_mutex_of_one_copys_thread_is_not_given_to_the_others() {
        if machine::refusal().is_some() {
            return;
        }
        let _blocked = Blocked::new();
        let (ours, theirs) = (Support::find().unwrap(), Support::find().unwrap());
        let threads = [
            (&ours, ours.make().unwrap()),
            (&theirs, theirs.make().unwrap()),
        ];
        let answer = Cell::new(-1);
        // SAFETY: a mutex of this stack, initialised before its use and destroyed after; nobody runs on
        // the blocks.
        unsafe {
            let (mut kind, mut mutex) = (zeroed(), zeroed());
            libc::pthread_mutexattr_init(&raw mut kind);
            libc::pthread_mutexattr_settype(&raw mut kind, libc::PTHREAD_MUTEX_RECURSIVE);
            libc::pthread_mutex_init(&raw mut mutex, &raw const kind);
            let mutex = &raw mut mutex;
            let on = |number: usize, f: unsafe extern "C" fn(_) -> _| {
                let (own, block) = &threads[number];
                own.on_block(block.pointer(), || answer.set(f(mutex)));
                answer.get()
            };
            assert_eq!(on(0, libc::pthread_mutex_lock), 0);
            assert_eq!(on(0, libc::pthread_mutex_lock), 0);
            assert_eq!(on(1, libc::pthread_mutex_trylock), libc::EBUSY);
            assert_eq!(on(1, libc::pthread_mutex_unlock), libc::EPERM);
            assert_eq!(on(0, libc::pthread_mutex_unlock), 0);
            assert_eq!(on(0, libc::pthread_mutex_unlock), 0);
            assert_eq!(on(1, libc::pthread_mutex_trylock), 0);
            assert_eq!(on(1, libc::pthread_mutex_unlock), 0);
            libc::pthread_mutex_destroy(mutex);
        }
    }
}
