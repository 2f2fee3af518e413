//! Std's UDP and Unix sockets made green and given back: nothing that was under way is lost, and clones stay what they were. And the
//! waits of Unix sockets that no event ends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net as std_unix;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use socket2::{Domain, SockRef, Socket, Type};
use weald::net::unix::{UnixDatagram, UnixListener, UnixStream};
use weald::net::{Fd, TcpListener, UdpSocket};
use weald::wrap_socket;

use crate::support::{
    Count, Flag, MS, everywhere, in_each_mode, is_nonblocking, settle, source_of, std_pair, v4,
    wait_until,
};

/// A path that nobody else uses.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("weald-adopt-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_stream_that_is_adopted_has_what_came_before_and_gives_back_what_came_since() {
    everywhere(|| {
        let (plain, mut far) = std_unix::UnixStream::pair().unwrap();
        far.write_all(b"before").unwrap();
        let mut green = wrap_socket(plain);
        assert!(!is_nonblocking(&green), "a stream's flag is left alone");
        let mut text = [0; 6];
        green.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"before");
        // It has waited, so it is registered; what comes then goes with it.
        green.set_read_timeout(Some(MS)).unwrap();
        assert!(green.read(&mut text).is_err());
        let clone = green.try_clone().unwrap();
        far.write_all(b"since").unwrap();
        let mut plain = green.into_std();
        assert!(!is_nonblocking(&plain));
        plain.read_exact(&mut text[..5]).unwrap();
        assert_eq!(&text[..5], b"since");
        // The clone is green: it waits, and is woken.
        clone.set_read_timeout(None).unwrap();
        let reader = weald::spawn(move || (&clone).read_exact(&mut [0]));
        settle();
        far.write_all(b"x").unwrap();
        reader.join().unwrap().unwrap();
        // Back and forth once more.
        let mut green = UnixStream::from(plain);
        far.write_all(b"y").unwrap();
        green.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn what_was_nonblocking_is_given_back_blocking() {
    everywhere(|| {
        let (one, _two) = std_unix::UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let green = wrap_socket(one);
        assert!(is_nonblocking(&green), "the flag is left alone");
        assert!(!is_nonblocking(&green.into_std()));
        let (one, _two) = std_unix::UnixDatagram::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        assert!(!is_nonblocking(&wrap_socket(one).into_std()));
        let socket = std::net::UdpSocket::bind(v4()).unwrap();
        socket.set_nonblocking(true).unwrap();
        assert!(!is_nonblocking(&wrap_socket(socket).into_std()));
        let place = Place::new();
        let listener = std_unix::UnixListener::bind(&place.0).unwrap();
        assert!(!is_nonblocking(&wrap_socket(listener).into_std()));
    });
}

#[test]
fn datagrams_that_wait_are_taken_on_either_side_of_a_change() {
    everywhere(|| {
        let (plain, far) = std_unix::UnixDatagram::pair().unwrap();
        far.send(b"one").unwrap();
        far.send(b"three").unwrap();
        let green: UnixDatagram = wrap_socket(plain);
        assert_eq!(green.recv(&mut [0; 8]).unwrap(), 3);
        let plain = green.into_std();
        assert_eq!(plain.recv(&mut [0; 8]).unwrap(), 5);

        let plain = std::net::UdpSocket::bind(v4()).unwrap();
        let sender = UdpSocket::bind(v4()).unwrap();
        sender.connect(plain.local_addr().unwrap()).unwrap();
        sender.send(b"one").unwrap();
        sender.send(b"three").unwrap();
        let green: UdpSocket = wrap_socket(plain);
        assert_eq!(green.recv(&mut [0; 8]).unwrap(), 3);
        assert_eq!(green.into_std().recv(&mut [0; 8]).unwrap(), 5);
    });
}

#[test]
fn a_listener_keeps_its_queue_and_its_clone_stays_green() {
    in_each_mode(|| {
        let place = Place::new();
        let plain = std_unix::UnixListener::bind(&place.0).unwrap();
        let _clients = [(); 3].map(|()| std_unix::UnixStream::connect(&place.0).unwrap());
        let green: UnixListener = wrap_socket(plain);
        green.accept().unwrap();
        let clone = green.try_clone().unwrap();
        let plain = green.into_std();
        plain.accept().unwrap();
        clone.accept().unwrap();
        // The flag is gone; the clone waits without holding its worker all the same.
        let others = Count::default();
        let acceptor = weald::spawn(move || clone.accept().map(drop));
        settle();
        let counts = others.clone();
        weald::spawn(move || counts.add()).join().unwrap();
        assert_eq!(others.get(), 1);
        let _client = UnixStream::connect(&place.0).unwrap();
        acceptor.join().unwrap().unwrap();
    });
}

#[test]
fn a_connect_waits_while_the_listeners_queue_is_full() {
    in_each_mode(|| {
        let place = Place::new();
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
        let listener = listener.unwrap();
        let addr = socket2::SockAddr::unix(&place.0).unwrap();
        listener.bind(&addr).unwrap();
        listener.listen(0).unwrap();
        let listener = UnixListener::from(std_unix::UnixListener::from(
            std::os::fd::OwnedFd::from(listener),
        ));
        let _first = UnixStream::connect(&place.0).unwrap();
        // A limit ends the wait.
        let outcome = weald::timeout(5 * MS, || {
            let error = UnixStream::connect(&place.0).unwrap_err();
            assert!(source_of::<weald::Elapsed>(&error).is_some());
        });
        assert!(outcome.is_err());
        let path = place.0.clone();
        let second = weald::spawn(move || UnixStream::connect(path).map(drop));
        settle();
        assert!(!second.is_finished());
        listener.accept().unwrap();
        second.join().unwrap().unwrap();
    });
}

#[test]
fn a_datagram_waits_while_the_receivers_queue_is_full() {
    in_each_mode(|| {
        let place = Place::new();
        let far = UnixDatagram::bind(&place.0).unwrap();
        for connected in [false, true] {
            let near = UnixDatagram::unbound().unwrap();
            if connected {
                near.connect(&place.0).unwrap();
            }
            let path = place.0.clone();
            let send = move |near: &UnixDatagram| {
                if connected {
                    near.send(b"x")
                } else {
                    near.send_to(b"x", &path)
                }
            };
            near.set_nonblocking(true).unwrap();
            let mut fits = 0;
            while send(&near).is_ok() {
                fits += 1;
            }
            assert!(fits > 0);
            near.set_nonblocking(false).unwrap();
            let sent = Flag::default();
            let tells = sent.clone();
            let sender = weald::spawn(move || {
                send(&near).unwrap();
                tells.set();
            });
            settle();
            assert!(!sent.is_set());
            for _ in 0..fits {
                far.recv(&mut [0]).unwrap();
            }
            sender.join().unwrap();
            far.recv(&mut [0]).unwrap();
        }
    });
}

#[test]
fn a_shutdown_wakes_every_green_thread_that_waits_for_datagrams() {
    in_each_mode(|| {
        let (near, far) = UnixDatagram::pair().unwrap();
        let clone = near.try_clone().unwrap();
        let near = std::sync::Arc::new(near);
        let waiting: Vec<_> = (0..4)
            .map(|number| {
                let near = near.clone();
                let own = near.try_clone().unwrap();
                weald::spawn(move || match number % 2 {
                    0 => near.recv(&mut [0]),
                    _ => own.recv(&mut [0]),
                })
            })
            .collect();
        settle();
        clone.shutdown(std::net::Shutdown::Both).unwrap();
        for one in waiting {
            assert_eq!(one.join().unwrap().unwrap(), 0);
        }
        drop(far);
    });
}

/// Sends the bytes with a descriptor, at which a read ends.
fn send_with_a_descriptor(socket: &impl AsRawFd, bytes: &[u8]) {
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = [0_u64; 8];
    // SAFETY: all zeroes is a message without anything; what it names lives in this frame, and the
    // control buffer has room for one descriptor and is aligned for its header.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(head).cast::<i32>().write_unaligned(0);
        let sent = libc::sendmsg(socket.as_raw_fd(), &raw const message, 0);
        assert_eq!(usize::try_from(sent).unwrap(), bytes.len());
    }
}

