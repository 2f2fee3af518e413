//! `tcp_server`, `ssl_server`, `unix_server`: a green thread for each connection.
//!
//! The acceptor is a green thread of the caller's runtime, and so is each handler. A handler that
//! panics, or that an exception ends, closes its connection and nothing else. What differs between
//! the kinds of listeners is in [`Listener`].
//!
//! Invariant 1: `connections` counts the entries. An entry is made before its thread is spawned, is
//! part of the thread's closure, and counts itself out when it is dropped, also if that never runs.
//! Invariant 2: a handler that runs is in `threads`: it puts itself there before it begins, unless the
//! server is `closing`, which ends it at once. So who has set `closing` finds all that will run.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use weald_scheduler::io::{Interrupt, WaitQueue, Woken};
use weald_scheduler::{Builder, GreenThread, JoinHandle};

use crate::ask::is_ready;
use crate::poll;
use crate::shim::sync::{Mutex, MutexGuard};
use crate::tcp::{TcpListener, TcpStream};
use crate::unix::{UnixListener, UnixStream};

/// The first pause after an `accept` that failed for lack of something; it doubles up to `LONGEST`.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

/// After so many broken connections in a row the server pauses: the error may be the listener's.
const BROKEN: u32 = 32;

/// Accept errors are logged once in this time at most.
const QUIET: Duration = Duration::from_secs(1);

/// How long `shutdown` waits for handlers that were killed and only compute.
const HOG_LIMIT: Duration = Duration::from_secs(5);

/// Settings of a server; for [`tcp_server_with`], `ssl_server_with` and [`unix_server_with`].
///
/// There are no limits but those that are set here: a server for strangers sets `max_connections`
/// below the process's limit of descriptors, and its handlers set read and write timeouts.
///
/// # Examples
/// ```
/// let options = weald_net::ServerOptions::new().max_connections(1000);
/// # drop(options);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing before `tcp_server_with`"]
pub struct ServerOptions {
    max_connections: usize,
}

impl ServerOptions {
    /// No bound on connections.
    pub fn new() -> Self {
        Self {
            max_connections: usize::MAX,
        }
    }

    /// With so many connections open the server accepts no more until one ends; at least 1.
    pub fn max_connections(mut self, bound: usize) -> Self {
        self.max_connections = bound.max(1);
        self
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What servers accept connections from.
pub(crate) trait Listener: Send + 'static {
    /// The server's, for the log.
    const SERVER: &'static str;
    /// What was accepted.
    type Accepted: Send + 'static;
    /// What the handler gets.
    type Stream;
    type Addr: fmt::Debug + Send + 'static;
    /// Makes the one from the other, in the connection's own thread.
    type Opener: Send + Sync + 'static;

    fn accept(&self) -> io::Result<(Self::Accepted, Self::Addr)>;
    fn local_addr(&self) -> io::Result<Self::Addr>;
    /// Waits until `accept` need not, of a listener that was told not to wait. False: there was no wait.
    fn wait(&self) -> io::Result<bool>;
    fn opener(&self) -> Self::Opener;
    /// `None`: there is nothing for the handler to do.
    fn open(opener: &Self::Opener, accepted: Self::Accepted) -> Option<Self::Stream>;
}

impl Listener for TcpListener {
    const SERVER: &'static str = "tcp_server";
    type Accepted = TcpStream;
    type Stream = TcpStream;
    type Addr = SocketAddr;
    type Opener = ();

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn wait(&self) -> io::Result<bool> {
        wait_for(self.0.fd())
    }

    fn opener(&self) {}

    fn open((): &(), accepted: TcpStream) -> Option<TcpStream> {
        Some(accepted)
    }
}

impl Listener for UnixListener {
    const SERVER: &'static str = "unix_server";
    type Accepted = UnixStream;
    type Stream = UnixStream;
    type Addr = UnixAddr;
    type Opener = ();

    fn accept(&self) -> io::Result<(UnixStream, UnixAddr)> {
        self.accept()
    }

    fn local_addr(&self) -> io::Result<UnixAddr> {
        self.local_addr()
    }

    fn wait(&self) -> io::Result<bool> {
        wait_for(self.0.fd())
    }

    fn opener(&self) {}

