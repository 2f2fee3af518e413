//! What the kernel reports again and again keeps nobody busy: each kind of descriptor, in each state, with each call of weald's that
//! waits for it. A call that an OS thread would wait in waits here too, without the processor; any other gives what libc's gives.

#![cfg(target_os = "linux")]
#![allow(
    unsafe_code,
    reason = "descriptors in states that only system calls bring about"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::enum_glob_use,
    clippy::too_many_lines,
    reason = "the table reads well with short names, and is long"
)]

#[path = "it/support.rs"]
mod support;

use std::any::Any;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net as unix;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use support::{MODES, MS, in_child, runtime};
use weald::net::unix::{UnixDatagram, UnixListener, UnixStream};
use weald::net::{Fd, PollFd, TcpListener, TcpStream, UdpSocket};

/// So long nothing happens to a call that waits.
const WAITS: Duration = Duration::from_millis(150);

/// So many wait on each descriptor.
const WAITERS: usize = 10;

/// They may use so much of a core, all together.
const PERCENT: u32 = if cfg!(debug_assertions) { 4 } else { 2 };

/// A descriptor, and what must stay open beside it.
type Made = (OwnedFd, Box<dyn Any + Send + Sync>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    TcpListener,
    Udp,
    Unix,
    UnixListener,
    Datagram,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    /// To the place that the state has filled.
    SendTo,
    /// To the listener whose queue the state has filled.
    Connect,
    Accept,
    Readable,
    Writable,
    /// poll(2), with `select`'s urgent data, and with nothing asked.
    PollIn,
    PollOut,
    PollPri,
    PollNothing,
}
use Call::*;

enum Green {
    Tcp(TcpStream),
    TcpListener(TcpListener),
    Udp(UdpSocket),
    Unix(UnixStream),
    UnixListener(UnixListener),
    Datagram(UnixDatagram),
    Any(Fd<OwnedFd>),
}

impl Green {
    fn new(kind: Kind, fd: OwnedFd) -> Self {
        match kind {
            Kind::Tcp => Self::Tcp(fd.into()),
            Kind::TcpListener => Self::TcpListener(fd.into()),
            Kind::Udp => Self::Udp(fd.into()),
            Kind::Unix => Self::Unix(fd.into()),
            Kind::UnixListener => Self::UnixListener(fd.into()),
            Kind::Datagram => Self::Datagram(fd.into()),
            Kind::Any => Self::Any(Fd::new(fd)),
        }
    }

    fn polled(&self, events: i16) -> io::Result<usize> {
        let fd: &dyn std::os::fd::AsFd = match self {
            Self::Tcp(one) => one,
            Self::TcpListener(one) => one,
            Self::Udp(one) => one,
            Self::Unix(one) => one,
            Self::UnixListener(one) => one,
            Self::Datagram(one) => one,
            Self::Any(one) => one,
        };
        let mut fds = [PollFd::new(fd, events)];
        weald::net::poll(&mut fds, None)?;
        Ok(usize::try_from(fds[0].revents()).unwrap())
    }

    fn call(&self, call: Call, place: &std::path::Path) -> io::Result<usize> {
        match (call, self) {
            (Read, Self::Tcp(one)) => (&*one).read(&mut [0; 8]),
            (Read, Self::Udp(one)) => one.recv(&mut [0; 8]),
            (Read, Self::Unix(one)) => (&*one).read(&mut [0; 8]),
            (Read, Self::Datagram(one)) => one.recv(&mut [0; 8]),
            (Read, Self::Any(one)) => (&*one).read(&mut [0; 8]),
            (Write, Self::Tcp(one)) => (&*one).write(b"!"),
            (Write, Self::Udp(one)) => one.send(b"!"),
            (Write, Self::Unix(one)) => (&*one).write(b"!"),
            (Write, Self::Datagram(one)) => one.send(b"!"),
            (Write, Self::Any(one)) => (&*one).write(&1_u64.to_ne_bytes()),
            (SendTo, Self::Datagram(one)) => one.send_to(b"!", place),
            (Connect, _) => UnixStream::connect(place).map(|_| 0),
            (Accept, Self::TcpListener(one)) => one.accept().map(|_| 0),
            (Accept, Self::UnixListener(one)) => one.accept().map(|_| 0),
            (Readable, Self::Any(one)) => one.readable().map(|()| 0),
            (Writable, Self::Any(one)) => one.writable().map(|()| 0),
            (Readable, Self::Tcp(one)) => {
                weald::select(&[one], &[], &[], None).map(|told| told.read.len())
            }
            (Writable, Self::Tcp(one)) => {
                weald::select! { writable(one) -> told => told.map(|()| 1) }
            }
            (PollIn, _) => self.polled(PollFd::IN),
            (PollOut, _) => self.polled(PollFd::OUT),
            (PollPri, _) => self.polled(PollFd::PRI),
            (PollNothing, _) => self.polled(0),
            (call, _) => unreachable!("{call:?} is not a call of this kind"),
        }
    }
}

fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// What libc does, blocking.
fn plain(fd: &OwnedFd, kind: Kind, call: Call, place: &std::path::Path) -> io::Result<usize> {
    let number = fd.as_raw_fd();
    let polled = |events| {
        let mut one = libc::pollfd {
            fd: number,
            events,
            revents: 0,
        };
        // SAFETY: one live entry.
        length(unsafe { libc::poll(&raw mut one, 1, -1) } as isize)?;
        Ok(usize::try_from(one.revents).unwrap())
    };
    let mut buffer = [0_u8; 8];
    let one = 1_u64.to_ne_bytes();
    match call {
        Read if kind == Kind::Any => {
            // SAFETY: the buffer is live.
            length(unsafe { libc::read(number, buffer.as_mut_ptr().cast(), 8) })
        }
        Read => {
            // SAFETY: the buffer is live.
            length(unsafe { libc::recv(number, buffer.as_mut_ptr().cast(), 8, 0) })
        }
        Write if kind == Kind::Any => {
            // SAFETY: the buffer is live.
            length(unsafe { libc::write(number, one.as_ptr().cast(), 8) })
        }
        Write => {
            let bytes = one.as_ptr().cast();
            // SAFETY: the buffer is live.
            length(unsafe { libc::send(number, bytes, 1, libc::MSG_NOSIGNAL) })
        }
        SendTo => unix::UnixDatagram::from(fd.try_clone().unwrap()).send_to(b"!", place),
        Connect => unix::UnixStream::connect(place).map(|_| 0),
        Accept => {
            let nobody: *mut libc::c_void = std::ptr::null_mut();
            // SAFETY: no address is asked for.
            let got =
                length(unsafe { libc::accept(number, nobody.cast(), nobody.cast()) } as isize);
            got.map(|_| 0)
        }
        Readable => polled(libc::POLLIN).map(|_| usize::from(kind == Kind::Tcp)),
        Writable => polled(libc::POLLOUT).map(|_| usize::from(kind == Kind::Tcp)),
        PollIn => polled(libc::POLLIN),
        PollOut => polled(libc::POLLOUT),
        PollPri => polled(libc::POLLPRI),
        PollNothing => polled(0),
    }
}

/// A row of the table.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    kind: Kind,
    make: fn(&std::path::Path) -> Made,
    calls: &'static [Call],
}

const STREAM: &[Call] = &[Read, Write, PollIn, PollOut, PollPri, PollNothing];

