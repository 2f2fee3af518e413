//! The common part of all green sockets: a socket, its source, and what its clones share.
//!
//! Reads and writes pass `MSG_DONTWAIT` with each call and do not rely on `O_NONBLOCK`. A stream that `connect` made
//! has the flag set. The flag is cleared when the program first sees the descriptor. Most programs never look, and
//! clearing the flag costs two system calls.
//!
//! `accept` has no flag like `MSG_DONTWAIT`, so a listener sets `O_NONBLOCK`. The flag belongs to the open file.
//! Others can have the descriptor if the program has seen it or if it came from outside. Then the listener checks
//! before each `accept` if the flag is still set. If it is not, the call might block, so it is made inside
//! `blocking`. Such a listener also asks for `SO_RCVTIMEO` each time it begins to wait.
//!
//! Invariant 1: only [`Green::show`] gives a descriptor to the program, and it first marks the open file as shown.
//! Everything else in this crate uses [`Green::fd`].
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::ask::is_at_end;
use crate::low_water::LowWater;
use crate::source::{Direction, Got, Source, Waits};
use crate::timeout::Timeout;

/// What is known of a socket from its beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin {
    /// A read of fewer bytes than there was room for has left nothing, as epoll(7) says of byte streams. That does
    /// not hold for Unix streams, whose reads are cut where descriptors or credentials were sent, nor for records.
    pub(crate) is_tcp: bool,
    /// `O_NONBLOCK` is set and must be cleared before the program sees the descriptor.
    pub(crate) must_clear: bool,
    /// `SO_RCVLOWAT` may be set.
    pub(crate) may_have_low_water: bool,
}

/// What the clones of one socket share. The order matters, as each call reads the first five fields.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Shared {
    nonblocking: AtomicBool,
    pub(crate) low_water: LowWater,
    pub(crate) origin: Origin,
    read_timeout: Timeout,
    write_timeout: Timeout,
    /// Done if the program can have the descriptor (invariant 1).
    pub(crate) shown: Once,
    /// The open file has timeouts of its own, so `into_std` must set them.
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

/// A socket with its source. Streams, datagram sockets and listeners are made of it.
pub(crate) struct Green {
    /// `None` only while the socket is being taken apart.
    socket: Option<Socket>,
    pub(crate) source: Source,
    pub(crate) shared: Arc<Shared>,
}

impl Green {
    pub(crate) fn with(socket: Socket, origin: Origin) -> Self {
        Self {
            socket: Some(socket),
            source: Source::new(),
            shared: Shared::new(origin),
        }
    }

    /// Returns a new socket that is not a TCP connection.
    pub(crate) fn new(socket: Socket) -> Self {
        Self::with(socket, Origin::default())
    }

    /// Returns a new TCP listener.
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

    /// Returns a new stream from [`nonblocking`].
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

    /// Returns a socket from outside. `listens`: it needs `O_NONBLOCK`.
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
            // A descriptor that is not a socket has no timeouts.
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

    /// Returns the descriptor, for use inside this crate.
    pub(crate) fn fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }

    /// Returns the socket for the program: from now on others may have the descriptor.
    pub(crate) fn show(&self) -> &Socket {
        let socket = self.socket();
        self.shared.shown.call_once(|| {
            if self.shared.origin.must_clear {
                // For a live descriptor the call cannot fail.
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

    /// Returns a second handle with settings of its own and without timeouts.
    #[cfg(feature = "tls")]
    pub(crate) fn try_clone_apart(&self) -> io::Result<Self> {
        let socket = self.socket().try_clone()?;
        Ok(Self::with(socket, self.shared.origin))
    }

    /// Gives the socket away, in blocking mode and with the timeouts that were set last. Its clones do not rely on
    /// the mode.
    pub(crate) fn into_socket(mut self) -> Socket {
        self.show();
        let socket = self.socket.take().expect("it is taken apart once");
        self.source.deregister(socket.as_raw_fd());
        // For a live descriptor the call cannot fail.
        let _ = socket.set_nonblocking(false);
        let read = self.shared.read_timeout.get();
        let write = self.shared.write_timeout.get();
        let set = &self.shared.has_timeouts;
        if read.is_some() || write.is_some() || set.load(Ordering::Relaxed) {
            // From now on the program can see the timeouts on every clone.
            set.store(true, Ordering::Relaxed);
            // The kernel counts in microseconds, and zero would mean no limit.
            let least =
                |timeout: Option<Duration>| timeout.map(|t| t.max(Duration::from_micros(1)));
            // A descriptor that is not a socket has no timeouts.
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

    /// Runs a read as [`run`](Self::run) does. It is for a read to which the kernel tells the end only if it may
    /// wait.
    pub(crate) fn run_or_end<T>(
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

    /// Runs a call as [`run`](Self::run) does, for which the kernel may not tell when to try again.
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

    /// Returns how long a read or an `accept` may wait.
    pub(crate) fn read_waits(&self) -> Waits {
        self.waits(&self.shared.read_timeout)
    }

    /// Returns how long a write may wait.
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
                "a timeout must not be zero: use None for no timeout, or set_nonblocking",
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
}

impl Drop for Green {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            self.source.deregister(socket.as_raw_fd());
        }
    }
}

/// Returns a new socket with `O_NONBLOCK`, in one system call.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn nonblocking(
    domain: Domain,
    kind: Type,
    protocol: Option<Protocol>,
) -> io::Result<Socket> {
    Socket::new(domain, kind.nonblocking(), protocol)
}

/// Returns a new socket with `O_NONBLOCK`.
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

/// Tells if the socket is a TCP connection or listener, whatever type it has here. `false` costs a system call for
/// each read.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_tcp(socket: &Socket) -> bool {
    // Other families have other numbers of protocols.
    matches!(socket.protocol(), Ok(Some(Protocol::TCP)))
        && matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6))
}

/// This system does not tell.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_tcp(_: &Socket) -> bool {
    false
}
