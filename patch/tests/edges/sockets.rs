//! Calls on descriptors that take more than a line.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::mpsc;
use std::thread;

use super::{answer, pause};

pub(super) fn owned(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0);
    // SAFETY: it is new.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(super) fn eventfd() -> OwnedFd {
    // SAFETY: no pointers.
    owned(unsafe { libc::eventfd(0, 0) })
}

pub(super) fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

pub(super) fn file() -> std::fs::File {
    std::fs::File::open("/proc/self/exe").unwrap()
}

/// A number that is not an open descriptor.
pub(super) const NONE: RawFd = 1 << 20;

pub(super) fn buffer() -> *mut libc::c_void {
    static mut BYTES: [u8; 4096] = [0; 4096];
    (&raw mut BYTES).cast()
}

pub(super) fn address(port: u16) -> libc::sockaddr_in {
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as _;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    address
}

pub(super) fn connect(fd: RawFd, port: u16) -> libc::c_int {
    let to = address(port);
    // SAFETY: an address of that size.
    unsafe { libc::connect(fd, (&raw const to).cast(), 16) }
}

pub(super) fn tcp_socket() -> OwnedFd {
    // SAFETY: no pointers.
    owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
}

pub(super) fn fast_open() -> isize {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let queue: libc::c_int = 16;
    let (socket, to) = (tcp_socket(), address(listener.local_addr().unwrap().port()));
    // SAFETY: pointers to locals of the sizes that they say.
    unsafe {
        let option = (&raw const queue).cast();
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            option,
            4,
        );
        let to = (&raw const to).cast();
        libc::sendto(socket.as_raw_fd(), buffer(), 5, libc::MSG_FASTOPEN, to, 16)
    }
}

/// 3 bytes come; 7 more when the receiver has had time to see the first ones; then the end.
pub(super) fn halves(low: libc::c_int, flags: libc::c_int, room: usize, vectored: bool) -> isize {
    let (mut client, server) = tcp();
    let (fd, option) = (server.as_raw_fd(), (&raw const low).cast());
    // SAFETY: a pointer to a local of that size.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, option, 4) };
    client.write_all(b"abc").unwrap();
    let rest = std::thread::spawn(move || {
        pause(40);
        client.write_all(b"defghij").unwrap();
        pause(40);
    });
    // SAFETY: a buffer of that size.
    let got = unsafe {
        if vectored {
            let mut part = libc::iovec {
                iov_base: buffer(),
                iov_len: room,
            };
            let mut header: libc::msghdr = std::mem::zeroed();
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            libc::recvmsg(fd, &raw mut header, flags)
        } else {
            libc::recv(fd, buffer(), room, flags)
        }
    };
    rest.join().unwrap();
    got
}

/// Returns a thread that drops the stream after some time, which resets the connection.
fn reset_soon(stream: TcpStream) -> thread::JoinHandle<()> {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let option = (&raw const now).cast();
    // SAFETY: a pointer to a local of that size.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            option,
            8,
        )
    };
    assert_eq!(set, 0);
    thread::spawn(move || {
        pause(40);
        drop(stream);
    })
}

/// Returns what is received before a reset, and the error after it.
pub(super) fn reset(flags: libc::c_int, vectored: bool) -> i64 {
    let (mut client, server) = tcp();
    client.write_all(b"abc").unwrap();
    let rest = reset_soon(client);
    let fd = server.as_raw_fd();
    let mut part = libc::iovec {
        iov_base: buffer(),
        iov_len: 10,
    };
    // SAFETY: a buffer of that size.
    let (first, second) = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        let first = if vectored {
            libc::recvmsg(fd, &raw mut header, flags)
        } else {
            libc::recv(fd, buffer(), 10, flags)
        };
        (first, libc::recv(fd, buffer(), 10, 0))
    };
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap();
    rest.join().unwrap();
    let error = if second < 0 { errno } else { 0 };
    i64::try_from(first * 1000).unwrap() + i64::from(error)
}

/// Returns if a part is sent before a reset, and the error of the next call.
pub(super) fn send_until_reset(send: fn(RawFd, &[u8]) -> isize) -> i64 {
    let (client, server) = tcp();
    let rest = reset_soon(client);
    let bytes = vec![0; 64 << 20];
    let part = (1..bytes.len().cast_signed()).contains(&send(server.as_raw_fd(), &bytes));
    assert_eq!(send(server.as_raw_fd(), b"x"), -1);
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap();
    rest.join().unwrap();
    i64::from(errno) + 1000 * i64::from(part)
}

pub(super) fn shut_down(how: libc::c_int, call: impl FnOnce(RawFd) -> isize) -> isize {
    let (near, _far) = UnixDatagram::pair().unwrap();
    // SAFETY: no pointers.
    unsafe { libc::shutdown(near.as_raw_fd(), how) };
    call(near.as_raw_fd())
}

pub(super) fn poll(fd: RawFd, events: libc::c_short) -> i64 {
    let mut one = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: one entry.
    let ready = unsafe { libc::poll(&raw mut one, 1, 20) };
    i64::from(ready) * 1000 + i64::from(one.revents)
}

/// A stream that has no room, and its peer.
pub(super) fn full_stream() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    while (&near).write(&[0; 4096]).is_ok() {}
    while (&near).write(&[0]).is_ok() {}
    near.set_nonblocking(false).unwrap();
    (near, far)
}

/// Makes a call on a full stream that a duplicate shuts down meanwhile. With -1 the stream's peer goes away instead.
pub(super) fn ended(how: libc::c_int, call: impl FnOnce(RawFd) -> isize) -> i64 {
    let (near, far) = full_stream();
    let other = near.try_clone().unwrap();
    let (over, is_over) = mpsc::channel::<()>();
    let ends = thread::spawn(move || {
        pause(30);
        if how == -1 {
            drop(far);
        } else {
            // SAFETY: no pointers.
            unsafe { libc::shutdown(other.as_raw_fd(), how) };
            // The peer stays until the call has ended because of the shutdown.
            let _ = is_over.recv();
        }
    });
    let said = answer(call(near.as_raw_fd()));
    drop(over);
    ends.join().unwrap();
    -said
}
