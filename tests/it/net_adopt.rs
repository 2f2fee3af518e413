//! Std's UDP and Unix sockets made green and given back: nothing that was under way is lost, and clones stay what they were.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net as std_unix;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use socket2::SockRef;
use weald::net::unix::{UnixDatagram, UnixListener, UnixStream};
use weald::net::{Fd, TcpListener, UdpSocket};
use weald::wrap_socket;

use crate::support::{Count, MS, everywhere, in_each_mode, is_nonblocking, settle, v4};

/// A path that nobody else uses.
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn new() -> Self {
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
        // The stream has waited, so it is registered. What comes from then on goes with it.
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
        // The flag is gone; the clone still waits without holding its worker.
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
fn shutdown_of_its_descriptor_ends_a_wait_as_it_does_on_an_os_thread() {
    /// A count, or the system's error.
    type Told = (usize, Option<i32>);
    type Call = fn(OwnedFd) -> Told;
    type Make = fn(&Place) -> OwnedFd;
    fn end(descriptor: i32) {
        settle();
        // SAFETY: no pointers. The call fails for a socket without a peer, but still wakes the readers.
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
        // A socket without a limit gets one that is too short for the kernel's clock.
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
