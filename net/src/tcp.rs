//! TCP streams and listeners with the interface of `std::net`.
//!
//! Streams leave `O_NONBLOCK` alone and pass `MSG_DONTWAIT` with each call. `accept` has no such
//! flag: a listener sets `O_NONBLOCK` and looks before each `accept` whether it is still set, as it
//! belongs to the open file and a clone that became std's has cleared it. Then the call, which
//! might block, is made inside `blocking`.
#![allow(
    unsafe_code,
    reason = "buffers of bytes as socket2 takes them; raw descriptors"
)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::iter::FusedIterator;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, MaybeUninitSlice, Protocol, Socket, Type};

use crate::race::race;
use crate::resolve::resolve;
use crate::source::{Direction, Got, Source, Waits};

/// Connections that the kernel queues before `accept`: `tcp_listener`'s. std's 128 is soon full
/// when ten thousand connect at once.
const BACKLOG: u32 = 1024;

/// std's.
const STD_BACKLOG: i32 = 128;

/// What the clones of one socket share.
#[derive(Debug, Default)]
struct Shared {
    read_timeout: Mutex<Option<Duration>>,
    write_timeout: Mutex<Option<Duration>>,
    nonblocking: AtomicBool,
}

impl Shared {
    fn waits(&self, timeout: &Mutex<Option<Duration>>) -> Waits {
        if self.nonblocking.load(Ordering::Relaxed) {
            return Waits::Never;
        }
        match *timeout.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Waits::Forever,
            Some(limit) => Waits::AtMost(limit),
        }
    }
}

fn set_timeout(place: &Mutex<Option<Duration>>, value: Option<Duration>) -> io::Result<()> {
    if value == Some(Duration::ZERO) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a timeout of zero: use None for none, or set_nonblocking",
        ));
    }
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
    Ok(())
}

/// A socket with its source; what streams and listeners are made of.
struct Green {
    /// `None` only while it is being taken apart.
    socket: Option<Socket>,
    source: Source,
    shared: Arc<Shared>,
}

impl Green {
    fn new(socket: Socket) -> Self {
        Self {
            socket: Some(socket),
            source: Source::new(),
            shared: Arc::default(),
        }
    }

    fn socket(&self) -> &Socket {
        self.socket
            .as_ref()
            .expect("a socket is there until it is taken apart")
    }

    fn try_clone(&self) -> io::Result<Self> {
        let socket = self.socket().try_clone()?;
        let shared = Arc::clone(&self.shared);
        Ok(Self {
            socket: Some(socket),
            source: Source::new(),
            shared,
        })
    }

    fn run<T>(
        &self,
        direction: Direction,
        waits: Waits,
        call: impl FnMut() -> io::Result<Got<T>>,
    ) -> io::Result<T> {
        self.source
            .run(self.socket().as_raw_fd(), direction, waits, call)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        to_ip(&self.socket().local_addr()?)
    }

    fn into_socket(mut self) -> Socket {
        let socket = self.socket.take().expect("it is taken apart once");
        self.source.deregister(socket.as_raw_fd());
        socket
    }
}

impl Drop for Green {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            self.source.deregister(socket.as_raw_fd());
        }
    }
}

fn to_ip(addr: &socket2::SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an IP socket"))
}

/// The first address for which `f` works, else the last error.
fn each<T>(addrs: &[SocketAddr], mut f: impl FnMut(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::InvalidInput);
    for &addr in addrs {
        match f(addr) {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
}

fn connect(addr: SocketAddr, local: Option<SocketAddr>, waits: Waits) -> io::Result<TcpStream> {
    let socket = new_socket(addr)?;
    if let Some(local) = local {
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
    }
    // Only now, while nobody else has it; the flag is cleared again before anybody gets it.
    socket.set_nonblocking(true)?;
    let green = Green::new(socket);
    let mut started = false;
    green.run(Direction::Write, waits, || {
        let socket = green.socket();
        if !started {
            started = true;
            return match socket.connect(&addr.into()) {
                Ok(()) => Ok(Got::more(())),
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                // It goes on in the background all the same: connect(2).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                Err(error) => Err(error),
            };
        }
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => Ok(Got::more(())),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error),
        }
    })?;
    green.socket().set_nonblocking(false)?;
    Ok(TcpStream(green))
}

/// A green TCP connection; the interface is that of [`std::net::TcpStream`], and a method that is
/// not described here does what std's does.
///
/// A call that waits suspends the green thread; any number of green threads may wait on one
/// stream, in both directions. A timeout that has passed is [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// let listener = weald_net::TcpListener::bind("127.0.0.1:0")?;
/// let mut near = weald_net::TcpStream::connect(listener.local_addr()?)?;
/// let (mut far, _) = listener.accept()?;
/// near.write_all(b"ping")?;
/// let mut buffer = [0; 4];
/// far.read_exact(&mut buffer)?;
/// assert_eq!(&buffer, b"ping");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream(Green);

