//! A server: what it listens at, its settings, and its handle.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::sync::Arc;
use std::time::Duration;

use weald::signal::{Signal, Signals};
use weald_net::unix::UnixListener;
use weald_net::{ServerOptions, TcpListener};

use crate::connection;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::request::Request;
use crate::response::IntoResponse;
use crate::service::Handler;
use crate::shared::Shared;
use crate::stream::Stream;

type Connection = Box<dyn Fn(Stream, Option<SocketAddr>) + Send + Sync>;

mod sealed {
    use super::{Connection, ServerOptions};

    /// Starts a server on a listener. Only weald's listeners can.
    #[allow(
        unnameable_types,
        private_interfaces,
        reason = "it is sealed: nobody else names it, implements it or calls it"
    )]
    pub trait Start {
        type At;
        fn start(
            self,
            options: ServerOptions,
            serve: Connection,
        ) -> weald_net::ServerHandle<Self::At>;
    }
}

use sealed::Start;

/// A listener that a [`Server`] can have: [`TcpListener`],
/// [`UnixListener`](weald::net::unix::UnixListener) or `SslListener`. Other types cannot implement this.
pub trait Listener: Start<At = Self::Addr> {
    /// The type of its address.
    type Addr;
}

#[allow(private_interfaces, reason = "nobody else calls it")]
impl Start for TcpListener {
    type At = SocketAddr;

    fn start(
        self,
        options: ServerOptions,
        serve: Connection,
    ) -> weald_net::ServerHandle<SocketAddr> {
        weald_net::tcp_server_with(self, options, move |stream, peer| {
            serve(Stream::Tcp(stream), Some(peer));
        })
    }
}

impl Listener for TcpListener {
    type Addr = SocketAddr;
}

#[allow(private_interfaces, reason = "nobody else calls it")]
impl Start for UnixListener {
    type At = UnixAddr;

    fn start(self, options: ServerOptions, serve: Connection) -> weald_net::ServerHandle<UnixAddr> {
        weald_net::unix_server_with(self, options, move |stream, _peer| {
            serve(Stream::Unix(stream), None);
        })
    }
}

impl Listener for UnixListener {
    type Addr = UnixAddr;
}

#[cfg(feature = "tls")]
#[allow(private_interfaces, reason = "nobody else calls it")]
impl Start for weald_net::SslListener {
    type At = SocketAddr;

    fn start(
        self,
        options: ServerOptions,
        serve: Connection,
    ) -> weald_net::ServerHandle<SocketAddr> {
        let listener = self.or_offer(["h2", "http/1.1"]);
        let listener = listener.expect("the names are short enough");
        let (listener, acceptor) = listener.into_parts();
        // The handshake comes later, so a connection counts for its address from the beginning.
        weald_net::tcp_server_with(listener, options, move |stream, peer| {
            match weald_net::SslStream::server(stream, &acceptor) {
                Ok(stream) => serve(Stream::Tls(Box::new(stream)), Some(peer)),
                Err(error) => log::debug!("weald-http: a connection: {error}"),
            }
        })
    }
}

#[cfg(feature = "tls")]
impl Listener for weald_net::SslListener {
    type Addr = SocketAddr;
}

/// A server that is about to start.
///
/// It speaks HTTP/1.0, HTTP/1.1 and HTTP/2. Over TLS the two sides agree by ALPN; the server offers `h2` and
/// `http/1.1` unless the acceptor offers something else. Without TLS it speaks HTTP/2 with clients that begin with
/// HTTP/2.
///
/// # Examples
/// ```
/// use std::io::{Read as _, Write as _};
/// use weald_http::Server;
///
/// let listener = weald::tcp_listener("127.0.0.1:0")?;
/// let server = Server::new(listener).serve(|request: weald_http::Request| {
///     format!("you asked for {}\n", request.path())
/// });
///
/// let mut stream = weald::connect_tcp(server.local_addr())?;
/// stream.write_all(b"GET /tree HTTP/1.0\r\n\r\n")?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer)?;
/// assert!(answer.ends_with("you asked for /tree\n"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing before `serve`"]
pub struct Server<L> {
    listener: L,
    limits: Limits,
    half_close: bool,
    access_log: bool,
}

impl<L: Listener> Server<L> {
    /// Returns a server with the default [`Limits`].
    pub fn new(listener: L) -> Self {
        Self {
            listener,
            limits: Limits::new(),
            half_close: true,
            access_log: true,
        }
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether a client that has closed its sending side still gets its answer. The default is true. Some
    /// clients close that side, `nc -N` for example, and HTTP/1 allows it. A client that has gone away looks the same
    /// until the server writes to it.
    ///
    /// With `false` the handler of such a client is killed, in HTTP/1 within about a second. After a reset it is killed
    /// with either setting. HTTP/2 has no half-closed connections: there the handler is killed at once.
    ///
    /// # Examples
    /// ```
    /// let listener = weald::tcp_listener("127.0.0.1:0")?;
    /// let server = weald_http::Server::new(listener)
    ///     .half_close(false)
    ///     .serve(|_request| "a long computation");
    /// # drop(server);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn half_close(mut self, is_waiting: bool) -> Self {
        self.half_close = is_waiting;
        self
    }

