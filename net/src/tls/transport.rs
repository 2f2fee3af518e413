//! What TLS is spoken over.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;

use socket2::SockRef;

use crate::fd::Fd;
use crate::tcp::TcpStream;
use crate::unix::UnixStream;

/// A stream that TLS can be spoken over: a green TCP or Unix stream, another TLS stream, or a type of yours, such as
/// a tunnel through a proxy.
///
/// `receive` and `send` may be called by two threads at once. They are what waits in a call of
/// [`SslStream`](crate::SslStream); an exception that ends them must leave no byte lost, as it does
/// in weald's own sockets.
///
/// # Examples
/// See [`SslStream::client`](crate::SslStream::client).
pub trait SslTransport: Send + Sync {
    /// Reads some bytes; waits for the first. 0: the end.
    ///
    /// # Errors
    /// The transport's; they are passed on.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes some bytes; waits until there is room for one at least.
    ///
    /// # Errors
    /// The transport's; they are passed on.
    fn send(&self, buffer: &[u8]) -> io::Result<usize>;

    /// Writes what there is room for at once. It never waits and raises nothing: for answers of TLS
    /// that nobody waits for, such as the `close_notify` of a stream that is dropped. It may always
    /// decline.
    ///
    /// # Errors
    /// `WouldBlock`; the transport's.
    fn try_send(&self, buffer: &[u8]) -> io::Result<usize> {
        let _ = buffer;
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Throws away some of what has come and returns how many bytes, 0 if there are none. It never
    /// waits and raises nothing: when a stream is dropped, the kernel would reset a connection for
    /// what nobody has read. It may always decline.
    ///
    /// # Errors
    /// `WouldBlock`; the transport's.
    fn try_discard(&self) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Closes one or both directions, and wakes the threads that wait for them.
    ///
    /// # Errors
    /// The transport's; they are passed on.
    fn close(&self, how: Shutdown) -> io::Result<()>;
}

macro_rules! transport {
    ($($stream:ty),*) => {$(
        impl SslTransport for $stream {
            fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.read(buffer, 0)
            }

            fn send(&self, buffer: &[u8]) -> io::Result<usize> {
                self.0.send(buffer)
            }

            fn try_send(&self, buffer: &[u8]) -> io::Result<usize> {
                self.0.send_at_once(buffer)
            }

            fn try_discard(&self) -> io::Result<usize> {
                self.0.discard_at_once()
            }

            fn close(&self, how: Shutdown) -> io::Result<()> {
                self.shutdown(how)
            }
        }
    )*};
}
transport!(TcpStream, UnixStream);

/// Over any descriptor that goes both ways. One that is no socket has no directions to close.
impl<T: AsFd + Send + Sync> SslTransport for Fd<T> {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer)
    }

    fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.write_some(buffer)
    }

    fn try_send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.write_at_once(buffer)
    }

    fn close(&self, how: Shutdown) -> io::Result<()> {
        match SockRef::from(self).shutdown(how) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => Ok(()),
            done => done,
        }
    }
}
