//! Asks the kernel about a descriptor, without waiting.
#![allow(unsafe_code, reason = "system calls")]

use std::os::fd::RawFd;
use std::time::Duration;

use libc::c_int;

use crate::raw::{error_of, sys, undisturbed};
use crate::slot::Direction;

/// Returns what poll(2) tells of a descriptor, without waiting.
pub(crate) fn events_now(fd: RawFd, events: libc::c_short) -> libc::c_short {
    let mut one = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let zero = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: one descriptor; pointers to locals.
    let look = || unsafe { sys!(SYS_ppoll, &raw mut one, 1, &raw const zero, 0_usize, 8) };
    let found = undisturbed(look);
    if error_of(found).is_some() {
        return 0;
    }
    one.revents
}

/// Tells if a descriptor is ready now, has failed, or is not open.
pub(crate) fn is_ready(fd: RawFd, events: libc::c_short) -> bool {
    events_now(fd, events) != 0
}

/// Returns an `int` option of a socket.
pub(crate) fn option(fd: RawFd, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>();
    // SAFETY: the pointers are to locals of the sizes that they say.
    let result = unsafe {
        sys!(
            SYS_getsockopt,
            fd,
            libc::SOL_SOCKET,
            name,
            &raw mut value,
            &raw mut length
        )
    };
    (result == 0).then_some(value)
}

pub(crate) fn is_socket(fd: RawFd) -> bool {
    option(fd, libc::SO_TYPE).is_some()
}

/// Tells if the descriptor is a stream, whose calls may take or give a part.
pub(crate) fn is_stream(fd: RawFd) -> bool {
    option(fd, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
}

/// Tells if the user has set the descriptor not to block.
pub(crate) fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    let flags = unsafe { sys!(SYS_fcntl, fd, libc::F_GETFL) };
    error_of(flags).is_some() || flags & libc::O_NONBLOCK as isize != 0
}

/// Returns `SO_RCVTIMEO` or `SO_SNDTIMEO`.
pub(crate) fn socket_limit(fd: RawFd, direction: Direction) -> Option<Duration> {
    let option = match direction {
        Direction::Read => libc::SO_RCVTIMEO,
        Direction::Write => libc::SO_SNDTIMEO,
    };
    let mut limit = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let mut length = size_of::<libc::timeval>();
    // SAFETY: the pointers are to locals of the sizes that they say.
    let result = unsafe {
        sys!(
            SYS_getsockopt,
            fd,
            libc::SOL_SOCKET,
            option,
            &raw mut limit,
            &raw mut length
        )
    };
    let (secs, micros) = (
        u64::try_from(limit.tv_sec).ok()?,
        u64::try_from(limit.tv_usec).ok()?,
    );
    let limit = Duration::from_secs(secs) + Duration::from_micros(micros);
    (result == 0 && !limit.is_zero()).then_some(limit)
}

/// Tells if an event follows each `EAGAIN` of a call once the call can be tried again, whatever happened before. That
/// holds for streams and pipes. It does not hold for a datagram socket that was shut down before the call: its plain
/// call ends at once.
pub(crate) fn has_true_events(fd: RawFd) -> bool {
    let domain = option(fd, libc::SO_DOMAIN);
    let Some(domain) = domain else {
        return file_type(fd) == Some(libc::S_IFIFO);
    };
    [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX].contains(&domain)
        && option(fd, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
}

/// Returns the kind of file, as `st_mode` has it.
pub(crate) fn file_type(fd: RawFd) -> Option<libc::mode_t> {
    // SAFETY: all zeros is a valid record, and the pointer is to it.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        let answer = sys!(SYS_fstat, fd, &raw mut status);
        (answer == 0).then_some(status.st_mode & libc::S_IFMT)
    }
}

/// Tells if the peer has reset the connection and nothing is left to read. It looks at TCP only: calls on other
/// streams lose the error on an OS thread too.
pub(crate) fn is_reset(fd: RawFd, direction: Direction) -> bool {
    let reset = libc::POLLERR | libc::POLLHUP;
    if events_now(fd, 0) & reset != reset
        || option(fd, libc::SO_PROTOCOL) != Some(libc::IPPROTO_TCP)
    {
        return false;
    }
    let mut left: libc::c_int = 0;
    direction == Direction::Write
        // SAFETY: a pointer to a local.
        || unsafe { sys!(SYS_ioctl, fd, libc::FIONREAD, &raw mut left) } != 0
        || left == 0
}
