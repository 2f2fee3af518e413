//! Reads and writes of several buffers at an offset, with flags: preadv2(2), preadv(2) and similar calls.
#![allow(unsafe_code, reason = "takes the place of libc's functions")]

use std::os::fd::RawFd;

use libc::{c_int, iovec, off_t, ssize_t};
use weald_scheduler::patch;

use crate::Kind;
use crate::hooks::on;
use crate::hooks::run::{AGAIN, INVALID, UNSUPPORTED, failed};
use crate::raw::{self, sys};
use crate::slot::Direction;

/// Reads or writes with an offset or with flags. The offset -1 means the file's position; the file may then be a pipe
/// or a socket.
///
/// # Safety
/// As preadv2(2).
unsafe fn with_flags(
    fd: RawFd,
    direction: Direction,
    iov: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> isize {
    let call = |flags: c_int| {
        // SAFETY: by contract.
        unsafe {
            match direction {
                Direction::Read => sys!(SYS_preadv2, fd, iov, count, offset, 0, flags),
                Direction::Write => sys!(SYS_pwritev2, fd, iov, count, offset, 0, flags),
            }
        }
    };
    if flags & libc::RWF_NOWAIT != 0 {
        return call(flags);
    }
    if offset == -1 && on(Kind::Sockets) {
        // SAFETY: by contract.
        return unsafe { super::descriptor::at_place(fd, direction, iov, count, flags) };
    }
    if !on(Kind::Files) {
        return call(flags);
    }
    match direction {
        Direction::Read => match call(flags | libc::RWF_NOWAIT) {
            AGAIN | UNSUPPORTED | INVALID => patch::blocking_quietly(|| call(flags)),
            result => result,
        },
        Direction::Write => patch::blocking_quietly(|| call(flags)),
    }
}

macro_rules! with_flags {
    ($($direction:ident: $plain:ident $plain64:ident, $flagged:ident $flagged64:ident;)*) => {$(
        /// preadv2(2).
        ///
        /// # Safety
        /// Those of preadv2(2).
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $flagged(
            fd: c_int,
            iov: *const iovec,
            count: c_int,
            offset: off_t,
            flags: c_int,
        ) -> ssize_t {
            // SAFETY: by contract.
            raw::result(unsafe { with_flags(fd, Direction::$direction, iov, count, offset, flags) })
        }

        /// preadv2(2).
        ///
        /// # Safety
        /// Those of preadv2(2).
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $flagged64(
            fd: c_int,
            iov: *const iovec,
            count: c_int,
            offset: off_t,
            flags: c_int,
        ) -> ssize_t {
            // SAFETY: by contract.
            unsafe { $flagged(fd, iov, count, offset, flags) }
        }

        /// preadv(2): an offset of -1 is an error.
        ///
        /// # Safety
        /// Those of preadv(2).
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $plain(
            fd: c_int,
            iov: *const iovec,
            count: c_int,
            offset: off_t,
        ) -> ssize_t {
            if offset < 0 {
                return raw::result(failed(libc::EINVAL));
            }
            // SAFETY: by contract.
            unsafe { $flagged(fd, iov, count, offset, 0) }
        }

        /// preadv(2).
        ///
        /// # Safety
        /// Those of preadv(2).
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $plain64(
            fd: c_int,
            iov: *const iovec,
            count: c_int,
            offset: off_t,
        ) -> ssize_t {
            // SAFETY: by contract.
            unsafe { $plain(fd, iov, count, offset) }
        }
    )*};
}

with_flags! {
    Read: preadv preadv64, preadv2 preadv64v2;
    Write: pwritev pwritev64, pwritev2 pwritev64v2;
}
