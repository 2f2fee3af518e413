//! Listeners whose connections speak TLS.

use std::io;
use std::iter::FusedIterator;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::acceptor::SslAcceptor;
use super::identity::Identity;
use super::stream::SslStream;
use crate::tcp::{TcpListener, tcp_listener};

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
    /// Makes a TCP listener one for TLS.
    pub fn new(listener: TcpListener, acceptor: SslAcceptor) -> Self {
        Self { listener, acceptor }
    }

    /// Waits for a connection. It returns before the handshake, which runs at the connection's first
    /// read or write, in the thread that reads or writes: a client that is slow or no client of TLS
    /// holds nobody up. `TCP_NODELAY` is set, as records need no further gathering.
    ///
    /// # Errors
    /// The system's.
    pub fn accept(&self) -> io::Result<(SslStream, SocketAddr)> {
        let (tcp, peer) = self.listener.accept()?;
        // It fails only if the connection is gone, which the next call on it will tell.
        let _ = tcp.set_nodelay(true);
        Ok((SslStream::server(tcp, &self.acceptor)?, peer))
    }

    /// The connections, one after the other; it never ends.
    pub fn incoming(&self) -> SslIncoming<'_> {
        SslIncoming { listener: self }
    }

    /// The address that it listens at.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Its settings, for [`SslAcceptor::reload`].
    pub fn acceptor(&self) -> &SslAcceptor {
        &self.acceptor
    }

    /// The TCP listener below.
    pub fn get_ref(&self) -> &TcpListener {
        &self.listener
    }
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
/// # Examples
/// ```no_run
/// # fn example(listener: weald_net::SslListener) {
/// for stream in listener.incoming().flatten() {
///     weald_scheduler::spawn(move || stream.handshake());
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

/// Listens for connections with TLS; as [`tcp_listener`] below it.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let identity = weald_net::Identity::from_pem(&chain, &key)?;
/// let listener = weald_net::ssl_listener("127.0.0.1:0", identity)?;
/// let addr = listener.local_addr()?;
/// weald_scheduler::spawn(move || {
///     while let Ok((mut stream, _peer)) = listener.accept() {
///         weald_scheduler::spawn(move || stream.write_all(b"welcome"));
///     }
/// });
/// # let connector = weald_net::SslConnector::from_pem(&chain)?;
/// # let addr = format!("localhost:{}", addr.port());
/// # let mut text = String::new();
/// # weald_net::connect_ssl_with(&addr, &connector)?.read_to_string(&mut text)?;
/// # assert_eq!(text, "welcome");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Those of [`tcp_listener`]; those of [`SslAcceptor::new`].
pub fn ssl_listener(addr: impl ToSocketAddrs, identity: Identity) -> io::Result<SslListener> {
    ssl_listener_with(addr, &SslAcceptor::new(identity)?)
}

/// As [`ssl_listener`], with settings.
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
