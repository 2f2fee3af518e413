//! Names to addresses, where that blocks no worker.
//!
//! Numeric addresses need no look-up and are read in place. A name goes to the process's
//! [`Resolve`]; that of the system asks `getaddrinfo` on an offload pool, which bounds how many
//! look-ups run and wait at a time. `localhost` and the names of the hosts file have a pool of their own,
//! so they never wait behind name servers that do not answer; but it is `getaddrinfo` that answers
//! them too, as only it knows in which order, and whether the system was told to ask others first.
//!
//! A look-up that runs is a [`Flight`]. All who ask for its name wait for it together; one whose
//! time is up or that is interrupted leaves. If all have left before the pool began, nothing is
//! asked; if it runs, it makes room for others on the pool, and whoever asks next for the name boards it.
//!
//! Rejected: a resolver of our own or hickory-resolver in place of `getaddrinfo`. It could be cancelled, and
//! would need no OS threads; but it would see other names than every other program of the
//! machine: nsswitch.conf, mDNS, systemd-resolved and LDAP are modules of the C library. And hickory stands on
//! tokio, which would be in every program that uses weald. Who wants it has [`Resolve`].
//!
//! Invariant 1: a flight is in the table from the time somebody asks until just before its result is
//! set, or until it has run for longer than [`STALE`]; so whoever finds one there will be woken by it. Nothing is
//! cached: who asks later, asks.
//! Invariant 2: how many wait for a flight is written under the table's lock. The one that leaves last
//! gives the job up, and takes the flight out of the table if the job will never run.
#![allow(
    unsafe_code,
    reason = "to tell a name from other `ToSocketAddrs`, and a function of C"
)]

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::shim::sync::{Mutex, MutexGuard};
use weald_scheduler::io::{
    Offloaded, WaitQueue, Woken, enter, is_in_hosts_file, is_localhost, lane_of, offload,
};

/// Who has asked for a name waits so long. glibc gives up by itself after 10 s for each name server that
/// does not answer, three at most (resolv.conf(5)).
const LIMIT: Duration = Duration::from_secs(30);

/// What has run for so long will hardly bring anything: who asks then begins anew.
const STALE: Duration = Duration::from_secs(60);

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
        SYSTEM.resolve(host, port)
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
                None => SYSTEM.resolve(&host, port)?,
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

fn invalid_input(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// What must be done for an address.
#[derive(Debug, PartialEq)]
enum Question {
    Name(String, u16),
    /// `to_socket_addrs` returns at once.
    Numeric,
    Unknown,
}

/// Is it one of the types whose conversion std has written? Those with a text in them may hold a
/// name, the others hold numbers.
fn question<A: ToSocketAddrs>(addr: &A) -> io::Result<Question> {
    if let Some(text) = view::<A, &str>(addr) {
        return question_of_text(text);
    }
    if let Some(text) = view::<A, &&str>(addr) {
        return question_of_text(text);
    }
    if let Some(text) = view::<A, String>(addr) {
        return question_of_text(text);
    }
    if let Some(text) = view::<A, &String>(addr) {
        return question_of_text(text);
    }
    if let Some((host, port)) = view::<A, (&str, u16)>(addr) {
        return Ok(question_of_host(host, *port));
    }
    if let Some((host, port)) = view::<A, &(&str, u16)>(addr) {
        return Ok(question_of_host(host, *port));
    }
    if let Some((host, port)) = view::<A, (String, u16)>(addr) {
        return Ok(question_of_host(host, *port));
    }
    if let Some((host, port)) = view::<A, &(String, u16)>(addr) {
        return Ok(question_of_host(host, *port));
    }
    let is_numeric = is::<A, SocketAddr>()
        || is::<A, &SocketAddr>()
        || is::<A, &[SocketAddr]>()
        || is::<A, SocketAddrV4>()
        || is::<A, SocketAddrV6>()
        || is::<A, (IpAddr, u16)>()
        || is::<A, (Ipv4Addr, u16)>()
        || is::<A, (Ipv6Addr, u16)>();
    Ok(if is_numeric {
        Question::Numeric
    } else {
        Question::Unknown
    })
}

/// As std splits it.
fn question_of_text(text: &str) -> io::Result<Question> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(Question::Numeric);
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| invalid_input("invalid socket address"))?;
    let port = port
        .parse()
        .map_err(|_| invalid_input("invalid port value"))?;
    Ok(Question::Name(host.to_owned(), port))
}

