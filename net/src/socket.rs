//! What all green sockets are made of: a socket, its source, and what its clones share.
//!
//! Reads and writes leave `O_NONBLOCK` alone and pass `MSG_DONTWAIT` with each call. `accept` has no
//! such flag: a listener sets `O_NONBLOCK` and looks before each `accept` whether it is still set,
//! as it belongs to the open file and a clone that became std's has cleared it. Then the call,
//! which might block, is made inside `blocking`.
#![allow(
    unsafe_code,
    reason = "buffers of bytes as socket2 takes them; poll(2)"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use socket2::{MaybeUninitSlice, SockAddr, Socket};

use crate::shim::sync::Mutex;
use crate::source::{Direction, Got, Source, Waits};

/// The kernel takes no more slices at once: `UIO_MAXIOV`.
const MAX_SLICES: usize = 1024;

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// Elsewhere std has set `SO_NOSIGPIPE`, as socket2 does for new sockets.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

/// What the clones of one socket share; in this order, as each call reads the first three.
#[derive(Debug, Default)]
#[repr(C)]
struct Shared {
    nonblocking: AtomicBool,
    read_timeout: Timeout,
    write_timeout: Timeout,
    /// Of datagram sockets: `shutdown` of reading.
    ended: AtomicBool,
}

/// A timeout; most sockets have none, and to see that takes no lock. Who calls after it was set, on its
/// thread or told by it, sees it; nobody else may rely on when.
#[derive(Debug, Default)]
#[repr(C)]
struct Timeout {
    /// Set together with the value, under its lock.
    is_set: AtomicBool,
    value: Mutex<Option<Duration>>,
}

impl Timeout {
    fn set(&self, value: Option<Duration>) {
        let mut place = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_set.store(value.is_some(), Ordering::Relaxed);
        *place = value;
    }