/// Waits until so many bytes lie in the socket.
fn wait_for_bytes(socket: &impl AsRawFd, count: i32) {
    let fd = socket.as_raw_fd();
    wait_until(|| {
        let mut there = 0;
        // SAFETY: room for the answer.
        let asked = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut there) };
        assert_eq!(asked, 0);
        there >= count
    });
}

#[test]
fn a_read_that_was_cut_short_at_a_descriptor_or_a_record_says_nothing_of_the_next_one() {
    in_each_mode(|| {
        for kind in [Type::STREAM, Type::SEQPACKET] {
            let (sender, receiver) = Socket::pair(Domain::UNIX, kind, None).unwrap();
            let mut receiver = UnixStream::from(OwnedFd::from(receiver));
            // It has waited: events come from now on, an edge each.
            let first = weald::spawn(move || {
                receiver.read_exact(&mut [0; 1]).unwrap();
                receiver
            });
            settle();
            sender.send(b"!").unwrap();
            let mut receiver = first.join().unwrap();
            send_with_a_descriptor(&sender, b"hello");
            sender.send(b"world").unwrap();
            wait_for_bytes(&receiver, if kind == Type::STREAM { 10 } else { 5 });
            settle();
            let mut text = [0; 100];
            assert_eq!(receiver.read(&mut text).unwrap(), 5);
            assert_eq!(receiver.read(&mut text).unwrap(), 5, "{kind:?}");
        }
    });
}