fn rows() -> Vec<Row> {
    let row = |name, kind, make, calls| Row {
        name,
        kind,
        make,
        calls,
    };
    vec![
        row("tcp, idle", Kind::Tcp, |_| tcp(|_, _| ()), STREAM),
        row(
            "tcp, full",
            Kind::Tcp,
            |_| tcp(|near, _| fill(near)),
            STREAM,
        ),
        row(
            "tcp, full, the peer has half-closed",
            Kind::Tcp,
            |_| {
                tcp(|near, far| {
                    shut(far, libc::SHUT_WR);
                    fill(near);
                })
            },
            &[Read, Write, PollIn, PollOut, PollPri, Readable, Writable],
        ),
        row(
            "tcp, half-closed here, the peer still sends",
            Kind::Tcp,
            |_| tcp(|near, _| shut(near, libc::SHUT_WR)),
            STREAM,
        ),
        row(
            "tcp, shut for reading",
            Kind::Tcp,
            |_| tcp(|near, _| shut(near, libc::SHUT_RD)),
            STREAM,
        ),
        row(
            "tcp, an urgent byte",
            Kind::Tcp,
            |_| tcp(|_, far| urge(far)),
            STREAM,
        ),
        row(
            "tcp, an urgent byte and full",
            Kind::Tcp,
            |_| {
                tcp(|near, far| {
                    urge(far);
                    fill(near);
                })
            },
            STREAM,
        ),
        row("tcp, reset", Kind::Tcp, |_| tcp_reset(), STREAM),
        row(
            "tcp listener, idle",
            Kind::TcpListener,
            |_| tcp_listener(false),
            &[Accept, PollIn, PollOut, PollNothing],
        ),
        row(
            "tcp listener, shut",
            Kind::TcpListener,
            |_| tcp_listener(true),
            &[Accept],
        ),
        row(
            "a stream as a listener",
            Kind::TcpListener,
            |_| tcp(|_, _| ()),
            &[Accept],
        ),
        row(
            "udp as a listener",
            Kind::TcpListener,
            |_| udp(false),
            &[Accept],
        ),
        row(
            "udp, idle",
            Kind::Udp,
            |_| udp(false),
            &[Read, PollIn, PollPri, PollNothing],
        ),
        row(
            "udp, shut for reading",
            Kind::Udp,
            |_| udp(true),
            &[Read, PollIn, PollNothing],
        ),
        row(
            "udp, an error in the queue",
            Kind::Udp,
            |_| udp_error(true),
            &[Read, PollIn, PollOut, PollPri, PollNothing],
        ),
        row(
            "udp, an error to be told",
            Kind::Udp,
            |_| udp_error(false),
            &[Read],
        ),
        row(
            "unix, idle",
            Kind::Unix,
            |_| pair(libc::SOCK_STREAM, |_, _| ()),
            STREAM,
        ),
        row(
            "unix, full",
            Kind::Unix,
            |_| pair(libc::SOCK_STREAM, |near, _| fill(near)),
            STREAM,
        ),
        row(
            "unix, full, the peer has half-closed",
            Kind::Unix,
            |_| {
                pair(libc::SOCK_STREAM, |near, far| {
                    shut(far, libc::SHUT_WR);
                    fill(near);
                })
            },
            STREAM,
        ),
        row(
            "unix, the peer is gone",
            Kind::Unix,
            |_| (pair(libc::SOCK_STREAM, |_, _| ()).0, Box::new(())),
            STREAM,
        ),
        row(
            "seqpacket, idle",
            Kind::Unix,
            |_| pair(libc::SOCK_SEQPACKET, |_, _| ()),
            STREAM,
        ),
        row(
            "seqpacket, full",
            Kind::Unix,
            |_| pair(libc::SOCK_SEQPACKET, |near, _| fill(near)),
            STREAM,
        ),
        row(
            "seqpacket, full, the peer has half-closed",
            Kind::Unix,
            |_| {
                pair(libc::SOCK_SEQPACKET, |near, far| {
                    shut(far, libc::SHUT_WR);
                    fill(near);
                })
            },
            STREAM,
        ),
        row(
            "unix listener, idle",
            Kind::UnixListener,
            |place| unix_listener(place, false),
            &[Accept, PollIn, PollOut, PollNothing],
        ),
        row(
            "unix listener, shut",
            Kind::UnixListener,
            |place| unix_listener(place, true),
            &[Accept, PollIn, PollNothing],
        ),
        row(
            "unix listener, its queue is full",
            Kind::UnixListener,
            full_listener,
            &[Connect],
        ),
        row(
            "datagrams, idle",
            Kind::Datagram,
            |_| pair(libc::SOCK_DGRAM, |_, _| ()),
            STREAM,
        ),
        row(
            "datagrams, full",
            Kind::Datagram,
            |_| pair(libc::SOCK_DGRAM, |near, _| fill(near)),
            STREAM,
        ),
        row(
            "datagrams, shut for reading",
            Kind::Datagram,
            |_| pair(libc::SOCK_DGRAM, |near, _| shut(near, libc::SHUT_RD)),
            &[Read, Write, PollIn, PollNothing],
        ),
        row(
            "datagrams, shut for writing",
            Kind::Datagram,
            |_| pair(libc::SOCK_DGRAM, |near, _| shut(near, libc::SHUT_WR)),
            &[Read, Write, PollIn],
        ),
        row(
            "datagrams, the peer is gone",
            Kind::Datagram,
            |_| (pair(libc::SOCK_DGRAM, |_, _| ()).0, Box::new(())),
            &[Write, PollOut],
        ),
        row(
            "datagrams, to a full queue, connected",
            Kind::Datagram,
            |place| full_queue(place, true),
            &[Read, Write, SendTo, PollIn, PollOut],
        ),
        row(
            "datagrams, to a full queue, not connected",
            Kind::Datagram,
            |place| full_queue(place, false),
            &[SendTo, PollIn],
        ),
        row("pipe, empty", Kind::Any, |_| pipe_reader(false), ANY_READER),
        row(
            "pipe, nobody writes",
            Kind::Any,
            |_| pipe_reader(true),
            ANY_READER,
        ),
        row("pipe, full", Kind::Any, |_| pipe_writer(false), ANY_WRITER),
        row(
            "pipe, nobody reads",
            Kind::Any,
            |_| pipe_writer(true),
            ANY_WRITER,
        ),
        row("eventfd, zero", Kind::Any, |_| eventfd(false), ANY_READER),
        row("eventfd, full", Kind::Any, |_| eventfd(true), ANY_WRITER),
        row(
            "terminal, idle",
            Kind::Any,
            |_| terminal(false),
            &[Read, Readable, PollIn, PollPri],
        ),
        row(
            "terminal, hung up",
            Kind::Any,
            |_| terminal(true),
            &[Read, Readable, PollIn],
        ),
        row(
            "a stream as any descriptor, full",
            Kind::Any,
            |_| tcp(|near, _| fill(near)),
            &[Read, Write, Readable, Writable],
        ),
        row(
            "udp as any descriptor, shut",
            Kind::Any,
            |_| udp(true),
            &[Read, Readable],
        ),
    ]
}

