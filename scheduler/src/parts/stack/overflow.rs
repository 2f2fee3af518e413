//! Reports which thread's stack has overflowed before the process ends, instead of a bare segmentation fault.
//!
//! An overflow touches the guard of a slot, the kernel raises `SIGSEGV` (`SIGBUS` on some
//! systems), and the handler, on the alternate stack of the OS thread, takes these steps:
//!
//! 1. It looks the fault's address up in the table of regions (`region.rs`, invariant 3).
//! 2. If that is no guard of ours, the handler that was there before is called; if there was
//!    none, the default is put back and the fault happens again. So std's own message for OS
//!    threads, crash reporters and debuggers work as without us.
//! 3. If it is, it asks the scheduler which thread runs here, writes one line to descriptor 2 and aborts.
//!
//! These rules hold:
//!
//! 1. Everything that the handler calls is async-signal-safe: atomics, `write`, `sigaction`, `abort`. It
//!    allocates nothing and takes no lock, and the same holds for the function by which it asks the scheduler.
//! 2. The handler runs on an alternate stack. An OS thread that drives green threads holds an
//!    [`AltStack`] meanwhile. On an OS thread that has none, an overflow ends the process without a line.
//! 3. `PREVIOUS` is written before the handler is installed, and never afterwards.
#![allow(
    unsafe_code,
    reason = "installs a signal handler and an alternate signal stack"
)]

use std::cell::UnsafeCell;
use std::fmt::{self, Write};
use std::io;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::page::page_size;
use super::region;

/// Calls the function that it is given with the name and id of the green thread that runs on this OS thread. Does not
/// call it if none runs. An empty name stands for no name.
///
/// It runs in a signal handler, on a small stack: it must not allocate, lock or panic.
pub(crate) type Describe = fn(&mut dyn FnMut(&str, u64));

/// The [`Describe`] of the scheduler, or null.
static DESCRIBE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// The signals that an access to a guard raises.
const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Sets the function that knows which thread runs.
pub(crate) fn set_describe(describe: Describe) {
    // Release: pairs with the load in `report`; what the function reads is there by then.
    DESCRIBE.store(describe as *mut (), Ordering::Release);
}

/// Installs the handler for the whole process; from the second call on it does nothing.
///
/// # Errors
/// What `sigaction(2)` says; every later call says it again.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Option<i32>> = OnceLock::new();
    let error = INSTALLED.get_or_init(|| install_once().err()?.raw_os_error());
    error.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
}

fn install_once() -> io::Result<()> {
    for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
        // SAFETY: all zeros is a valid `sigaction`: default, no flags, empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        let handler: extern "C" fn(_, _, _) = handle;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `install` lets one thread in here, and no handler of ours runs yet, so the cell
        // is ours (invariant 3). Both structures are valid, and the handler keeps to invariant 1.
        unsafe {
            check(libc::sigaction(
                signal,
                ptr::null(),
                (*previous.0.get()).as_mut_ptr(),
            ))?;
            check(libc::sigaction(signal, &raw const action, ptr::null_mut()))?;
        }
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The action of a signal before ours was installed.
struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written by one thread before the handler that reads it is installed (invariant 3).
unsafe impl Sync for Previous {}

/// In the order of [`SIGNALS`].
static PREVIOUS: [Previous; 2] = [const { Previous(UnsafeCell::new(MaybeUninit::uninit())) }; 2];

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid structure. A positive code says
    // that it is a fault, and then there is an address in it.
    let fault = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr() as usize) };
    match fault.and_then(region::guard_at) {
        Some(size) => report(size),
        None => chain(signal, info, context),
    }
}

/// Does what the program would do with the signal without this handler. It does not add the mask of the
/// earlier handler, and calls it on the alternate stack even if it did not ask for one.
fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = &PREVIOUS[usize::from(signal != SIGNALS[0])];
    // SAFETY: it was written before this handler was installed (invariant 3).
    let previous = unsafe { (*previous.0.get()).assume_init_ref() };
    let handler = previous.sa_sigaction;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // A fault happens again when this returns. A signal that was sent does not, so it is sent
        // once more: blocked until this returns, then treated as it would have been.
        // SAFETY: the structure is the kernel's own; both calls are safe in a handler.
        unsafe {
            libc::sigaction(signal, previous, ptr::null_mut());
            if (*info).si_code <= 0 {
                libc::raise(signal);
            }
        }
    } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: with SA_SIGINFO what is neither default nor ignore is a function of this type.
        let action = unsafe { mem::transmute::<libc::sighandler_t, Action>(handler) };
        action(signal, info, context);
    } else {
        type Action = extern "C" fn(libc::c_int);
        // SAFETY: without SA_SIGINFO what is neither default nor ignore is a function of this type.
        let action = unsafe { mem::transmute::<libc::sighandler_t, Action>(handler) };
        action(signal);
    }
}

fn report(size: usize) -> ! {
    let mut line = Line::new();
    // Writing a line cannot fail: what the descriptor does not take is lost.
    let _ = line.write_str("weald: stack overflow in ");
    let mut is_reported = false;
    // Acquire: pairs with `set_describe`.
    let describe = DESCRIBE.load(Ordering::Acquire);
    if !describe.is_null() {
        // SAFETY: what is not null there is a `Describe`, put by `set_describe`.
        let describe = unsafe { mem::transmute::<*mut (), Describe>(describe) };
        describe(&mut |name, id| {
            let name = if name.is_empty() { "<unnamed>" } else { name };
            let _ = write!(line, "green thread '{name}' (id {id})");
            is_reported = true;
        });
    }
    if !is_reported {
        let _ = line.write_str("a green thread");
    }
    let kib = size >> 10;
    let _ = writeln!(
        line,
        ", stack size {kib} KiB; raise it with Builder::stack_size or WEALD_STACK_SIZE"
    );
    line.flush();
    // SAFETY: both calls are safe in a handler. The default for SIGABRT makes sure that the process
    // ends here, whatever the program had in mind for that signal.
    unsafe {
        libc::signal(libc::SIGABRT, libc::SIG_DFL);
        libc::abort()
    }
}

