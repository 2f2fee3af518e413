//! The listeners that a server can have.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;

use crate::ask::is_ready;
use crate::poll;
use crate::tcp::{TcpListener, TcpStream};
use crate::unix::{UnixListener, UnixStream};

/// A listener that a server can have.
pub(crate) trait Listener: Send + 'static {
    /// The name of the server, for the log.
    const SERVER: &'static str;
    /// The type that `accept` returns.
    type Accepted: Send + 'static;
    /// The type that the handler gets.
    type Stream;
    type Addr: fmt::Debug + Send + 'static;
    /// What turns the first type into the second one, in the connection's own thread.
    type Opener: Send + Sync + 'static;

    fn accept(&self) -> io::Result<(Self::Accepted, Self::Addr)>;
    fn local_addr(&self) -> io::Result<Self::Addr>;
    /// Waits until `accept` would not wait, on a listener that was set not to wait. Returns false if there was no
    /// wait.
    fn wait(&self) -> io::Result<bool>;
    fn opener(&self) -> Self::Opener;
    /// Returns `None` if the handler has nothing to do.
    fn open(opener: &Self::Opener, accepted: Self::Accepted) -> Option<Self::Stream>;
}

impl Listener for TcpListener {
    const SERVER: &'static str = "tcp_server";
    type Accepted = TcpStream;
    type Stream = TcpStream;
    type Addr = SocketAddr;
    type Opener = ();

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn wait(&self) -> io::Result<bool> {
        wait_for(self.0.fd())
    }

    fn opener(&self) {}

    fn open((): &(), accepted: TcpStream) -> Option<TcpStream> {
        Some(accepted)
    }
}

impl Listener for UnixListener {
    const SERVER: &'static str = "unix_server";
    type Accepted = UnixStream;
    type Stream = UnixStream;
    type Addr = UnixAddr;
    type Opener = ();

    fn accept(&self) -> io::Result<(UnixStream, UnixAddr)> {
        self.accept()
    }

    fn local_addr(&self) -> io::Result<UnixAddr> {
        self.local_addr()
    }

    fn wait(&self) -> io::Result<bool> {
        wait_for(self.0.fd())
    }

    fn opener(&self) {}

    fn open((): &(), accepted: UnixStream) -> Option<UnixStream> {
        Some(accepted)
    }
}

/// Waits until the listener has a connection. Returns false if it has a connection, or an error, at once.
pub(crate) fn wait_for(fd: std::os::fd::RawFd) -> io::Result<bool> {
    let events = libc::POLLIN;
    if is_ready(fd, events)? {
        return Ok(false);
    }
    let revents = 0;
    let mut one = [libc::pollfd {
        fd,
        events,
        revents,
    }];
    poll::wait(&mut one, None)?;
    Ok(true)
}
