//! Each maker brings one kind of descriptor into one state.

use std::any::Any;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net as unix;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A small buffer fills soon, and many full sockets take little memory.
const ROOM: usize = 8192;

/// A descriptor, and what must stay open beside it.
pub(crate) type Made = (OwnedFd, Box<dyn Any + Send + Sync>);

pub(crate) fn raw(socket: &impl AsRawFd) -> i32 {
    socket.as_raw_fd()
}

pub(crate) fn shut(socket: &OwnedFd, how: i32) {
    // SAFETY: no pointers. For an unconnected UDP socket the call fails, but still wakes.
    unsafe { libc::shutdown(raw(socket), how) };
}

pub(crate) fn urge(socket: &OwnedFd) {
    // SAFETY: one live byte.
    let sent = unsafe { libc::send(raw(socket), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    // By then the byte has come.
    std::thread::sleep(10 * MS);
}

/// Sends until there is no room, and no room comes back: TCP gets some more room when the peer's kernel has
/// acknowledged the last bytes, which it may delay by 40 ms.
pub(crate) fn fill(socket: &OwnedFd) {
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

pub(crate) fn tcp(then: fn(&OwnedFd, &OwnedFd)) -> Made {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = OwnedFd::from(near);
    let far = OwnedFd::from(listener.accept().unwrap().0);
    socket2::SockRef::from(&near)
        .set_send_buffer_size(ROOM)
        .unwrap();
    socket2::SockRef::from(&far)
        .set_recv_buffer_size(ROOM)
        .unwrap();
    then(&near, &far);
    (near, Box::new(far))
}

pub(crate) fn tcp_reset() -> Made {
    let (near, far) = tcp(|_, far| {
        let linger = socket2::SockRef::from(far);
        linger.set_linger(Some(Duration::ZERO)).unwrap();
    });
    drop(far);
    std::thread::sleep(5 * MS);
    (near, Box::new(()))
}

pub(crate) fn tcp_listener(shuts: bool) -> Made {
    let listener = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    if shuts {
        shut(&listener, libc::SHUT_RDWR);
    }
    (listener, Box::new(()))
}

pub(crate) fn udp(shuts: bool) -> Made {
    let socket = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    if shuts {
        shut(&socket, libc::SHUT_RD);
    }
    (socket, Box::new(()))
}

/// A datagram was sent to an address where nobody is. The error is in the queue and, unless it was taken, in the
/// socket.
pub(crate) fn udp_error(taken: bool) -> Made {
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

pub(crate) fn pair(kind: i32, then: fn(&OwnedFd, &OwnedFd)) -> Made {
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

pub(crate) fn unix_listener(place: &std::path::Path, shuts: bool) -> Made {
    let listener = OwnedFd::from(unix::UnixListener::bind(place).unwrap());
    if shuts {
        shut(&listener, libc::SHUT_RD);
    }
    (listener, Box::new(()))
}

pub(crate) fn full_listener(place: &std::path::Path) -> Made {
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

pub(crate) fn full_queue(place: &std::path::Path, connects: bool) -> Made {
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

pub(crate) fn pipe_reader(hung_up: bool) -> Made {
    let (reader, writer) = io::pipe().unwrap();
    let keep: Box<dyn Any + Send + Sync> = if hung_up {
        Box::new(())
    } else {
        Box::new(writer)
    };
    (reader.into(), keep)
}

pub(crate) fn pipe_writer(hung_up: bool) -> Made {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(&vec![0; 64 * 1024]).unwrap();
    let keep: Box<dyn Any + Send + Sync> = if hung_up {
        Box::new(())
    } else {
        Box::new(reader)
    };
    (writer.into(), keep)
}

pub(crate) fn eventfd(full: bool) -> Made {
    // SAFETY: no pointers; the descriptor is new.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
    if full {
        let most = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: eight live bytes.
        assert_eq!(unsafe { libc::write(raw(&fd), most.as_ptr().cast(), 8) }, 8);
    }
    (fd, Box::new(()))
}

pub(crate) fn terminal(hung_up: bool) -> Made {
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
