//! `read`, `write` and similar calls, on any descriptor.
//!
//! | descriptor                     | `preadv2(.., RWF_NOWAIT)` says | then                            |
//! |--------------------------------|--------------------------------|---------------------------------|
//! | pipe, socket, eventfd, timerfd | `EAGAIN`                       | wait, try again                 |
//! | file whose page is not cached  | `EAGAIN`                       | read, with the worker handed on |
//! | terminal, /proc                | `EOPNOTSUPP`                   | poll, wait, then plain `read`   |
//!
//! preadv2(2). The user's `O_NONBLOCK` and `SO_RCVTIMEO` are asked for only when a call would block. Then they are
//! remembered.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;

use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::ask::{file_type, is_socket};
use crate::firm;
use crate::hooks::on;
use crate::hooks::run::{
    AGAIN, INVALID, UNSUPPORTED, advance, failed, hand_over, hand_over_for_long, run, run_plain,
};
use crate::pauses::errno_of;
use crate::raw::{self, error_of, sys};
use crate::slot::Direction;
use crate::wait::Wait;

/// Tells if this is an ordinary file, which takes a write whole. In parts, the writes of two writers that append
/// could mix.
fn is_file(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    if error_of(unsafe { sys!(SYS_lseek, fd, 0, libc::SEEK_CUR) }).is_some() {
        return false;
    }
    file_type(fd) == Some(libc::S_IFREG)
}

/// Makes `readv`, `writev` and the calls based on them, for a patched caller.
///
/// # Safety
/// As readv(2).
unsafe fn vectored(wait: &mut Wait, iov: *const iovec, count: c_int, flags: c_int) -> isize {
    let (fd, direction) = (wait.fd(), wait.direction());
    let plain = || {
        // SAFETY: by contract.
        unsafe {
            match direction {
                Direction::Read if flags != 0 => {
                    sys!(SYS_preadv2, fd, iov, count, -1_i64, 0, flags)
                }
                Direction::Write if flags != 0 => {
                    sys!(SYS_pwritev2, fd, iov, count, -1_i64, 0, flags)
                }
                Direction::Read => sys!(SYS_readv, fd, iov, count),
                Direction::Write => sys!(SYS_writev, fd, iov, count),
            }
        }
    };
    if direction == Direction::Write && !wait.has_true_events() && is_file(fd) {
        return hand_over(plain);
    }
    if patch::is_pending()
        && is_socket(fd)
        && !firm::is_firm(fd, direction)
        && let Some(pending) = patch::pending()
    {
        return failed(errno_of(pending));
    }
    let attempt = || {
        let flags = flags | libc::RWF_NOWAIT;
        // SAFETY: by contract. The offset -1 means the file's position.
        unsafe {
            match direction {
                Direction::Read => sys!(SYS_preadv2, fd, iov, count, -1_i64, 0, flags),
                Direction::Write => sys!(SYS_pwritev2, fd, iov, count, -1_i64, 0, flags),
            }
        }
    };
    match run(wait, attempt, plain) {
        UNSUPPORTED => run_plain(wait, plain),
        // The call is an error: the vector is not valid, or the buffer is too small for an eventfd.
        INVALID => hand_over_for_long(|| wait.unless_closed(plain)),
        result => result,
    }
}

/// Makes `write` and `writev`, which block until all is taken, as long as there is no error. For a patched caller.
///
/// # Safety
/// As writev(2).
unsafe fn write_all(fd: RawFd, iov: *const iovec, count: c_int, flags: c_int) -> isize {
    let mut wait = Wait::new(fd, Direction::Write);
    // SAFETY: by contract.
    let first = unsafe { vectored(&mut wait, iov, count, flags) };
    if first <= 0 {
        return first;
    }
    // SAFETY: the kernel has accepted vector and count.
    let parts = unsafe { std::slice::from_raw_parts(iov, usize::try_from(count).unwrap_or(0)) };
    let all: usize = parts.iter().map(|part| part.iov_len).sum();
    let mut done = first.unsigned_abs();
    while done < all && !wait.is_nonblocking() {
        let rest = advance(parts, done);
        let count = c_int::try_from(rest.len()).unwrap_or(c_int::MAX);
        // SAFETY: parts of the caller's buffers.
        let next = unsafe { vectored(&mut wait, rest.as_ptr(), count, flags) };
        if next <= 0 {
            break;
        }
        done += next.unsigned_abs();
    }
    done.cast_signed()
}