fn question_of_host(host: &str, port: u16) -> Question {
    if host.parse::<IpAddr>().is_ok() {
        Question::Numeric
    } else {
        Question::Name(host.to_owned(), port)
    }
}

/// Are they one type, but for lifetimes?
fn is<A, B: 'static>() -> bool {
    id::<A>() == TypeId::of::<B>()
}

/// The identity of a type with its lifetimes taken for `'static`.
fn id<A>() -> TypeId {
    trait Id {
        fn id(&self) -> TypeId
        where
            Self: 'static;
    }
    impl<T> Id for PhantomData<T> {
        fn id(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }
    let phantom = PhantomData::<A>;
    let phantom: &dyn Id = &phantom;
    // SAFETY: the method touches nothing that has a lifetime; `Self: 'static` only keeps
    // `TypeId::of` from being asked for types that differ in lifetimes alone, and here those are
    // meant to be the same.
    let phantom = unsafe { std::mem::transmute::<&dyn Id, &(dyn Id + 'static)>(phantom) };
    phantom.id()
}

/// The value as a `B`, if it is one but for lifetimes. Those that `B` names are wrong: the caller
/// must let nothing of it outlive `value`.
fn view<A, B: 'static>(value: &A) -> Option<&B> {
    // SAFETY: the types differ in lifetimes only, so in nothing that is there; and the callers, all
    // in `question`, copy what they see.
    is::<A, B>().then(|| unsafe { &*std::ptr::from_ref(value).cast::<B>() })
}

/// Asks the system; blocks the OS thread.
fn ask_system(host: &str) -> io::Result<Vec<SocketAddr>> {
    if is_localhost(host) && !is_in_hosts_file(host) {
        return Ok(loopback());
    }
    let name = CString::new(host).map_err(|_| invalid_input("a host's name has a NUL in it"))?;
    // SAFETY: all zeros is a valid `addrinfo`.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    // As std asks: each address once.
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = std::ptr::null_mut();
    // SAFETY: the strings and the hints live over the call, and there is room for a pointer.
    let code = unsafe {
        libc::getaddrinfo(
            name.as_ptr(),
            std::ptr::null(),
            &raw const hints,
            &raw mut list,
        )
    };
    if code != 0 {
        return Err(refusal(host, code, io::Error::last_os_error()));
    }
    let mut addrs = Vec::new();
    let mut next = list;
    // SAFETY: a list of `getaddrinfo` ends with null, and lives until it is freed below.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: the address is of the family and length that the entry says.
        addrs.extend(unsafe { address_of(entry) });
        next = entry.ai_next;
    }
    // SAFETY: it came from `getaddrinfo`, and nothing of it was kept.
    unsafe { libc::freeaddrinfo(list) };
    Ok(addrs)
}

/// # Safety
/// The entry is one of `getaddrinfo`'s.
unsafe fn address_of(entry: &libc::addrinfo) -> Option<SocketAddr> {
    // SAFETY: the storage has room for any address, and the entry says how long this one is.
    let ((), address) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            let bytes = entry.ai_addrlen as usize;
            std::ptr::copy_nonoverlapping(
                entry.ai_addr.cast::<u8>(),
                storage.cast::<u8>(),
                bytes.min(size_of::<libc::sockaddr_storage>()),
            );
            *length = entry.ai_addrlen;
            Ok(())
        })
    }
    .ok()?;
    address.as_socket()
}

/// What `localhost` is where the system does not know: the families that there are.
fn loopback() -> Vec<SocketAddr> {
    let all = [
        IpAddr::from(Ipv6Addr::LOCALHOST),
        Ipv4Addr::LOCALHOST.into(),
    ];
    let is_there = |addr: &SocketAddr| std::net::UdpSocket::bind(addr).is_ok();
    let mut addrs: Vec<_> = all.map(|ip| SocketAddr::new(ip, 0)).into();
    addrs.retain(is_there);
    addrs
}

