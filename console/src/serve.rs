//! The console's start: addresses, settings, the runtime of its own, the handle.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use weald::Runtime;
use weald_http::{Limits, Server, ServerHandle};

use crate::guard::Guard;
use crate::routes;

/// A token has at least so many characters: 16 of base 64 are 96 bits.
const TOKEN_LENGTH: usize = 16;

/// So many connections at most. Each has a green thread of the console's runtime.
const CONNECTIONS: usize = 64;

/// Starts a console at a loopback address, such as `127.0.0.1:6680`. With port 0 the system chooses the port:
/// [`Console::local_addr`]. The console runs until the process ends, or until [`Console::shutdown`].
///
/// It blocks the caller for as long as a look-up of the name takes, and the start of some OS threads.
///
/// # Errors
/// `InvalidInput` if one of the addresses is not a loopback address: [`Builder::token`] allows others. `AddrInUse` if another
/// socket listens there. What the system gives if there are no OS threads or descriptors left.
///
/// # Examples
/// ```
/// use std::io::{Read as _, Write as _};
///
/// let console = weald_console::serve("127.0.0.1:0")?;
/// let mut stream = std::net::TcpStream::connect(console.local_addr())?;
/// stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer)?;
/// assert!(answer.starts_with("HTTP/1.1 200 OK"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn serve(addr: impl ToSocketAddrs) -> io::Result<Console> {
    Builder::new().serve(addr)
}

/// Settings of a console that is about to start.
///
/// # Examples
/// ```
/// let console = weald_console::Builder::new()
///     .token("b5V0zVn7Zq3mUu1xX8Jw4Q")
///     .serve("127.0.0.1:0")?;
/// console.shutdown();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "a console does nothing before `serve`"]
pub struct Builder {
    token: Option<String>,
    hosts: Vec<String>,
}

impl Builder {
    /// Returns the settings of [`serve`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks all clients for this token, in the field `Authorization: Bearer TOKEN`; the page asks its user for it. With a token the
    /// console may listen at any address. The connection is not encrypted: everybody on the way can read the token and the
    /// answers. Over a network use an SSH tunnel, or a proxy that speaks TLS.
    ///
    /// Take a token from a generator of random numbers. It has 16 characters or more: visible ASCII.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Allows one more name in the field `Host`, beside `localhost` and loopback addresses: the name by which a proxy is called,
    /// for example. A console at an address that is not loopback allows all names, as its token protects it.
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// Starts the console, as the function [`serve`] does.
    ///
    /// # Errors
    /// Those of the function [`serve`]. `InvalidInput` for a token that is too short or has other characters than visible ASCII.
    pub fn serve(self, addr: impl ToSocketAddrs) -> io::Result<Console> {
        if let Some(token) = &self.token
            && (token.len() < TOKEN_LENGTH || !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(invalid(format!(
                "weald-console: a token has {TOKEN_LENGTH} characters or more of visible ASCII"
            )));
        }
        // A name may have to be looked up.
        let addrs: Vec<SocketAddr> = weald::blocking(|| addr.to_socket_addrs())?.collect();
        let is_loopback = |addr: &SocketAddr| addr.ip().to_canonical().is_loopback();
        let open = addrs.iter().find(|addr| !is_loopback(addr));
        if let Some(open) = open
            && self.token.is_none()
        {
            return Err(invalid(format!(
                "weald-console: {open} is not a loopback address; a console there needs a token (Builder::token)"
            )));
        }
        let guard = Guard::new(self.token, self.hosts, open.is_some());
        let runtime = Runtime::builder()
            .name("weald-console")
            .thread_name("weald-console")
            .workers(1)
            // Each answer may hold an OS thread while it is made; the program has a use for its memory.
            .spare_threads(4)
            // Symbols and figures are made on these stacks, by crates that may recurse.
            .stack_size(2 << 20)
            .build()?;
        let own = runtime.handle();
        let handler = routes::handler(guard, own);
        // The server runs where it is started: in the console's runtime.
        let server = runtime.run(|| {
            let listener = weald::tcp_listener(&*addrs).map_err(|error| {
                let text = format!("weald-console: cannot listen at {addrs:?}: {error}");
                io::Error::new(error.kind(), text)
            })?;
            let limits = Limits::new()
                .body_size(4096)
                .connections(CONNECTIONS)
                .streams(4)
                .keep_alive(Duration::from_secs(30));
            // A client that has gone ends what it has begun: a recording for some seconds.
            let server = Server::new(listener)
                .limits(limits)
                .half_close(false)
                .access_log(false);
            Ok::<_, io::Error>(server.serve(handler))
        })?;
        Ok(Console {
            addr: server.local_addr(),
            running: Some((server, runtime)),
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("has_token", &self.token.is_some())
            .field("hosts", &self.hosts)
            .finish()
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// A console that runs; from [`serve`]. Dropping it detaches the console, which goes on until the process ends.
pub struct Console {
    addr: SocketAddr,
    /// `None` once it is shut down or detached.
    running: Option<(ServerHandle, Runtime)>,
}

impl Console {
    /// Returns the address at which the console listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends the console: it accepts nothing more, and requests that run get a second to end. A blocking call.
    pub fn shutdown(mut self) {
        if let Some((server, runtime)) = self.running.take() {
            runtime.run(|| server.shutdown(Duration::from_secs(1)));
            runtime.shutdown(Duration::ZERO);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some((server, runtime)) = self.running.take() {
            drop(server);
            // Its OS threads keep what they need.
            std::mem::forget(runtime);
        }
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}