    fn open((): &(), accepted: UnixStream) -> Option<UnixStream> {
        Some(accepted)
    }
}

/// Waits until the listener has a connection. False: it has one, or an error, at once.
pub(crate) fn wait_for(fd: std::os::fd::RawFd) -> io::Result<bool> {
    let events = libc::POLLIN;
    if is_ready(fd, events)? {
        return Ok(false);
    }
    let revents = 0;
    let mut one = [libc::pollfd {
        fd,
        events,
        revents,
    }];
    poll::wait(&mut one, None)?;
    Ok(true)
}

/// The handlers that run; a place keeps its number as long as its thread runs.
#[derive(Debug, Default)]
struct Threads {
    places: Vec<Option<GreenThread>>,
    free: Vec<usize>,
    /// Nobody may begin any more.
    closing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    connections: AtomicUsize,
    threads: Mutex<Threads>,
    /// The acceptor waits here for room, `shutdown` for the last one.
    ended: WaitQueue,
    stops: AtomicBool,
}

impl Shared {
    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Panics if a handler asks.
    fn refuse_handlers(&self) {
        let me = weald_scheduler::current().id();
        let is_handler = self
            .threads()
            .places
            .iter()
            .flatten()
            .any(|one| one.id() == me);
        assert!(
            !is_handler,
            "a server cannot be shut down by one of its own handlers"
        );
    }

    /// Waits until there are fewer. False: an exception ends the server.
    fn wait_for_room(&self, bound: usize) -> bool {
        while self.connections() >= bound {
            let room = || self.connections() < bound;
            if let Woken::Interrupted(interrupt) = self.ended.wait(room, None, true) {
                end_by(interrupt);
                return false;
            }
        }
        true
    }
}

/// A connection that counts.
struct Entry {
    shared: Arc<Shared>,
    /// Its place among the threads, once it runs.
    place: Option<usize>,
}

impl Entry {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: Arc::clone(shared),
            place: None,
        }
    }

    /// The running thread is the handler. False: it must not begin.
    fn begin(&mut self) -> bool {
        let me = weald_scheduler::current();
        let mut threads = self.shared.threads();
        if threads.closing {
            return false;
        }
        let place = threads.free.pop().unwrap_or_else(|| {
            threads.places.push(None);
            threads.places.len() - 1
        });
        threads.places[place] = Some(me);
        self.place = Some(place);
        true
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut threads = self.shared.threads();
            // What comes out is dropped after the lock.
            let thread = threads.places[place].take();
            threads.free.push(place);
            drop(threads);
            drop(thread);
        }
        // Pairs with the load of who waits for the end.
        self.shared.connections.fetch_sub(1, Ordering::Release);
        self.shared.ended.wake_all();
    }
}

/// A running server; from [`tcp_server`], `ssl_server` or [`unix_server`]. Dropping it detaches the
/// server, which goes on.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let listener = weald_net::tcp_listener("127.0.0.1:0")?;
/// let server = weald_net::tcp_server(listener, |_stream, _peer| {});
/// assert!(server.is_running());
/// assert_eq!(server.connections(), 0);
/// assert!(server.shutdown(Duration::from_secs(1)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ServerHandle<A = SocketAddr> {
    acceptor: JoinHandle<()>,
    addr: A,
    shared: Arc<Shared>,
}

impl<A> ServerHandle<A> {
    /// The address that the server listens at: a [`SocketAddr`], or that of a Unix socket.
    pub fn local_addr(&self) -> A
    where
        A: Clone,
    {
        self.addr.clone()
    }

    /// True as long as the server accepts connections. It ends without `stop` and `shutdown` only if
    /// its listener can accept nothing any more, since shutdown(2) was called on a clone of it for
    /// example, or with its runtime; the log tells. Handlers that run go on.
    pub fn is_running(&self) -> bool {
        !self.acceptor.is_finished()
    }

    /// How many connections have been accepted and not ended: handlers that run or are about to.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Stops accepting: later connects are refused. Handlers that run go on. Waits until the
    /// listener is closed, which is soon; no exception is raised meanwhile.
    pub fn stop(self) {
        self.close();
    }

    fn close(self) -> Arc<Shared> {
        self.shared.stops.store(true, Ordering::Relaxed);
        self.acceptor.thread().kill();
        // It ends by the kill; there is no other news in its result.
        let _ = weald_scheduler::io::take_result(self.acceptor);
        self.shared
    }

    /// Stops accepting, lets the handlers go on during the grace, then kills those that are left
    /// and waits until they have unwound, at most 5 s for one that only computes. True if nothing
    /// had to be killed. As [`Runtime::shutdown`](weald_scheduler::Runtime::shutdown) it waits, but
    /// raises no exception.
    ///
    /// In a program that is built with `panic = "abort"` nothing can be killed: handlers that are left
    /// after the grace go on.
    ///
    /// # Panics
    /// If called by one of the server's handlers, which could not wait for itself.
    pub fn shutdown(self, grace: Duration) -> bool {
        self.shared.refuse_handlers();
        let shared = self.close();
        if wait_for_end(&shared, weald_scheduler::io::deadline(grace)) {
            return true;
        }
        if cfg!(panic = "abort") {
            return false;
        }
        let left: Vec<GreenThread> = {
            let mut threads = shared.threads();
            threads.closing = true;
            threads.places.iter().flatten().cloned().collect()
        };
        for handler in left {
            handler.kill();
        }
        wait_for_end(&shared, Some(Instant::now() + HOG_LIMIT));
        false
    }
}

