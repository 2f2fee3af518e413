//! The stream that programs read and write.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use rustls::{HandshakeKind, ProtocolVersion};

use super::acceptor::SslAcceptor;
use super::connector::SslConnector;
use super::machine::Machine;
use super::session::{Bounds, Session, write_gathered};
use super::split::{SslReader, SslWriter};
use super::transport::SslTransport;
use crate::tcp::TcpStream;

/// TLS over a green stream.
///
/// It is read and written as a [`TcpStream`] is, also by several green threads at once. They do not hold each other
/// up, however full the two directions are. An end that the peer has announced (`close_notify`) is `Ok(0)`. A
/// connection that is cut is [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). Data that TLS refuses are
/// [`InvalidData`](io::ErrorKind::InvalidData), in this call and in every later one.
///
/// The handshake runs at the first read or write, or in [`handshake`](Self::handshake), within the time that
/// [`SslAcceptor`] or [`SslConnector`] allows.
///
/// If an exception interrupts a write after TLS has taken its bytes, the write returns `Ok`. The records go out with
/// the next write, flush or shutdown, and the exception is raised in the thread's next blocking call. A write on a
/// stream that must not wait also returns `Ok` when the socket has no room for all records.
///
/// If the timeout of a write passes after TLS has taken its bytes, the write returns `TimedOut` and reports none of
/// them as written. But they are in the stream and cannot be taken back: they go out when the peer takes them. If the
/// next write begins with the same bytes, as a second try does, they then count as written and are not sent twice.
/// The bytes of any other write go out behind them.
///
/// Dropping the stream sends what `write` has reported as written, and `close_notify` if that can be done at once.
/// Over a TCP or Unix stream without room, a green thread of its own goes on sending, for 10 s at most. To know that
/// all bytes have gone out, call `flush` or `shutdown`.
///
/// # Examples
/// See [`connect_ssl_with`](crate::connect_ssl_with) and [`ssl_listener`](crate::ssl_listener).
pub struct SslStream<S: SslTransport = TcpStream> {
    session: Arc<Session<S>>,
}

impl<S: SslTransport> SslStream<S> {
    pub(super) fn new(transport: S, machine: Machine, bounds: Bounds) -> Self {
        Self {
            session: Arc::new(Session::new(transport, machine, bounds)),
        }
    }

    /// Begins TLS as a client over a stream that is connected already, after a STARTTLS for example. `name` is the
    /// server's DNS name or IP address, which its certificate must have. The handshake runs later.
    ///
    /// # Examples
    /// ```
    /// use std::io::{Read, Write};
    /// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    /// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// # let identity = weald::net::Identity::from_pem(&chain, &key)?;
    /// let acceptor = weald::net::SslAcceptor::new(identity)?;
    /// let listener = weald::tcp_listener("127.0.0.1:0")?;
    /// let addr = listener.local_addr()?;
    /// weald::spawn(move || {
    ///     let (mut tcp, _) = listener.accept()?;
    ///     let mut line = [0; 9];
    ///     tcp.read_exact(&mut line)?;
    ///     assert_eq!(&line, b"STARTTLS\n");
    ///     let mut tls = weald::net::SslStream::server(tcp, &acceptor)?;
    ///     tls.write_all(b"welcome")
    /// });
    ///
    /// # let connector = weald::net::SslConnector::from_pem(&chain)?;
    /// let mut tcp = weald::connect_tcp(addr)?;
    /// tcp.write_all(b"STARTTLS\n")?;
    /// let mut tls = weald::net::SslStream::client(tcp, &connector, "localhost")?;
    /// let mut text = String::new();
    /// tls.read_to_string(&mut text)?;
    /// assert_eq!(text, "welcome");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput`: the name is not valid. `InvalidData`: the platform has no roots.
    pub fn client(transport: S, connector: &SslConnector, name: &str) -> io::Result<Self> {
        Ok(Self::new(
            transport,
            connector.machine(name)?,
            connector.bounds(),
        ))
    }

    /// Begins TLS as a server over a stream that is connected already. The handshake runs later.
    ///
    /// # Errors
    /// `InvalidData`: TLS cannot begin with these settings.
    pub fn server(transport: S, acceptor: &SslAcceptor) -> io::Result<Self> {
        Ok(Self::new(transport, acceptor.machine()?, acceptor.bounds()))
    }

    /// Runs the handshake, unless it has run already. A blocking call.
    ///
    /// # Errors
    /// `InvalidData`: the peer does not speak TLS, or one side refuses what the other says; the text tells.
    /// `TimedOut`: it took too long. `UnexpectedEof`: the peer went away.
    pub fn handshake(&self) -> io::Result<()> {
        weald_scheduler::io::enter()?;
        self.session
            .establish(self.session.transport.receive_limit())
    }

