//! TCP streams and listeners with the interface of `std::net`.
#![allow(unsafe_code, reason = "sockets from raw descriptors, as std's")]

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::faces::{descriptor, stream, timeouts};
use crate::race::race;
use crate::resolve::resolve;
use crate::socket::{Green, nonblocking};
use crate::source::{Direction, Got, Waits};

/// How many connections the kernel queues before `accept` with `tcp_listener`. std's 128 is soon full when ten
/// thousand clients connect at once.
const BACKLOG: u32 = 1024;

/// The backlog of std.
const STD_BACKLOG: i32 = 128;

pub(crate) fn to_ip(addr: &socket2::SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an IP socket"))
}

/// Returns the result for the first address for which `f` works, else the last error.
pub(crate) fn each<T>(
    addrs: &[SocketAddr],
    mut f: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::InvalidInput);
    for &addr in addrs {
        match f(addr) {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub(crate) fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    nonblocking(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
}

fn connect(addr: SocketAddr, local: Option<SocketAddr>, waits: Waits) -> io::Result<TcpStream> {
    let socket = new_socket(addr)?;
    if let Some(local) = local {
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
    }
    connect_socket(socket, addr, waits)
}

/// Connects a socket from [`new_socket`].
pub(crate) fn connect_socket(
    socket: Socket,
    addr: SocketAddr,
    waits: Waits,
) -> io::Result<TcpStream> {
    let green = Green::connecting(socket, true);
    green.run(Direction::Write, waits, || {
        match green.socket().connect(&addr.into()) {
            Ok(()) => Ok(Got::more(())),
            Err(error) => match error.raw_os_error() {
                // The connection has begun, or is still being made. A signal does not end it: connect(2).
                Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                // On other systems than Linux this means that it has succeeded.
                Some(libc::EISCONN) => Ok(Got::more(())),
                _ => Err(error),
            },
        }
    })?;
    Ok(TcpStream(green))
}

/// A green TCP connection. The interface is that of [`std::net::TcpStream`], and a method that is not described here
/// does what std's does.
///
/// A call that waits suspends the green thread. Any number of green threads may wait on one stream, in both
/// directions. When a timeout has passed, the error is [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// let listener = weald::net::TcpListener::bind("127.0.0.1:0")?;
/// let mut near = weald::net::TcpStream::connect(listener.local_addr()?)?;
/// let (mut far, _) = listener.accept()?;
/// near.write_all(b"ping")?;
/// let mut buffer = [0; 4];
/// far.read_exact(&mut buffer)?;
/// assert_eq!(&buffer, b"ping");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream(pub(crate) Green);

/// A green TCP listener. The interface is that of [`std::net::TcpListener`].
///
/// Any number of green threads may wait in `accept`; each connection goes to one of them.
///
/// # Examples
/// ```
/// let listener = weald::net::TcpListener::bind("127.0.0.1:0")?;
/// let _near = weald::net::TcpStream::connect(listener.local_addr()?)?;
/// let (_far, peer) = listener.accept()?;
/// assert!(peer.ip().is_loopback());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener(pub(crate) Green);

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes"
)]
impl TcpStream {
    /// Connects to the first of the addresses that answers. A name is looked up without blocking a worker.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each(&resolve(addr)?, |addr| connect(addr, None, Waits::Forever))
    }

    /// Connects to one address, at most for the duration. A duration of zero is `InvalidInput`.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        if timeout.is_zero() {
            let text = "cannot set a 0 duration timeout";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        connect(*addr, None, Waits::AtMost(timeout))
    }

    /// Returns the address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_ip(&self.0.socket().peer_addr()?)
    }

    /// Returns the address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        to_ip(&self.0.socket().local_addr()?)
    }

    /// Closes one or both directions, and wakes the green threads that wait for them.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.socket().shutdown(how)
    }

    /// Returns a second handle to the connection. Timeouts and `set_nonblocking` are shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Reads without taking the bytes out. Waits as a read does.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer, libc::MSG_PEEK)
    }

    /// Sets `TCP_NODELAY`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.socket().set_tcp_nodelay(nodelay)
    }

    /// Returns `TCP_NODELAY`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.socket().tcp_nodelay()
    }

    /// Sets `TCP_QUICKACK`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.0.socket().set_tcp_quickack(quickack)
    }

    /// Returns `TCP_QUICKACK`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn quickack(&self) -> io::Result<bool> {
        self.0.socket().tcp_quickack()
    }

    /// Sets `IP_TTL`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.socket().set_ttl_v4(ttl)
    }

    /// Returns `IP_TTL`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.socket().ttl_v4()
    }
}

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes"
)]
impl TcpListener {
    /// Listens at the first of the addresses that works, with std's backlog of 128.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each(&resolve(addr)?, |addr| listen(addr, STD_BACKLOG))
    }

    /// Returns the address that it listens at.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        to_ip(&self.0.socket().local_addr()?)
    }

    /// Returns a second handle to the listener. `set_nonblocking` is shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Waits for a connection. A listener that was wrapped waits at most for its `SO_RCVTIMEO`, if that is set.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, addr) = self.0.accept()?;
        Ok((TcpStream(stream), to_ip(&addr)?))
    }

    /// Returns an iterator over the connections that come. It never ends.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets `IP_TTL`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.socket().set_ttl_v4(ttl)
    }

    /// Returns `IP_TTL`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.socket().ttl_v4()
    }

    /// Sets `IPV6_V6ONLY`. std has deprecated its method, as the option works only before `bind`.
    #[deprecated(note = "this option can only be set before the socket is bound")]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        self.0.socket().set_only_v6(only_v6)
    }

    /// Returns `IPV6_V6ONLY`.
    #[deprecated(note = "this option can only be set before the socket is bound")]
    pub fn only_v6(&self) -> io::Result<bool> {
        self.0.socket().only_v6()
    }
}