/// A green TCP listener; the interface is that of [`std::net::TcpListener`].
///
/// Any number of green threads may wait in `accept`; each connection goes to one of them.
///
/// # Examples
/// ```
/// let listener = weald_net::TcpListener::bind("127.0.0.1:0")?;
/// let _near = weald_net::TcpStream::connect(listener.local_addr()?)?;
/// let (_far, peer) = listener.accept()?;
/// assert!(peer.ip().is_loopback());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener(Green);

impl UnwindSafe for TcpStream {}
impl RefUnwindSafe for TcpStream {}
impl UnwindSafe for TcpListener {}
impl RefUnwindSafe for TcpListener {}

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes"
)]
impl TcpStream {
    /// What waits for it; for a `select!`.
    pub(crate) fn source(&self) -> &Source {
        &self.0.source
    }

    /// Connects to the first of the addresses that answers. A name is looked up where it blocks no
    /// worker.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each(&resolve(addr)?, |addr| connect(addr, None, Waits::Forever))
    }

    /// As `connect`, of one address, within the duration; zero is `InvalidInput`.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        if timeout.is_zero() {
            let text = "cannot set a 0 duration timeout";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        connect(*addr, None, Waits::AtMost(timeout))
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_ip(&self.0.socket().peer_addr()?)
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Closes one or both directions; wakes the green threads that wait for them.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.socket().shutdown(how)
    }

    /// A second handle to the connection; timeouts and `set_nonblocking` are shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Bounds how long a read waits; `None`: not at all. Zero is `InvalidInput`.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.0.shared.read_timeout, timeout)
    }

    /// Bounds how long a write waits; `None`: not at all. Zero is `InvalidInput`.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.0.shared.write_timeout, timeout)
    }

    /// The bound, exactly as it was set.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(*self
            .0
            .shared
            .read_timeout
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// The bound, exactly as it was set.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(*self
            .0
            .shared
            .write_timeout
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads without taking out what was read. Waits as a read does.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer, libc::MSG_PEEK)
    }

    /// Sets `TCP_NODELAY`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.socket().set_tcp_nodelay(nodelay)
    }

    /// Gets `TCP_NODELAY`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.socket().tcp_nodelay()
    }

    /// Sets `TCP_QUICKACK`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.0.socket().set_tcp_quickack(quickack)
    }

    /// Gets `TCP_QUICKACK`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn quickack(&self) -> io::Result<bool> {
        self.0.socket().tcp_quickack()
    }

    /// Sets `IP_TTL`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.socket().set_ttl_v4(ttl)
    }

    /// Gets `IP_TTL`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.socket().ttl_v4()
    }

    /// Gets and clears `SO_ERROR`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.socket().take_error()
    }

    /// With `true` a call that would wait returns `WouldBlock`. A flag of ours, shared by the
    /// clones: the open file's `O_NONBLOCK` is left alone.
    #[allow(clippy::unnecessary_wraps, reason = "std's signature")]
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0
            .shared
            .nonblocking
            .store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// Gives std's socket back, which blocks; clones stay green.
    pub fn into_std(self) -> std::net::TcpStream {
        OwnedFd::from(self).into()
    }

    /// Writes what there is room for, without waiting, and raises nothing.
    #[cfg(feature = "tls")]
    pub(crate) fn send_at_once(&self, buffer: &[u8]) -> io::Result<usize> {
        self.0.socket().send_with_flags(buffer, SEND_FLAGS)
    }

    /// Throws away some of what is there, without waiting, and raises nothing.
    #[cfg(feature = "tls")]
    pub(crate) fn discard_at_once(&self) -> io::Result<usize> {
        let mut scrap = [MaybeUninit::uninit(); 4096];
        let socket = self.0.socket();
        socket.recv_with_flags(&mut scrap, libc::MSG_DONTWAIT)
    }

    fn receive(&self, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
        if buffer.is_empty() {
            weald_scheduler::io::enter()?;
            return Ok(0);
        }
        let length = buffer.len();
        let pointer = buffer.as_mut_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: bytes that are initialised may be seen as ones that need not be; socket2 writes
        // only initialised bytes.
        let buffer = unsafe { std::slice::from_raw_parts_mut(pointer, length) };
        let socket = self.0.socket();
        let waits = self.0.shared.waits(&self.0.shared.read_timeout);
        self.0.run(Direction::Read, waits, || {
            let read = socket.recv_with_flags(buffer, flags | libc::MSG_DONTWAIT)?;
            let drained = flags == 0 && read > 0 && read < length;
            Ok(Got {
                value: read,
                drained,
            })
        })
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer, 0)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let length: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        if length == 0 {
            weald_scheduler::io::enter()?;
            return Ok(0);
        }
        let count = buffers.len().min(MAX_SLICES);
        let pointer = buffers.as_mut_ptr().cast::<MaybeUninitSlice<'_>>();
        // SAFETY: both types are `repr(transparent)` over an iovec; socket2 writes only
        // initialised bytes.
        let buffers = unsafe { std::slice::from_raw_parts_mut(pointer, count) };
        let socket = self.0.socket();
        let waits = self.0.shared.waits(&self.0.shared.read_timeout);
        self.0.run(Direction::Read, waits, || {
            let (read, _) = socket.recv_vectored_with_flags(buffers, libc::MSG_DONTWAIT)?;
            Ok(Got::more(read))
        })
    }
}