const ANY_READER: &[Call] = &[Read, Readable, PollIn, PollPri];
const ANY_WRITER: &[Call] = &[Write, Writable, PollOut];

fn raw(socket: &impl AsRawFd) -> i32 {
    socket.as_raw_fd()
}

fn shut(socket: &OwnedFd, how: i32) {
    // SAFETY: no pointers. Of an unconnected UDP socket it fails, and wakes all the same.
    unsafe { libc::shutdown(raw(socket), how) };
}

fn urge(socket: &OwnedFd) {
    // SAFETY: one live byte.
    let sent = unsafe { libc::send(raw(socket), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    // It has come.
    std::thread::sleep(10 * MS);
}

/// Sends until there is no room, and none comes back: TCP has some more once the peer's kernel has
/// acknowledged the last bytes, which it may delay by 40 ms.
fn fill(socket: &OwnedFd) {
    let bytes = [0_u8; 16 * 1024];
    loop {
        let mut sent = false;
        for size in [bytes.len(), 1] {
            // SAFETY: the bytes are live.
            while unsafe {
                libc::send(raw(socket), bytes.as_ptr().cast(), size, libc::MSG_DONTWAIT)
            } > 0
            {
                sent = true;
            }
        }
        if !sent {
            return;
        }
        std::thread::sleep(60 * MS);
    }
}

/// Does this for all at once, as filling a socket takes a while.
fn at_once<A: Send, B: Send>(all: Vec<A>, f: impl Fn(A) -> B + Sync) -> Vec<B> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|one| scope.spawn(|| f(one))).collect();
        let made = threads.into_iter().map(|thread| thread.join().unwrap());
        made.collect()
    })
}

fn tcp(then: fn(&OwnedFd, &OwnedFd)) -> Made {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = OwnedFd::from(near);
    let far = OwnedFd::from(listener.accept().unwrap().0);
    then(&near, &far);
    (near, Box::new(far))
}

fn tcp_reset() -> Made {
    let (near, far) = tcp(|_, far| {
        let linger = socket2::SockRef::from(far);
        linger.set_linger(Some(Duration::ZERO)).unwrap();
    });
    drop(far);
    std::thread::sleep(5 * MS);
    (near, Box::new(()))
}

fn tcp_listener(shuts: bool) -> Made {
    let listener = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    if shuts {
        shut(&listener, libc::SHUT_RDWR);
    }
    (listener, Box::new(()))
}

fn udp(shuts: bool) -> Made {
    let socket = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    if shuts {
        shut(&socket, libc::SHUT_RD);
    }
    (socket, Box::new(()))
}

/// A datagram went where nobody is: the error is in the queue and, unless it was taken, in the socket.
fn udp_error(taken: bool) -> Made {
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(gone.local_addr().unwrap()).unwrap();
    drop(gone);
    let on = 1_i32;
    // SAFETY: the value is live and of the size that is said.
    let set = unsafe {
        libc::setsockopt(
            raw(&socket),
            libc::IPPROTO_IP,
            libc::IP_RECVERR,
            (&raw const on).cast(),
            4,
        )
    };
    assert_eq!(set, 0);
    socket.send(b"!").unwrap();
    std::thread::sleep(5 * MS);
    if taken {
        assert!(socket.recv(&mut [0]).is_err());
    }
    (socket.into(), Box::new(()))
}

