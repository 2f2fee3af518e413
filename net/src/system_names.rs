//! Names that the system looks up: `getaddrinfo`, on the offload pool.
//!
//! A name that several threads ask for at the same time is looked up once ([`Flights`]).
#![allow(unsafe_code, reason = "a function of C")]

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weald_scheduler::io::{Flights, Woken, is_in_hosts_file, is_localhost, lane_of};

use crate::question::invalid_input;

/// How long a caller waits for a name. glibc gives up by itself after 10 s for each name server that does not answer,
/// and asks three at most (resolv.conf(5)).
const LIMIT: Duration = Duration::from_secs(30);

/// The addresses of a name, without a port.
type Answer = Result<Vec<SocketAddr>, Failure>;

static SYSTEM: Flights<String, Answer> = Flights::new();

/// Waits for the system's look-up of this name. A blocking call; its caller has looked for exceptions.
pub(crate) fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    look_up_by(&SYSTEM, ask_system, LIMIT, host, port)
}

fn look_up_by(
    flights: &'static Flights<String, Answer>,
    ask: fn(&str) -> io::Result<Vec<SocketAddr>>,
    limit: Duration,
    host: &str,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    let deadline = weald_scheduler::io::deadline(limit);
    let ask = move |host: &String| ask(host).map_err(Failure::new);
    let passenger = flights.board(host.to_owned(), lane_of(host), ask)?;
    loop {
        if let Some(landed) = passenger.landed() {
            let mut addrs = landed.clone().map_err(Failure::into_io)?;
            for addr in &mut addrs {
                addr.set_port(port);
            }
            return Ok(addrs);
        }
        let has_landed = || passenger.landed().is_some();
        match passenger.waiters().wait(has_landed, deadline, true) {
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

/// Asks the system. Blocks the OS thread.
fn ask_system(host: &str) -> io::Result<Vec<SocketAddr>> {
    if is_localhost(host) && !is_in_hosts_file(host) {
        return Ok(loopback());
    }
    let name = CString::new(host).map_err(|_| invalid_input("a host's name has a NUL in it"))?;
    // SAFETY: all zeros is a valid `addrinfo`.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    // std asks the same: each address comes once.
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

/// Returns the addresses of `localhost` if the system does not know them: one for each family that exists.
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

/// Returns the error for an answer of `getaddrinfo`; `errno` is as the call left it.
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

/// An error that several callers get.
#[derive(Clone, Debug)]
enum Failure {
    /// The system's number tells all.
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
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use weald_scheduler::Runtime;
    use weald_scheduler::io::Flights;

    use super::{Answer, LIMIT, look_up_by};

    /// A resolver that answers when the test tells it to.
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
        static SLOW: Flights<String, Answer> = Flights::new();
        let resolve = |host, port| look_up_by(&SLOW, ask_slowly, LIMIT, host, port);
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(|| {
            weald_scheduler::scope(|s| {
                let limit = Duration::from_millis(5);
                let late = weald_scheduler::timeout(limit, || resolve("a.example", 1));
                assert!(late.is_err(), "it left");
                let asking: Vec<_> = (0..20)
                    .map(|port| s.spawn(move || resolve("a.example", port).unwrap()))
                    .collect();
                let failing: Vec<_> = (0..2)
                    .map(|_| s.spawn(|| resolve("none.example", 1).unwrap_err()))
                    .collect();
                while ASKED.load(SeqCst) < 2 {
                    weald_scheduler::sleep(Duration::from_millis(1));
                }
                while SLOW.aboard() < 22 {
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
            assert!(SLOW.is_empty());
            // Nothing is kept between look-ups.
            resolve("a.example", 1).unwrap();
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
        static NAMES: Flights<String, Answer> = Flights::new();
        let resolve = |limit| look_up_by(&NAMES, ask, limit, "mute.example", 1);
        let rt = Runtime::builder().workers(2).build().unwrap();
        rt.run(|| {
            while COUNT.load(SeqCst) == 0 {
                let limit = Duration::from_millis(5);
                let error = resolve(limit).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                assert!(error.to_string().contains("mute.example"), "{error}");
            }
            weald_scheduler::scope(|s| {
                let again = s.spawn(|| resolve(LIMIT).unwrap_err());
                while NAMES.aboard() < 1 {
                    weald_scheduler::sleep(Duration::from_millis(1));
                }
                *GATE.lock().unwrap() = true;
                GOES.notify_all();
                let error = again.join().unwrap();
                assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
            });
            assert_eq!(COUNT.load(SeqCst), 1, "it was asked once");
            assert!(NAMES.is_empty());
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