/// The kernel takes no more slices at once: `UIO_MAXIOV`.
const MAX_SLICES: usize = 1024;

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// Elsewhere std has set `SO_NOSIGPIPE`, as socket2 does for new sockets.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

impl Write for &TcpStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let socket = self.0.socket();
        let waits = self.0.shared.waits(&self.0.shared.write_timeout);
        self.0.run(Direction::Write, waits, || {
            socket.send_with_flags(buffer, SEND_FLAGS).map(Got::more)
        })
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let buffers = &buffers[..buffers.len().min(MAX_SLICES)];
        let socket = self.0.socket();
        let waits = self.0.shared.waits(&self.0.shared.write_timeout);
        self.0.run(Direction::Write, waits, || {
            socket
                .send_vectored_with_flags(buffers, SEND_FLAGS)
                .map(Got::more)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(buffers)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are those of the std namesakes"
)]
impl TcpListener {
    /// What waits for it; for a `select!`.
    pub(crate) fn source(&self) -> &Source {
        &self.0.source
    }

    /// Listens at the first of the addresses where that works, with std's backlog of 128.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each(&resolve(addr)?, |addr| listen(addr, STD_BACKLOG))
    }

    /// The address that it listens at.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// A second handle to the listener; `set_nonblocking` is shared.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Waits for a connection.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let socket = self.0.socket();
        let waits = self.0.shared.waits(&self.0.shared.read_timeout);
        let (stream, addr) = self.0.run(Direction::Read, waits, || {
            let accepted = if socket.nonblocking()? {
                socket.accept()
            } else {
                accept_blocking(socket)
            };
            accepted.map(Got::more)
        })?;
        Ok((TcpStream(Green::new(stream)), to_ip(&addr)?))
    }

    /// The connections to come; never ends.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Sets `IP_TTL`.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.0.socket().set_ttl_v4(ttl)
    }

    /// Gets `IP_TTL`.
    pub fn ttl(&self) -> io::Result<u32> {
        self.0.socket().ttl_v4()
    }

    /// Sets `IPV6_V6ONLY`; std's has been deprecated, as it works only before `bind`.
    #[deprecated(note = "this option can only be set before the socket is bound")]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        self.0.socket().set_only_v6(only_v6)
    }

    /// Gets `IPV6_V6ONLY`.
    #[deprecated(note = "this option can only be set before the socket is bound")]
    pub fn only_v6(&self) -> io::Result<bool> {
        self.0.socket().only_v6()
    }

    /// Gets and clears `SO_ERROR`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.socket().take_error()
    }

    /// With `true` an `accept` that would wait returns `WouldBlock`. A flag of ours.
    #[allow(clippy::unnecessary_wraps, reason = "std's signature")]
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0
            .shared
            .nonblocking
            .store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// Gives std's listener back, which blocks; clones stay green.
    pub fn into_std(self) -> std::net::TcpListener {
        OwnedFd::from(self).into()
    }
}

/// `accept` on a listener that a clone has made blocking: only if somebody is there, and, as
/// another may take that connection first, where it blocks no worker.
fn accept_blocking(socket: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, a local.
    if unsafe { libc::poll(&raw mut poll, 1, 0) } == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    weald_scheduler::blocking(|| socket.accept())
}

fn listen(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = new_socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener(Green::new(socket)))
}

/// The connections of a listener; from [`TcpListener::incoming`].
///
/// # Examples
/// ```
/// let listener = weald_net::TcpListener::bind("127.0.0.1:0")?;
/// let _near = weald_net::TcpStream::connect(listener.local_addr()?)?;
/// let first = listener.incoming().next().expect("it never ends")?;
/// assert!(first.peer_addr()?.ip().is_loopback());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

