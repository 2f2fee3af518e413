//! What the C library keeps for each thread, and does not clean up by destructors: `errno`, the locale
//! of `uselocale(3)`, whether `pthread_cancel(3)` counts, the last error of `dlerror(3)`, the buffers
//! of `strerror(3)` and `strsignal(3)`, the resolver's state, what `malloc` has in reserve.
//!
//! A new OS thread begins without all that. So must a green thread, also on a block that was used. What
//! `malloc` keeps belongs to the OS thread that the green thread runs on (`heap.rs`); where that is not
//! understood, it stays with the block, as nobody could free it but the C library.
//!
//! Where things are is tried out on a block that nobody runs on: a function of the C library is called
//! there, and what has changed is what it keeps. The thread-locals of the C library are few words (18
//! of glibc 2.36):
//!
//! | words                           | in a block that is used again                       |
//! |---------------------------------|-----------------------------------------------------|
//! | `malloc`'s, the resolver's pointer | stay                                             |
//! | tables of character classes     | stay; the thread itself asks for them when it begins |
//! | what is to be freed             | is freed, then as in the image                      |
//! | all others                      | as in the image                                     |
//!
//! 1. A start that finds nothing to be freed calls nothing: it compares a few words, and copies the others.
//! 2. Calls on a block that nobody runs on are made with all signals blocked: a handler would run on
//!    that block, that of `setuid(2)` (`setxid.rs`) among them.
#![allow(
    unsafe_code,
    reason = "calls the C library on blocks that nobody runs on"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use super::block::{Block, release};
use super::layout::{Found, Own, read, size, symbol, write};
use super::libraries::{libraries, place};
use super::machine;
use crate::shim::here;

/// Bytes of `struct __res_state`, the resolver's state, by its ABI.
const RESOLVER_BYTES: usize = 568;

/// `LC_GLOBAL_LOCALE` of `locale.h`.
const GLOBAL_LOCALE: libc::locale_t = ptr::without_provenance_mut(usize::MAX);

/// Words that hold what the C library keeps, from the thread pointer, and what else is known of it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The first of the C library's thread-locals.
    start: isize,
    /// Of each word the bits that stay, then the others. Two lists, so that the compiler takes several words at
    /// a time.
    stay: Box<[u64]>,
    image: Box<[u64]>,
    /// Pointers to memory that is to be freed: null in a new thread.
    buffers: Box<[isize]>,
    /// The error that `dlerror` tells of next: null in a new thread.
    error: Option<isize>,
    /// Half words about cancellation, and what a new thread has there.
    cancel: Box<[(isize, u32)]>,
    /// Closes the sockets of a resolver's state, and frees what it points to.
    close_resolver: Option<unsafe extern "C" fn(usize)>,
}

impl Own {
    /// Makes what the C library keeps as it is in a new thread. The libraries' thread-locals are made new
    /// after it: it may run what uses them.
    ///
    /// # Safety
    /// The block is the caller's, and nobody runs on it.
    #[inline]
    pub(super) unsafe fn renew_kept(&self, pointer: usize) {
        let (kept, places) = (&self.kept, &self.places);
        // SAFETY: by contract; the places were found in a block of this layout.
        unsafe {
            // Seconds between tries, tries, options: set when the state is made.
            let resolver: [u64; 2] = read(pointer, places.resolver_state);
            let mut used = resolver[0] | resolver[1];
            for &offset in &kept.buffers {
                used |= read::<u64>(pointer, offset);
            }
            if let Some(offset) = kept.error {
                used |= read::<u64>(pointer, offset);
            }
            if used != 0 {
                self.free_kept(pointer);
            }
            let start = pointer.wrapping_add_signed(kept.start);
            let words = std::slice::from_raw_parts_mut(
                ptr::with_exposed_provenance_mut::<u64>(start),
                kept.stay.len(),
            );
            for ((word, stay), image) in words.iter_mut().zip(&kept.stay).zip(&kept.image) {
                *word = *word & stay | image;
            }
            for &(offset, half) in &kept.cancel {
                write(pointer, offset, half);
            }
            self.empty_robust(pointer);
        }
    }