    #[inline]
    fn get(&self) -> Option<Duration> {
        if !self.is_set.load(Ordering::Relaxed) {
            return None;
        }
        *self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket with its source; what streams, datagram sockets and listeners are made of.
pub(crate) struct Green {
    /// `None` only while it is being taken apart.
    socket: Option<Socket>,
    pub(crate) source: Source,
    shared: Arc<Shared>,
}

impl Green {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket: Some(socket),
            source: Source::new(),
            shared: Arc::default(),
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        self.socket
            .as_ref()
            .expect("a socket is there until it is taken apart")
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let socket = self.socket().try_clone()?;
        let shared = Arc::clone(&self.shared);
        Ok(Self {
            socket: Some(socket),
            source: Source::new(),
            shared,
        })
    }

    /// Gives the socket away, in blocking mode: whatever its clones do, they do not rely on it.
    pub(crate) fn into_socket(mut self) -> Socket {
        let socket = self.socket.take().expect("it is taken apart once");
        self.source.deregister(socket.as_raw_fd());
        // Of a live descriptor this cannot fail.
        let _ = socket.set_nonblocking(false);
        socket
    }

    pub(crate) fn run<T>(
        &self,
        direction: Direction,
        waits: Waits,
        call: impl FnMut() -> io::Result<Got<T>>,
    ) -> io::Result<T> {
        self.source
            .run(self.socket().as_raw_fd(), direction, waits, call)
    }

    /// As [`run`](Self::run), of a call for which the kernel may not tell when to try again.
    pub(crate) fn run_untold<T>(
        &self,
        direction: Direction,
        waits: Waits,
        call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let fd = Some(self.socket().as_raw_fd());
        self.source.run_untold(fd, direction, waits, call)
    }

    fn waits(&self, timeout: &Timeout) -> Waits {
        if self.shared.nonblocking.load(Ordering::Relaxed) {
            return Waits::Never;
        }
        match timeout.get() {
            None => Waits::Forever,
            Some(limit) => Waits::AtMost(limit),
        }
    }

    /// How long a read, or an `accept`, may wait.
    pub(crate) fn read_waits(&self) -> Waits {
        self.waits(&self.shared.read_timeout)
    }

    /// How long a write may wait.
    pub(crate) fn write_waits(&self) -> Waits {
        self.waits(&self.shared.write_timeout)
    }

    fn timeout(&self, direction: Direction) -> &Timeout {
        match direction {
            Direction::Read => &self.shared.read_timeout,
            Direction::Write => &self.shared.write_timeout,
        }
    }

    pub(crate) fn set_timeout(
        &self,
        direction: Direction,
        value: Option<Duration>,
    ) -> io::Result<()> {
        if value == Some(Duration::ZERO) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a timeout of zero: use None for none, or set_nonblocking",
            ));
        }
        self.timeout(direction).set(value);
        Ok(())
    }

    pub(crate) fn get_timeout(&self, direction: Direction) -> Option<Duration> {
        self.timeout(direction).get()
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        self.shared
            .nonblocking
            .store(nonblocking, Ordering::Relaxed);
    }

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
        self.run(Direction::Read, self.read_waits(), || {
            let read = receive_bytes(socket, buffer, flags | libc::MSG_DONTWAIT)?;
            let drained = flags == 0 && read > 0 && read < length;
            Ok(Got {
                value: read,
                drained,
            })
        })
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
        self.run(Direction::Read, self.read_waits(), || {
            let (read, _) = socket.recv_vectored_with_flags(buffers, libc::MSG_DONTWAIT)?;
            Ok(Got::more(read))
        })
    }

    /// Writes to a stream, or sends a datagram to the peer.
    pub(crate) fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        let socket = self.socket();
        self.run(Direction::Write, self.write_waits(), || {
            send_bytes(socket, buffer).map(Got::more)
        })
    }

    /// Writes several buffers to a stream.
    pub(crate) fn send_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let buffers = &buffers[..buffers.len().min(MAX_SLICES)];
        let socket = self.socket();
        self.run(Direction::Write, self.write_waits(), || {
            socket
                .send_vectored_with_flags(buffers, SEND_FLAGS)
                .map(Got::more)
        })
    }

    /// `shutdown` of a datagram socket. Of its end the kernel tells a read that does not wait as little
    /// as one that has nothing to read: both are `EAGAIN`.
    pub(crate) fn shutdown_datagrams(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Write {
            self.shared.ended.store(true, Ordering::Relaxed);
        }
        self.socket().shutdown(how)
    }

    /// What a read of a datagram got: the end instead of `WouldBlock` after `shutdown`.
    fn or_end<T>(&self, got: io::Result<T>, end: impl FnOnce() -> T) -> io::Result<Got<T>> {
        match got {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && self.shared.ended.load(Ordering::Relaxed)
                    && !self.shared.nonblocking.load(Ordering::Relaxed) =>
            {
                Ok(Got::more(end()))
            }
            got => got.map(Got::more),
        }
    }

    /// Takes a datagram from the peer.
    pub(crate) fn receive(&self, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
        let buffer = uninit(buffer);
        let socket = self.socket();
        self.run(Direction::Read, self.read_waits(), || {
            let got = socket.recv_with_flags(buffer, flags | libc::MSG_DONTWAIT);
            self.or_end(got, || 0)
        })
    }

    /// Takes a datagram from anybody.
    pub(crate) fn receive_from(
        &self,
        buffer: &mut [u8],
        flags: libc::c_int,
    ) -> io::Result<(usize, SockAddr)> {
        let buffer = uninit(buffer);
        let socket = self.socket();
        self.run(Direction::Read, self.read_waits(), || {
            let got = socket.recv_from_with_flags(buffer, flags | libc::MSG_DONTWAIT);
            self.or_end(got, no_addr)
        })
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

    /// Sends a datagram to the peer, where `shutdown` is not told of.
    pub(crate) fn send_untold(&self, buffer: &[u8]) -> io::Result<usize> {
        let socket = self.socket();
        self.run_untold(Direction::Write, self.write_waits(), || {
            socket.send_with_flags(buffer, SEND_FLAGS)
        })
    }

    /// As [`send_to`](Self::send_to), to a socket whose full queue the kernel does not tell of.
    pub(crate) fn send_to_untold(&self, buffer: &[u8], addr: &SockAddr) -> io::Result<usize> {
        let socket = self.socket();
        self.run_untold(Direction::Write, self.write_waits(), || {
            socket.send_to_with_flags(buffer, addr, SEND_FLAGS)
        })
    }

    /// Waits for a connection.
    pub(crate) fn accept(&self) -> io::Result<(Green, SockAddr)> {
        let socket = self.socket();
        let (stream, addr) = self.run(Direction::Read, self.read_waits(), || {
            let accepted = if socket.nonblocking()? {
                socket.accept()
            } else {
                accept_blocking(socket)
            };
            accepted.map(Got::more)
        })?;
        Ok((Green::new(stream), addr))
    }

    /// Writes to a stream what there is room for, without waiting, and raises nothing.
    #[cfg(feature = "tls")]
    pub(crate) fn send_at_once(&self, buffer: &[u8]) -> io::Result<usize> {
        self.socket().send_with_flags(buffer, SEND_FLAGS)
    }

    /// Throws away some of what is there, without waiting, and raises nothing.
    #[cfg(feature = "tls")]
    pub(crate) fn discard_at_once(&self) -> io::Result<usize> {
        let mut scrap = [MaybeUninit::uninit(); 4096];
        self.socket()
            .recv_with_flags(&mut scrap, libc::MSG_DONTWAIT)
    }
}

