//! Readiness for `select!`: `readable(&socket)` and `writable(&socket)`.
//!
//! The kernel is asked each time (poll(2)). What the source remembers of readiness is about calls, and an arm makes
//! no call. An event that comes later wakes the arm, which asks again.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use weald_scheduler::io::{Pollable, WaitQueue};

use crate::ask::{events, is_ready};
use crate::fd::Fd;
use crate::source::Direction;
use crate::tcp::{TcpListener, TcpStream};
use crate::udp::UdpSocket;
use crate::unix::{UnixDatagram, UnixListener, UnixStream};

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
                is_ready(self.0.fd(), events(direction(writes)))
            }

            fn waiters(&self, writes: bool) -> &WaitQueue {
                self.0.source.waiters(direction(writes))
            }

            fn watch(&self) -> io::Result<()> {
                self.0.source.ensure_registered(self.0.fd())
            }
        }
    )*};
}
pollable!(
    TcpStream,
    TcpListener,
    UdpSocket,
    UnixStream,
    UnixListener,
    UnixDatagram
);

impl<T: AsFd> Pollable for Fd<T> {
    fn poll_now(&self, writes: bool) -> io::Result<bool> {
        is_ready(self.as_raw_fd(), events(direction(writes)))
    }

    fn waiters(&self, writes: bool) -> &WaitQueue {
        self.source().waiters(direction(writes))
    }

    fn watch(&self) -> io::Result<()> {
        self.register()
    }
}
