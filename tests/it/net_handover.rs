//! Green TCP sockets that come from std, go there, and live in several runtimes; on IPv4 and IPv6.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use weald::net;

use crate::support::{
    LIMIT, MODES, MS, each_mode_on, green_pair, in_each_mode, is_nonblocking, loopbacks, runtime,
    settle, v4, with_deadline,
};

#[test]
fn into_std_gives_a_blocking_stream_while_a_clone_stays_green() {
    each_mode_on(1, |rt| {
        for addr in loopbacks() {
            rt.run(|| {
                let (near, mut far) = green_pair(addr);
                let mut clone = near.try_clone().unwrap();
                // Both have waited before the conversion.
                near.set_read_timeout(Some(MS)).unwrap();
                assert_eq!(
                    (&near).read(&mut [0]).unwrap_err().kind(),
                    ErrorKind::TimedOut
                );
                near.set_read_timeout(None).unwrap();
                let mut plain: std::net::TcpStream = near.into_std();
                assert!(!is_nonblocking(&plain));
                // The stream is green: while the clone waits, this green thread has the only worker.
                let reader = weald::spawn(move || {
                    let mut byte = [0];
                    clone.read_exact(&mut byte).unwrap();
                    (byte[0], clone)
                });
                settle();
                far.write_all(b"g").unwrap();
                let (byte, _clone) = reader.join().unwrap();
                assert_eq!(byte, b'g');
                // The stream is blocking: an OS thread that reads waits for what comes later, and gets no
                // `WouldBlock`.
                assert!(!is_nonblocking(&plain));
                let os_thread = std::thread::spawn(move || {
                    let mut byte = [0];
                    plain.read_exact(&mut byte).map(|()| byte[0]).unwrap()
                });
                settle();
                far.write_all(b"s").unwrap();
                assert_eq!(os_thread.join().unwrap(), b's');
            });
        }
    });
}

#[test]
fn into_std_gives_a_blocking_listener_while_a_clone_stays_green() {
    each_mode_on(1, |rt| {
        for addr in loopbacks() {
            rt.run(|| {
                let listener = weald::tcp_listener(addr).unwrap();
                let to = listener.local_addr().unwrap();
                let clone = listener.try_clone().unwrap();
                let waited = weald::timeout(MS, || listener.accept().map(drop));
                assert!(waited.is_err());
                let plain: std::net::TcpListener = listener.into_std();
                assert!(!is_nonblocking(&plain));
                let _first = weald::connect_tcp(to).unwrap();
                plain.accept().unwrap();
                let acceptor = weald::spawn(move || clone.accept().unwrap().1);
                settle();
                // With an accept that blocked the only worker this would never be reached.
                let second = weald::connect_tcp(to).unwrap();
                assert_eq!(acceptor.join().unwrap(), second.local_addr().unwrap());
            });
        }
    });
}

#[test]
fn giving_the_descriptor_away_gives_a_blocking_one_and_taking_it_back_makes_it_green() {
    in_each_mode(|| {
        let (near, mut far) = green_pair(v4());
        let number = near.as_raw_fd();
        assert_eq!(near.as_fd().as_raw_fd(), number);
        let fd: OwnedFd = near.into();
        assert_eq!(fd.as_raw_fd(), number);
        assert!(!is_nonblocking(&fd));
        let mut again = net::TcpStream::from(fd);
        let reader = weald::spawn(move || again.read(&mut [0]).unwrap());
        settle();
        far.write_all(b"o").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
        let fd: OwnedFd = weald::tcp_listener(v4()).unwrap().into();
        assert!(!is_nonblocking(&fd));
        let listener = net::TcpListener::from(fd);
        let _client = weald::connect_tcp(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn wrap_socket_makes_a_std_stream_green_and_leaves_its_flag_alone() {
    each_mode_on(1, |rt| {
        for addr in loopbacks() {
            for nonblocking in [false, true] {
                rt.run(|| {
                    let listener = std::net::TcpListener::bind(addr).unwrap();
                    let near =
                        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    let (mut far, _) = listener.accept().unwrap();
                    near.set_nonblocking(nonblocking).unwrap();
                    let twin = near.try_clone().unwrap();
                    let mut green: net::TcpStream = weald::wrap_socket(near);
                    let reader = weald::spawn(move || {
                        let mut byte = [0];
                        green.read_exact(&mut byte).unwrap();
                        byte[0]
                    });
                    settle();
                    assert_eq!(is_nonblocking(&twin), nonblocking);
                    far.write_all(b"w").unwrap();
                    assert_eq!(reader.join().unwrap(), b'w');
                    assert_eq!(is_nonblocking(&twin), nonblocking);
                });
            }
        }
    });
}

#[test]
fn wrap_socket_and_from_make_a_std_listener_green() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            for wrap in [
                weald::wrap_socket::<std::net::TcpListener>,
                net::TcpListener::from,
            ] {
                let green: net::TcpListener = wrap(std::net::TcpListener::bind(v4()).unwrap());
                let to = green.local_addr().unwrap();
                let acceptor = weald::spawn(move || green.accept().unwrap().1);
                settle();
                let client = weald::connect_tcp(to).unwrap();
                assert_eq!(acceptor.join().unwrap(), client.local_addr().unwrap());
            }
            let plain = std::net::TcpListener::bind(v4()).unwrap();
            let stream = std::net::TcpStream::connect(plain.local_addr().unwrap()).unwrap();
            let mut far = plain.accept().unwrap().0;
            far.write_all(b"f").unwrap();
            net::TcpStream::from(stream).read_exact(&mut [0]).unwrap();
        });
    });
}

