//! Sockets whose options are set before they are bound, listen or connect.
#![allow(unsafe_code, reason = "setsockopt, for options that socket2 has not")]

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::race::race;
use crate::resolve::resolve;
use crate::socket::Green;
use crate::source::Waits;
use crate::tcp::{checked_backlog, connect_socket, each, new_socket};
use crate::{TcpListener, TcpStream, UdpSocket};

/// Options of sockets. An option that is not set stays as the system has it, except that listeners reuse their
/// address.
///
/// On Linux the options of a listener also apply to its connections: keep-alive, linger, user timeout, no delay and
/// the sizes of buffers. [`apply`](Self::apply) sets the options on a socket that exists already.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald::net::SocketBuilder;
///
/// let options = SocketBuilder::new()
///     .keep_alive(Duration::from_secs(60))
///     .keep_alive_probes(Duration::from_secs(10), 3)
///     .nodelay(true);
/// let listener = options.listen("127.0.0.1:0", 128)?;
/// let stream = options.connect(listener.local_addr()?)?;
/// assert!(stream.nodelay()?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "it does something with `listen`, `connect`, `bind_udp` or `apply`"]
pub struct SocketBuilder {
    keep_alive: Option<Duration>,
    probes: Option<(Duration, u32)>,
    linger: Option<Duration>,
    user_timeout: Option<Duration>,
    nodelay: Option<bool>,
    receive_buffer: Option<usize>,
    send_buffer: Option<usize>,
    reuse_port: bool,
    only_v6: Option<bool>,
    fast_open: Option<u32>,
    local: Option<SocketAddr>,
}

impl SocketBuilder {
    /// Returns options of which none is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets after which silence the system asks the peer if it is still there (`SO_KEEPALIVE`, `TCP_KEEPIDLE`; whole
    /// seconds, at least one).
    pub fn keep_alive(mut self, idle: Duration) -> Self {
        self.keep_alive = Some(idle);
        self
    }

    /// Sets how long such a question waits for its answer, and how many questions are asked before the connection is
    /// given up (`TCP_KEEPINTVL`, `TCP_KEEPCNT`). Needs [`keep_alive`](Self::keep_alive).
    pub fn keep_alive_probes(mut self, interval: Duration, count: u32) -> Self {
        self.probes = Some((interval, count));
        self
    }

    /// Sets what a close does with bytes that are under way (`SO_LINGER`, whole seconds). With zero it resets the
    /// connection. Otherwise it waits for them, at most for `limit`, and *blocks its OS thread* meanwhile.
    pub fn linger(mut self, limit: Duration) -> Self {
        self.linger = Some(limit);
        self
    }

    /// Sets how long written bytes may stay unacknowledged before the connection is given up (`TCP_USER_TIMEOUT`, RFC
    /// 5482; milliseconds). Linux only.
    pub fn user_timeout(mut self, limit: Duration) -> Self {
        self.user_timeout = Some(limit);
        self
    }

