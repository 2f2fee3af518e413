//! Dumps on `SIGQUIT`, as the JVM and Go do: `kill -QUIT`, or Ctrl-\ at the terminal.
//!
//! The handler writes a byte into a pipe, which is all that it may do (signal-safety(7)); an OS thread
//! reads it and writes the dumps of all runtimes that asked for it. Both stay until the process ends. A
//! handler that was there before is called as well.
#![allow(unsafe_code, reason = "a signal handler")]

use std::io::{self, PipeReader, Read as _};
use std::os::fd::IntoRawFd as _;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::thread;

use crate::engine::inner::Inner;
use crate::parts::errno::KeepErrno;
use crate::parts::last_words;
use crate::shim::plain::Mutex;
use crate::watch::dump;
use crate::watch::trace_file;

/// The end of the pipe that the handler writes into; -1: there is none yet.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// What `SIGQUIT` did before; null until it is known. Never freed, as the handler may look at any time.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

static RUNTIMES: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// From now on `SIGQUIT` dumps this runtime too.
pub(crate) fn watch(inner: &Arc<Inner>) -> io::Result<()> {
    let mut runtimes = RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner);
    install_once()?;
    runtimes.retain(|runtime| runtime.strong_count() > 0);
    runtimes.push(Arc::downgrade(inner));
    Ok(())
}

/// From now on `SIGQUIT` has a trace written, if one is wanted.
pub(crate) fn write_traces() -> io::Result<()> {
    let _runtimes = RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner);
    install_once()
}

/// Under the lock of `RUNTIMES`.
fn install_once() -> io::Result<()> {
    if PIPE.load(Ordering::Relaxed) < 0 {
        install()?;
    }
    Ok(())
}

fn install() -> io::Result<()> {
    // The new OS thread is not the caller, whose calls of libc may be hooked.
    let _bypass = crate::shim::bypass::Bypass::enter();
    let (reader, writer) = io::pipe()?;
    thread::Builder::new()
        .name(String::from("weald-sigquit"))
        .spawn(move || write_dumps(reader))?;
    PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
    // SAFETY: all zeros is a valid `sigaction`: no flags, empty mask.
    let (mut action, mut before): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let handler: Handler = on_signal;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
    // SAFETY: there is room for the action that is asked for.
    if unsafe { libc::sigaction(libc::SIGQUIT, ptr::null(), &raw mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Before the handler can run. Pairs with the load there.
    PREVIOUS.store(Box::into_raw(Box::new(before)), Ordering::Release);
    // SAFETY: the handler does only what a handler may.
    if unsafe { libc::sigaction(libc::SIGQUIT, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

extern "C" fn on_signal(
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let byte = 0_u8;
    // For the code that was interrupted.
    let _errno = KeepErrno::new();
    // SAFETY: `write` may be called here and is given one byte.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    // SAFETY: what was stored is never freed.
    let Some(previous) = (unsafe { PREVIOUS.load(Ordering::Acquire).as_ref() }) else {
        return;
    };
    let address = previous.sa_sigaction;
    if address == libc::SIG_DFL || address == libc::SIG_IGN {
        return;
    }
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the kernel had the address as that of a handler with three arguments.
        let handler = unsafe { std::mem::transmute::<libc::sighandler_t, Handler>(address) };
        handler(number, info, context);
    } else {
        // SAFETY: the kernel had the address as that of a handler with one argument.
        let handler = unsafe {
            std::mem::transmute::<libc::sighandler_t, extern "C" fn(libc::c_int)>(address)
        };
        handler(number);
    }
}

fn write_dumps(mut signals: PipeReader) {
    let mut byte = [0];
    while signals.read_exact(&mut byte).is_ok() {
        let runtimes = RUNTIMES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for inner in runtimes.iter().filter_map(Weak::upgrade) {
            last_words::say(format_args!("{}", dump::of(&inner)));
        }
        trace_file::write_if_wanted();
    }
}
