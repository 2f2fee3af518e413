//! Connections between Unix sockets.
#![allow(unsafe_code, reason = "sockets from raw descriptors, as std's")]

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use super::address::{from_path, from_unix, to_unix};
use crate::faces::{descriptor, stream, timeouts};
use crate::socket::{Green, nonblocking};
use crate::source::{Direction, Source, Waits};

/// A green Unix connection. The interface is that of [`std::os::unix::net::UnixStream`], and a method that is not
/// described here does what std's does.
///
/// A call that waits suspends the green thread. Any number of green threads may wait on one stream, in both
/// directions. When a timeout has passed, the error is [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// let (mut near, mut far) = weald::net::unix::UnixStream::pair()?;
/// let echo = weald::spawn(move || {
///     let mut buffer = [0; 4];
///     far.read_exact(&mut buffer)?;
///     far.write_all(&buffer)
/// });
/// near.write_all(b"ping")?;
/// let mut answer = String::new();
/// near.read_to_string(&mut answer)?;
/// assert_eq!(answer, "ping");
/// # echo.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixStream(pub(crate) Green);

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes"
)]
impl UnixStream {
    /// Connects to the listener at the path. Waits while the listener's queue is full.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        connect(&from_path(path.as_ref())?)
    }

    /// Connects to the listener at the address. Waits while the listener's queue is full.
    pub fn connect_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        connect(&from_unix(socket_addr)?)
    }

    /// Returns two streams that are connected to each other.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        Ok((Self(Green::new(one)), Self(Green::new(other))))
    }

    /// Returns a second handle to the connection. Timeouts and `set_nonblocking` are shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Returns the address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        to_unix(&self.0.socket().local_addr()?)
    }

    /// Returns the address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_unix(&self.0.socket().peer_addr()?)
    }

    /// Closes one or both directions, and wakes the green threads that wait for them.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

/// Connects. A full queue is `EAGAIN`, and no event tells when there is room: unix(7).
fn connect(addr: &SockAddr) -> io::Result<UnixStream> {
    let socket = nonblocking(Domain::UNIX, Type::STREAM, None)?;
    Source::new().run_untold(None, Direction::Write, Waits::Forever, || {
        socket.connect(addr)
    })?;
    Ok(UnixStream(Green::connecting(socket, false)))
}

impl fmt::Debug for UnixStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::debug("UnixStream", self.0.socket(), f)
    }
}

stream!(UnixStream);
timeouts!(UnixStream);
descriptor!(UnixStream, std::os::unix::net::UnixStream, false);
