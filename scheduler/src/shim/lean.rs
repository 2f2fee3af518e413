//! *Lean* OS threads leave nothing behind when they end. Spare carriers are lean, because a program may need thousands
//! of them for a moment.
//!
//! glibc keeps up to 40 MiB of the stacks that it has made for OS threads, with two mappings each. And
//! each OS thread that calls `malloc` or `free` gets an arena, up to eight for each core, which stays for
//! ever. So a lean thread
//! - runs on a mapping of weald's own, which is unmapped once the thread has been joined;
//! - shares an arena with others (`arena.rs`). It must do so before anything allocates in the thread. A thread of std's
//!   allocates before its body begins, so this is no thread of std's: `std::thread::current()` has no name in it. The
//!   system knows the name.
//!
//! ```text
//! low   guard       64 KiB, inaccessible
//!       data      the body and the name, until the thread has taken them
//! high  stack       the C library puts the thread's own part and its thread-locals at the upper end
//! ```
//!
//! Invariant: the mapping of a lean thread goes away only after the thread has been joined. A handle that is
//! dropped instead leaves the mapping for ever, because the thread may run there.

use std::io;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// The size of a stack: the default of std's threads. Only hooks and the
/// destructors of thread-locals are the user's code that runs there.
const STACK: usize = 2 << 20;

/// The size of a guard. A frame of some KiB that is compiled without probes does not step over it.
const GUARD: usize = 64 << 10;

/// Linux keeps at most so many bytes of a name, with the zero at its end.
const NAME: usize = 16;

/// A lean thread that has not been joined.
#[derive(Debug)]
pub(crate) struct Lean {
    thread: libc::pthread_t,
    stack: ManuallyDrop<Stack>,
}

/// A mapping, until this is dropped.
#[derive(Debug)]
struct Stack {
    address: usize,
    bytes: usize,
}

impl Stack {
    fn new() -> io::Result<Self> {
        let bytes = GUARD + STACK;
        // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self {
            address: address.addr(),
            bytes,
        };
        let open = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the pages are ours, and nobody uses them.
        if unsafe { libc::mprotect(stack.lowest().cast(), STACK, open) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// The lowest address above the guard.
    fn lowest(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.address + GUARD)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the thread that ran there has been joined, or never began.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.address), self.bytes) };
    }
}

/// The data that a new thread finds at the lower end of its stack.
struct StartData<F> {
    name: [u8; NAME],
    body: F,
}

/// Starts a lean thread. Its body must not panic: the process ends if it does.
///
/// # Errors
/// The system's, with the body. `EINVAL`: the program's thread-locals leave no room for a stack there.
pub(crate) fn start<F>(name: &str, body: F) -> Result<Lean, (io::Error, F)>
where
    F: FnOnce() + Send + 'static,
{
    let stack = match Stack::new() {
        Ok(stack) => stack,
        Err(error) => return Err((error, body)),
    };
    let mut data = StartData {
        name: [0; NAME],
        body,
    };
    let length = name.len().min(NAME - 1);
    data.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    let place: *mut StartData<F> = stack.lowest().cast();
    const { assert!(size_of::<StartData<F>>() <= 1024 && align_of::<StartData<F>>() <= 4096) };
    // SAFETY: the place is ours, large enough and aligned to pages.
    unsafe { place.write(data) };
    let mut thread = 0;
    // SAFETY: the stack is ours and stays until the thread has been joined. The data belongs to the new thread
    // as soon as that exists.
    let error = unsafe { create(&mut thread, &stack, run::<F>) };
    if error != 0 {
        // SAFETY: no thread was made, so the data is still ours.
        let StartData { body, .. } = unsafe { place.read() };
        return Err((io::Error::from_raw_os_error(error), body));
    }
    let stack = ManuallyDrop::new(stack);
    Ok(Lean { thread, stack })
}

/// Returns an error's number, or zero.
///
/// # Safety
/// `run` may run on the stack with what lies at its lower end.
unsafe fn create(
    thread: &mut libc::pthread_t,
    stack: &Stack,
    run: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
) -> libc::c_int {
    let lowest = stack.lowest().cast();
    // SAFETY: the attributes live over the calls; the rest by contract.
    unsafe {
        let mut attributes = mem::zeroed();
        let error = libc::pthread_attr_init(&raw mut attributes);
        if error != 0 {
            return error;
        }
        let mut error = libc::pthread_attr_setstack(&raw mut attributes, lowest, STACK);
        if error == 0 {
            error = libc::pthread_create(thread, &raw const attributes, run, lowest);
        }
        libc::pthread_attr_destroy(&raw mut attributes);
        error
    }
}

extern "C" fn run<F: FnOnce()>(data: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: the function that started this thread has left the data to it.
    let StartData { name, body } = unsafe { data.cast::<StartData<F>>().read() };
    // SAFETY: the name ends with a zero.
    unsafe { libc::pthread_setname_np(libc::pthread_self(), name.as_ptr().cast()) };
    #[cfg(target_pointer_width = "64")]
    let arena = crate::shim::arena::Borrowed::begin();
    let result = catch_unwind(AssertUnwindSafe(body));
    #[cfg(target_pointer_width = "64")]
    drop(arena);
    if result.is_err() {
        // The panic hook has said so.
        std::process::abort();
    }
    ptr::null_mut()
}

impl Lean {
    /// Waits until it has ended.
    pub(crate) fn join(self) {
        // SAFETY: it was started, and is joined here and nowhere else, as the handle ends.
        unsafe { libc::pthread_join(self.thread, ptr::null_mut()) };
        drop(ManuallyDrop::into_inner(self.stack));
    }
}