fn pair(kind: i32, then: fn(&OwnedFd, &OwnedFd)) -> Made {
    let mut both = [0; 2];
    // SAFETY: room for two numbers.
    let made = unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            kind | libc::SOCK_CLOEXEC,
            0,
            both.as_mut_ptr(),
        )
    };
    assert_eq!(made, 0);
    // SAFETY: they are new.
    let [near, far] = both.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    then(&near, &far);
    (near, Box::new(far))
}

fn unix_listener(place: &std::path::Path, shuts: bool) -> Made {
    let listener = OwnedFd::from(unix::UnixListener::bind(place).unwrap());
    if shuts {
        shut(&listener, libc::SHUT_RD);
    }
    (listener, Box::new(()))
}

fn full_listener(place: &std::path::Path) -> Made {
    let unix = socket2::Domain::UNIX;
    let listener = socket2::Socket::new(unix, socket2::Type::STREAM, None).unwrap();
    let addr = socket2::SockAddr::unix(place).unwrap();
    listener.bind(&addr).unwrap();
    listener.listen(0).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = socket2::Socket::new(unix, socket2::Type::STREAM.nonblocking(), None).unwrap();
        if client.connect(&addr).is_err() {
            break;
        }
        clients.push(client);
    }
    (listener.into(), Box::new(clients))
}

fn full_queue(place: &std::path::Path, connects: bool) -> Made {
    let receiver = unix::UnixDatagram::bind(place).unwrap();
    let filler = unix::UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", place).is_ok() {}
    let sender = unix::UnixDatagram::unbound().unwrap();
    if connects {
        sender.connect(place).unwrap();
    }
    (sender.into(), Box::new((receiver, filler)))
}

fn pipe_reader(hung_up: bool) -> Made {
    let (reader, writer) = io::pipe().unwrap();
    let keep: Box<dyn Any + Send + Sync> = if hung_up {
        Box::new(())
    } else {
        Box::new(writer)
    };
    (reader.into(), keep)
}

fn pipe_writer(hung_up: bool) -> Made {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(&vec![0; 64 * 1024]).unwrap();
    let keep: Box<dyn Any + Send + Sync> = if hung_up {
        Box::new(())
    } else {
        Box::new(reader)
    };
    (writer.into(), keep)
}

fn eventfd(full: bool) -> Made {
    // SAFETY: no pointers; the descriptor is new.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
    if full {
        let most = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: eight live bytes.
        assert_eq!(unsafe { libc::write(raw(&fd), most.as_ptr().cast(), 8) }, 8);
    }
    (fd, Box::new(()))
}

fn terminal(hung_up: bool) -> Made {
    let (mut master, mut slave) = (0, 0);
    // SAFETY: room for two numbers; the rest is not asked for.
    let made = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    assert_eq!(made, 0);
    // SAFETY: they are new.
    let [master, slave] = [master, slave].map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    let keep: Box<dyn Any + Send + Sync> = if hung_up {
        drop(master);
        Box::new(())
    } else {
        Box::new(master)
    };
    (slave, keep)
}

/// A path for one use.
fn place() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    let name = format!("weald-quiet-{}-{number}", std::process::id());
    std::env::temp_dir().join(name)
}

fn told(result: io::Result<usize>) -> String {
    match result {
        Ok(count) => format!("{count}"),
        Err(error) => error.to_string(),
    }
}

/// Begins a call on an OS thread, by libc. One that waits is left behind.
fn begin_on_an_os_thread(row: &Row, call: Call) -> (Receiver<String>, PathBuf) {
    let place = place();
    let made = (row.make)(&place);
    let kind = row.kind;
    let (tells, hears) = channel();
    let there = place.clone();
    std::thread::spawn(move || {
        let (fd, _keep) = &made;
        let _ = tells.send(told(plain(fd, kind, call, &there)));
    });
    (hears, place)
}

/// A call with its descriptor, as weald has it.
struct Asked {
    name: String,
    green: Green,
    call: Call,
    place: PathBuf,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Asked {
    fn new(row: &Row, call: Call) -> Self {
        let place = place();
        let (fd, keep) = (row.make)(&place);
        Self {
            name: format!("{}: {call:?}", row.name),
            green: Green::new(row.kind, fd),
            call,
            place,
            _keep: keep,
        }
    }

    fn told_within(&self, limit: Duration) -> String {
        weald::timeout(limit, || told(self.call())).unwrap_or_else(|_| "waits".to_owned())
    }

    fn call(&self) -> io::Result<usize> {
        self.green.call(self.call, &self.place)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.place);
    }
}