/// What `getaddrinfo` has answered; `errno` is as it was left.
fn refusal(host: &str, code: libc::c_int, errno: io::Error) -> io::Error {
    let (kind, name) = match code {
        libc::EAI_SYSTEM => return errno,
        libc::EAI_NONAME => (io::ErrorKind::NotFound, "EAI_NONAME"),
        libc::EAI_AGAIN => (io::ErrorKind::Other, "EAI_AGAIN"),
        libc::EAI_FAIL => (io::ErrorKind::Other, "EAI_FAIL"),
        libc::EAI_MEMORY => (io::ErrorKind::OutOfMemory, "EAI_MEMORY"),
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        libc::EAI_NODATA => (io::ErrorKind::NotFound, "EAI_NODATA"),
        _ => (io::ErrorKind::Other, "EAI"),
    };
    // SAFETY: the text is a constant of the C library's.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy();
    io::Error::new(
        kind,
        format!("failed to look up {host:?}: {text} ({name}, {code})"),
    )
}

static SYSTEM: Flights = Flights::new(ask_system);

/// The look-ups that run.
struct Flights {
    ask: fn(&str) -> io::Result<Vec<SocketAddr>>,
    table: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    flight: Arc<Flight>,
    job: Offloaded,
    /// Who waits for it.
    aboard: usize,
}

struct Flight {
    /// Set when the job begins: a job that waits for its turn is never stale.
    began: OnceLock<Instant>,
    landed: OnceLock<Result<Vec<SocketAddr>, Failure>>,
    waiters: WaitQueue,
}

impl Flight {
    fn is_stale(&self) -> bool {
        let began = self.began.get();
        began.is_some_and(|began| began.elapsed() >= STALE)
    }
}

/// Somebody waits for a flight.
struct Seat<'a> {
    flights: &'a Flights,
    host: &'a str,
    flight: Arc<Flight>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut table = self.flights.table();
        let Some(entry) = table.get_mut(self.host) else {
            return;
        };
        if !Arc::ptr_eq(&entry.flight, &self.flight) {
            return;
        }
        entry.aboard -= 1;
        if entry.aboard == 0 && entry.job.give_up() {
            // It will never run.
            table.remove(self.host);
        }
    }
}

impl Flights {
    const fn new(ask: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        Self {
            ask,
            table: Mutex::new(BTreeMap::new()),
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the flight of this name, and starts it if there is none.
    fn resolve(&'static self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.resolve_within(LIMIT, host, port)
    }

    fn resolve_within(
        &'static self,
        limit: Duration,
        host: &str,
        port: u16,
    ) -> io::Result<Vec<SocketAddr>> {
        let deadline = weald_scheduler::io::deadline(limit);
        let seat = self.board(host)?;
        let flight = &*seat.flight;
        loop {
            if let Some(landed) = flight.landed.get() {
                let mut addrs = landed.clone().map_err(Failure::into_io)?;
                for addr in &mut addrs {
                    addr.set_port(port);
                }
                return Ok(addrs);
            }
            let has_landed = || flight.landed.get().is_some();
            match flight.waiters.wait(has_landed, deadline, true) {
                Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
                Woken::TimedOut if !has_landed() => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("failed to look up {host:?}: no answer within {limit:?}"),
                    ));
                }
                Woken::TimedOut | Woken::Notified | Woken::Ready | Woken::Again => {}
            }
        }
    }

    fn board<'a>(&'static self, host: &'a str) -> io::Result<Seat<'a>> {
        // Before the lock, as it may look into a file.
        let lane = lane_of(host);
        let seat = |flight: &Arc<Flight>| Seat {
            flights: self,
            host,
            flight: Arc::clone(flight),
        };
        let mut table = self.table();
        if let Some(entry) = table.get_mut(host)
            && !entry.flight.is_stale()
        {
            if entry.aboard == 0 {
                entry.job.want_again();
            }
            entry.aboard += 1;
            return Ok(seat(&entry.flight));
        }
        let flight = Arc::new(Flight {
            began: OnceLock::new(),
            landed: OnceLock::new(),
            waiters: WaitQueue::new(),
        });
        let (name, flown) = (host.to_owned(), Arc::clone(&flight));
        let entry = Entry {
            job: offload(lane, move || self.fly(&name, &flown))?,
            flight,
            aboard: 1,
        };
        let seat = seat(&entry.flight);
        let stale = table.insert(host.to_owned(), entry);
        drop(table);
        drop(stale);
        Ok(seat)
    }

    /// The job on the pool.
    fn fly(&self, host: &str, flight: &Arc<Flight>) {
        let set = flight.began.set(Instant::now());
        debug_assert!(set.is_ok(), "a flight begins once");
        let landed = (self.ask)(host).map_err(Failure::new);
        let mut table = self.table();
        let is_this = |entry: &Entry| Arc::ptr_eq(&entry.flight, flight);
        let entry = if table.get(host).is_some_and(is_this) {
            table.remove(host)
        } else {
            None
        };
        drop(table);
        drop(entry);
        let set = flight.landed.set(landed);
        debug_assert!(set.is_ok(), "a flight lands once");
        flight.waiters.wake_all();
    }
}

