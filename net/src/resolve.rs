//! From names to addresses, without blocking a worker.
//!
//! Numeric addresses need no look-up and are read in place. A name goes to the process's [`Resolve`]. The system's
//! resolver calls `getaddrinfo` on an offload pool, which bounds how many look-ups run and wait at a time.
//! `localhost` and the names of the hosts file have a pool of their own, so they never wait behind name servers that
//! do not answer. `getaddrinfo` answers these names too, because only it knows their order and whether the system was
//! told to ask other sources first.
//!
//! Rejected: a resolver of our own, or hickory-resolver, in place of `getaddrinfo`. It could be cancelled and would
//! need no OS threads. But it would see other names than all other programs of the machine: nsswitch.conf, mDNS,
//! systemd-resolved and LDAP are modules of the C library. And hickory needs tokio, which would then be in every
//! program that uses weald. Programs that want it can use [`Resolve`].

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, PoisonError, RwLock};

use weald_scheduler::io::enter;

use crate::question::{Question, invalid_input, question};
use crate::system_names;

/// Finds the addresses of a name.
///
/// It is called for names only; numeric addresses are read in place. A [`ToSocketAddrs`] type of the program's own
/// answers by itself, inside [`blocking`](weald_scheduler::blocking()): no exception ends that.
///
/// # Examples
/// ```
/// use std::io;
/// use std::net::SocketAddr;
///
/// use weald::net::{Resolve, SystemResolver};
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
/// weald::net::set_resolver(Pinned("database.example", "127.0.0.1:0".parse().unwrap()));
/// let addrs = weald::net::resolve("database.example:5432")?;
/// assert_eq!(addrs, ["127.0.0.1:5432".parse().unwrap()]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Resolve: Send + Sync {
    /// Returns the addresses of a host with this port, the best one first. It runs in the thread that asks, usually a
    /// green one. It may use weald's calls and must pass their exceptions on. It should block in no other way.
    ///
    /// # Errors
    /// Any error that the caller is to see; `NotFound` if there is no such name.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver, `getaddrinfo`. It sees what every other program sees, from files, DNS or elsewhere
/// (nsswitch.conf(5)).
///
/// A name that several threads ask for at the same time is looked up once, on OS threads of weald's. At most 256
/// names that somebody waits for are looked up at a time, and 4096 more wait. A look-up that nobody waits for any
/// more, because a [`timeout`](weald_scheduler::timeout()) or a kill has ended the wait, gives way to others. Names
/// of `/etc/hosts` and `localhost` have OS threads of their own, so they do not wait behind name servers. `localhost`
/// and names that end in `.localhost` are the loopback address, also if `/etc/hosts` does not say so (RFC 6761).
///
/// # Errors
/// `TimedOut` after 30 s; `ResourceBusy` if too many look-ups wait; `NotFound` if there is no such name. The text
/// holds what `getaddrinfo` says and the name of its code (`EAI_AGAIN`, ...). An error of the system has its number
/// ([`raw_os_error`](io::Error::raw_os_error)).
///
/// # Examples
/// ```
/// use weald::net::{Resolve, SystemResolver};
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

/// Sets the resolver of the whole process, for all of weald's calls that take a name.
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

/// Returns the addresses behind `addr`, as [`ToSocketAddrs`] does. A name is looked up without blocking a worker, by
/// the resolver of [`set_resolver`] if there is one. A blocking call.
///
/// # Examples
/// ```
/// let addrs = weald::net::resolve("localhost:80")?;
/// assert!(addrs.iter().all(|addr| addr.ip().is_loopback()));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The resolver's. `InvalidInput`: the text does not have the form `host:port`, or nothing was found.
pub fn resolve(addr: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    enter()?;
    let addrs = answer(&addr);
    // Usually the call has not waited, and a caller that only binds a socket next does not wait either.
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
        // A type of the program's own may do anything.
        Question::Unknown => weald_scheduler::blocking(|| addr.to_socket_addrs())?.collect(),
    };
    if addrs.is_empty() {
        return Err(invalid_input("could not resolve to any addresses"));
    }
    Ok(addrs)
}

/// Returns the first of the addresses. An address that is given as a number allocates nothing.
pub(crate) fn resolve_first(addr: impl ToSocketAddrs) -> io::Result<Option<SocketAddr>> {
    if question(&addr)? == Question::Numeric {
        enter()?;
        return Ok(addr.to_socket_addrs()?.next());
    }
    Ok(resolve(addr)?.into_iter().next())
}