fn processor_time() -> Duration {
    // SAFETY: all zeroes is a valid rusage, and the pointer is to a live one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let time = |t: libc::timeval| {
        let micros = u32::try_from(t.tv_usec).unwrap();
        Duration::new(u64::try_from(t.tv_sec).unwrap(), micros * 1000)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The part of a core, in percent, that many waiters on each of these use.
fn use_of_waiters(rt: &weald::Runtime, all: &[Arc<Asked>]) -> f64 {
    let waiters: Vec<_> = all
        .iter()
        .flat_map(|asked| {
            (0..WAITERS).map(|_| {
                let asked = Arc::clone(asked);
                rt.spawn(move || told(asked.call()))
            })
        })
        .collect();
    std::thread::sleep(3 * WAITS);
    let (before, begun) = (processor_time(), std::time::Instant::now());
    std::thread::sleep(4 * WAITS);
    let used = processor_time().saturating_sub(before);
    let used = 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64();
    for waiter in waiters {
        waiter.thread().kill();
        let ended = waiter.join();
        if let Ok(told) = ended {
            assert!(told.contains("kill"), "one of many waiters got {told}");
        }
    }
    used
}

#[test]
fn a_call_waits_where_an_os_thread_would_and_uses_no_processor_meanwhile() {
    let name = "a_call_waits_where_an_os_thread_would_and_uses_no_processor_meanwhile";
    let child = in_child(name, &[], || {
        let table: Vec<_> = rows()
            .into_iter()
            .flat_map(|row| row.calls.iter().map(move |&call| (row, call)))
            .collect();
        let table = at_once(table, |(row, call)| {
            (row, call, begin_on_an_os_thread(&row, call))
        });
        // An OS thread that is late is not taken for one that waits.
        std::thread::sleep(8 * WAITS);
        let table: Vec<(Row, Call, String)> = table
            .into_iter()
            .map(|(row, call, (hears, place))| {
                let expected = hears.try_recv().unwrap_or_else(|_| "waits".to_owned());
                println!("{}, {call:?}: {expected}", row.name);
                let _ = std::fs::remove_file(place);
                (row, call, expected)
            })
            .collect();
        let mut wrong = Vec::new();
        for (mode, workers) in MODES.into_iter().flat_map(|mode| [(mode, 1), (mode, 2)]) {
            let rt = runtime(workers, mode);
            let asked = at_once(table.iter().collect(), |(row, call, _)| {
                Arc::new(Asked::new(row, *call))
            });
            let calls: Vec<_> = asked
                .iter()
                .map(|one| {
                    let one = Arc::clone(one);
                    rt.spawn(move || one.told_within(WAITS))
                })
                .collect();
            let mut waiting = Vec::new();
            for ((call, one), (row, call_again, expected)) in
                calls.into_iter().zip(asked).zip(&table)
            {
                let mut got = call.join().unwrap();
                if got == "waits" && got != *expected {
                    // On a busy machine its time may have passed before the call was made.
                    let asked = Asked::new(row, *call_again);
                    got = rt.run(|| asked.told_within(8 * WAITS));
                }
                if got != *expected {
                    wrong.push(format!(
                        "{mode:?} {workers}: {} gives {got}, an OS thread gets {expected}",
                        one.name
                    ));
                }
                if got == "waits" && *expected == "waits" {
                    waiting.push(one);
                }
            }
            let mut used = use_of_waiters(&rt, &waiting);
            for _ in 0..2 {
                // What is too much because the machine is busy changes from one look to the next.
                if used > f64::from(PERCENT) {
                    used = use_of_waiters(&rt, &waiting);
                }
            }
            println!("{mode:?} {workers}: {used:.2} % of a core");
            if used > f64::from(PERCENT) {
                for one in &waiting {
                    let used = use_of_waiters(&rt, std::slice::from_ref(one));
                    wrong.push(format!("{mode:?} {workers}: {}: {used:.1} %", one.name));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        println!("all quiet");
    });
    assert!(
        child.success && child.stdout.contains("all quiet"),
        "{}\n{}",
        child.stdout,
        child.stderr
    );
}
