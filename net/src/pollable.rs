//! Readiness for `select!`: `readable(&socket)` and `writable(&socket)`.
//!
//! The kernel is asked each time (poll(2)): what the source remembers of readiness is about calls, and
//! an arm makes none. An event in between wakes the arm, which asks again.
#![allow(unsafe_code, reason = "poll(2)")]

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use weald_scheduler::io::{Pollable, WaitQueue};

use crate::source::Direction;
use crate::tcp::{TcpListener, TcpStream};

fn is_ready(fd: RawFd, writes: bool) -> io::Result<bool> {
    let mut one = libc::pollfd {
        fd,
        events: if writes { libc::POLLOUT } else { libc::POLLIN },
        revents: 0,
    };
    loop {
        // SAFETY: one descriptor, a local.
        match unsafe { libc::poll(&raw mut one, 1, 0) } {
            0 => return Ok(false),
            1 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

fn direction(writes: bool) -> Direction {
    if writes {
        Direction::Write
    } else {
        Direction::Read
    }
}

macro_rules! pollable {
    ($($socket:ty),*) => {$(
        impl Pollable for $socket {
            fn poll_now(&self, writes: bool) -> io::Result<bool> {
                is_ready(self.as_raw_fd(), writes)
            }

            fn waiters(&self, writes: bool) -> &WaitQueue {
                self.source().waiters(direction(writes))
            }

            fn watch(&self) -> io::Result<()> {
                self.source().ensure_registered(self.as_raw_fd())
            }
        }
    )*};
}
pollable!(TcpStream, TcpListener);
