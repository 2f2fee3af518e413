//! `tcp_server`, `ssl_server`, `unix_server`: a green thread for each connection.
//!
//! The acceptor is a green thread of the caller's runtime, and so is each handler. A handler that panics, or that an
//! exception ends, closes its connection and nothing else.
//!
//! | file             | holds                                                          |
//! |------------------|----------------------------------------------------------------|
//! | `mod.rs`         | the functions that start a server, and its settings            |
//! | `handle.rs`      | the handle: looks at a server and ends it                      |
//! | `acceptor.rs`    | accepts connections, and backs off                             |
//! | `connections.rs` | how many connections there are, and who handles them           |
//! | `listener.rs`    | the kinds of listeners                                         |

mod acceptor;
mod connections;
mod handle;
mod listener;

use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::sync::Arc;

use crate::tcp::{TcpListener, TcpStream};
use crate::unix::{UnixListener, UnixStream};

use self::acceptor::Server;
use self::connections::Shared;

pub use self::handle::ServerHandle;
pub(crate) use self::listener::Listener;
#[cfg(feature = "tls")]
pub(crate) use self::listener::wait_for;

/// Settings of a server; for [`tcp_server_with`], `ssl_server_with` and [`unix_server_with`].
///
/// The only limits are those that are set here. A server for unknown clients sets `max_connections` below the
/// process's limit of descriptors, and its handlers set read and write timeouts.
///
/// # Examples
/// ```
/// let options = weald::net::ServerOptions::new().max_connections(1000);
/// # drop(options);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing before `tcp_server_with`"]
pub struct ServerOptions {
    max_connections: usize,
}

impl ServerOptions {
    /// Returns options without a bound on connections.
    pub fn new() -> Self {
        Self {
            max_connections: usize::MAX,
        }
    }

    /// Sets the most connections, at least 1. While as many are open, the server accepts no more.
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

/// Calls `handler` in a green thread of its own for each connection. Returns at once.
///
/// A handler that panics or that an exception ends closes its connection and nothing else. When descriptors or memory
/// run out, the server pauses for 5 ms, doubling up to 1 s, and goes on. Such errors are logged (with the crate
/// `log`, as warnings), at most one a second.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let server = weald::tcp_server(listener, |mut stream, _peer| {
///     let _ = stream.write_all(b"welcome");
/// });
/// let mut text = String::new();
/// weald::connect_tcp(server.local_addr())?.read_to_string(&mut text)?;
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

/// Starts a server as [`tcp_server`] does, with settings.
///
/// # Examples
/// ```
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let options = weald::net::ServerOptions::new().max_connections(100);
/// let server = weald::tcp_server_with(listener, options, |_stream, _peer| {});
/// server.stop();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// Those of [`tcp_server`].
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

/// Starts a server as [`tcp_server`] does, for connections between Unix sockets.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// use weald::net::unix::{UnixListener, UnixStream};
/// # let folder = std::env::temp_dir().join(format!("weald-server-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let path = folder.join("socket");
/// let server = weald::unix_server(UnixListener::bind(&path)?, |mut stream, _peer| {
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
/// Those of [`tcp_server`].
pub fn unix_server(
    listener: UnixListener,
    handler: impl Fn(UnixStream, UnixAddr) + Send + Sync + 'static,
) -> ServerHandle<UnixAddr> {
    unix_server_with(listener, ServerOptions::new(), handler)
}

/// Starts a server as [`unix_server`] does, with settings.
///
/// # Examples
/// See [`tcp_server_with`].
///
/// # Panics
/// Those of [`tcp_server`].
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
    let server = Server::new(listener, options.max_connections, &shared, handler);
    let acceptor = weald_scheduler::spawn(move || server.accept_all());
    ServerHandle {
        acceptor,
        addr,
        shared,
    }
}
