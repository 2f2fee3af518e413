//! Names to addresses, where that blocks no worker.
//!
//! Numeric addresses need no look-up and are read in place. A name goes to the process's
//! [`Resolve`]; that of the system asks `getaddrinfo` on an offload pool, which bounds how many
//! look-ups run and wait at a time. `localhost` and the names of the hosts file have a pool of their own,
//! so they never wait behind name servers that do not answer; but it is `getaddrinfo` that answers
//! them too, as only it knows in which order, and whether the system was told to ask others first.
//!
//! Rejected: a resolver of our own or hickory-resolver in place of `getaddrinfo`. It could be cancelled, and
//! would need no OS threads; but it would see other names than every other program of the
//! machine: nsswitch.conf, mDNS, systemd-resolved and LDAP are modules of the C library. And hickory stands on
//! tokio, which would be in every program that uses weald. Who wants it has [`Resolve`].

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, PoisonError, RwLock};

use weald_scheduler::io::enter;

use crate::question::{Question, invalid_input, question};
use crate::system_names;

/// Finds the addresses of a name.
///
/// It is asked for names; numeric addresses are read in place. A [`ToSocketAddrs`] type of the program's own answers itself, inside
/// [`blocking`](weald_scheduler::blocking()): no exception ends that.
///
/// # Examples
/// ```
/// use std::io;
/// use std::net::SocketAddr;
///
/// use weald_net::{Resolve, SystemResolver};
///
/// /// Knows one name itself and asks the system for the others.
/// struct Pinned(&'static str, SocketAddr);
///
/// impl Resolve for Pinned {
///     fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
///         if host == self.0 {
///             return Ok(vec![SocketAddr::new(self.1.ip(), port)]);
///         }
///         SystemResolver.resolve(host, port)
///     }
/// }
///
/// weald_net::set_resolver(Pinned("database.example", "127.0.0.1:0".parse().unwrap()));
/// let addrs = weald_net::resolve("database.example:5432")?;
/// assert_eq!(addrs, ["127.0.0.1:5432".parse().unwrap()]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Resolve: Send + Sync {
    /// The addresses of a host, the best first, with this port. It runs in the thread that asks, a
    /// green one mostly: it may use weald's calls, whose exceptions it passes on, and should block
    /// in no other way.
    ///
    /// # Errors
    /// Whatever the user of the name is to see; `NotFound` if there is no such name.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver, `getaddrinfo`: what every other program sees, be it from files, DNS or
/// elsewhere (nsswitch.conf(5)).
///
/// Each name is looked up once for all who ask at a time, on OS threads of weald's. At most 256 names that
/// somebody waits for are looked up at a time, and 4096 more wait. A look-up that nobody waits for any more,
/// as a [`timeout`](weald_scheduler::timeout()) or a kill has ended the wait, gives way. Names of
/// `/etc/hosts` and `localhost` have OS threads of their own and wait behind no name server; `localhost`,
/// and what ends in `.localhost`, is the loopback also where `/etc/hosts` does not say so (RFC 6761).
///
/// # Errors
/// `TimedOut` after 30 s; `ResourceBusy` if too many wait; `NotFound` if there is no such name. What
/// `getaddrinfo` says is in the text with the name of its code (`EAI_AGAIN`, ...); an error of the system has its number
/// ([`raw_os_error`](io::Error::raw_os_error)).
///
/// # Examples
/// ```
/// use weald_net::{Resolve, SystemResolver};
/// let addrs = SystemResolver.resolve("localhost", 80)?;
/// assert!(addrs.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        enter()?;
        system_names::look_up(host, port)
    }
}

static RESOLVER: RwLock<Option<Arc<dyn Resolve>>> = RwLock::new(None);

/// Has names looked up by another resolver from now on, in the whole process: in all of weald's
/// calls that take a name.
///
/// # Examples
/// See [`Resolve`].
pub fn set_resolver(resolver: impl Resolve + 'static) {
    let new: Arc<dyn Resolve> = Arc::new(resolver);
    let old = {
        let mut place = RESOLVER.write().unwrap_or_else(PoisonError::into_inner);
        place.replace(new)
    };
    drop(old);
}

/// The addresses behind `addr`, as [`ToSocketAddrs`] has them, but a name is looked up where that
/// blocks no worker, and by the resolver of [`set_resolver`] if there is one. A blocking call.
///
/// # Examples
/// ```
/// let addrs = weald_net::resolve("localhost:80")?;
/// assert!(addrs.iter().all(|addr| addr.ip().is_loopback()));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The resolver's. `InvalidInput`: not of the form `host:port`, or nothing was found.
pub fn resolve(addr: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    enter()?;
    let addrs = answer(&addr);
    // Mostly it has not waited, and who only goes on to bind a socket does not either.
    weald_scheduler::io::spend();
    addrs
}

fn answer<A: ToSocketAddrs>(addr: &A) -> io::Result<Vec<SocketAddr>> {
    let addrs = match question(addr)? {
        Question::Name(host, port) => {
            let other = RESOLVER
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            match other {
                Some(other) => other.resolve(&host, port)?,
                None => system_names::look_up(&host, port)?,
            }
        }
        Question::Numeric => addr.to_socket_addrs()?.collect(),
        // A type of the program's own, which may do anything.
        Question::Unknown => weald_scheduler::blocking(|| addr.to_socket_addrs())?.collect(),
    };
    if addrs.is_empty() {
        return Err(invalid_input("could not resolve to any addresses"));
    }
    Ok(addrs)
}

/// The first of the addresses; what is given as a number allocates nothing.
pub(crate) fn resolve_first(addr: impl ToSocketAddrs) -> io::Result<Option<SocketAddr>> {
    if question(&addr)? == Question::Numeric {
        enter()?;
        return Ok(addr.to_socket_addrs()?.next());
    }
    Ok(resolve(addr)?.into_iter().next())
}