/// Waits until no handler is left. False: the deadline passed.
fn wait_for_end(shared: &Shared, deadline: Option<Instant>) -> bool {
    loop {
        let none = || shared.connections() == 0;
        if none() {
            return true;
        }
        if let Woken::TimedOut = shared.ended.wait(none, deadline, false) {
            return none();
        }
    }
}

/// Calls `handler` in a green thread of its own for each connection. Returns at once.
///
/// A handler that panics or that an exception ends closes its connection and nothing else. When
/// descriptors or memory run out the server waits, 5 ms doubling to 1 s, and goes on. Such errors are
/// logged (with the crate `log`, as warnings), once a second at most.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// let listener = weald_net::tcp_listener("127.0.0.1:0")?;
/// let server = weald_net::tcp_server(listener, |mut stream, _peer| {
///     let _ = stream.write_all(b"welcome");
/// });
/// let mut text = String::new();
/// weald_net::connect_tcp(server.local_addr())?.read_to_string(&mut text)?;
/// assert_eq!(text, "welcome");
/// server.stop();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// If the listener has no local address: its descriptor is dead.
pub fn tcp_server(
    listener: TcpListener,
    handler: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
) -> ServerHandle {
    tcp_server_with(listener, ServerOptions::new(), handler)
}

/// As [`tcp_server`], with settings.
///
/// # Examples
/// ```
/// let listener = weald_net::tcp_listener("127.0.0.1:0")?;
/// let options = weald_net::ServerOptions::new().max_connections(100);
/// let server = weald_net::tcp_server_with(listener, options, |_stream, _peer| {});
/// server.stop();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// As [`tcp_server`].
#[allow(
    clippy::needless_pass_by_value,
    reason = "settings are given, not lent"
)]
pub fn tcp_server_with(
    listener: TcpListener,
    options: ServerOptions,
    handler: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
) -> ServerHandle {
    serve(listener, &options, handler)
}

/// As [`tcp_server`], for connections between Unix sockets.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// use weald_net::unix::{UnixListener, UnixStream};
/// # let folder = std::env::temp_dir().join(format!("weald-server-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let path = folder.join("socket");
/// let server = weald_net::unix_server(UnixListener::bind(&path)?, |mut stream, _peer| {
///     let _ = stream.write_all(b"welcome");
/// });
/// assert_eq!(server.local_addr().as_pathname(), Some(&*path));
/// let mut text = String::new();
/// UnixStream::connect(&path)?.read_to_string(&mut text)?;
/// assert_eq!(text, "welcome");
/// server.stop();
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// As [`tcp_server`].
pub fn unix_server(
    listener: UnixListener,
    handler: impl Fn(UnixStream, UnixAddr) + Send + Sync + 'static,
) -> ServerHandle<UnixAddr> {
    unix_server_with(listener, ServerOptions::new(), handler)
}

/// As [`unix_server`], with settings.
///
/// # Examples
/// See [`tcp_server_with`].
///
/// # Panics
/// As [`tcp_server`].
#[allow(
    clippy::needless_pass_by_value,
    reason = "settings are given, not lent"
)]
pub fn unix_server_with(
    listener: UnixListener,
    options: ServerOptions,
    handler: impl Fn(UnixStream, UnixAddr) + Send + Sync + 'static,
) -> ServerHandle<UnixAddr> {
    serve(listener, &options, handler)
}

pub(crate) fn serve<L: Listener>(
    listener: L,
    options: &ServerOptions,
    handler: impl Fn(L::Stream, L::Addr) + Send + Sync + 'static,
) -> ServerHandle<L::Addr> {
    let addr = listener.local_addr().expect("a listener has an address");
    let shared = Arc::new(Shared::default());
    let server = Server {
        opener: listener.opener(),
        listener,
        bound: options.max_connections,
        shared: Arc::clone(&shared),
        handler: Arc::new(handler),
        complaints: Complaints::default(),
        pause: SHORTEST,
    };
    let acceptor = weald_scheduler::spawn(move || server.accept_all());
    ServerHandle {
        acceptor,
        addr,
        shared,
    }
}

/// What the acceptor has.
struct Server<L: Listener, H> {
    opener: L::Opener,
    listener: L,
    bound: usize,
    shared: Arc<Shared>,
    handler: Arc<H>,
    complaints: Complaints,
    pause: Duration,
}

/// Errors that were not logged as others were just before.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    left_out: u64,
}

