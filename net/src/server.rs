//! `tcp_server`: a green thread for each connection.
//!
//! The acceptor is a green thread of the caller's runtime, and so is each handler. A handler that
//! panics, or that an exception ends, closes its connection and nothing else.
//!
//! Invariant: `connections` counts the entries of `handlers`; an entry is made before its thread is
//! spawned and taken out by a guard in the thread's closure, also if that never runs.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use weald_scheduler::io::{Interrupt, WaitQueue, Woken};
use weald_scheduler::{GreenThread, JoinHandle};

use crate::shim::sync::{Mutex, MutexGuard};
use crate::tcp::{TcpListener, TcpStream};

/// The first pause after an `accept` that failed for lack of something; it doubles up to `LONGEST`.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);

/// How long `shutdown` waits for handlers that were killed and only compute.
const HOG_LIMIT: Duration = Duration::from_secs(5);

/// Settings of a server; for [`tcp_server_with`].
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

#[derive(Debug, Default)]
struct Shared {
    handlers: Mutex<HashMap<u64, Option<GreenThread>>>,
    /// The acceptor waits here for room, `shutdown` for the last one.
    ended: WaitQueue,
}

impl Shared {
    fn handlers(&self) -> MutexGuard<'_, HashMap<u64, Option<GreenThread>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> usize {
        self.handlers().len()
    }

    /// Panics if a handler asks.
    fn refuse_handlers(&self) {
        let me = weald_scheduler::current().id();
        let is_handler = self.handlers().values().flatten().any(|one| one.id() == me);
        assert!(
            !is_handler,
            "a server cannot be shut down by one of its own handlers"
        );
    }
}

/// Takes a handler's entry out.
struct Entry {
    shared: Arc<Shared>,
    key: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // What comes out is dropped after the lock.
        let thread = self.shared.handlers().remove(&self.key);
        drop(thread);
        self.shared.ended.wake_all();
    }
}

/// A running server; from [`tcp_server`]. Dropping it detaches the server, which goes on.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let listener = weald_net::tcp_listener("127.0.0.1:0")?;
/// let server = weald_net::tcp_server(listener, |_stream, _peer| {});
/// assert!(server.shutdown(Duration::from_secs(1)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ServerHandle {
    acceptor: JoinHandle<()>,
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl ServerHandle {
    /// The address that the server listens at.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting: later connects are refused. Handlers that run go on. Waits until the
    /// listener is closed, which is soon; no exception is raised meanwhile.
    pub fn stop(self) {
        self.close();
    }

    fn close(self) -> Arc<Shared> {
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
        // One that was just being spawned is in the list by now.
        shared.refuse_handlers();
        if wait_for_end(&shared, weald_scheduler::io::deadline(grace)) {
            return true;
        }
        if cfg!(panic = "abort") {
            return false;
        }
        let limit = Instant::now() + HOG_LIMIT;
        loop {
            let left: Vec<GreenThread> = shared.handlers().values().flatten().cloned().collect();
            for handler in left {
                handler.kill();
            }
            // One that was just being spawned is in the list at the next turn.
            let next = (Instant::now() + Duration::from_millis(10)).min(limit);
            if wait_for_end(&shared, Some(next)) || Instant::now() >= limit {
                return false;
            }
        }
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
/// descriptors run out the server waits, 5 ms doubling to 1 s, and goes on.
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
    let addr = listener.local_addr().expect("a listener has an address");
    let shared = Arc::new(Shared::default());
    let acceptor = {
        let shared = Arc::clone(&shared);
        let handler = Arc::new(handler);
        let bound = options.max_connections;
        weald_scheduler::spawn(move || accept_all(&listener, bound, &shared, &handler))
    };
    ServerHandle {
        acceptor,
        addr,
        shared,
    }
}

/// Ends the server by an exception, also where nothing can unwind.
fn end_by(interrupt: Interrupt) {
    if cfg!(panic = "unwind") {
        interrupt.unwind();
    }
}

fn accept_all<H>(listener: &TcpListener, bound: usize, shared: &Arc<Shared>, handler: &Arc<H>)
where
    H: Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
{
    let mut pause = SHORTEST;
    for key in 0_u64.. {
        while shared.connections() >= bound {
            let room = || shared.connections() < bound;
            if let Woken::Interrupted(interrupt) = shared.ended.wait(room, None, true) {
                return end_by(interrupt);
            }
        }
        let (stream, peer) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(error) if is_of_connection(&error) => {}
                Err(error) if error.get_ref().is_some() => {
                    // Not the system's: an exception, the server's end. A kill unwinds here.
                    if cfg!(panic = "unwind") {
                        weald_scheduler::checkpoint();
                    }
                    return;
                }
                Err(_) => {
                    let end = Instant::now() + pause;
                    let woken = shared.ended.wait(|| Instant::now() >= end, Some(end), true);
                    if let Woken::Interrupted(interrupt) = woken {
                        return end_by(interrupt);
                    }
                    pause = (pause * 2).min(LONGEST);
                }
            }
        };
        pause = SHORTEST;
        shared.handlers().insert(key, None);
        let entry = Entry {
            shared: Arc::clone(shared),
            key,
        };
        let handler = Arc::clone(handler);
        let thread = weald_scheduler::spawn(move || {
            // Dropped last: the connection is closed when the entry goes.
            let _entry = entry;
            handler(stream, peer);
        });
        if let Some(place) = shared.handlers().get_mut(&key) {
            *place = Some(thread.thread().clone());
        }
    }
}

/// Errors of a connection that was gone before it was accepted; accept(2).
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
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
