//! Datagrams between Unix sockets.
//!
//! A datagram waits while the receiver's queue is full. The kernel tells a sender when there is room only if the
//! sender is connected to the receiver. It tells no sender that waits of the sender's own `shutdown`: unix(7),
//! `unix_dgram_poll`. So sending is also tried again after pauses (`pauses.rs`).
#![allow(unsafe_code, reason = "sockets from raw descriptors, as std's")]

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use super::address::{from_path, from_unix, to_unix};
use crate::faces::{descriptor, timeouts};
use crate::socket::Green;

/// A green Unix datagram socket. The interface is that of [`std::os::unix::net::UnixDatagram`], and a method that is
/// not described here does what std's does.
///
/// A call that waits suspends the green thread. Any number of green threads may wait on one socket, in both
/// directions, and each datagram goes to one of them. When a timeout has passed, the error is
/// [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Examples
/// ```
/// let (near, far) = weald::net::unix::UnixDatagram::pair()?;
/// near.send(b"ping")?;
/// let mut buffer = [0; 16];
/// let length = far.recv(&mut buffer)?;
/// assert_eq!(&buffer[..length], b"ping");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixDatagram(pub(crate) Green);

fn new_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::DGRAM, None)
}

fn bind(addr: &SockAddr) -> io::Result<UnixDatagram> {
    let socket = new_socket()?;
    socket.bind(addr)?;
    Ok(UnixDatagram(Green::new(socket)))
}

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes"
)]
impl UnixDatagram {
    /// Returns a socket at the path, which must not exist yet.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        bind(&from_path(path.as_ref())?)
    }

    /// Returns a socket at the address.
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        bind(&from_unix(socket_addr)?)
    }

    /// Returns a socket without an address.
    pub fn unbound() -> io::Result<Self> {
        Ok(Self(Green::new(new_socket()?)))
    }

    /// Returns two sockets that are connected to each other.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::DGRAM, None)?;
        Ok((Self(Green::new(one)), Self(Green::new(other))))
    }

    /// Sets the peer, the socket at the path: from now on `send` sends to it, and only its datagrams are taken.
    /// Returns at once.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.0.socket().connect(&from_path(path.as_ref())?)
    }

    /// Connects as `connect` does, to an address.
    pub fn connect_addr(&self, socket_addr: &SocketAddr) -> io::Result<()> {
        self.0.socket().connect(&from_unix(socket_addr)?)
    }

    /// Returns a second handle to the socket. Timeouts and `set_nonblocking` are shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Returns the address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        to_unix(&self.0.socket().local_addr()?)
    }

    /// Returns the address of the other end, once connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_unix(&self.0.socket().peer_addr()?)
    }

    /// Waits for a datagram and takes it. A datagram that is longer than the buffer is cut off.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (length, from) = self.0.receive_from(buf, 0)?;
        Ok((length, to_unix(&from)?))
    }

    /// Waits for a datagram and takes it. A datagram that is longer than the buffer is cut off.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buf, 0)
    }

    /// Sends a datagram to the socket at the path. Waits while that socket's queue is full.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.0.send_to_untold(buf, &from_path(path.as_ref())?)
    }

    /// Sends a datagram to the socket at the address. Waits while that socket's queue is full.
    pub fn send_to_addr(&self, buf: &[u8], socket_addr: &SocketAddr) -> io::Result<usize> {
        self.0.send_to_untold(buf, &from_unix(socket_addr)?)
    }

    /// Sends a datagram to the peer. Waits while the peer's queue is full.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.send_untold(buf)
    }

    /// Closes one or both directions, and wakes the green threads that wait for them.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.socket().shutdown(how)
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::debug("UnixDatagram", self.0.socket(), f)
    }
}

timeouts!(UnixDatagram);
descriptor!(UnixDatagram, std::os::unix::net::UnixDatagram, false);