    /// Frees what the last thread of the block has left of the C library's.
    ///
    /// # Safety
    /// As in `renew_kept`.
    #[cold]
    #[inline(never)]
    unsafe fn free_kept(&self, pointer: usize) {
        unsafe extern "C" {
            fn dlerror() -> *const c_char;
        }
        let kept = &self.kept;
        let resolver = pointer.wrapping_add_signed(self.places.resolver_state);
        // SAFETY: by contract; the words were seen to be pointers to memory of malloc's. The resolver's
        // state is complete if it has name servers.
        unsafe {
            let error = kept.error.map_or(0, |offset| read(pointer, offset));
            if error != 0_usize {
                self.on_block(pointer, || {
                    // The locale may be gone that the thread has used.
                    libc::uselocale(GLOBAL_LOCALE);
                    // Tells of it, then frees it.
                    dlerror();
                    dlerror();
                    // Another `malloc` may have begun here, and must not go on when the block is used
                    // for another thread, or is no more.
                    self.finish();
                });
            }
            for &offset in &kept.buffers {
                let buffer: usize = read(pointer, offset);
                write(pointer, offset, 0_usize);
                (self.free)(ptr::with_exposed_provenance_mut(buffer));
            }
            let servers: c_int = read(resolver, 16);
            if servers != 0
                && let Some(close) = kept.close_resolver
            {
                close(resolver);
            }
            ptr::with_exposed_provenance_mut::<u8>(resolver).write_bytes(0, RESOLVER_BYTES);
        }
    }

    /// Makes the list of robust mutexes an empty one, which leads to itself.
    ///
    /// # Safety
    /// As in `renew_kept`.
    #[inline]
    pub(super) unsafe fn empty_robust(&self, pointer: usize) {
        let robust = self.places.robust;
        let head = pointer.wrapping_add_signed(robust);
        // SAFETY: by contract; the head of the list has a link back before it, and the mutex that
        // is being locked in its third word.
        unsafe {
            write(pointer, robust - 8, [head; 2]);
            write(pointer, robust + 16, 0_usize);
        }
    }

    /// Calls functions of the C library on another block (2). Who asks there which carrier this is, as a
    /// hooked call of the C library does, is told as on the OS thread's own block; `malloc` uses what the
    /// OS thread has.
    ///
    /// # Safety
    /// The block is complete and nobody runs on it; `f` touches no thread-local itself.
    #[inline(never)]
    pub(super) unsafe fn on_block(&self, pointer: usize, f: impl FnOnce()) {
        let _blocked = Blocked::new();
        let (host, here) = (machine::pointer(), self.here(pointer));
        // SAFETY: by contract; the pointer is the OS thread's again when this returns.
        unsafe {
            here::arrive(here, ptr::null());
            here::drive(here, here::carrier(), 0);
            self.while_lent(pointer, || {
                machine::set_pointer(pointer);
                f();
                machine::set_pointer(host);
            });
        }
    }

    /// Finds out where these things are. `library`: where the C library begins.
    pub(super) fn learn(&mut self, library: usize) -> Found<()> {
        let block = self.make().ok_or("no memory for a block")?;
        // SAFETY: the block is new, and goes to the pool as one that was used.
        let learned = unsafe {
            let learned = self.learn_on(&block, library);
            // As after a thread: another `malloc` knows of this one.
            self.on_block(block.pointer(), || self.finish());
            learned
        };
        release(block);
        self.kept = learned?;
        Ok(())
    }

