//! The calls of green sockets: how each of them asks the kernel without waiting.
#![allow(
    unsafe_code,
    reason = "buffers of bytes as socket2 takes them; system calls"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use socket2::{MaybeUninitSlice, SockAddr, Socket};

use crate::ask::{has_told_of_urgent_data, is_ready};
use crate::socket::{Green, Origin};
use crate::source::{Direction, Got, Waits};

/// The kernel takes no more slices in one call: `UIO_MAXIOV`.
const MAX_SLICES: usize = 1024;

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// On these systems std has set `SO_NOSIGPIPE`, and socket2 sets it for new sockets.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

impl Green {
    /// Reads from a stream.
    pub(crate) fn read(&self, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
        if buffer.is_empty() {
            weald_scheduler::io::enter()?;
            weald_scheduler::io::spend();
            return Ok(0);
        }
        let length = buffer.len();
        let buffer = uninit(buffer);
        let socket = self.socket();
        let tells = flags == 0 && self.shared.origin.is_tcp;
        let receive = || {
            let read = receive_bytes(socket, buffer, flags | libc::MSG_DONTWAIT)?;
            let drained = tells && read > 0 && read < length && !has_told_of_urgent_data();
            Ok(Got {
                value: read,
                drained,
            })
        };
        self.read_above_low_water(length, receive)
    }

    /// Reads by `receive`, which never waits, into room for that many bytes. Waits until as many are there as
    /// `SO_RCVLOWAT` asks for, or takes what there is when the time is over.
    #[inline]
    fn read_above_low_water(
        &self,
        room: usize,
        mut receive: impl FnMut() -> io::Result<Got<usize>>,
    ) -> io::Result<usize> {
        let (fd, waits, shared) = (self.fd(), self.read_waits(), &*self.shared);
        let asks_for_more = || {
            let is_tcp = shared.origin.is_tcp;
            shared.low_water.asks_for_more(fd, room, is_tcp)
        };
        if shared.low_water.is_possible() {
            self.source.try_next(Direction::Read);
        }
        let read = self.run(Direction::Read, waits, || {
            if waits != Waits::Never && asks_for_more() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            receive()
        });
        match read {
            Err(error) if is_our_limit(&error) && asks_for_more() => {
                receive().map_or(Err(error), |got| Ok(got.value))
            }
            read => read,
        }
    }

    /// Reads from a stream into several buffers.
    pub(crate) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let length: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        if length == 0 {
            weald_scheduler::io::enter()?;
            weald_scheduler::io::spend();
            return Ok(0);
        }
        let count = buffers.len().min(MAX_SLICES);
        let pointer = buffers.as_mut_ptr().cast::<MaybeUninitSlice<'_>>();
        // SAFETY: both types are `repr(transparent)` over an iovec; socket2 writes only
        // initialised bytes.
        let buffers = unsafe { std::slice::from_raw_parts_mut(pointer, count) };
        let socket = self.socket();
        self.read_above_low_water(length, || {
            let (read, _) = socket.recv_vectored_with_flags(buffers, libc::MSG_DONTWAIT)?;
            Ok(Got::more(read))
        })
    }

    /// Writes to a stream, or sends a datagram to the peer.
    pub(crate) fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        let socket = self.socket();
        self.write(|| send_bytes(socket, buffer))
    }

    /// Writes to a stream. For a Unix stream the kernel wakes nobody when the stream's own writing side is shut down.
    #[inline]
    fn write(&self, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        let (fd, waits) = (self.fd(), self.write_waits());
        if self.shared.origin.is_tcp {
            let call = || call().map(Got::more);
            return self.source.run(fd, Direction::Write, waits, call);
        }
        let mut has_waited = false;
        let call = || match call() {
            // A call that waits inside the kernel while the peer goes away is told of the reset, so this call is too.
            Err(error) if has_waited && error.kind() == io::ErrorKind::BrokenPipe => {
                Err(self.socket().take_error()?.unwrap_or(error))
            }
            sent => {
                has_waited = true;
                sent.map(Got::more)
            }
        };
        self.source
            .run_looking_again(fd, Direction::Write, waits, call)
    }

    /// Shuts a stream down, and at once wakes the threads that wait on this handle.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket().shutdown(how)?;
        if how != Shutdown::Read && !self.shared.origin.is_tcp {
            self.source.tell_of_end(Direction::Write);
        }
        Ok(())
    }

    /// Writes several buffers to a stream.
    pub(crate) fn send_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let buffers = &buffers[..buffers.len().min(MAX_SLICES)];
        let socket = self.socket();
        self.write(|| socket.send_vectored_with_flags(buffers, SEND_FLAGS))
    }

    /// Takes a datagram from the peer. After shutdown(2) the kernel gives an empty datagram, but only to a call that
    /// may wait: others are told `EAGAIN`.
    pub(crate) fn receive(&self, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
        let buffer = uninit(buffer);
        let socket = self.socket();
        let waits = self.read_waits();
        let call = || {
            socket
                .recv_with_flags(buffer, flags | libc::MSG_DONTWAIT)
                .map(Got::more)
        };
        self.run_or_end(waits, || waits.deadline(), call, || Ok(0))
    }

    /// Takes a datagram from any sender. Its end is like that of [`receive`](Self::receive).
    pub(crate) fn receive_from(
        &self,
        buffer: &mut [u8],
        flags: libc::c_int,
    ) -> io::Result<(usize, SockAddr)> {
        let buffer = uninit(buffer);
        let socket = self.socket();
        let waits = self.read_waits();
        let call = || {
            socket
                .recv_from_with_flags(buffer, flags | libc::MSG_DONTWAIT)
                .map(Got::more)
        };
        self.run_or_end(waits, || waits.deadline(), call, || Ok(no_addr()))
    }

    /// Sends a datagram to somebody.
    pub(crate) fn send_to(&self, buffer: &[u8], addr: &SockAddr) -> io::Result<usize> {
        let socket = self.socket();
        self.run(Direction::Write, self.write_waits(), || {
            socket
                .send_to_with_flags(buffer, addr, SEND_FLAGS)
                .map(Got::more)
        })
    }

    /// Sends a datagram to the peer, on a socket for which no event tells of `shutdown`.
    pub(crate) fn send_untold(&self, buffer: &[u8]) -> io::Result<usize> {
        let socket = self.socket();
        self.run_untold(Direction::Write, self.write_waits(), || {
            socket.send_with_flags(buffer, SEND_FLAGS)
        })
    }

    /// Sends as [`send_to`](Self::send_to) does, to a socket for whose full queue no event tells.
    pub(crate) fn send_to_untold(&self, buffer: &[u8], addr: &SockAddr) -> io::Result<usize> {
        let socket = self.socket();
        self.run_untold(Direction::Write, self.write_waits(), || {
            socket.send_to_with_flags(buffer, addr, SEND_FLAGS)
        })
    }

    /// Waits for a connection, at most for the listener's `SO_RCVTIMEO`. After shutdown(2) of a Unix listener the
    /// kernel tells only a call that may wait.
    pub(crate) fn accept(&self) -> io::Result<(Green, SockAddr)> {
        let socket = self.socket();
        let shown = &self.shared.shown;
        let until = || {
            let limit = shown.is_completed().then(|| socket.read_timeout());
            weald_scheduler::io::deadline(limit?.ok()??)
        };
        let call = || {
            let accepted = if !shown.is_completed() || socket.nonblocking()? {
                socket.accept()
            } else {
                accept_blocking(socket)
            };
            accepted.map(Got::more)
        };
        let end = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        let (stream, addr) = self.run_or_end(self.read_waits(), until, call, end)?;
        let origin = Origin {
            is_tcp: self.shared.origin.is_tcp,
            // A connection inherits the mark of its listener.
            may_have_low_water: shown.is_completed(),
            ..Origin::default()
        };
        Ok((Green::with(stream, origin), addr))
    }

    /// Writes to a stream what there is room for, without waiting, and raises nothing.
    #[cfg(feature = "tls")]
    pub(crate) fn send_at_once(&self, buffer: &[u8]) -> io::Result<usize> {
        self.socket().send_with_flags(buffer, SEND_FLAGS)
    }

    /// Throws away some of the bytes that have come, without waiting, and raises nothing.
    #[cfg(feature = "tls")]
    pub(crate) fn discard_at_once(&self) -> io::Result<usize> {
        let mut scrap = [MaybeUninit::uninit(); 4096];
        self.socket()
            .recv_with_flags(&mut scrap, libc::MSG_DONTWAIT)
    }
}

