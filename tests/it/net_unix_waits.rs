//! Waits of Unix sockets, and reads that are cut short. Some ends are told by no event; the waits still end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net as std_unix;

use socket2::{Domain, SockRef, Socket, Type};
use weald::net::Fd;
use weald::net::unix::{UnixDatagram, UnixListener, UnixStream};

use super::net_adopt::Place;
use crate::support::{
    Flag, MS, everywhere, in_each_mode, settle, source_of, std_pair, v4, wait_until,
};

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

/// Sends the bytes with a descriptor. A read ends at the descriptor.
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
            // The thread has waited, so events come from now on, one for each edge.
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
        // There are as many as lie before the urgent one.
        wait_for_bytes(&near, 3);
        settle();
        let mut text = [0; 100];
        assert_eq!(near.read(&mut text).unwrap(), 3);
        assert_eq!(near.read(&mut text).unwrap(), 3);
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

/// The kernel wakes a writer that waits inside it, and tells nothing to threads that poll.
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
        // A writer that does not wait yet gets the same result as a later call.
        let moments = [10 * MS, 100 * MS, 1000 * MS, 5000 * MS];
        let mut told = moments.into_iter().map(told_after);
        let other = told.find(|&told| told != ErrorKind::BrokenPipe);
        assert_eq!(other, Some(ErrorKind::ConnectionReset));
    });
}