    /// Closes one or both directions. Before the writing direction is closed, all that was written is sent, and
    /// `close_notify` after it. A blocking call. With [`Shutdown::Both`] it wakes the threads that wait for the
    /// stream, and does not wait for a thread that is writing.
    ///
    /// # Errors
    /// Those of writing. After an interruption it can be called again.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.session.shutdown(how)
    }

    /// Returns the stream below. TLS loses what is read from it or written to it.
    pub fn get_ref(&self) -> &S {
        &self.session.transport
    }

    /// Returns a reading half and a writing half, for two owners. The connection ends when both are dropped.
    pub fn into_split(self) -> (SslReader<S>, SslWriter<S>) {
        let writer = SslWriter::new(Arc::clone(&self.session));
        (SslReader::new(self.session), writer)
    }

    /// Returns the peer's certificates in DER, its own first. Empty before the handshake, or if the peer showed none.
    pub fn peer_certificates(&self) -> Vec<Vec<u8>> {
        self.session.ask(|machine| {
            let certificates = machine.state().peer_certificates().unwrap_or_default();
            certificates.iter().map(|one| one.to_vec()).collect()
        })
    }

    /// Returns the protocol that both sides agreed on (ALPN).
    pub fn alpn_protocol(&self) -> Option<Vec<u8>> {
        self.session
            .ask(|machine| machine.state().alpn_protocol().map(<[u8]>::to_vec))
    }

    /// Returns TLS's version: `TLSv1.2` or `TLSv1.3`; `None` before both sides have agreed on it.
    pub fn protocol_version(&self) -> Option<&'static str> {
        match self
            .session
            .ask(|machine| machine.state().protocol_version())?
        {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => Some("unknown"),
        }
    }

    /// Returns the registered name of the cipher suite, such as `TLS13_AES_256_GCM_SHA384`; `None` before both sides
    /// have agreed on it.
    pub fn cipher_suite(&self) -> Option<&'static str> {
        let suite = self
            .session
            .ask(|machine| machine.state().negotiated_cipher_suite())?;
        suite.suite().as_str()
    }

    /// Tells if the handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        let kind = self.session.ask(|machine| machine.state().handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }
}

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the namesakes of `TcpStream`"
)]
impl SslStream<TcpStream> {
    /// Returns the address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.get_ref().peer_addr()
    }

    /// Returns the address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.get_ref().local_addr()
    }

    /// Sets how long a read waits for the socket, and for another thread that reads; `None` sets no bound. Zero is
    /// `InvalidInput`. A read may wait several times, as a record may come in pieces.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.get_ref().set_read_timeout(timeout)
    }

    /// Sets how long a write waits for the socket, and for another thread that writes; `None` sets no bound. Zero is
    /// `InvalidInput`. [`SslStream`] tells what happens to a write whose time runs out.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.get_ref().set_write_timeout(timeout)
    }

    /// Returns the bound, exactly as it was set.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.get_ref().read_timeout()
    }

    /// Returns the bound, exactly as it was set.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.get_ref().write_timeout()
    }

    /// With `true`, a call that would wait for the socket, or for another thread that reads or writes, returns
    /// `WouldBlock`. The flag is weald's own, as with [`TcpStream::set_nonblocking`].
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.get_ref().set_nonblocking(nonblocking)
    }
}

impl<S: SslTransport> Read for &SslStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.session.read(buffer)
    }
}

impl<S: SslTransport> Write for &SslStream<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.session.write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        write_gathered(&self.session, buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.session.flush()
    }
}

impl<S: SslTransport> Read for SslStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.session.read(buffer)
    }
}

impl<S: SslTransport> Write for SslStream<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.session.write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        write_gathered(&self.session, buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.session.flush()
    }
}

impl<S: SslTransport> SslTransport for SslStream<S> {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.session.read(buffer)
    }

    fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.session.write(buffer)
    }

    fn receive_limit(&self) -> Option<Duration> {
        self.get_ref().receive_limit()
    }

    fn send_limit(&self) -> Option<Duration> {
        self.get_ref().send_limit()
    }

    fn close(&self, how: Shutdown) -> io::Result<()> {
        self.session.shutdown(how)
    }
}

impl<S: SslTransport + AsFd> AsFd for SslStream<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

impl<S: SslTransport + AsRawFd> AsRawFd for SslStream<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.get_ref().as_raw_fd()
    }
}

impl<S: SslTransport> UnwindSafe for SslStream<S> {}
impl<S: SslTransport> RefUnwindSafe for SslStream<S> {}

impl<S: SslTransport + fmt::Debug> fmt::Debug for SslStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SslStream")
            .field("over", self.get_ref())
            .finish_non_exhaustive()
    }
}