#[test]
fn a_socket_outlives_the_runtime_it_was_first_used_in() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let first = runtime(2, mode);
            let (mut near, mut far, listener) = first.run(|| {
                let listener = weald::tcp_listener(v4()).unwrap();
                let (near, far) = green_pair(v4());
                near.set_read_timeout(Some(MS)).unwrap();
                assert!((&near).read(&mut [0]).is_err());
                assert!(weald::timeout(MS, || listener.accept().map(drop)).is_err());
                near.set_read_timeout(None).unwrap();
                (near, far, listener)
            });
            first.shutdown(Duration::ZERO);
            let second = runtime(1, mode);
            let near = second.run(move || {
                let reader = weald::spawn(move || {
                    near.read_exact(&mut [0]).unwrap();
                    near
                });
                settle();
                far.write_all(b"2").unwrap();
                let to = listener.local_addr().unwrap();
                let acceptor = weald::spawn(move || listener.accept().map(drop));
                settle();
                let _client = weald::connect_tcp(to).unwrap();
                acceptor.join().unwrap().unwrap();
                let near = reader.join().unwrap();
                far.write_all(b"3").unwrap();
                near
            });
            drop(second);
            // And on a plain OS thread after both.
            (&near).read_exact(&mut [0]).unwrap();
            assert_eq!((&near).read(&mut [0]).unwrap(), 0);
        });
    }
}

#[test]
fn a_socket_is_used_from_two_runtimes_at_once() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let (one, two) = (runtime(1, mode), runtime(1, mode));
            let (near, mut far) = one.run(|| green_pair(v4()));
            let twin = near.try_clone().unwrap();
            let reader = |mut stream: net::TcpStream| {
                move || {
                    stream.read_exact(&mut [0]).unwrap();
                    stream
                }
            };
            let (first, second) = (one.spawn(reader(near)), two.spawn(reader(twin)));
            settle();
            far.write_all(b"12").unwrap();
            let _open = (first.join().unwrap(), second.join().unwrap());
        });
    }
}

#[test]
fn a_descriptor_number_that_is_used_again_never_wakes_a_stranger() {
    in_each_mode(|| {
        for round in 0..100_u8 {
            let (old, mut old_far) = green_pair(v4());
            old.set_read_timeout(Some(Duration::from_micros(200)))
                .unwrap();
            assert_eq!(
                (&old).read(&mut [0]).unwrap_err().kind(),
                ErrorKind::TimedOut
            );
            old_far.write_all(b"for the old one").unwrap();
            drop(old);
            // The new socket probably has the same number. What was told of the old one must not end the new one's
            // wait.
            let (mut new, mut new_far) = green_pair(v4());
            let reader = weald::spawn(move || {
                let mut byte = [0];
                new.read_exact(&mut byte).unwrap();
                byte[0]
            });
            weald::sleep(Duration::from_micros(300));
            assert!(!reader.is_finished());
            new_far.write_all(&[round]).unwrap();
            assert_eq!(reader.join().unwrap(), round);
        }
    });
}
