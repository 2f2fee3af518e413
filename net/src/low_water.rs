//! `SO_RCVLOWAT`: a read of a stream that waits takes nothing before that many bytes are there. socket(7).
//!
//! The kernel respects the mark only in calls that may wait inside it, and weald's calls never do. So before a read
//! of a socket that has a mark, weald looks how many bytes there are. Nearly all sockets have no mark. Such a socket
//! is asked once, and not at all as long as the program has not seen the descriptor, because the mark is set through
//! the descriptor.
#![allow(unsafe_code, reason = "getsockopt(2), ioctl(2)")]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ask::{is_at_end, is_ready};

/// Whether the mark of an open file must be asked for. The clones of a socket share it.
#[derive(Debug)]
pub(crate) struct LowWater {
    /// How often the program got the means to set the mark.
    shown: AtomicU32,
    /// The value of `shown` when the file was asked and had no mark.
    had_none: AtomicU32,
}

impl LowWater {
    /// `may_be_set`: the socket comes from outside, or from a listener that the program has seen.
    pub(crate) fn new(may_be_set: bool) -> Self {
        Self {
            shown: AtomicU32::new(u32::from(may_be_set)),
            had_none: AtomicU32::new(0),
        }
    }

    /// Notes that the program can set the mark from now on.
    pub(crate) fn may_be_set(&self) {
        self.shown.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells if there may be a mark. With a mark a read that has waited for more may have left something, and nothing
    /// tells of that again.
    #[inline]
    pub(crate) fn is_possible(&self) -> bool {
        self.shown.load(Ordering::Relaxed) != self.had_none.load(Ordering::Relaxed)
    }

    /// Tells if a read that may wait has to wait: there are fewer bytes than the mark asks for and than the reader
    /// has room for, and more may come.
    #[inline]
    pub(crate) fn asks_for_more(&self, fd: RawFd, room: usize, is_tcp: bool) -> bool {
        self.is_possible() && self.asks(fd, room, is_tcp)
    }

    #[cold]
    fn asks(&self, fd: RawFd, room: usize, is_tcp: bool) -> bool {
        let shown = self.shown.load(Ordering::Relaxed);
        let mark = mark(fd);
        if mark <= 1 {
            self.had_none.store(shown, Ordering::Relaxed);
            return false;
        }
        // For TCP poll(2) respects the mark; for a Unix stream poll(2) tells of any byte.
        let events = if is_tcp { libc::POLLIN } else { 0 };
        there(fd) < mark.min(room) && !is_at_end(fd) && !is_ready(fd, events).unwrap_or(true)
    }
}

/// Returns the mark. A descriptor that is not a socket has none.
fn mark(fd: RawFd) -> usize {
    let mut mark: libc::c_int = 0;
    #[allow(clippy::cast_possible_truncation, reason = "four")]
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: pointers to locals, of the size that is said.
    let answer = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw mut mark).cast(),
            &raw mut size,
        )
    };
    if answer == 0 {
        usize::try_from(mark).unwrap_or(0)
    } else {
        0
    }
}

/// Returns how many bytes can be read.
fn there(fd: RawFd) -> usize {
    let mut there: libc::c_int = 0;
    // SAFETY: a pointer to a local.
    let answer = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut there) };
    if answer == 0 {
        usize::try_from(there).unwrap_or(0)
    } else {
        // The read itself tells what is wrong.
        usize::MAX
    }
}
