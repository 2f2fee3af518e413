//! The two halves of a stream.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use super::session::{Session, write_gathered};
use super::transport::SslTransport;
use crate::tcp::TcpStream;

/// The reading half of an [`SslStream`](crate::SslStream).
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// # let identity = weald::net::Identity::from_pem(&chain, &key)?;
/// # let listener = weald::ssl_listener("127.0.0.1:0", identity)?;
/// # let addr = format!("localhost:{}", listener.local_addr()?.port());
/// # weald::spawn(move || {
/// #     let (stream, _) = listener.accept()?;
/// #     std::io::copy(&mut &stream, &mut &stream)
/// # });
/// # let connector = weald::net::SslConnector::from_pem(&chain)?;
/// let stream = weald::connect_ssl_with(&addr, &connector)?;
/// let (mut reader, mut writer) = stream.into_split();
/// let echo = weald::spawn(move || {
///     let mut text = String::new();
///     reader.read_to_string(&mut text).map(|_| text)
/// });
/// writer.write_all(b"there and back")?;
/// writer.shutdown()?;
/// assert_eq!(echo.join().unwrap()?, "there and back");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SslReader<S: SslTransport = TcpStream>(Arc<Session<S>>);

/// The writing half of an [`SslStream`](crate::SslStream).
///
/// # Examples
/// See [`SslReader`].
pub struct SslWriter<S: SslTransport = TcpStream>(Arc<Session<S>>);

impl<S: SslTransport> SslReader<S> {
    pub(super) fn new(session: Arc<Session<S>>) -> Self {
        Self(session)
    }

    /// Returns the stream below TLS.
    pub fn get_ref(&self) -> &S {
        &self.0.transport
    }
}

impl<S: SslTransport> SslWriter<S> {
    pub(super) fn new(session: Arc<Session<S>>) -> Self {
        Self(session)
    }

    /// Sends what was written, then `close_notify`, and closes the writing direction. A blocking call.
    ///
    /// # Errors
    /// Those of writing. After an interruption it can be called again.
    pub fn shutdown(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    /// Returns the stream below TLS.
    pub fn get_ref(&self) -> &S {
        &self.0.transport
    }
}

impl<S: SslTransport> Read for SslReader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: SslTransport> Read for &SslReader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: SslTransport> Write for SslWriter<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        write_gathered(&self.0, buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: SslTransport> Write for &SslWriter<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        write_gathered(&self.0, buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: SslTransport + fmt::Debug> fmt::Debug for SslReader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SslReader")
            .field("over", self.get_ref())
            .finish_non_exhaustive()
    }
}

impl<S: SslTransport + fmt::Debug> fmt::Debug for SslWriter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SslWriter")
            .field("over", self.get_ref())
            .finish_non_exhaustive()
    }
}