    /// Sets if small writes are sent at once (`TCP_NODELAY`).
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = Some(nodelay);
        self
    }

    /// Sets how many received bytes the kernel keeps until they are read (`SO_RCVBUF`; Linux doubles it).
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Sets how many sent bytes the kernel keeps until they have arrived (`SO_SNDBUF`; Linux doubles it).
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// Sets if several sockets may have one address and port. The kernel spreads connections and datagrams among them
    /// (`SO_REUSEPORT`).
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Sets if an IPv6 socket takes only IPv6 (`IPV6_V6ONLY`).
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.only_v6 = Some(only_v6);
        self
    }

    /// Sends and takes data with the first packet of a connection (TCP Fast Open, RFC 7413). For a listener,
    /// `pending` is how many such connections may wait for their handshake. For `connect` any number switches it on,
    /// and the first write makes the connection. Linux only, as far as the system's `net.ipv4.tcp_fastopen` allows
    /// it.
    pub fn fast_open(mut self, pending: u32) -> Self {
        self.fast_open = Some(pending);
        self
    }

    /// Sets the local address of `connect`; port 0 takes any port. Only addresses of the same family are tried.
    pub fn local_addr(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// Listens for connections at the first of the addresses that works, with `SO_REUSEADDR`. `backlog` is how many
    /// connections may wait before `accept`: 1 to 65535.
    ///
    /// # Errors
    /// `InvalidInput` for a backlog out of its range; `Unsupported` for an option that the system does not have; the
    /// system's.
    pub fn listen(&self, addr: impl ToSocketAddrs, backlog: u32) -> io::Result<TcpListener> {
        let backlog = checked_backlog(backlog)?;
        each(&resolve(addr)?, |addr| {
            let socket = new_socket(addr)?;
            socket.set_reuse_address(true)?;
            self.before_bind(&socket, addr)?;
            self.set_on(&socket)?;
            socket.bind(&addr.into())?;
            if let Some(pending) = self.fast_open {
                fast_open::listener(&socket, pending)?;
            }
            socket.listen(backlog)?;
            Ok(TcpListener(Green::tcp_listener(socket)))
        })
    }

    /// Connects to that one of the addresses that answers first; see [`connect_tcp`](crate::connect_tcp). A blocking
    /// call.
    ///
    /// # Errors
    /// Those of [`connect_tcp`](crate::connect_tcp); `Unsupported` for an option that the system does not have;
    /// `InvalidInput` if no address is of the local address's family.
    pub fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let mut addrs = resolve(addr)?;
        if let Some(local) = self.local {
            addrs.retain(|addr| addr.is_ipv6() == local.is_ipv6());
            if addrs.is_empty() {
                let text = "no address has the family of the local address";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        let options = *self;
        race(&addrs, move |addr| {
            let socket = new_socket(addr)?;
            options.before_bind(&socket, addr)?;
            options.set_on(&socket)?;
            if options.fast_open.is_some() {
                fast_open::stream(&socket)?;
            }
            if let Some(local) = options.local {
                socket.set_reuse_address(true)?;
                socket.bind(&local.into())?;
            }
            connect_socket(socket, addr, Waits::Forever)
        })
    }

    /// Binds a datagram socket to the first of the addresses that works. Options of TCP are ignored.
    ///
    /// # Errors
    /// The system's.
    pub fn bind_udp(&self, addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        each(&resolve(addr)?, |addr| {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
            self.before_bind(&socket, addr)?;
            self.set_buffers(&socket)?;
            socket.bind(&addr.into())?;
            Ok(UdpSocket(Green::new(socket)))
        })
    }

    /// Sets the options on a TCP connection or listener that exists already: keep-alive, linger, user timeout, no
    /// delay and the sizes of buffers.
    ///
    /// # Errors
    /// `Unsupported` for an option that the system does not have; the system's.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use weald::net::{SocketBuilder, TcpStream};
    ///
    /// # let listener = weald::net::TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// // A close resets the connection.
    /// SocketBuilder::new().linger(Duration::ZERO).apply(&stream)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        self.set_on(&SockRef::from(socket))
    }

    fn before_bind(&self, socket: &Socket, addr: SocketAddr) -> io::Result<()> {
        if self.reuse_port {
            socket.set_reuse_port(true)?;
        }
        match self.only_v6 {
            Some(only_v6) if addr.is_ipv6() => socket.set_only_v6(only_v6),
            _ => Ok(()),
        }
    }

    fn set_buffers(&self, socket: &Socket) -> io::Result<()> {
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(())
    }

    fn set_on(&self, socket: &Socket) -> io::Result<()> {
        self.set_buffers(socket)?;
        if let Some(idle) = self.keep_alive {
            let mut keep_alive = TcpKeepalive::new().with_time(pause(idle));
            if let Some((interval, count)) = self.probes {
                keep_alive = keep_alive
                    .with_interval(pause(interval))
                    .with_retries(count);
            }
            socket.set_tcp_keepalive(&keep_alive)?;
        }
        if let Some(limit) = self.linger {
            socket.set_linger(Some(whole_seconds(limit, MOST_SECONDS)))?;
        }
        if let Some(nodelay) = self.nodelay {
            socket.set_tcp_nodelay(nodelay)?;
        }
        match self.user_timeout {
            Some(limit) => user_timeout(socket, limit),
            None => Ok(()),
        }
    }
}

/// The kernel counts seconds in an `int`.
const MOST_SECONDS: u64 = i32::MAX as u64;

/// Returns whole seconds, rounded up, at most `most`. (Lingering for zero seconds would reset the connection.)
fn whole_seconds(time: Duration, most: u64) -> Duration {
    let up = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(time.as_secs().saturating_add(up).min(most))
}

/// Returns a pause between probes: whole seconds, from 1 to 32,767 (tcp(7)).
fn pause(time: Duration) -> Duration {
    whole_seconds(time, 32_767).max(Duration::from_secs(1))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn user_timeout(socket: &Socket, limit: Duration) -> io::Result<()> {
    // Zero would switch the timeout off.
    socket.set_tcp_user_timeout(Some(limit.max(Duration::from_millis(1))))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn user_timeout(_: &Socket, _: Duration) -> io::Result<()> {
    Err(unsupported("TCP_USER_TIMEOUT"))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unsupported(option: &str) -> io::Error {
    let text = format!("this system has no {option}");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod fast_open {
    use std::io;
    use std::mem;
    use std::os::fd::AsRawFd as _;

    use socket2::Socket;

    pub(super) fn listener(socket: &Socket, pending: u32) -> io::Result<()> {
        let pending = libc::c_int::try_from(pending).unwrap_or(libc::c_int::MAX);
        set(socket, libc::TCP_FASTOPEN, pending)
    }

    pub(super) fn stream(socket: &Socket) -> io::Result<()> {
        set(socket, libc::TCP_FASTOPEN_CONNECT, 1)
    }

    fn set(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = libc::socklen_t::try_from(mem::size_of::<libc::c_int>())
            .expect("the length of a number fits");
        let value = &raw const value;
        // SAFETY: the kernel reads as many bytes as the number has.
        let failed = unsafe {
            let (fd, level) = (socket.as_raw_fd(), libc::IPPROTO_TCP);
            libc::setsockopt(fd, level, option, value.cast(), length) != 0
        };
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod fast_open {
    use std::io;

    use socket2::Socket;

    pub(super) fn listener(_: &Socket, _: u32) -> io::Result<()> {
        Err(super::unsupported("TCP_FASTOPEN"))
    }

    pub(super) fn stream(_: &Socket) -> io::Result<()> {
        Err(super::unsupported("TCP_FASTOPEN_CONNECT"))
    }
}