/// An error that several are told of.
#[derive(Clone, Debug)]
enum Failure {
    /// The system's number says it all.
    System(i32),
    Other(Arc<io::Error>),
}

impl Failure {
    fn new(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::System(number),
            None => Self::Other(Arc::new(error)),
        }
    }

    fn into_io(self) -> io::Error {
        match self {
            Self::System(number) => io::Error::from_raw_os_error(number),
            Self::Other(ref error) => io::Error::new(error.kind(), self),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(number) => io::Error::from_raw_os_error(*number).fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(_) => None,
            Self::Other(error) => error.source(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#[allow(
    clippy::needless_borrows_for_generic_args,
    reason = "references are types of their own here"
)]
mod tests {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use weald_scheduler::Runtime;

    use super::{Flights, Question, question};

    fn check_name(addr: impl ToSocketAddrs, host: &str) {
        let expected = Question::Name(host.to_owned(), 80);
        assert_eq!(question(&addr).unwrap(), expected);
    }

    fn check_is(addr: impl ToSocketAddrs, expected: &Question) {
        assert_eq!(question(&addr).unwrap(), *expected);
    }

    #[test]
    fn names_are_told_from_numbers_in_every_type_that_std_converts() {
        let owned = String::from("a.example:80");
        check_name("a.example:80", "a.example");
        check_name(owned.as_str(), "a.example");
        check_name(&&*owned, "a.example");
        check_name(&owned, "a.example");
        check_name(owned.clone(), "a.example");
        let host = String::from("a.example");
        check_name((host.as_str(), 80), "a.example");
        check_name(&(host.as_str(), 80), "a.example");
        check_name(&(host.clone(), 80), "a.example");
        check_name((host, 80), "a.example");

        let addr: SocketAddr = "[::1]:80".parse().unwrap();
        let list = [addr; 2];
        let numeric = &Question::Numeric;
        check_is("127.0.0.1:80", numeric);
        check_is("[::1]:80", numeric);
        check_is(("::1", 80), numeric);
        check_is(addr, numeric);
        check_is(&addr, numeric);
        check_is(&list[..], numeric);
        check_is((IpAddr::from([127, 0, 0, 1]), 80), numeric);
        check_is((Ipv4Addr::LOCALHOST, 80), numeric);
        check_is((Ipv6Addr::LOCALHOST, 80), numeric);
        for wrong in [
            "a.example",
            "a.example:",
            "a.example:http",
            "a.example:70000",
        ] {
            let error = question(&wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let std = wrong.to_socket_addrs().unwrap_err();
            assert_eq!(error.to_string(), std.to_string(), "as std has it");
        }
    }

    #[test]
    fn another_type_is_asked_where_it_may_block() {
        struct Own;
        impl ToSocketAddrs for Own {
            type Iter = std::option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                Ok(Some("127.0.0.1:9".parse().unwrap()).into_iter())
            }
        }
        check_is(Own, &Question::Unknown);
        let addrs = super::resolve(Own).unwrap();
        assert_eq!(addrs, ["127.0.0.1:9".parse().unwrap()]);
    }

    /// A resolver that answers when it is told to.
    static OPEN: Mutex<bool> = Mutex::new(false);
    static OPENS: Condvar = Condvar::new();
    static ASKED: AtomicUsize = AtomicUsize::new(0);

    fn ask_slowly(host: &str) -> io::Result<Vec<SocketAddr>> {
        ASKED.fetch_add(1, SeqCst);
        drop(
            OPENS
                .wait_while(OPEN.lock().unwrap(), |open| !*open)
                .unwrap(),
        );
        if host == "none.example" {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such name"));
        }
        Ok(vec!["192.0.2.1:0".parse().unwrap()])
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn one_look_up_serves_all_who_ask_and_those_whose_time_is_up_leave() {
        static SLOW: Flights = Flights::new(ask_slowly);
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(|| {
            weald_scheduler::scope(|s| {
                let limit = Duration::from_millis(5);
                let late = weald_scheduler::timeout(limit, || SLOW.resolve("a.example", 1));
                assert!(late.is_err(), "it left");
                let asking: Vec<_> = (0..20)
                    .map(|port| s.spawn(move || SLOW.resolve("a.example", port).unwrap()))
                    .collect();
                let failing: Vec<_> = (0..2)
                    .map(|_| s.spawn(|| SLOW.resolve("none.example", 1).unwrap_err()))
                    .collect();
                while ASKED.load(SeqCst) < 2 {
                    weald_scheduler::sleep(Duration::from_millis(1));
                }
                let aboard = || -> usize { SLOW.table().values().map(|entry| entry.aboard).sum() };
                while aboard() < 22 {
                    weald_scheduler::sleep(Duration::from_millis(1));
                }
                *OPEN.lock().unwrap() = true;
                OPENS.notify_all();
                for (port, asked) in (0..).zip(asking) {
                    let addr = SocketAddr::from(([192, 0, 2, 1], port));
                    assert_eq!(asked.join().unwrap(), [addr]);
                }
                for failed in failing {
                    let error = failed.join().unwrap();
                    assert_eq!(error.kind(), io::ErrorKind::NotFound);
                    assert_eq!(error.to_string(), "no such name");
                }
            });
            assert_eq!(ASKED.load(SeqCst), 2, "each name was asked for once");
            assert!(SLOW.table().is_empty());
            // Nothing is kept.
            SLOW.resolve("a.example", 1).unwrap();
            assert_eq!(ASKED.load(SeqCst), 3);
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn a_look_up_has_a_deadline_and_is_boarded_again_while_it_runs() {
        static GATE: Mutex<bool> = Mutex::new(false);
        static GOES: Condvar = Condvar::new();
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        fn ask(_: &str) -> io::Result<Vec<SocketAddr>> {
            COUNT.fetch_add(1, SeqCst);
            drop(
                GOES.wait_while(GATE.lock().unwrap(), |open| !*open)
                    .unwrap(),
            );
            Err(io::Error::from_raw_os_error(libc::ENETDOWN))
        }
        static NAMES: Flights = Flights::new(ask);
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(|| {
            while COUNT.load(SeqCst) == 0 {
                let limit = Duration::from_millis(5);
                let error = NAMES.resolve_within(limit, "mute.example", 1).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                assert!(error.to_string().contains("mute.example"), "{error}");
            }
            weald_scheduler::scope(|s| {
                let again = s.spawn(|| NAMES.resolve("mute.example", 1).unwrap_err());
                while !NAMES.table().values().any(|entry| entry.aboard == 1) {
                    weald_scheduler::sleep(Duration::from_millis(1));
                }
                *GATE.lock().unwrap() = true;
                GOES.notify_all();
                let error = again.join().unwrap();
                assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
            });
            assert_eq!(COUNT.load(SeqCst), 1, "it was asked once");
            assert!(NAMES.table().is_empty());
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no gai_strerror")]
    fn the_systems_answer_is_kept_with_its_number() {
        let errno = || io::Error::from_raw_os_error(libc::EMFILE);
        let error = super::refusal("a.example", libc::EAI_SYSTEM, errno());
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        let error = super::refusal("a.example", libc::EAI_AGAIN, errno());
        assert!(error.to_string().contains("a.example"), "{error}");
        assert!(error.to_string().contains("EAI_AGAIN"), "{error}");
        let error = super::refusal("a.example", libc::EAI_NONAME, errno());
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no datagram sockets")]
    fn localhost_is_the_loopback_also_where_the_system_does_not_know_it() {
        for name in ["localhost", "weald.localhost"] {
            let addrs = super::ask_system(name).unwrap();
            assert!(!addrs.is_empty());
            assert!(
                addrs.iter().all(|addr| addr.ip().is_loopback()),
                "{addrs:?}"
            );
        }
    }
}