/// Collects text for descriptor 2 without allocating. If a line fits, it is written by one `write`, so that the
/// lines of two threads do not mix.
struct Line {
    text: [u8; 512],
    len: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            text: [0; 512],
            len: 0,
        }
    }

    fn flush(&mut self) {
        let mut rest = &self.text[..self.len];
        while !rest.is_empty() {
            // SAFETY: the bytes are valid for reading, and `write` is safe in a handler.
            let wrote = unsafe { libc::write(2, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(wrote) {
                Ok(wrote @ 1..) => rest = &rest[wrote..],
                Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                _ => break, // Nobody is left to tell.
            }
        }
        self.len = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.len == self.text.len() {
                self.flush();
            }
            self.text[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// The stack on which this OS thread handles signals, for as long as this value lives. It belongs
/// to the thread that made it and stays there.
#[derive(Debug)]
#[must_use = "the alternate stack is given up when this is dropped"]
pub(crate) struct AltStack {
    /// `None` if the thread had one that is large enough.
    ours: Option<OurAltStack>,
    /// Another thread could not take the alternate stack away from this one.
    not_send: PhantomData<*mut ()>,
}

#[derive(Debug)]
struct OurAltStack {
    /// The guard page, with the stack above it.
    mapping: *mut libc::c_void,
    bytes: usize,
    /// What the thread had before.
    previous: libc::stack_t,
}

/// Bytes beyond the kernel's frame, of address space: formatting in a debug build takes about 4 KiB, and
/// handlers to which we chain want as much as they would have had. Wasmtime wants 256 KiB, and where there are less it
/// sets an alternate stack of its own, which it unmaps at the end of the *green* thread.
const ALT_STACK_ROOM: usize = 272 << 10;

impl AltStack {
    /// Gives this OS thread an alternate signal stack, unless it has one that is large enough. std
    /// gives its threads one too, but of 8 KiB.
    ///
    /// # Errors
    /// What `mmap(2)`, `mprotect(2)` or `sigaltstack(2)` say: mostly that there is no memory.
    pub(crate) fn for_this_thread() -> io::Result<Self> {
        let (page, size) = (page_size(), alt_stack_size());
        // SAFETY: all zeros is a valid `stack_t`, and the call only fills it in.
        let previous = unsafe {
            let mut previous: libc::stack_t = mem::zeroed();
            check(libc::sigaltstack(ptr::null(), &raw mut previous))?;
            previous
        };
        if previous.ss_flags & libc::SS_DISABLE == 0 && previous.ss_size >= size {
            return Ok(Self {
                ours: None,
                not_send: PhantomData,
            });
        }
        let bytes = page + size;
        // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let alternate = libc::stack_t {
            ss_sp: mapping.wrapping_byte_add(page),
            ss_flags: 0,
            ss_size: size,
        };
        // SAFETY: the mapping is ours, and stays until the alternate stack is another one.
        let result = unsafe {
            check(libc::mprotect(mapping, page, libc::PROT_NONE))
                .and_then(|()| check(libc::sigaltstack(&raw const alternate, ptr::null_mut())))
        };
        if let Err(error) = result {
            // SAFETY: the mapping is ours and nobody uses it.
            unsafe { libc::munmap(mapping, bytes) };
            return Err(error);
        }
        let ours = Some(OurAltStack {
            mapping,
            bytes,
            previous,
        });
        Ok(Self {
            ours,
            not_send: PhantomData,
        })
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let Some(ours) = &self.ours else { return };
        // SAFETY: this is the thread that made it, as the type is not Send. The mapping goes away
        // only once the thread has no alternate stack in it: the one that was set since then stays.
        // A thread that handles a signal on it right now cannot give it up; then it leaks.
        unsafe {
            let mut current: libc::stack_t = mem::zeroed();
            if libc::sigaltstack(ptr::null(), &raw mut current) != 0 {
                return;
            }
            let is_ours = current.ss_sp == ours.mapping.wrapping_byte_add(page_size());
            if is_ours && libc::sigaltstack(&raw const ours.previous, ptr::null_mut()) != 0 {
                return;
            }
            libc::munmap(ours.mapping, ours.bytes);
        }
    }
}

/// Bytes of an alternate stack: the frame that the kernel writes, which grows with the registers of
/// the processor, and room for the handler. Whole pages.
fn alt_stack_size() -> usize {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let frame = {
        /// Of `linux/auxvec.h`. Zero is the answer of a kernel that does not tell.
        const AT_MINSIGSTKSZ: libc::c_ulong = 51;
        // SAFETY: the call has no preconditions.
        let answer = unsafe { libc::getauxval(AT_MINSIGSTKSZ) };
        usize::try_from(answer).unwrap_or(0).max(libc::MINSIGSTKSZ)
    };
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let frame = libc::MINSIGSTKSZ;
    (frame + ALT_STACK_ROOM).next_multiple_of(page_size())
}

#[cfg(test)]
#[path = "overflow_tests.rs"]
mod tests;