    /// Sets whether answers are told to the log. The default is true; [`serve`](Self::serve) says what is told. A
    /// server that a program asks each second about itself would fill its log.
    ///
    /// # Examples
    /// ```
    /// let listener = weald::tcp_listener("127.0.0.1:0")?;
    /// let server = weald_http::Server::new(listener)
    ///     .access_log(false)
    ///     .serve(|_request| "ready");
    /// # drop(server);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn access_log(mut self, is_told: bool) -> Self {
        self.access_log = is_told;
        self
    }

    /// Starts the server, and returns at once. For each request it calls `handler` in a green thread of its own,
    /// which may block.
    ///
    /// For each answer there is a record of the crate `log`, with level info and target `weald_http::access`: the
    /// client, the request line, the status, the bytes of the body and the time. Without a reader of these records
    /// they cost nothing.
    ///
    /// With the feature `tracing` each request has a span, with level info, target `weald_http` and name `request`. It
    /// lasts from the end of the request's head until the connection has taken the last byte of the answer and the
    /// handler has ended. The handler runs inside of it, and so does the closure that writes a body. Its fields have
    /// OpenTelemetry's names: `http.request.method`, `url.path`, `http.route` (of a [`Router`](crate::Router)),
    /// `http.response.status_code` and others; never the query. `client.address` is left for a handler to record, which
    /// knows if a proxy's word can be trusted. Handlers that wait need thread-locals of their own
    /// ([`ThreadLocals::Own`](weald::ThreadLocals)), as `tracing` keeps the current span in a thread-local; a program with
    /// many connections needs a subscriber such as `weald_tracing::GreenSubscriber`.
    ///
    /// If a handler panics, the answer is 500, and nothing else ends. If the client has reset the stream or the
    /// connection, or the connection has ended, the handler is killed: its next blocking call unwinds, or the call in
    /// which it waits. In HTTP/1 the server notices this within about a second. For a client that only closes its
    /// sending side see [`half_close`](Self::half_close).
    pub fn serve<H, R>(self, handler: H) -> ServerHandle<L::Addr>
    where
        H: Fn(Request) -> R + Send + Sync + 'static,
        R: IntoResponse,
    {
        let handler: Handler = Arc::new(move |request| handler(request).into_response());
        let shared = Arc::new(Shared::new(self.limits, self.half_close, self.access_log));
        let options = ServerOptions::new().max_connections(shared.limits.connections);
        let serves = Arc::clone(&shared);
        let serve: Connection =
            Box::new(move |stream, peer| connection::serve(stream, peer, &serves, &handler));
        let inner = self.listener.start(options, serve);
        ServerHandle { inner, shared }
    }
}

/// The handle of a running server; from [`Server::serve`]. Dropping it detaches the server, which goes on.
pub struct ServerHandle<A = SocketAddr> {
    inner: weald_net::ServerHandle<A>,
    shared: Arc<Shared>,
}

impl<A> ServerHandle<A> {
    /// Returns the address that the server listens at.
    pub fn local_addr(&self) -> A
    where
        A: Clone,
    {
        self.inner.local_addr()
    }

    /// Tells if the server accepts connections.
    pub fn is_running(&self) -> bool {
        self.inner.is_running()
    }

    /// Returns how many connections are open.
    pub fn connections(&self) -> usize {
        self.inner.connections()
    }

    /// Returns what the server has done so far.
    pub fn metrics(&self) -> Metrics {
        self.shared.counts.metrics(self.connections())
    }

    /// Ends the server. It accepts no more connections. Connections without a request end at once. Requests that run
    /// may go on for the `grace`, then they are killed. HTTP/1 clients are told by `Connection: close`, HTTP/2
    /// clients by GOAWAY. Waits until all have ended; for handlers that only compute at most 5 s longer than the
    /// grace. Returns true if nothing had to be killed.
    ///
    /// # Panics
    /// If a connection's own thread calls it, as the closure of [`Response::upgrade`](crate::Response::upgrade)
    /// could.
    pub fn shutdown(self, grace: Duration) -> bool {
        self.shared.registry.close();
        self.inner.shutdown(grace)
    }

    /// Serves until somebody asks the process to end by `SIGTERM` (`docker stop`, systemd, `kill`) or `SIGINT`
    /// (Ctrl-C). Then it ends as [`shutdown`](Self::shutdown) does. A second signal ends the wait at once. Returns
    /// true if nothing had to be killed.
    ///
    /// # Errors
    /// Those of [`weald::signal::shutdown`].
    ///
    /// # Examples
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let listener = weald::tcp_listener("0.0.0.0:8080")?;
    /// let server = weald_http::Server::new(listener).serve(|_request| "hello\n");
    /// server.until_shutdown(std::time::Duration::from_secs(10))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn until_shutdown(self, grace: Duration) -> io::Result<bool>
    where
        A: Send + 'static,
    {
        let signals = Signals::new([Signal::SIGTERM, Signal::SIGINT])?;
        let signal = signals.recv()?;
        log::info!("weald-http: {signal}: the server ends, within {grace:?}");
        let ends = weald_scheduler::spawn(move || self.shutdown(grace));
        weald_sync::select! {
            join(&ends) -> _ => Ok(ends.join().unwrap_or(false)),
            recv(signals) -> _ => Ok(false),
        }
    }
}

impl<A: fmt::Debug> fmt::Debug for ServerHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