#[test]
fn a_read_that_was_cut_short_at_an_urgent_byte_says_nothing_of_what_is_behind_it() {
    in_each_mode(|| {
        let (mut near, far) = std_pair(v4());
        let far = Socket::from(far);
        near.set_read_timeout(Some(MS)).unwrap();
        assert!(near.read(&mut [0]).is_err());
        near.set_read_timeout(None).unwrap();
        far.send(b"aaa").unwrap();
        far.send_out_of_band(b"!").unwrap();
        far.send(b"ccc").unwrap();
        // The program takes the urgent byte before the worker hears of it.
        let urgent = weald::select(&[], &[], &[&near], None).unwrap();
        assert_eq!(urgent.except, [0]);
        let mut byte = [MaybeUninit::uninit()];
        let taken = SockRef::from(&near).recv_with_flags(&mut byte, libc::MSG_OOB);
        assert_eq!(taken.unwrap(), 1);
        // As many as lie before the urgent one.
        wait_for_bytes(&near, 3);
        settle();
        let mut text = [0; 100];
        assert_eq!(near.read(&mut text).unwrap(), 3);
        assert_eq!(near.read(&mut text).unwrap(), 3);
    });
}

#[test]
fn shutdown_of_its_descriptor_ends_a_wait_as_it_does_on_an_os_thread() {
    /// A count, or the system's error.
    type Told = (usize, Option<i32>);
    type Call = fn(OwnedFd) -> Told;
    type Make = fn(&Place) -> OwnedFd;
    fn end(descriptor: i32) {
        settle();
        // SAFETY: no pointers. It fails for a socket without a peer, whose readers it wakes all the same.
        unsafe { libc::shutdown(descriptor, libc::SHUT_RD) };
    }
    fn told<T>(got: std::io::Result<T>, count: impl FnOnce(T) -> usize) -> Told {
        match got {
            Ok(got) => (count(got), None),
            Err(error) => (0, error.raw_os_error()),
        }
    }
    fn plain(socket: OwnedFd, call: Call) -> Told {
        let descriptor = socket.as_raw_fd();
        let waiting = std::thread::spawn(move || call(socket));
        std::thread::sleep(20 * MS);
        end(descriptor);
        waiting.join().unwrap()
    }
    let calls: [(Make, Call, Call); 5] = [
        (
            |_| std::net::TcpListener::bind(v4()).unwrap().into(),
            |fd| told(std::net::TcpListener::from(fd).accept(), |_| 1),
            |fd| told(TcpListener::from(fd).accept(), |_| 1),
        ),
        (
            |place| std_unix::UnixListener::bind(&place.0).unwrap().into(),
            |fd| told(std_unix::UnixListener::from(fd).accept(), |_| 1),
            |fd| told(UnixListener::from(fd).accept(), |_| 1),
        ),
        (
            |_| std::net::UdpSocket::bind(v4()).unwrap().into(),
            |fd| told(std::net::UdpSocket::from(fd).recv(&mut [0; 8]), |n| n),
            |fd| told(UdpSocket::from(fd).recv(&mut [0; 8]), |n| n),
        ),
        (
            |place| std_unix::UnixDatagram::bind(&place.0).unwrap().into(),
            |fd| told(std_unix::UnixDatagram::from(fd).recv(&mut [0; 8]), |n| n),
            |fd| told(UnixDatagram::from(fd).recv(&mut [0; 8]), |n| n),
        ),
        (
            |_| std::net::UdpSocket::bind(v4()).unwrap().into(),
            |fd| told(std::net::UdpSocket::from(fd).peek(&mut [0; 8]), |n| n),
            |fd| told((&Fd::new(fd)).read(&mut [0; 8]), |n| n),
        ),
    ];
    for (make, on_an_os_thread, green) in calls {
        let place = Place::new();
        let expected = plain(make(&place), on_an_os_thread);
        everywhere(|| {
            let place = Place::new();
            let socket = make(&place);
            let descriptor = socket.as_raw_fd();
            let others = socket.try_clone().unwrap();
            let waiting = [socket, others].map(|socket| weald::spawn(move || green(socket)));
            end(descriptor);
            for one in waiting {
                assert_eq!(one.join().unwrap(), expected);
            }
        });
    }
}

