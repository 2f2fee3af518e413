//! UDP sockets with the interface of `std::net`.
#![allow(unsafe_code, reason = "sockets from raw descriptors, as std's")]

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use crate::faces::{descriptor, timeouts};
use crate::resolve::{resolve, resolve_first};
use crate::socket::Green;
use crate::tcp::{debug, each, to_ip};

/// A green UDP socket. The interface is that of [`std::net::UdpSocket`], and a method that is not described here does
/// what std's does.
///
/// A call that waits suspends the green thread. Any number of green threads may wait on one socket, in both
/// directions, and each datagram goes to one of them. When a timeout has passed, the error is
/// [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Examples
/// ```
/// let near = weald::net::UdpSocket::bind("127.0.0.1:0")?;
/// let far = weald::net::UdpSocket::bind("127.0.0.1:0")?;
/// near.send_to(b"ping", far.local_addr()?)?;
/// let mut buffer = [0; 16];
/// let (length, from) = far.recv_from(&mut buffer)?;
/// assert_eq!((&buffer[..length], from), (&b"ping"[..], near.local_addr()?));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdpSocket(pub(crate) Green);

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes"
)]
impl UdpSocket {
    /// Binds to the first of the addresses that works. A name is looked up without blocking a worker.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each(&resolve(addr)?, |addr| {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&addr.into())?;
            Ok(Self(Green::new(socket)))
        })
    }

    /// Waits for a datagram and takes it. A datagram that is longer than the buffer is cut off.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (length, from) = self.0.receive_from(buf, 0)?;
        Ok((length, to_ip(&from)?))
    }

    /// Waits for a datagram as `recv_from` does, and leaves it there.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (length, from) = self.0.receive_from(buf, libc::MSG_PEEK)?;
        Ok((length, to_ip(&from)?))
    }

    /// Sends a datagram to the first of the addresses. Waits for room in the socket's buffer.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        match resolve_first(addr)? {
            Some(addr) => self.0.send_to(buf, &addr.into()),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no addresses to send data to",
            )),
        }
    }

    /// Returns the address of the other end, once connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_ip(&self.0.socket().peer_addr()?)
    }

    /// Returns the address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        to_ip(&self.0.socket().local_addr()?)
    }

    /// Returns a second handle to the socket. Timeouts and `set_nonblocking` are shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sets `SO_BROADCAST`.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.0.socket().set_broadcast(broadcast)
    }

    /// Returns `SO_BROADCAST`.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.0.socket().broadcast()
    }

    /// Sets `IP_MULTICAST_LOOP`.
    pub fn set_multicast_loop_v4(&self, multicast_loop_v4: bool) -> io::Result<()> {
        self.0.socket().set_multicast_loop_v4(multicast_loop_v4)
    }

    /// Returns `IP_MULTICAST_LOOP`.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.0.socket().multicast_loop_v4()
    }

    /// Sets `IP_MULTICAST_TTL`.
    pub fn set_multicast_ttl_v4(&self, multicast_ttl_v4: u32) -> io::Result<()> {
        self.0.socket().set_multicast_ttl_v4(multicast_ttl_v4)
    }

    /// Returns `IP_MULTICAST_TTL`.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.0.socket().multicast_ttl_v4()
    }

    /// Sets `IPV6_MULTICAST_LOOP`.
    pub fn set_multicast_loop_v6(&self, multicast_loop_v6: bool) -> io::Result<()> {
        self.0.socket().set_multicast_loop_v6(multicast_loop_v6)
    }

    /// Returns `IPV6_MULTICAST_LOOP`.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.0.socket().multicast_loop_v6()
    }

    /// Sets `IP_TTL`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.socket().set_ttl_v4(ttl)
    }

    /// Returns `IP_TTL`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.socket().ttl_v4()
    }

    /// Joins a multicast group: `IP_ADD_MEMBERSHIP`.
    pub fn join_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.0.socket().join_multicast_v4(multiaddr, interface)
    }

    /// Joins a multicast group: `IPV6_ADD_MEMBERSHIP`.
    pub fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.0.socket().join_multicast_v6(multiaddr, interface)
    }

    /// Leaves a multicast group: `IP_DROP_MEMBERSHIP`.
    pub fn leave_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.0.socket().leave_multicast_v4(multiaddr, interface)
    }

    /// Leaves a multicast group: `IPV6_DROP_MEMBERSHIP`.
    pub fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.0.socket().leave_multicast_v6(multiaddr, interface)
    }

    /// Sets the peer, the first of the addresses that works: from now on `send` sends to it, and only its datagrams
    /// are taken. Returns at once, unless a name must be looked up.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        each(&resolve(addr)?, |addr| {
            self.0.socket().connect(&addr.into())
        })
    }

    /// Sends a datagram to the peer of `connect`. Waits for room in the socket's buffer.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(buf)
    }

    /// Waits for a datagram of the peer of `connect` and takes it. A datagram that is longer than the buffer is cut
    /// off.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buf, 0)
    }

    /// Waits for a datagram as `recv` does, and leaves it there.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buf, libc::MSG_PEEK)
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("UdpSocket", self.0.socket(), f)
    }
}

timeouts!(UdpSocket);
descriptor!(UdpSocket, std::net::UdpSocket, false);