/// What both types have of descriptors and std.
macro_rules! descriptor {
    ($green:ident, $std:ty, $nonblocking:literal) => {
        impl AsFd for $green {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.socket().as_fd()
            }
        }

        impl AsRawFd for $green {
            fn as_raw_fd(&self) -> RawFd {
                self.0.socket().as_raw_fd()
            }
        }

        impl IntoRawFd for $green {
            fn into_raw_fd(self) -> RawFd {
                OwnedFd::from(self).into_raw_fd()
            }
        }

        impl FromRawFd for $green {
            unsafe fn from_raw_fd(fd: RawFd) -> Self {
                // SAFETY: by the caller's contract, which is the same.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        }

        impl From<$green> for OwnedFd {
            /// Gives the descriptor away, in blocking mode.
            fn from(green: $green) -> OwnedFd {
                let socket = green.0.into_socket();
                if $nonblocking {
                    // Of a live descriptor this cannot fail.
                    let _ = socket.set_nonblocking(false);
                }
                socket.into()
            }
        }

        impl From<OwnedFd> for $green {
            fn from(fd: OwnedFd) -> Self {
                let socket = Socket::from(fd);
                if $nonblocking {
                    socket
                        .set_nonblocking(true)
                        .expect("the descriptor is open");
                }
                Self(Green::new(socket))
            }
        }

        impl From<$std> for $green {
            fn from(socket: $std) -> Self {
                OwnedFd::from(socket).into()
            }
        }

        impl fmt::Debug for $green {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut debug = f.debug_struct(stringify!($green));
                if let Ok(addr) = self.local_addr() {
                    debug.field("addr", &addr);
                }
                if let Ok(peer) = self.0.socket().peer_addr().and_then(|peer| to_ip(&peer)) {
                    debug.field("peer", &peer);
                }
                debug.field("fd", &self.as_raw_fd()).finish()
            }
        }
    };
}

descriptor!(TcpStream, std::net::TcpStream, false);
descriptor!(TcpListener, std::net::TcpListener, true);

/// Listens for connections, with `SO_REUSEADDR` and room for 1024 of them before `accept`.
///
/// # Examples
/// ```
/// let listener = weald_net::tcp_listener(("127.0.0.1", 0))?;
/// assert_ne!(listener.local_addr()?.port(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The system's, of the last address that was tried.
pub fn tcp_listener(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
    tcp_listener_with(addr, BACKLOG)
}

/// As [`tcp_listener`], with room for `backlog` connections: 1 to 65535 (the kernel may take less).
///
/// # Examples
/// ```
/// assert!(weald_net::tcp_listener_with("127.0.0.1:0", 0).is_err());
/// ```
///
/// # Errors
/// `InvalidInput` for a backlog out of its range, with value and bound in the text; the system's.
pub fn tcp_listener_with(addr: impl ToSocketAddrs, backlog: u32) -> io::Result<TcpListener> {
    let refused = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("backlog must be between 1 and 65535, not {backlog}"),
        )
    };
    let backlog = u16::try_from(backlog)
        .ok()
        .filter(|&backlog| backlog > 0)
        .ok_or_else(refused)?
        .into();
    each(&resolve(addr)?, |addr| listen(addr, backlog))
}

/// Connects to the one of the addresses that answers first, IPv4 or IPv6. They are tried in turns,
/// the next one when the one before has failed or has not answered for 250 ms (RFC 8305).
///
/// # Examples
/// ```
/// let listener = weald_net::tcp_listener("127.0.0.1:0")?;
/// let stream = weald_net::connect_tcp(listener.local_addr()?)?;
/// assert_eq!(stream.peer_addr()?, listener.local_addr()?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The system's, of the last address that was tried; the resolver's.
pub fn connect_tcp(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
    race(&resolve(addr)?, |addr| connect(addr, None, Waits::Forever))
}

/// As [`connect_tcp`], from a local address; port 0 takes any. Only addresses of its family are tried,
/// one after the other.
///
/// # Examples
/// ```
/// let listener = weald_net::tcp_listener("127.0.0.1:0")?;
/// let from = "127.0.0.1:0".parse().unwrap();
/// let stream = weald_net::connect_tcp_from(listener.local_addr()?, from)?;
/// assert!(stream.local_addr()?.ip().is_loopback());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// As [`connect_tcp`]; `InvalidInput` if no address is of the local one's family.
pub fn connect_tcp_from(addr: impl ToSocketAddrs, local: SocketAddr) -> io::Result<TcpStream> {
    let mut addrs = resolve(addr)?;
    addrs.retain(|addr| addr.is_ipv6() == local.is_ipv6());
    if addrs.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no address of the local one's family",
        ));
    }
    each(&addrs, |addr| connect(addr, Some(local), Waits::Forever))
}
