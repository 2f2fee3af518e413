//! The streams that HTTP is spoken over, as one type.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::time::Duration;

use weald_net::unix::UnixStream;
use weald_net::{PollFd, TcpStream};
use weald_scheduler::io::Pollable;

#[cfg(feature = "tls")]
use weald_net::SslStream;

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<SslStream>),
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            #[cfg(feature = "tls")]
            Stream::Tls($stream) => $call,
        }
    };
}

impl Stream {
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(buffer),
            Self::Unix(stream) => (&*stream).read(buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => (&**stream).read(buffer),
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Unix(stream) => (&*stream).write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => (&**stream).write(bytes),
        }
    }

    pub(crate) fn write_vectored(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write_vectored(bytes),
            Self::Unix(stream) => (&*stream).write_vectored(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => (&**stream).write_vectored(bytes),
        }
    }

    #[cfg_attr(
        not(feature = "tls"),
        allow(clippy::unnecessary_wraps, reason = "TLS can fail")
    )]
    pub(crate) fn flush(&self) -> io::Result<()> {
        match self {
            // Writes have gone to the kernel already.
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => (&**stream).flush(),
        }
    }

    /// Makes calls that would wait fail with `WouldBlock`.
    pub(crate) fn never_wait(&self) {
        // The call only sets a flag of the socket, so it cannot fail.
        let _ = each!(self, stream => stream.set_nonblocking(true));
    }

    /// Makes reads wait at most that long; for ever with `None`. Writes wait for ever.
    pub(crate) fn wait(&self, limit: Option<Duration>) {
        // A limit of zero is refused.
        let limit = limit.map(|limit| limit.max(Duration::from_micros(1)));
        let _ = each!(self, stream => stream.set_read_timeout(limit));
        let _ = each!(self, stream => stream.set_nonblocking(false));
    }

    /// Makes the socket send small writes at once.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref().set_nodelay(true),
        }
    }

    /// Makes the handshake of a stream that speaks TLS, before the first read or write.
    #[cfg_attr(
        not(feature = "tls"),
        allow(clippy::unnecessary_wraps, reason = "TLS can fail")
    )]
    pub(crate) fn handshake(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.handshake(),
        }
    }

    /// Tells if the peer has reset the connection. Without `half_close` it also tells if the peer has closed its
    /// sending side. On other systems than Linux it sees only what poll(2) calls a hang-up.
    ///
    /// # Errors
    /// An exception of weald's.
    pub(crate) fn has_left(&self, half_close: bool) -> io::Result<bool> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let events = if half_close { 0 } else { PollFd::RDHUP };
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let events = 0;
        let fd = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref().as_fd(),
        };
        let mut one = [PollFd::new(&fd, events)];
        Ok(weald_net::poll(&mut one, Some(Duration::ZERO))? > 0)
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        each!(self, stream => stream.shutdown(how))
    }

    /// Ends a read that waits, as though the peer had closed the connection. Any thread may call it.
    pub(crate) fn end_reads(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Read),
            Self::Unix(stream) => stream.shutdown(Shutdown::Read),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref().shutdown(Shutdown::Read),
        };
    }

    /// Returns what tells when a call that would have waited is worth another try.
    pub(crate) fn pollable(&self) -> &dyn Pollable {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// Returns the protocol that the peers have agreed on by ALPN.
    pub(crate) fn protocol(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.alpn_protocol(),
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Tcp(_) | Self::Unix(_))
    }
}

/// Tells if the error is the stream's own "the time has passed", and not an exception of weald's.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.get_ref().is_none()
}