fn listen(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = new_socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    Ok(TcpListener(Green::tcp_listener(socket)))
}

/// The connections of a listener; from [`TcpListener::incoming`].
///
/// # Examples
/// ```
/// let listener = weald::net::TcpListener::bind("127.0.0.1:0")?;
/// let _near = weald::net::TcpStream::connect(listener.local_addr()?)?;
/// let first = listener.incoming().next().expect("it never ends")?;
/// assert!(first.peer_addr()?.ip().is_loopback());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

pub(crate) fn debug(name: &str, socket: &Socket, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut debug = f.debug_struct(name);
    if let Ok(addr) = socket.local_addr().and_then(|addr| to_ip(&addr)) {
        debug.field("addr", &addr);
    }
    if let Ok(peer) = socket.peer_addr().and_then(|peer| to_ip(&peer)) {
        debug.field("peer", &peer);
    }
    debug.field("fd", &socket.as_raw_fd()).finish()
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("TcpStream", self.0.socket(), f)
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("TcpListener", self.0.socket(), f)
    }
}

stream!(TcpStream);
timeouts!(TcpStream);
descriptor!(TcpStream, std::net::TcpStream, false);
descriptor!(TcpListener, std::net::TcpListener, true);

/// Listens for connections with `SO_REUSEADDR`. 1024 of them may wait before `accept`.
///
/// # Examples
/// ```
/// let listener = weald::tcp_listener(("127.0.0.1", 0))?;
/// assert_ne!(listener.local_addr()?.port(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The system's, for the last address that was tried.
pub fn tcp_listener(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
    tcp_listener_with(addr, BACKLOG)
}

/// Listens as [`tcp_listener`] does. `backlog` is how many connections may wait: 1 to 65535 (the kernel may take
/// less).
///
/// # Examples
/// ```
/// assert!(weald::tcp_listener_with("127.0.0.1:0", 0).is_err());
/// ```
///
/// # Errors
/// `InvalidInput` for a backlog out of its range, with the value and the bound in the text; the system's.
pub fn tcp_listener_with(addr: impl ToSocketAddrs, backlog: u32) -> io::Result<TcpListener> {
    let backlog = checked_backlog(backlog)?;
    each(&resolve(addr)?, |addr| listen(addr, backlog))
}

/// Returns the backlog in the type that listen(2) takes.
pub(crate) fn checked_backlog(backlog: u32) -> io::Result<i32> {
    let refused = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("backlog must be between 1 and 65535, not {backlog}"),
        )
    };
    u16::try_from(backlog)
        .ok()
        .filter(|&backlog| backlog > 0)
        .map(i32::from)
        .ok_or_else(refused)
}

/// Connects to that one of the addresses that answers first, IPv4 or IPv6. They are tried in turns: the next attempt
/// begins when the one before has failed or has not answered for 250 ms (RFC 8305).
///
/// # Examples
/// ```
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let stream = weald::connect_tcp(listener.local_addr()?)?;
/// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The system's, for the last address that was tried; the resolver's.
pub fn connect_tcp(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
    race(&resolve(addr)?, |addr| connect(addr, None, Waits::Forever))
}

/// Connects as [`connect_tcp`] does, from a local address; port 0 takes any port. Only addresses of the same family
/// are tried, one after the other.
///
/// # Examples
/// ```
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let from = "127.0.0.1:0".parse().unwrap();
/// let stream = weald::connect_tcp_from(listener.local_addr()?, from)?;
/// assert!(stream.local_addr()?.ip().is_loopback());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Those of [`connect_tcp`]; `InvalidInput` if no address is of the local address's family.
pub fn connect_tcp_from(addr: impl ToSocketAddrs, local: SocketAddr) -> io::Result<TcpStream> {
    let mut addrs = resolve(addr)?;
    addrs.retain(|addr| addr.is_ipv6() == local.is_ipv6());
    if addrs.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no address has the family of the local address",
        ));
    }
    each(&addrs, |addr| connect(addr, Some(local), Waits::Forever))
}
