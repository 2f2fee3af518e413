//! The stream below TLS.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::SockRef;
use weald_scheduler::Builder;

use crate::fd::Fd;
use crate::socket::Green;
use crate::source::{Direction, Waits};
use crate::tcp::TcpStream;
use crate::unix::UnixStream;

/// How long the peer may take to receive the last bytes, after a stream was dropped that has promised to send them.
/// They are a few records. A peer that takes them one by one must not keep a thread and a descriptor.
const LAST_LIMIT: Duration = Duration::from_secs(10);

/// A stream that TLS can be spoken over: a green TCP or Unix stream, another TLS stream, or a type of your own, such
/// as a tunnel through a proxy.
///
/// Two threads may call `receive` and `send` at once. A call of [`SslStream`](crate::SslStream) waits only in these
/// two. An exception that ends them must not lose a byte, as in weald's own sockets.
///
/// # Examples
/// See [`SslStream::client`](crate::SslStream::client).
pub trait SslTransport: Send + Sync {
    /// Reads some bytes. Waits for the first one. Returns 0 at the end.
    ///
    /// # Errors
    /// The transport's; they are passed on.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes some bytes. Waits until there is room for at least one.
    ///
    /// # Errors
    /// The transport's; they are passed on.
    fn send(&self, buffer: &[u8]) -> io::Result<usize>;

    /// Writes what there is room for at once. It never waits and raises nothing. It is for answers of TLS that nobody
    /// waits for, such as the `close_notify` of a stream that is dropped. It may always decline.
    ///
    /// # Errors
    /// `WouldBlock`; the transport's.
    fn try_send(&self, buffer: &[u8]) -> io::Result<usize> {
        let _ = buffer;
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Throws away some of the bytes that have come. Returns how many, 0 if there are none. It never waits and raises
    /// nothing. It is called when a stream is dropped, because unread bytes would make the kernel reset the
    /// connection. It may always decline.
    ///
    /// # Errors
    /// `WouldBlock`; the transport's.
    fn try_discard(&self) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Returns how long `receive` waits at most: [`SslStream`](crate::SslStream) waits no longer for another reader
    /// of the same stream either. `None`: without end. Zero: not at all.
    fn receive_limit(&self) -> Option<Duration> {
        None
    }

    /// Returns how long `send` waits at most, and how long a writer waits for another writer of the same stream.
    /// `None`: without end. Zero: not at all.
    fn send_limit(&self) -> Option<Duration> {
        None
    }

    /// Goes on sending these bytes after the stream was dropped: `write` has reported them as written, and there was
    /// no room for them. Returns false if that is not possible, and then they are lost. It does not wait, and raises
    /// nothing.
    fn send_later(&self, rest: &[u8]) -> bool {
        let _ = rest;
        false
    }

    /// Closes one or both directions, and wakes the threads that wait for them.
    ///
    /// # Errors
    /// The transport's; they are passed on.
    fn close(&self, how: Shutdown) -> io::Result<()>;
}

/// Returns a socket's setting in the form of [`SslTransport`].
fn limit(waits: Waits) -> Option<Duration> {
    match waits {
        Waits::Forever => None,
        Waits::AtMost(limit) => Some(limit),
        Waits::Never => Some(Duration::ZERO),
    }
}

/// How often a stream that is dropped throws away unread bytes: 64 KiB in all. The number has a bound, as a peer may
/// send for ever.
const SCRAPS: usize = 16;

/// Throws away unread bytes, up to the bound.
pub(super) fn discard(some: impl Fn() -> io::Result<usize>) {
    for _ in 0..SCRAPS {
        if !matches!(some(), Ok(1..)) {
            break;
        }
    }
}

/// Sends all bytes within [`LAST_LIMIT`].
fn send_rest(green: &Green, mut rest: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + LAST_LIMIT;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        green.set_timeout(Direction::Write, Some(left))?;
        match green.send(rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => rest = &rest[sent..],
        }
    }
    Ok(())
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

            fn receive_limit(&self) -> Option<Duration> {
                limit(self.0.read_waits())
            }

            fn send_limit(&self) -> Option<Duration> {
                limit(self.0.write_waits())
            }

            fn send_later(&self, rest: &[u8]) -> bool {
                // The program may have clones, and their settings stay as they are.
                let Ok(green) = self.0.try_clone_apart() else {
                    return false;
                };
                let rest = rest.to_vec();
                let finish = move || {
                    if let Err(error) = send_rest(&green, &rest) {
                        log::warn!("weald: the last bytes of a TLS stream were lost: {error}");
                    }
                    // Unread bytes would make the kernel reset the connection.
                    discard(|| green.discard_at_once());
                };
                Builder::new().spawn(finish).is_ok()
            }

            fn close(&self, how: Shutdown) -> io::Result<()> {
                self.shutdown(how)
            }
        }
    )*};
}
transport!(TcpStream, UnixStream);

/// TLS over any descriptor that goes both ways. A descriptor that is not a socket has no directions to close.
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
