//! What all green sockets are made of: a socket, its source, and what its clones share.
//!
//! Reads and writes pass `MSG_DONTWAIT` with each call and do not rely on `O_NONBLOCK`. A stream that
//! `connect` made has the flag set until the program first sees its descriptor, which is when it is
//! cleared: most programs never look, and clearing it costs two system calls.
//!
//! `accept` has no such flag: a listener sets `O_NONBLOCK`. The flag belongs to the open file. So once
//! somebody else can have the descriptor, because the program has seen it, or because it came from
//! outside, the listener looks before each `accept` whether the flag is still set. If it is not, the
//! call, which might block, is made inside `blocking`. The listener then also asks for `SO_RCVTIMEO`
//! each time it begins to wait.
//!
//! Invariant 1: a descriptor is given to the program only by [`Green::show`], which marks the open
//! file as shown first; everything in this crate uses [`Green::fd`].
#![allow(
    unsafe_code,
    reason = "buffers of bytes as socket2 takes them; poll(2)"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, MaybeUninitSlice, Protocol, SockAddr, Socket, Type};

use crate::ask::{has_told_of_urgent_data, is_at_end, is_ready};
use crate::low_water::LowWater;
use crate::shim::sync::Mutex;
use crate::source::{Direction, Got, Source, Waits};

/// The kernel takes no more slices at once: `UIO_MAXIOV`.
const MAX_SLICES: usize = 1024;

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// Elsewhere std has set `SO_NOSIGPIPE`, as socket2 does for new sockets.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

/// What is known of a socket from its beginning.
#[derive(Clone, Copy, Debug, Default)]
struct Origin {
    /// A read of less than there was room for has left nothing, as epoll(7) says of byte streams. Not so
    /// for Unix streams, which are cut where descriptors or credentials were sent, nor for records.
    is_tcp: bool,
    /// `O_NONBLOCK` is set and must be cleared before the program sees the descriptor.
    must_clear: bool,
    /// `SO_RCVLOWAT` may be set.
    may_have_low_water: bool,
}

/// What the clones of one socket share; in this order, as each call reads the first five.
#[derive(Debug)]
#[repr(C)]
struct Shared {
    nonblocking: AtomicBool,
    low_water: LowWater,
    origin: Origin,
    read_timeout: Timeout,
    write_timeout: Timeout,
    /// Done: the program can have the descriptor (invariant 1).
    shown: Once,
    /// The open file has timeouts of its own: `into_std` must set them.
    has_timeouts: AtomicBool,
}

impl Shared {
    fn new(origin: Origin) -> Arc<Self> {
        Arc::new(Self {
            nonblocking: AtomicBool::new(false),
            low_water: LowWater::new(origin.may_have_low_water),
            origin,
            read_timeout: Timeout::default(),
            write_timeout: Timeout::default(),
            shown: Once::new(),
            has_timeouts: AtomicBool::new(false),
        })
    }
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
    fn with(socket: Socket, origin: Origin) -> Self {
        Self {
            socket: Some(socket),
            source: Source::new(),
            shared: Shared::new(origin),
        }
    }

    /// A new socket that is no TCP connection.
    pub(crate) fn new(socket: Socket) -> Self {
        Self::with(socket, Origin::default())
    }

    /// A new TCP listener.
    pub(crate) fn tcp_listener(socket: Socket) -> Self {
        let is_tcp = true;
        Self::with(
            socket,
            Origin {
                is_tcp,
                ..Origin::default()
            },
        )
    }

    /// A new stream from [`nonblocking`].
    pub(crate) fn connecting(socket: Socket, is_tcp: bool) -> Self {
        Self::with(
            socket,
            Origin {
                is_tcp,
                must_clear: true,
                ..Origin::default()
            },
        )
    }

    /// A socket from outside; `listens`: it needs `O_NONBLOCK`.
    pub(crate) fn adopt(fd: OwnedFd, listens: bool) -> Self {
        let socket = Socket::from(fd);
        if listens {
            socket
                .set_nonblocking(true)
                .expect("the descriptor is open");
        }
        let origin = Origin {
            is_tcp: is_tcp(&socket),
            may_have_low_water: true,
            ..Origin::default()
        };
        let green = Self::with(socket, origin);
        green.shared.shown.call_once(|| {});
        if !listens {
            // What is no socket has none.
            let socket = green.socket();
            let timeouts = [socket.read_timeout(), socket.write_timeout()];
            let [read, write] = timeouts.map(|timeout| timeout.ok().flatten());
            green.shared.read_timeout.set(read);
            green.shared.write_timeout.set(write);
            let has_timeouts = read.is_some() || write.is_some();
            green
                .shared
                .has_timeouts
                .store(has_timeouts, Ordering::Relaxed);
        }
        green
    }

    pub(crate) fn socket(&self) -> &Socket {
        self.socket
            .as_ref()
            .expect("a socket is there until it is taken apart")
    }

