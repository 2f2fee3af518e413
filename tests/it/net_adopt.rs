//! Std's UDP and Unix sockets made green and given back: nothing that was under way is lost, and clones stay what they were. And the
//! waits of Unix sockets that no event ends.

use std::io::{Read as _, Write as _};
use std::os::unix::net as std_unix;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use weald::net::UdpSocket;
use weald::net::unix::{UnixDatagram, UnixListener, UnixStream};
use weald::wrap_socket;

use crate::support::{
    Count, Flag, MS, everywhere, in_each_mode, is_nonblocking, settle, source_of, v4,
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
