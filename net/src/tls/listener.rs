//! Listeners whose connections speak TLS.

use std::io;
use std::iter::FusedIterator;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::acceptor::SslAcceptor;
use super::identity::Identity;
use super::stream::SslStream;
use crate::server::{Listener, ServerHandle, ServerOptions, serve, wait_for};
use crate::tcp::{TcpListener, TcpStream, tcp_listener};

/// A green listener whose connections speak TLS.
///
/// Any number of green threads may wait in `accept`; each connection goes to one of them.
///
/// # Examples
/// See [`ssl_listener`].
#[derive(Debug)]
pub struct SslListener {
    listener: TcpListener,
    acceptor: SslAcceptor,
}

impl SslListener {
    /// Returns a listener for TLS over a TCP listener.
    pub fn new(listener: TcpListener, acceptor: SslAcceptor) -> Self {
        Self { listener, acceptor }
    }

    /// Waits for a connection. Returns before the handshake. The handshake runs at the connection's first read or
    /// write, in the thread that reads or writes, so a slow client, or one that does not speak TLS, delays no other.
    /// `TCP_NODELAY` is set, as records need no further gathering.
    ///
    /// # Errors
    /// The system's.
    pub fn accept(&self) -> io::Result<(SslStream, SocketAddr)> {
        let (tcp, peer) = self.listener.accept()?;
        Ok((begin(&self.acceptor, tcp)?, peer))
    }

    /// Returns an iterator over the connections. It never ends.
    pub fn incoming(&self) -> SslIncoming<'_> {
        SslIncoming { listener: self }
    }

    /// Returns the address that it listens at.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Offers these protocols by ALPN, unless the acceptor offers some already; see [`SslAcceptor::or_offer`].
    ///
    /// # Errors
    /// Those of [`SslAcceptor::or_offer`].
    pub fn or_offer<P: AsRef<[u8]>>(self, names: impl IntoIterator<Item = P>) -> io::Result<Self> {
        Ok(Self {
            acceptor: self.acceptor.or_offer(names)?,
            listener: self.listener,
        })
    }

    /// Returns the settings, for [`SslAcceptor::reload`].
    pub fn acceptor(&self) -> &SslAcceptor {
        &self.acceptor
    }

    /// Returns the TCP listener and the acceptor, for servers that do something before the handshake:
    /// [`SslStream::server`].
    pub fn into_parts(self) -> (TcpListener, SslAcceptor) {
        (self.listener, self.acceptor)
    }

    /// Returns the TCP listener.
    pub fn get_ref(&self) -> &TcpListener {
        &self.listener
    }
}

fn begin(acceptor: &SslAcceptor, tcp: TcpStream) -> io::Result<SslStream> {
    // The call fails only if the connection is gone, and the next call on the connection will tell.
    let _ = tcp.set_nodelay(true);
    SslStream::server(tcp, acceptor)
}

impl Listener for SslListener {
    const SERVER: &'static str = "ssl_server";
    type Accepted = TcpStream;
    type Stream = SslStream;
    type Addr = SocketAddr;
    type Opener = SslAcceptor;

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn wait(&self) -> io::Result<bool> {
        wait_for(self.listener.0.fd())
    }

    fn opener(&self) -> SslAcceptor {
        self.acceptor.clone()
    }

    fn open(acceptor: &SslAcceptor, tcp: TcpStream) -> Option<SslStream> {
        let stream = begin(acceptor, tcp).and_then(|stream| stream.handshake().map(|()| stream));
        match stream {
            Ok(stream) => Some(stream),
            Err(error) => {
                // Strangers can cause as many of these lines as they like, so the level is debug.
                log::debug!("weald: ssl_server: a handshake failed: {error}");
                None
            }
        }
    }
}

