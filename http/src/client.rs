//! An HTTP client: [ureq] over green sockets. Feature `client`.
//!
//! A request suspends the green thread and not the worker, and [`weald::timeout`] and `kill` can end it. The pool,
//! TLS, proxies, redirects and limits are ureq's: see its documentation. The client speaks HTTP/1.1 only.
//!
//! ```
//! let listener = weald::tcp_listener("127.0.0.1:0")?;
//! let server = weald_http::Server::new(listener).serve(|_request| "welcome");
//!
//! let agent = weald_http::client::agent();
//! let url = format!("http://{}/", server.local_addr());
//! let text = agent.get(url).call().unwrap().body_mut().read_to_string().unwrap();
//! assert_eq!(text, "welcome");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ureq::config::{Config, ConfigBuilder};
use ureq::http::Uri;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout,
    ShutdownHandle, Transport,
};
use ureq::{Agent, Error, Timeout};
use weald_net::TcpStream;
use weald_scheduler::io::Pollable as _;

pub use ureq;

use crate::stream::is_timeout;

/// How many addresses of a name are tried at most. ureq keeps as many.
const MOST: usize = 16;

/// Returns a client with the settings of [`config`]. Clones of the client share its connections.
///
/// # Examples
/// See the [module](self).
pub fn agent() -> Agent {
    agent_with(config().build())
}

/// Returns a client with these settings. Begin them with [`config`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let config = weald_http::client::config().timeout_global(Some(Duration::from_secs(5)));
/// let agent = weald_http::client::agent_with(config.build());
/// # drop(agent);
/// ```
pub fn agent_with(config: Config) -> Agent {
    let connector = ().chain(ConnectProxyConnector::default()).chain(Green);
    #[cfg(feature = "tls")]
    let connector = connector.chain(ureq::unversioned::transport::RustlsConnector::default());
    Agent::with_parts(config, connector, Names)
}

/// Returns settings to begin with. They are ureq's own, except that TLS has weald's provider of cryptography and the
/// platform's roots. Other `tls_config`s must name a provider too: `weald::net::crypto_provider`.
pub fn config() -> ConfigBuilder<AgentScope> {
    let config = Agent::config_builder();
    #[cfg(feature = "tls")]
    let config = config.tls_config(
        ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(weald_net::crypto_provider())
            .build(),
    );
    config
}

/// Looks names up without blocking a worker.
#[derive(Debug)]
struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let is_encrypted = uri.scheme_str() == Some("https");
        let port = uri
            .port_u16()
            .unwrap_or(if is_encrypted { 443 } else { 80 });
        let text = format!("{host}:{port}");
        let found = match limit(timeout) {
            None => weald_net::resolve(&*text),
            Some(limit) => weald_scheduler::timeout(limit, || weald_net::resolve(&*text))
                .map_err(|_| Error::Timeout(timeout.reason))?,
        };
        let found = found.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Error::HostNotFound,
            _ => Error::Io(error),
        })?;
        let mut addrs = self.empty();
        for addr in config.ip_family().keep_wanted(found.into_iter()).take(MOST) {
            addrs.push(addr);
        }
        if addrs.is_empty() {
            return Err(Error::HostNotFound);
        }
        Ok(addrs)
    }
}

fn limit(timeout: NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|limit| *limit)
}

/// Opens green sockets.
#[derive(Debug)]
struct Green;

impl<In: Transport> Connector<In> for Green {
    type Out = Either<In, GreenTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(proxy) = chained {
            return Ok(Some(Either::A(proxy)));
        }
        let stream = connect(&details.addrs, details.timeout)?;
        if details.config.no_delay() {
            stream.set_nodelay(true)?;
        }
        let sizes = details.config;
        let transport = GreenTransport {
            stream: Arc::new(Socket(stream)),
            buffers: LazyBuffers::new(sizes.input_buffer_size(), sizes.output_buffer_size()),
        };
        let handle: Weak<Socket> = Arc::downgrade(&transport.stream);
        (details.register_shutdown)(handle)?;
        Ok(Some(Either::B(transport)))
    }
}

/// Tries the addresses in turn; each has an equal part of the time that is left.
fn connect(addrs: &[SocketAddr], timeout: NextTimeout) -> Result<TcpStream, Error> {
    let deadline = limit(timeout).and_then(|limit| Instant::now().checked_add(limit));
    let mut last = None;
    for (addr, left) in addrs.iter().zip((1..=addrs.len()).rev()) {
        let connected = match deadline {
            None => TcpStream::connect(addr),
            Some(deadline) => {
                let rest = deadline.saturating_duration_since(Instant::now());
                if rest.is_zero() {
                    return Err(Error::Timeout(timeout.reason));
                }
                let part = rest / u32::try_from(left).unwrap_or(1);
                TcpStream::connect_timeout(addr, part.max(Duration::from_micros(1)))
            }
        };
        match connected {
            Ok(stream) => return Ok(stream),
            // The error is an exception of weald's.
            Err(error) if error.raw_os_error().is_none() && error.get_ref().is_some() => {
                return Err(Error::Io(error));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                last = Some(Error::Timeout(Timeout::Connect));
            }
            Err(error) => last = Some(Error::Io(error)),
        }
    }
    Err(last.unwrap_or(Error::HostNotFound))
}

/// A connection, which `Agent::shutdown` may end from another thread.
#[derive(Debug)]
struct Socket(TcpStream);

impl ShutdownHandle for Socket {
    fn shutdown(&self) {
        // The call fails if the connection has ended.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

struct GreenTransport {
    stream: Arc<Socket>,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for GreenTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GreenTransport").field(&self.stream).finish()
    }
}

/// Returns the error in ureq's type.
fn error(error: io::Error, timeout: NextTimeout) -> Error {
    if is_timeout(&error) {
        return Error::Timeout(timeout.reason);
    }
    Error::Io(error)
}

/// Fails if the time has passed before the call.
fn check(timeout: NextTimeout) -> Result<(), Error> {
    if timeout.after.is_zero() {
        return Err(Error::Timeout(timeout.reason));
    }
    Ok(())
}

impl Transport for GreenTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        check(timeout)?;
        let mut stream = &self.stream.0;
        stream.set_write_timeout(limit(timeout))?;
        let output = &self.buffers.output()[..amount];
        stream
            .write_all(output)
            .map_err(|failed| error(failed, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        check(timeout)?;
        let mut stream = &self.stream.0;
        stream.set_read_timeout(limit(timeout))?;
        let input = self.buffers.input_append_buf();
        let got = stream
            .read(input)
            .map_err(|failed| error(failed, timeout))?;
        self.buffers.input_appended(got);
        Ok(got > 0)
    }

    /// ureq calls this while it holds the lock of its pool, so nothing here may be a blocking call of weald's. Such a
    /// call could let other green threads run, and one that waits for the lock would block the OS thread. Or the call
    /// could unwind and poison the lock.
    fn is_open(&mut self) -> bool {
        // If the server has sent something now, it has closed the connection, or it sends what nobody has asked for.
        matches!(self.stream.0.poll_now(false), Ok(false))
    }
}