impl Drop for Green {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            self.source.deregister(socket.as_raw_fd());
        }
    }
}

/// recv(2). Not the C library's: a call that never waits need not be one where threads are cancelled,
/// which costs two compare-and-swaps in the thread's control block.
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

/// What the kernel says of a sender that there is not.
fn no_addr() -> (usize, SockAddr) {
    let nobody = socket2::SockAddrStorage::zeroed();
    // SAFETY: of length 0.
    (0, unsafe { SockAddr::new(nobody, 0) })
}

fn uninit(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    let pointer = buffer.as_mut_ptr().cast::<MaybeUninit<u8>>();
    // SAFETY: bytes that are initialised may be seen as ones that need not be; socket2 writes only
    // initialised bytes.
    unsafe { std::slice::from_raw_parts_mut(pointer, buffer.len()) }
}

/// `accept` on a listener that a clone has made blocking: only if somebody is there, and, as
/// another may take that connection first, where it blocks no worker.
fn accept_blocking(socket: &Socket) -> io::Result<(Socket, SockAddr)> {
    if !crate::poll::is_ready(socket.as_raw_fd(), libc::POLLIN)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    weald_scheduler::blocking(|| socket.accept())
}

/// What all green sockets have of descriptors and std. `true`: its calls need `O_NONBLOCK`.
macro_rules! descriptor {
    ($green:ident, $std:ty, $nonblocking:literal) => {
        impl ::std::panic::UnwindSafe for $green {}
        impl ::std::panic::RefUnwindSafe for $green {}

        impl ::std::os::fd::AsFd for $green {
            fn as_fd(&self) -> ::std::os::fd::BorrowedFd<'_> {
                ::std::os::fd::AsFd::as_fd(self.0.socket())
            }
        }

        impl ::std::os::fd::AsRawFd for $green {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                ::std::os::fd::AsRawFd::as_raw_fd(self.0.socket())
            }
        }

        impl ::std::os::fd::IntoRawFd for $green {
            fn into_raw_fd(self) -> ::std::os::fd::RawFd {
                ::std::os::fd::IntoRawFd::into_raw_fd(::std::os::fd::OwnedFd::from(self))
            }
        }

        impl ::std::os::fd::FromRawFd for $green {
            unsafe fn from_raw_fd(fd: ::std::os::fd::RawFd) -> Self {
                // SAFETY: by the caller's contract, which is the same.
                unsafe { <::std::os::fd::OwnedFd as ::std::os::fd::FromRawFd>::from_raw_fd(fd) }
                    .into()
            }
        }

        impl From<$green> for ::std::os::fd::OwnedFd {
            /// Gives the descriptor away, in blocking mode.
            fn from(green: $green) -> Self {
                green.0.into_socket().into()
            }
        }

        impl From<::std::os::fd::OwnedFd> for $green {
            fn from(fd: ::std::os::fd::OwnedFd) -> Self {
                let socket = ::socket2::Socket::from(fd);
                if $nonblocking {
                    socket
                        .set_nonblocking(true)
                        .expect("the descriptor is open");
                }
                Self($crate::socket::Green::new(socket))
            }
        }

        impl From<$std> for $green {
            fn from(socket: $std) -> Self {
                ::std::os::fd::OwnedFd::from(socket).into()
            }
        }

        #[allow(
            clippy::missing_errors_doc,
            reason = "the errors are those of the std namesakes"
        )]
        impl $green {
            /// Gives std's socket back, which blocks; clones stay green.
            pub fn into_std(self) -> $std {
                ::std::os::fd::OwnedFd::from(self).into()
            }

            /// Gets and clears `SO_ERROR`.
            pub fn take_error(&self) -> ::std::io::Result<Option<::std::io::Error>> {
                self.0.socket().take_error()
            }

            /// With `true` a call that would wait returns `WouldBlock`. A flag of ours, shared by
            /// the clones: the open file's `O_NONBLOCK` is left alone.
            #[allow(clippy::unnecessary_wraps, reason = "std's signature")]
            pub fn set_nonblocking(&self, nonblocking: bool) -> ::std::io::Result<()> {
                self.0.set_nonblocking(nonblocking);
                Ok(())
            }
        }

        impl $crate::WrapSocket for $std {
            type Green = $green;

            fn wrap(self) -> $green {
                self.into()
            }
        }
    };
}
pub(crate) use descriptor;

