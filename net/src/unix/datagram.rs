//! Datagrams between Unix sockets.
//!
//! A datagram waits while the receiver's queue is full. The kernel tells a sender that is connected to
//! the receiver when there is room, and no other; and no sender that waits of its own `shutdown`: unix(7),
//! `unix_dgram_poll`. So sending is tried again after pauses as well (`pauses.rs`).
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

/// A green Unix datagram socket; the interface is that of [`std::os::unix::net::UnixDatagram`], and a
/// method that is not described here does what std's does.
///
/// A call that waits suspends the green thread; any number of green threads may wait on one socket,
/// in both directions, and each datagram goes to one of them. A timeout that has passed is
/// [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Examples
/// ```
/// let (near, far) = weald_net::unix::UnixDatagram::pair()?;
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
    /// A socket at the path, which must not exist yet.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        bind(&from_path(path.as_ref())?)
    }

    /// A socket at the address.
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        bind(&from_unix(socket_addr)?)
    }

    /// A socket without an address.
    pub fn unbound() -> io::Result<Self> {
        Ok(Self(Green::new(new_socket()?)))
    }

    /// Two sockets that are connected to each other.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::DGRAM, None)?;
        Ok((Self(Green::new(one)), Self(Green::new(other))))
    }

    /// From now on `send` sends to the socket at the path, and only its datagrams are taken. Returns
    /// at once.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.0.socket().connect(&from_path(path.as_ref())?)
    }

    /// As `connect`, of an address.
    pub fn connect_addr(&self, socket_addr: &SocketAddr) -> io::Result<()> {
        self.0.socket().connect(&from_unix(socket_addr)?)
    }

    /// A second handle to the socket; timeouts and `set_nonblocking` are shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        to_unix(&self.0.socket().local_addr()?)
    }

    /// The address of the other end, once connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_unix(&self.0.socket().peer_addr()?)
    }

    /// Takes a datagram; what is longer than the buffer is cut off. Waits for one.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (length, from) = self.0.receive_from(buf, 0)?;
        Ok((length, to_unix(&from)?))
    }

    /// Takes a datagram; what is longer than the buffer is cut off. Waits for one.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buf, 0)
    }

    /// Sends a datagram to the socket at the path. Waits while its queue is full.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.0.send_to_untold(buf, &from_path(path.as_ref())?)
    }

    /// Sends a datagram to the socket at the address. Waits while its queue is full.
    pub fn send_to_addr(&self, buf: &[u8], socket_addr: &SocketAddr) -> io::Result<usize> {
        self.0.send_to_untold(buf, &from_unix(socket_addr)?)
    }

    /// Sends a datagram to the peer. Waits while its queue is full.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.send_untold(buf)
    }

    /// Closes one or both directions; wakes the green threads that wait for them.
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
