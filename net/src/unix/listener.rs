//! Listeners for Unix connections.
#![allow(unsafe_code, reason = "sockets from raw descriptors, as std's")]

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, SockAddr, Type};

use super::address::{from_path, from_unix, to_unix};
use super::stream::UnixStream;
use crate::faces::descriptor;
use crate::socket::{Green, nonblocking};

/// std's backlog: as many as the system allows.
#[cfg(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd"))]
const BACKLOG: i32 = -1;
/// std's backlog.
#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
const BACKLOG: i32 = 128;

/// A green listener for Unix connections. The interface is that of [`std::os::unix::net::UnixListener`].
///
/// Any number of green threads may wait in `accept`; each connection goes to one of them.
///
/// # Examples
/// ```
/// use weald::net::unix::{UnixListener, UnixStream};
/// # let folder = std::env::temp_dir().join(format!("weald-listener-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let path = folder.join("socket");
/// let listener = UnixListener::bind(&path)?;
/// let _near = UnixStream::connect(&path)?;
/// let (_far, peer) = listener.accept()?;
/// assert!(peer.is_unnamed());
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixListener(pub(crate) Green);

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes"
)]
impl UnixListener {
    /// Listens at the path, which must not exist yet.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        listen(&from_path(path.as_ref())?)
    }

    /// Listens at the address.
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<Self> {
        listen(&from_unix(socket_addr)?)
    }

    /// Waits for a connection. A listener that was wrapped waits at most for its `SO_RCVTIMEO`, if that is set.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, addr) = self.0.accept()?;
        Ok((UnixStream(stream), to_unix(&addr)?))
    }

    /// Returns a second handle to the listener. `set_nonblocking` is shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Returns the address that it listens at.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        to_unix(&self.0.socket().local_addr()?)
    }

    /// Returns an iterator over the connections that come. It never ends.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }
}

fn listen(addr: &SockAddr) -> io::Result<UnixListener> {
    let socket = nonblocking(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)?;
    Ok(UnixListener(Green::new(socket)))
}

/// The connections of a listener; from [`UnixListener::incoming`].
///
/// # Examples
/// ```
/// use weald::net::unix::{UnixListener, UnixStream};
/// # let folder = std::env::temp_dir().join(format!("weald-incoming-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let path = folder.join("socket");
/// let listener = UnixListener::bind(&path)?;
/// let _near = UnixStream::connect(&path)?;
/// let first = listener.incoming().next().expect("it never ends")?;
/// assert!(first.peer_addr()?.is_unnamed());
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a UnixListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<UnixStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

impl FusedIterator for Incoming<'_> {}

#[allow(clippy::into_iter_without_iter, reason = "as std has it")]
impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::debug("UnixListener", self.0.socket(), f)
    }
}

descriptor!(UnixListener, std::os::unix::net::UnixListener, true);