    /// The descriptor, for this crate.
    pub(crate) fn fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }

    /// The socket, for the program: from now on somebody else may have the descriptor.
    pub(crate) fn show(&self) -> &Socket {
        let socket = self.socket();
        self.shared.shown.call_once(|| {
            if self.shared.origin.must_clear {
                // Of a live descriptor this cannot fail.
                let _ = socket.set_nonblocking(false);
            }
        });
        self.shared.low_water.may_be_set();
        socket
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

    /// A second handle with settings of its own, which says nothing of a limit yet.
    #[cfg(feature = "tls")]
    pub(crate) fn try_clone_apart(&self) -> io::Result<Self> {
        let socket = self.socket().try_clone()?;
        Ok(Self::with(socket, self.shared.origin))
    }

    /// Gives the socket away, in blocking mode: whatever its clones do, they do not rely on it.
    /// Its timeouts are those that were set last.
    pub(crate) fn into_socket(mut self) -> Socket {
        self.show();
        let socket = self.socket.take().expect("it is taken apart once");
        self.source.deregister(socket.as_raw_fd());
        // Of a live descriptor this cannot fail.
        let _ = socket.set_nonblocking(false);
        let read = self.shared.read_timeout.get();
        let write = self.shared.write_timeout.get();
        let set = &self.shared.has_timeouts;
        if read.is_some() || write.is_some() || set.load(Ordering::Relaxed) {
            // The program can see them on every clone from now on.
            set.store(true, Ordering::Relaxed);
            // The kernel counts in microseconds, and zero would be no limit.
            let least =
                |timeout: Option<Duration>| timeout.map(|t| t.max(Duration::from_micros(1)));
            // What is no socket has none.
            let _ = socket.set_read_timeout(least(read));
            let _ = socket.set_write_timeout(least(write));
        }
        socket
    }

    pub(crate) fn run<T>(
        &self,
        direction: Direction,
        waits: Waits,
        call: impl FnMut() -> io::Result<Got<T>>,
    ) -> io::Result<T> {
        self.source.run(self.fd(), direction, waits, call)
    }

    /// As [`run`](Self::run), of a read that the kernel does not tell of its end as long as it need not
    /// wait for it.
    fn run_or_end<T>(
        &self,
        waits: Waits,
        until: impl Fn() -> Option<Instant>,
        call: impl FnMut() -> io::Result<Got<T>>,
        end: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        let fd = self.fd();
        let ended = || is_at_end(fd).then(&end);
        self.source
            .run_or_end(fd, Direction::Read, waits, until, call, ended)
    }

    /// As [`run`](Self::run), of a call for which the kernel may not tell when to try again.
    pub(crate) fn run_untold<T>(
        &self,
        direction: Direction,
        waits: Waits,
        call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        self.source
            .run_untold(Some(self.fd()), direction, waits, call)
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

    /// Reads by `receive`, which never waits, into room for so many bytes: when as many are there as `SO_RCVLOWAT` asks
    /// for, or what there is when the time is over.
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

    /// Writes to a stream. If that is one of Unix the kernel wakes nobody when its own writing side is shut down.
    #[inline]
    fn write(&self, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        let (fd, waits) = (self.fd(), self.write_waits());
        if self.shared.origin.is_tcp {
            let call = || call().map(Got::more);
            return self.source.run(fd, Direction::Write, waits, call);
        }
        let mut has_waited = false;
        let call = || match call() {
            // Who waits inside the kernel while the peer goes is told of the reset.
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

    /// Shuts a stream down, and wakes who waits by this handle at once.
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

    /// Takes a datagram from the peer. After shutdown(2) there is an empty one, but only for who may
    /// wait: a call that may not is told `EAGAIN`.
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

    /// Takes a datagram from anybody. Its end is as that of [`receive`](Self::receive).
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

    /// Waits for a connection, at most for the listener's `SO_RCVTIMEO`. After shutdown(2) of a Unix
    /// listener the kernel tells only a call that may wait.
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
            // A connection has what its listener has.
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

    /// Throws away some of what is there, without waiting, and raises nothing.
    #[cfg(feature = "tls")]
    pub(crate) fn discard_at_once(&self) -> io::Result<usize> {
        let mut scrap = [MaybeUninit::uninit(); 4096];
        self.socket()
            .recv_with_flags(&mut scrap, libc::MSG_DONTWAIT)
    }
}

/// The error of a call whose time is over: not of an exception, nor of the connection.
fn is_our_limit(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
        && error.get_ref().is_none()
        && error.raw_os_error().is_none()
}

impl Drop for Green {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            self.source.deregister(socket.as_raw_fd());
        }
    }
}

/// A new socket with `O_NONBLOCK`, in one system call.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn nonblocking(
    domain: Domain,
    kind: Type,
    protocol: Option<Protocol>,
) -> io::Result<Socket> {
    Socket::new(domain, kind.nonblocking(), protocol)
}

/// A new socket with `O_NONBLOCK`.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn nonblocking(
    domain: Domain,
    kind: Type,
    protocol: Option<Protocol>,
) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A TCP connection or listener, whatever type it has here. `false` costs a system call for each read.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_tcp(socket: &Socket) -> bool {
    // Other families count their protocols by themselves.
    matches!(socket.protocol(), Ok(Some(Protocol::TCP)))
        && matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6))
}

/// It is not known here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_tcp(_: &Socket) -> bool {
    false
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
    if !is_ready(socket.as_raw_fd(), libc::POLLIN)? {
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
                ::std::os::fd::AsFd::as_fd(self.0.show())
            }
        }

        impl ::std::os::fd::AsRawFd for $green {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                ::std::os::fd::AsRawFd::as_raw_fd(self.0.show())
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
            /// Gives the descriptor away, in blocking mode, with the timeouts that were set last.
            fn from(green: $green) -> Self {
                green.0.into_socket().into()
            }
        }

        impl From<::std::os::fd::OwnedFd> for $green {
            /// Takes over the timeouts `SO_RCVTIMEO` and `SO_SNDTIMEO`.
            fn from(fd: ::std::os::fd::OwnedFd) -> Self {
                Self($crate::socket::Green::adopt(fd, $nonblocking))
            }
        }

        impl From<$std> for $green {
            /// Takes over the timeouts.
            fn from(socket: $std) -> Self {
                ::std::os::fd::OwnedFd::from(socket).into()
            }
        }

        #[allow(
            clippy::missing_errors_doc,
            reason = "the errors are those of the std namesakes"
        )]
        impl $green {
            /// Gives std's socket back, which blocks; clones stay green. It has the timeouts that were
            /// set last.
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