#[test]
fn timeouts_of_a_wrapped_socket_are_kept_and_come_back_as_they_were_set_last() {
    everywhere(|| {
        let (plain, _far) = std_unix::UnixStream::pair().unwrap();
        plain.set_read_timeout(Some(20 * MS)).unwrap();
        plain.set_write_timeout(Some(40 * MS)).unwrap();
        let mut green = wrap_socket(plain);
        assert_eq!(green.read_timeout().unwrap(), Some(20 * MS));
        assert_eq!(green.write_timeout().unwrap(), Some(40 * MS));
        let error = green.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        green.set_read_timeout(Some(60 * MS)).unwrap();
        green.set_write_timeout(None).unwrap();
        let clone = green.try_clone().unwrap();
        let plain = green.into_std();
        assert_eq!(plain.read_timeout().unwrap(), Some(60 * MS));
        assert_eq!(plain.write_timeout().unwrap(), None);
        clone.set_read_timeout(None).unwrap();
        assert_eq!(clone.into_std().read_timeout().unwrap(), None);
        // One that had none, with a limit too short for the kernel's clock.
        let green = UdpSocket::bind(v4()).unwrap();
        green.set_read_timeout(Some(MS / 1_000_000)).unwrap();
        assert!(green.into_std().read_timeout().unwrap().is_some());
    });
}

