//! `open` of a FIFO, which waits for the other side. fifo(7), open(2).
//!
//! A writer waits until `open` with `O_NONBLOCK` finds a reader. A reader opens at once, so that a writer finds it,
//! and then looks if one has come; tee(2) tells that without taking anything. No event tells of either, so both try
//! again after pauses.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_char, c_int, mode_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::ask;
use crate::hooks::on;
use crate::hooks::run::failed;
use crate::pauses::{Ended, Pauses, errno_of};
use crate::raw::{self, error_of, sys};
use crate::slot::close_own;

/// Tells if the path leads to a FIFO.
///
/// # Safety
/// As openat(2).
unsafe fn is_fifo(folder: c_int, path: *const c_char) -> bool {
    // SAFETY: all zeros is a valid record.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: by contract, and a pointer to a local.
    let answer = unsafe { sys!(SYS_newfstatat, folder, path, &raw mut status, 0) };
    answer == 0 && status.st_mode & libc::S_IFMT == libc::S_IFIFO
}

/// A pipe of weald's own. tee(2) copies into it, and the copy is thrown away.
struct Bin([RawFd; 2]);

impl Bin {
    fn new() -> Option<Self> {
        let mut ends = [0; 2];
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: a pointer to a local with room for two.
        let made = unsafe { sys!(SYS_pipe2, ends.as_mut_ptr(), flags) };
        (made == 0).then_some(Self(ends))
    }
}

impl Drop for Bin {
    fn drop(&mut self) {
        for fd in self.0 {
            close_own(fd);
        }
    }
}

/// Tells if a writer has opened the FIFO after it was opened here.
fn has_writer(fd: RawFd, bin: &Bin) -> bool {
    if ask::events_now(fd, libc::POLLIN) != 0 {
        return true;
    }
    // SAFETY: no pointers. The call returns 0 if there is no writer, and `EAGAIN` if there is one.
    let copied = unsafe { sys!(SYS_tee, fd, bin.0[1], 1, libc::SPLICE_F_NONBLOCK) };
    copied != 0
}

/// Makes `openat` of a FIFO for a patched caller.
///
/// # Safety
/// As openat(2).
unsafe fn open_fifo(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
    plain: impl FnOnce() -> isize,
) -> isize {
    let quick = flags | libc::O_NONBLOCK;
    // With `O_CREAT` this makes a file if the FIFO has gone meanwhile.
    // SAFETY: by contract.
    let attempt = || unsafe { sys!(SYS_openat, folder, path, quick, mode) };
    let mut pauses = Pauses::default();
    let blocking = |fd: isize| {
        // SAFETY: no pointers; nobody else knows of the descriptor.
        unsafe { sys!(SYS_fcntl, fd, libc::F_SETFL, flags & !libc::O_NONBLOCK) };
        fd
    };
    if flags & libc::O_ACCMODE == libc::O_WRONLY {
        loop {
            let opened = attempt();
            if error_of(opened) != Some(libc::ENXIO) {
                return if opened < 0 { opened } else { blocking(opened) };
            }
            if let Ended::Failed(errno) = pauses.wait(None, None) {
                return failed(errno);
            }
        }
    }
    let Some(bin) = Bin::new() else {
        return patch::blocking_until_others_act(plain);
    };
    let opened = attempt();
    let Ok(fd) = RawFd::try_from(opened) else {
        return opened;
    };
    if fd < 0 {
        return opened;
    }
    // SAFETY: it was just opened.
    let own = unsafe { OwnedFd::from_raw_fd(fd) };
    while !has_writer(own.as_raw_fd(), &bin) {
        if let Ended::Failed(errno) = pauses.wait(None, None) {
            return failed(errno);
        }
    }
    std::mem::forget(own);
    blocking(opened)
}

/// openat(2). The variadic function takes at most a mode.
///
/// # Safety
/// Those of openat(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn openat(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: by contract.
    let plain = || unsafe { sys!(SYS_openat, folder, path, flags, mode) };
    let never_waits = libc::O_NONBLOCK | libc::O_PATH | libc::O_DIRECTORY;
    let waits = flags & never_waits == 0 && flags & libc::O_ACCMODE != libc::O_RDWR;
    // SAFETY: by contract.
    if !on(Kind::Files) || !waits || !unsafe { is_fifo(folder, path) } {
        return raw::int(plain());
    }
    if let Some(pending) = patch::pending() {
        return raw::int(failed(errno_of(pending)));
    }
    // SAFETY: by contract.
    raw::int(unsafe { open_fifo(folder, path, flags, mode, plain) })
}

/// open(2). The variadic function takes at most a mode.
///
/// # Safety
/// Those of open(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: by contract.
    unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
}