/// Reads or writes at the file's position, for a patched caller.
///
/// # Safety
/// As preadv2(2).
pub(crate) unsafe fn at_place(
    fd: RawFd,
    direction: Direction,
    iov: *const iovec,
    count: c_int,
    flags: c_int,
) -> isize {
    match direction {
        Direction::Read => {
            let mut wait = Wait::new(fd, direction);
            // SAFETY: by contract.
            unsafe { vectored(&mut wait, iov, count, flags) }
        }
        // SAFETY: by contract.
        Direction::Write => unsafe { write_all(fd, iov, count, flags) },
    }
}

/// read(2).
///
/// # Safety
/// As read(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t {
    if !on(Kind::Sockets) {
        // SAFETY: by contract.
        return raw::result(unsafe { sys!(SYS_read, fd, buf, count) });
    }
    let part = iovec {
        iov_base: buf,
        iov_len: count,
    };
    // SAFETY: by contract; one part.
    raw::result(unsafe { at_place(fd, Direction::Read, &raw const part, 1, 0) })
}

/// write(2).
///
/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t {
    if !on(Kind::Sockets) {
        // SAFETY: by contract.
        return raw::result(unsafe { sys!(SYS_write, fd, buf, count) });
    }
    let part = iovec {
        iov_base: buf.cast_mut(),
        iov_len: count,
    };
    // SAFETY: by contract; one part.
    raw::result(unsafe { at_place(fd, Direction::Write, &raw const part, 1, 0) })
}

/// readv(2).
///
/// # Safety
/// As readv(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    if !on(Kind::Sockets) {
        // SAFETY: by contract.
        return raw::result(unsafe { sys!(SYS_readv, fd, iov, count) });
    }
    // SAFETY: by contract.
    raw::result(unsafe { at_place(fd, Direction::Read, iov, count, 0) })
}

/// writev(2).
///
/// # Safety
/// As writev(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    if !on(Kind::Sockets) {
        // SAFETY: by contract.
        return raw::result(unsafe { sys!(SYS_writev, fd, iov, count) });
    }
    // SAFETY: by contract.
    raw::result(unsafe { at_place(fd, Direction::Write, iov, count, 0) })
}

/// Reads or writes at an offset. Only files can do that, so the call waits only for a disk.
fn at_offset(
    offset: off_t,
    attempt: impl FnOnce() -> isize,
    plain: impl FnOnce() -> isize,
) -> ssize_t {
    // A negative offset is an error, but `preadv2` takes -1 for the file's position.
    if !on(Kind::Files) || offset < 0 {
        return raw::result(plain());
    }
    raw::result(match attempt() {
        AGAIN | UNSUPPORTED | INVALID => patch::blocking_quietly(plain),
        result => result,
    })
}

/// pread(2).
///
/// # Safety
/// As pread(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pread64(
    fd: c_int,
    buf: *mut c_void,
    count: size_t,
    offset: off_t,
) -> ssize_t {
    let part = iovec {
        iov_base: buf,
        iov_len: count,
    };
    at_offset(
        offset,
        // SAFETY: by contract; one part.
        || unsafe {
            sys!(
                SYS_preadv2,
                fd,
                &raw const part,
                1,
                offset,
                0,
                libc::RWF_NOWAIT
            )
        },
        // SAFETY: by contract.
        || unsafe { sys!(SYS_pread64, fd, buf, count, offset) },
    )
}

/// pread(2).
///
/// # Safety
/// As pread(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pread(
    fd: c_int,
    buf: *mut c_void,
    count: size_t,
    offset: off_t,
) -> ssize_t {
    // SAFETY: by contract.
    unsafe { pread64(fd, buf, count, offset) }
}

/// pwrite(2).
///
/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite64(
    fd: c_int,
    buf: *const c_void,
    count: size_t,
    offset: off_t,
) -> ssize_t {
    // A file's `write` may wait for the disk in ways that it does not tell in advance, and may take a part. So one
    // call does it all.
    let plain = || {
        // SAFETY: by contract.
        unsafe { sys!(SYS_pwrite64, fd, buf, count, offset) }
    };
    at_offset(offset, || AGAIN, plain)
}

/// pwrite(2).
///
/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite(
    fd: c_int,
    buf: *const c_void,
    count: size_t,
    offset: off_t,
) -> ssize_t {
    // SAFETY: by contract.
    unsafe { pwrite64(fd, buf, count, offset) }
}
