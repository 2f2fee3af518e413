//! A waiting call uses no CPU, whatever state its descriptor is in: the calls that the table of `quiet_waits.rs` does
//! not have. The test is a program of its own, as it measures the process.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "constants and sizes of libc, in the types that its records have"
)]

mod support;

use std::any::Any;
use std::ffi::CString;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many threads wait for one descriptor.
const WAITERS: usize = 16;

/// A descriptor in a state, with what keeps it there.
struct Place {
    fd: RawFd,
    other: RawFd,
    path: CString,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl Place {
    fn new(
        file: impl AsRawFd + Send + Sync + 'static,
        kept: Vec<Box<dyn Any + Send + Sync>>,
    ) -> Self {
        let fd = file.as_raw_fd();
        let mut kept = kept;
        kept.push(Box::new(file));
        Self {
            fd,
            other: -1,
            path: CString::default(),
            kept,
        }
    }
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Writes until there has been no room for a while: the kernel may make some room while it moves what was sent.
fn fill(socket: &impl AsRawFd, write: impl Fn(&[u8]) -> std::io::Result<usize>) {
    let set_nonblocking = |on: bool| {
        let on = libc::c_int::from(on);
        // SAFETY: a pointer to a local.
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONBIO, &raw const on) }
    };
    set_nonblocking(true);
    let mut refused = 0;
    while refused < 20 {
        if write(&[7; 4096]).is_err() {
            refused += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    set_nonblocking(false);
}

fn tcp_full(half_closed: bool) -> Place {
    let (client, server) = tcp();
    if half_closed {
        client.shutdown(Shutdown::Write).unwrap();
    }
    fill(&server, |bytes| (&server).write(bytes));
    Place::new(server, vec![Box::new(client)])
}

fn few_bytes(low: libc::c_int) -> Place {
    let (mut client, server) = tcp();
    let value = (&raw const low).cast();
    // SAFETY: a pointer to a local of the size that it says.
    unsafe {
        libc::setsockopt(
            server.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            value,
            4,
        )
    };
    client.write_all(b"abc").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    Place::new(server, vec![Box::new(client)])
}

fn scratch(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("weald-idle-{}-{name}", std::process::id()))
}

fn path_of(name: &str) -> CString {
    let path = scratch(name);
    let _ = std::fs::remove_file(&path);
    CString::new(path.to_str().unwrap()).unwrap()
}

fn pipe(full: bool) -> Place {
    let (reader, writer) = std::io::pipe().unwrap();
    if full {
        fill(&writer, |bytes| (&writer).write(bytes));
    }
    let mut place = Place::new(reader, Vec::new());
    place.other = writer.as_raw_fd();
    place.kept.push(Box::new(writer));
    place
}

fn owned(fd: RawFd) -> Place {
    assert!(fd >= 0);
    // SAFETY: it is new.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    Place::new(owned, Vec::new())
}

fn locked_file() -> Place {
    let path = path_of("locked");
    let file = std::fs::File::create(path.to_str().unwrap()).unwrap();
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
    // SAFETY: all zeros is a valid lock; a pointer to a local.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as _;
        assert_eq!(
            libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock),
            0
        );
    }
    let mut place = Place::new(file, Vec::new());
    place.path = path;
    place
}

fn fifo() -> Place {
    let path = path_of("fifo");
    // SAFETY: a string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut place = Place::new(std::io::stdin(), Vec::new());
    place.path = path;
    place
}

type Make = fn() -> Place;
type Call = fn(&Place) -> i64;

static mut BYTES: [u8; 1 << 20] = [0; 1 << 20];

fn bytes() -> *mut libc::c_void {
    (&raw mut BYTES).cast()
}

fn recv(place: &Place) -> i64 {
    // SAFETY: a buffer of that size.
    unsafe { libc::recv(place.fd, bytes(), 100, 0) as i64 }
}

fn read(place: &Place) -> i64 {
    // SAFETY: a buffer of that size.
    unsafe { libc::read(place.fd, bytes(), 1024) as i64 }
}