    /// # Safety
    /// The block is new.
    unsafe fn learn_on(&self, block: &Block, library: usize) -> Found<Kept> {
        unsafe extern "C" {
            fn strsignal(signal: c_int) -> *const c_char;
        }
        let pointer = block.pointer();
        let all = libraries();
        let own = all.iter().find(|it| it.base == library);
        let own = own.ok_or("the C library has no thread-locals")?;
        // SAFETY: the block is complete.
        let start = unsafe { place(pointer, own.number) };
        let start = start.ok_or("the C library's thread-locals are not in the block")?;
        let start = start.wrapping_sub(pointer).cast_signed();
        let control = self.places.control;
        if start % 8 != 0 || control % 8 != 0 {
            return Err("the C library's thread-locals are not aligned");
        }
        let areas = Areas {
            pointer,
            library: (start, own.bytes / 8),
            control: (control, size(c"_thread_db_sizeof_pthread")? / 8),
        };
        let resolver = self.places.resolver_state - control;
        if resolver < 0 || resolver.cast_unsigned() + RESOLVER_BYTES > 8 * areas.control.1 {
            return Err("the resolver's state is not in the control block");
        }
        // Looked up here: where there is none, it is noted as an error of the block's.
        let allocators = allocators();
        let image = areas.see();
        // SAFETY: the functions are the C library's, and nobody runs on the block. What they
        // allocate is freed below, or belongs to `malloc`.
        let (classes, malloc, cancel, buffers, error) = unsafe {
            let try_out = |f: &dyn Fn()| {
                let before = areas.see();
                self.on_block(pointer, f);
                areas.changed(&before)
            };
            let classes = try_out(&|| (self.init_ctype)());
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
        let is_errno = |offset: isize| offset == self.places.errno & !7;
        let stays = |offset: isize| {
            let learned = classes.contains(&offset) || malloc.contains(&offset);
            (learned || offset == self.places.resolver) && !is_errno(offset)
        };
        let word = |index: usize| {
            let offset = start + 8 * index.cast_signed();
            let stay = if stays(offset) { u64::MAX } else { 0 };
            (stay, image.0[index] & !stay)
        };
        let (stay, its_image): (Vec<u64>, Vec<u64>) = (0..areas.library.1).map(word).unzip();
        // Older versions keep buffers as pthread values, whose destructors free them.
        let values = self.places.values..self.places.values + 8 * 33;
        let first_values = self.places.first_values..self.places.first_values + 16 * 32;
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
        let bits = half(self.places.cancel);
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

/// The process's, and the C library's own, which may be another.
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

/// Has `malloc` make what it keeps for a thread.
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

/// What is there.
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

    /// The places of the words that are not as before.
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

/// While it lives no signal is handled on this OS thread, not even those of the C library, which its
/// functions would leave out.
pub(super) struct Blocked(u64);

impl Blocked {
    pub(super) fn new() -> Self {
        let mut before = 0;
        // SAFETY: the kernel's masks have 64 bits here.
        unsafe { set_mask(&u64::MAX, &raw mut before) };
        Self(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { set_mask(&self.0, ptr::null_mut()) };
    }
}

/// # Safety
/// `before` is null or valid.
unsafe fn set_mask(mask: &u64, before: *mut u64) {
    // SAFETY: by contract.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(mask),
            before,
            size_of::<u64>(),
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::cell::Cell;
    use std::mem::zeroed;

    use super::Blocked;
    use crate::parts::thread_locals::{layout, machine};

    /// Each copy of the crate in a process finds out for itself how the C library lays out a thread,
    /// and makes up its own ids.
    #[test]
    #[cfg_attr(miri, ignore = "Miri runs no assembly")]
    fn a_recursive_mutex_of_one_copys_thread_is_not_given_to_the_others() {
        if machine::refusal().is_some() {
            return;
        }
        let _blocked = Blocked::new();
        let (ours, theirs) = (layout::find().unwrap(), layout::find().unwrap());
        let threads = [
            (&ours, ours.make().unwrap()),
            (&theirs, theirs.make().unwrap()),
        ];
        let told = Cell::new(-1);
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
                own.on_block(block.pointer(), || told.set(f(mutex)));
                told.get()
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