/// Calls `handler` in a green thread of its own for each connection, once its TLS handshake is done. Returns at once.
///
/// It is [`tcp_server`](crate::tcp_server) with TLS: it has the same limits, pauses, log lines and handle. The
/// handshake runs in the connection's own thread, within the time of the [`SslAcceptor`] (10 s by default). So a
/// client that is slow, silent or does not speak TLS delays no other; it counts as a connection meanwhile. If the
/// handshake fails, the connection is closed and the handler is not called.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let identity = weald::net::Identity::from_pem(&chain, &key)?;
/// let listener = weald::ssl_listener("127.0.0.1:0", identity)?;
/// let server = weald::ssl_server(listener, |mut stream, _peer| {
///     let _ = stream.write_all(b"welcome");
/// });
/// # let connector = weald::net::SslConnector::from_pem(&chain)?;
/// let addr = format!("localhost:{}", server.local_addr().port());
/// let mut text = String::new();
/// weald::connect_ssl_with(&addr, &connector)?.read_to_string(&mut text)?;
/// assert_eq!(text, "welcome");
/// server.stop();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// Those of [`tcp_server`](crate::tcp_server).
pub fn ssl_server(
    listener: SslListener,
    handler: impl Fn(SslStream, SocketAddr) + Send + Sync + 'static,
) -> ServerHandle {
    ssl_server_with(listener, ServerOptions::new(), handler)
}

/// Starts a server as [`ssl_server`] does, with settings.
///
/// # Examples
/// See [`tcp_server_with`](crate::tcp_server_with).
///
/// # Panics
/// Those of [`tcp_server`](crate::tcp_server).
#[allow(
    clippy::needless_pass_by_value,
    reason = "settings are given, not lent"
)]
pub fn ssl_server_with(
    listener: SslListener,
    options: ServerOptions,
    handler: impl Fn(SslStream, SocketAddr) + Send + Sync + 'static,
) -> ServerHandle {
    serve(listener, &options, handler)
}

impl AsFd for SslListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsRawFd for SslListener {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

/// The connections of a listener; from [`SslListener::incoming`].
///
/// An error is not the end. When descriptors run out, each `next` returns an error at once until there are some
/// again. A loop over the iterator must pause then, as [`ssl_server`] does by itself.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// # fn example(listener: weald::net::SslListener) {
/// for stream in listener.incoming() {
///     match stream {
///         Ok(stream) => drop(weald::spawn(move || stream.handshake())),
///         Err(error) => {
///             eprintln!("{error}");
///             weald::sleep(Duration::from_millis(100));
///         }
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct SslIncoming<'a> {
    listener: &'a SslListener,
}

impl Iterator for SslIncoming<'_> {
    type Item = io::Result<SslStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for SslIncoming<'_> {}

/// Listens for connections with TLS, over a listener of [`tcp_listener`].
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let identity = weald::net::Identity::from_pem(&chain, &key)?;
/// let listener = weald::ssl_listener("127.0.0.1:0", identity)?;
/// let server = weald::ssl_server(listener, |mut stream, _peer| {
///     let _ = stream.write_all(b"welcome");
/// });
/// # let connector = weald::net::SslConnector::from_pem(&chain)?;
/// # let addr = format!("localhost:{}", server.local_addr().port());
/// # let mut text = String::new();
/// # weald::connect_ssl_with(&addr, &connector)?.read_to_string(&mut text)?;
/// # assert_eq!(text, "welcome");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Those of [`tcp_listener`]; those of [`SslAcceptor::new`].
pub fn ssl_listener(addr: impl ToSocketAddrs, identity: Identity) -> io::Result<SslListener> {
    ssl_listener_with(addr, &SslAcceptor::new(identity)?)
}

/// Listens as [`ssl_listener`] does, with settings.
///
/// # Examples
/// See [`SslAcceptor`].
///
/// # Errors
/// Those of [`tcp_listener`].
pub fn ssl_listener_with(
    addr: impl ToSocketAddrs,
    acceptor: &SslAcceptor,
) -> io::Result<SslListener> {
    Ok(SslListener::new(tcp_listener(addr)?, acceptor.clone()))
}