/// The timeouts of streams and datagram sockets.
macro_rules! timeouts {
    ($green:ident) => {
        #[allow(
            clippy::missing_errors_doc,
            reason = "the errors are those of the std namesakes"
        )]
        impl $green {
            /// Bounds how long a read waits; `None`: not at all. Zero is `InvalidInput`.
            pub fn set_read_timeout(
                &self,
                timeout: Option<::std::time::Duration>,
            ) -> ::std::io::Result<()> {
                self.0.set_timeout($crate::source::Direction::Read, timeout)
            }

            /// Bounds how long a write waits; `None`: not at all. Zero is `InvalidInput`.
            pub fn set_write_timeout(
                &self,
                timeout: Option<::std::time::Duration>,
            ) -> ::std::io::Result<()> {
                self.0
                    .set_timeout($crate::source::Direction::Write, timeout)
            }

            /// The bound, exactly as it was set.
            #[allow(clippy::unnecessary_wraps, reason = "std's signature")]
            pub fn read_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>> {
                Ok(self.0.get_timeout($crate::source::Direction::Read))
            }

            /// The bound, exactly as it was set.
            #[allow(clippy::unnecessary_wraps, reason = "std's signature")]
            pub fn write_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>> {
                Ok(self.0.get_timeout($crate::source::Direction::Write))
            }
        }
    };
}
pub(crate) use timeouts;

/// `Read` and `Write` of a stream, by value and by reference.
macro_rules! stream {
    ($green:ident) => {
        impl ::std::io::Read for &$green {
            fn read(&mut self, buffer: &mut [u8]) -> ::std::io::Result<usize> {
                self.0.read(buffer, 0)
            }

            fn read_vectored(
                &mut self,
                buffers: &mut [::std::io::IoSliceMut<'_>],
            ) -> ::std::io::Result<usize> {
                self.0.read_vectored(buffers)
            }
        }

        impl ::std::io::Write for &$green {
            fn write(&mut self, buffer: &[u8]) -> ::std::io::Result<usize> {
                self.0.send(buffer)
            }

            fn write_vectored(
                &mut self,
                buffers: &[::std::io::IoSlice<'_>],
            ) -> ::std::io::Result<usize> {
                self.0.send_vectored(buffers)
            }

            fn flush(&mut self) -> ::std::io::Result<()> {
                Ok(())
            }
        }

        impl ::std::io::Read for $green {
            fn read(&mut self, buffer: &mut [u8]) -> ::std::io::Result<usize> {
                self.0.read(buffer, 0)
            }

            fn read_vectored(
                &mut self,
                buffers: &mut [::std::io::IoSliceMut<'_>],
            ) -> ::std::io::Result<usize> {
                self.0.read_vectored(buffers)
            }
        }

        impl ::std::io::Write for $green {
            fn write(&mut self, buffer: &[u8]) -> ::std::io::Result<usize> {
                self.0.send(buffer)
            }

            fn write_vectored(
                &mut self,
                buffers: &[::std::io::IoSlice<'_>],
            ) -> ::std::io::Result<usize> {
                self.0.send_vectored(buffers)
            }

            fn flush(&mut self) -> ::std::io::Result<()> {
                Ok(())
            }
        }
    };
}
pub(crate) use stream;