impl Complaints {
    fn say(&mut self, text: &str) {
        let now = Instant::now();
        if self
            .last
            .is_some_and(|last| now.duration_since(last) < QUIET)
        {
            self.left_out += 1;
            return;
        }
        self.last = Some(now);
        match std::mem::take(&mut self.left_out) {
            0 => log::warn!("weald: {text}"),
            others => log::warn!("weald: {text} (and {others} more since the last message)"),
        }
    }
}

impl<L: Listener, H> Server<L, H>
where
    H: Fn(L::Stream, L::Addr) + Send + Sync + 'static,
{
    fn accept_all(mut self) {
        let opener = Arc::new(self.opener);
        let shared = self.shared;
        loop {
            if !shared.wait_for_room(self.bound) {
                return;
            }
            let accepted = accept(
                &self.listener,
                &shared,
                &mut self.complaints,
                &mut self.pause,
            );
            let Some((accepted, peer)) = accepted else {
                return;
            };
            let mut entry = Entry::new(&shared);
            let (handler, opener) = (Arc::clone(&self.handler), Arc::clone(&opener));
            let connection = move || {
                // The entry goes last: then the connection is closed.
                if entry.begin()
                    && let Some(stream) = L::open(&opener, accepted)
                {
                    handler(stream, peer);
                }
                drop(entry);
            };
            match Builder::new().spawn(connection) {
                Ok(_) => self.pause = SHORTEST,
                Err(error) => {
                    let text = format!("{}: no thread for a connection: {error}", L::SERVER);
                    self.complaints.say(&text);
                    if !back_off(&mut self.pause) {
                        return;
                    }
                }
            }
        }
    }
}

/// Ends the server by an exception, also where nothing can unwind.
fn end_by(interrupt: Interrupt) {
    if cfg!(panic = "unwind") {
        interrupt.unwind();
    }
}

/// Waits. False: an exception ends the server.
fn back_off(pause: &mut Duration) -> bool {
    let nobody = WaitQueue::new();
    let end = Instant::now() + *pause;
    *pause = (*pause * 2).min(LONGEST);
    while Instant::now() < end {
        if let Woken::Interrupted(interrupt) = nobody.wait(|| false, Some(end), true) {
            end_by(interrupt);
            return false;
        }
    }
    true
}

/// The next connection. `None`: there will be no more.
fn accept<L: Listener>(
    listener: &L,
    shared: &Shared,
    complaints: &mut Complaints,
    pause: &mut Duration,
) -> Option<(L::Accepted, L::Addr)> {
    let mut broken = 0;
    loop {
        let mut error = match listener.accept() {
            Ok(accepted) => return Some(accepted),
            Err(error) => error,
        };
        let is_plain = error.raw_os_error().is_none() && error.get_ref().is_none();
        if is_plain && error.kind() == io::ErrorKind::TimedOut {
            // Its `SO_RCVTIMEO`.
            continue;
        }
        if error.kind() == io::ErrorKind::WouldBlock {
            // It was told not to wait. After a wait somebody else may have taken the connection, another
            // process that listens as well: that may happen any number of times.
            match listener.wait() {
                Ok(true) => continue,
                Ok(false) if broken < BROKEN => {
                    broken += 1;
                    continue;
                }
                Ok(false) => {}
                Err(failed) => error = failed,
            }
        }
        if is_of_thread(&error) {
            // The server's end. A kill unwinds here.
            if cfg!(panic = "unwind") {
                weald_scheduler::checkpoint();
            }
            if !shared.stops.load(Ordering::Relaxed) {
                log::warn!("weald: {} has ended: {error}", L::SERVER);
            }
            return None;
        }
        if is_of_connection(&error) && broken < BROKEN {
            broken += 1;
            continue;
        }
        if is_of_listener(&error) {
            log::error!(
                "weald: {} at {:?} has ended: {error}",
                L::SERVER,
                listener.local_addr().ok()
            );
            return None;
        }
        let text = format!(
            "{}: accept: {error}; tries again in {:?}",
            L::SERVER,
            *pause
        );
        complaints.say(&text);
        if !back_off(pause) {
            return None;
        }
    }
}

/// An exception, or the runtime's poller has closed. Other errors without a number are made here of what
/// a peer may have chosen, and do not end the server.
fn is_of_thread(error: &io::Error) -> bool {
    if error.raw_os_error().is_some() {
        return false;
    }
    match error.kind() {
        io::ErrorKind::NotConnected => true,
        // As the scheduler reports an exception: with the exception inside.
        io::ErrorKind::Other | io::ErrorKind::TimedOut => error.get_ref().is_some(),
        _ => false,
    }
}

/// Errors of a descriptor that will accept nothing any more: it is closed, shut down or no listener.
fn is_of_listener(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP)
    )
}

/// Errors of a connection that was gone before it was accepted; accept(2). Without a number: std has no
/// address for its peer.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        None | Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}