#[test]
fn accept_waits_no_longer_than_the_receive_timeout_of_its_listener() {
    everywhere(|| {
        let plain = std::net::TcpListener::bind(v4()).unwrap();
        let limit = Some(20 * MS);
        SockRef::from(&plain).set_read_timeout(limit).unwrap();
        let adopted = wrap_socket(plain);
        let own = weald::tcp_listener(v4()).unwrap();
        SockRef::from(&own).set_read_timeout(limit).unwrap();
        for listener in [adopted, own] {
            let error = listener.accept().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
            SockRef::from(&listener).set_read_timeout(None).unwrap();
            let to = listener.local_addr().unwrap();
            let acceptor = weald::spawn(move || listener.accept().map(drop));
            settle();
            let _client = weald::connect_tcp(to).unwrap();
            acceptor.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_stream_that_has_connected_is_blocking_for_who_sees_its_descriptor() {
    everywhere(|| {
        let place = Place::new();
        let listener = UnixListener::bind(&place.0).unwrap();
        let stream = UnixStream::connect(&place.0).unwrap();
        let clone = stream.try_clone().unwrap();
        assert!(!is_nonblocking(&clone));
        assert!(!is_nonblocking(&stream));
        let (far, _) = listener.accept().unwrap();
        assert!(!is_nonblocking(&far));
        let tcp = weald::tcp_listener(v4()).unwrap();
        let stream = weald::connect_tcp(tcp.local_addr().unwrap()).unwrap();
        assert!(!is_nonblocking(&stream));
        let again = weald::connect_tcp(tcp.local_addr().unwrap()).unwrap();
        assert!(!is_nonblocking(&again.into_std()));
        assert!(is_nonblocking(&tcp), "a listener's flag is needed");
    });
}

#[test]
fn each_of_several_that_wait_for_readiness_is_told() {
    in_each_mode(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = std::sync::Arc::new(Fd::new(reader));
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let reader = reader.clone();
                weald::spawn(move || reader.readable())
            })
            .collect();
        settle();
        writer.write_all(b"!").unwrap();
        for one in waiting {
            one.join().unwrap().unwrap();
        }
    });
}

/// The kernel wakes a writer that waits inside it, and tells those nothing that poll.
#[test]
fn a_unix_stream_whose_writing_side_is_shut_down_ends_who_waits_to_write() {
    let handle = |stream: &UnixStream, _: &UnixStream| stream.shutdown(Shutdown::Write).unwrap();
    let clone = |_: &UnixStream, clone: &UnixStream| clone.shutdown(Shutdown::Write).unwrap();
    let descriptor = |stream: &UnixStream, _: &UnixStream| {
        // SAFETY: no pointers.
        let shut = unsafe { libc::shutdown(stream.as_raw_fd(), libc::SHUT_WR) };
        assert_eq!(shut, 0);
    };
    let check = |shut_down: fn(&UnixStream, &UnixStream)| {
        let (near, _far) = UnixStream::pair().unwrap();
        let other = near.try_clone().unwrap();
        weald::scope(|scope| {
            let writer = scope.spawn(|| {
                loop {
                    if let Err(error) = (&near).write_all(&[0; 4096]) {
                        break error.kind();
                    }
                }
            });
            settle();
            assert!(!writer.is_finished());
            shut_down(&near, &other);
            assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe);
        });
    };
    everywhere(|| check(handle));
    // These take a second, so once is enough.
    check(clone);
    check(descriptor);
}

#[test]
fn who_waits_to_write_to_a_unix_stream_is_told_that_the_peer_goes_as_by_std() {
    let told_after = |moment| {
        let (near, far) = UnixStream::pair().unwrap();
        weald::scope(|scope| {
            let writer = scope.spawn(|| {
                loop {
                    if let Err(error) = (&near).write_all(&[0; 4096]) {
                        break error.kind();
                    }
                }
            });
            weald::sleep(moment);
            drop(far);
            let told = writer.join().unwrap();
            let later = (&near).write(&[0]).unwrap_err();
            assert_eq!(later.kind(), ErrorKind::BrokenPipe);
            told
        })
    };
    everywhere(|| {
        // A writer that does not wait yet is told what the later call is told.
        let moments = [10 * MS, 100 * MS, 1000 * MS, 5000 * MS];
        let mut told = moments.into_iter().map(told_after);
        let other = told.find(|&told| told != ErrorKind::BrokenPipe);
        assert_eq!(other, Some(ErrorKind::ConnectionReset));
    });
}