/// Tells if the error says that the time of a call is over, and is neither an exception nor the connection's.
fn is_our_limit(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
        && error.get_ref().is_none()
        && error.raw_os_error().is_none()
}

/// recv(2), not by the C library. A call that never waits need not be a point where threads are cancelled, which
/// costs two compare-and-swaps in the thread's control block.
#[cfg(all(target_os = "linux", not(weald_sanitizer = "thread")))]
fn receive_bytes(
    socket: &Socket,
    buffer: &mut [MaybeUninit<u8>],
    flags: libc::c_int,
) -> io::Result<usize> {
    let nobody = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes at most as many bytes as there are.
    let read = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            socket.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
            flags,
            nobody,
            nobody,
        )
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// recv(2).
#[cfg(not(all(target_os = "linux", not(weald_sanitizer = "thread"))))]
fn receive_bytes(
    socket: &Socket,
    buffer: &mut [MaybeUninit<u8>],
    flags: libc::c_int,
) -> io::Result<usize> {
    socket.recv_with_flags(buffer, flags)
}

/// send(2) with [`SEND_FLAGS`]; see [`receive_bytes`].
#[cfg(all(target_os = "linux", not(weald_sanitizer = "thread")))]
fn send_bytes(socket: &Socket, buffer: &[u8]) -> io::Result<usize> {
    let nobody = std::ptr::null::<libc::c_void>();
    // SAFETY: the kernel reads as many bytes as there are.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_sendto,
            socket.as_raw_fd(),
            buffer.as_ptr(),
            buffer.len(),
            SEND_FLAGS,
            nobody,
            0_usize,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// send(2) with [`SEND_FLAGS`].
#[cfg(not(all(target_os = "linux", not(weald_sanitizer = "thread"))))]
fn send_bytes(socket: &Socket, buffer: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(buffer, SEND_FLAGS)
}

/// Returns the address that the kernel gives for a sender without an address.
fn no_addr() -> (usize, SockAddr) {
    let nobody = socket2::SockAddrStorage::zeroed();
    // SAFETY: of length 0.
    (0, unsafe { SockAddr::new(nobody, 0) })
}

fn uninit(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    let pointer = buffer.as_mut_ptr().cast::<MaybeUninit<u8>>();
    // SAFETY: initialised bytes may be seen as bytes that need not be initialised; socket2 writes only initialised
    // bytes.
    unsafe { std::slice::from_raw_parts_mut(pointer, buffer.len()) }
}

/// Calls `accept` on a listener that a clone has made blocking: only if a connection is there. Another thread may
/// take that connection first, so the call is made where it blocks no worker.
fn accept_blocking(socket: &Socket) -> io::Result<(Socket, SockAddr)> {
    if !is_ready(socket.as_raw_fd(), libc::POLLIN)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    weald_scheduler::blocking(|| socket.accept())
}
