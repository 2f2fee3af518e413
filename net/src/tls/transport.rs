//! What TLS is spoken over.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use crate::tcp::TcpStream;

/// A stream that TLS can be spoken over: green TCP, another TLS stream, or a type of yours, such as
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

impl SslTransport for TcpStream {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buffer)
    }

    fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(buffer)
    }

    fn try_send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.send_at_once(buffer)
    }

    fn try_discard(&self) -> io::Result<usize> {
        self.discard_at_once()
    }

    fn close(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
}