const ROWS: &[(&str, Make, Call)] = &[
    (
        "sendfile, full and half-closed",
        || {
            let mut place = tcp_full(true);
            let file = std::fs::File::open("/proc/self/exe").unwrap();
            place.other = file.as_raw_fd();
            place.kept.push(Box::new(file));
            place
        },
        |p| {
            let mut at = 0;
            // SAFETY: a pointer to a local.
            unsafe { libc::sendfile(p.fd, p.other, &raw mut at, 1 << 16) as i64 }
        },
    ),
    ("recv, below the low-water mark", || few_bytes(10), recv),
    (
        "peek at more than there is",
        || few_bytes(1),
        |p| {
            // SAFETY: a buffer of that size.
            unsafe { libc::recv(p.fd, bytes(), 10, libc::MSG_PEEK | libc::MSG_WAITALL) as i64 }
        },
    ),
    (
        "splice, empty pipe",
        || {
            let (mut place, (near, far)) = (pipe(false), UnixStream::pair().unwrap());
            place.other = near.as_raw_fd();
            place.kept.push(Box::new((near, far)));
            place
        },
        |p| {
            // SAFETY: no offsets.
            unsafe { libc::splice(p.fd, ptr::null_mut(), p.other, ptr::null_mut(), 9, 0) as i64 }
        },
    ),
    (
        "read, timerfd",
        || {
            // SAFETY: no pointers.
            owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) })
        },
        read,
    ),
    (
        "read, inotify",
        || {
            // SAFETY: no pointers.
            owned(unsafe { libc::inotify_init1(0) })
        },
        read,
    ),
    (
        "epoll_wait, empty",
        || {
            // SAFETY: no pointers.
            owned(unsafe { libc::epoll_create1(0) })
        },
        |p| {
            // SAFETY: room for one.
            unsafe {
                let mut event: libc::epoll_event = std::mem::zeroed();
                libc::epoll_wait(p.fd, &raw mut event, 1, -1).into()
            }
        },
    ),
    ("flock", locked_file, |p| {
        // SAFETY: a string; no pointers.
        unsafe {
            let fd = libc::open(p.path.as_ptr(), libc::O_WRONLY);
            let result = libc::flock(fd, libc::LOCK_EX);
            libc::close(fd);
            result.into()
        }
    }),
    ("fcntl to lock", locked_file, |p| {
        // SAFETY: a string; a pointer to a local.
        unsafe {
            let fd = libc::open(p.path.as_ptr(), libc::O_WRONLY);
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = libc::F_WRLCK as _;
            let result = libc::fcntl(fd, libc::F_OFD_SETLKW, &raw mut lock);
            libc::close(fd);
            result.into()
        }
    }),
    ("open of a FIFO to read", fifo, |p| {
        // SAFETY: a string.
        unsafe { libc::open(p.path.as_ptr(), libc::O_RDONLY) }.into()
    }),
    ("open of a FIFO to write", fifo, |p| {
        // SAFETY: a string.
        unsafe { libc::open(p.path.as_ptr(), libc::O_WRONLY) }.into()
    }),
];

#[test]
fn waiters_use_no_cpu_whatever_state_their_descriptor_is_in() {
    let only = std::env::var("WEALD_QUIET_ROW").ok();
    let mut wrong = Vec::new();
    for (name, make, call) in ROWS {
        if only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        let rt = support::runtime(1);
        let place = Arc::new(make());
        let (begun, back) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..WAITERS)
            .map(|_| {
                let (place, begun, back) = (place.clone(), begun.clone(), back.clone());
                rt.spawn(move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    let answer = call(&place);
                    let error = std::io::Error::last_os_error();
                    back.fetch_add(1, Ordering::SeqCst);
                    (answer, error)
                })
            })
            .collect();
        while begun.load(Ordering::SeqCst) < WAITERS {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(50));
        let share = support::share_of(4);
        let returned = back.load(Ordering::SeqCst);
        println!(
            "{name}: {:.2} % of a core, {returned} came back",
            share * 100.0
        );
        if share >= support::SHARE || returned > 0 {
            wrong.push(format!(
                "{name}: {:.1} % of a core, {returned} came back",
                share * 100.0
            ));
        }
        // An exception ends each of these calls.
        for thread in &threads {
            thread.thread().kill();
        }
        let limit = Instant::now() + Duration::from_secs(5);
        for thread in threads {
            while !thread.is_finished() && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                wrong.push(format!("{name}: kill does not end it"));
                break;
            }
            assert!(
                thread.join().is_err(),
                "{name}: a killed thread has no result"
            );
        }
        drop(rt);
    }
    for name in ["datagrams", "listener", "locked", "fifo"] {
        let _ = std::fs::remove_file(scratch(name));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
