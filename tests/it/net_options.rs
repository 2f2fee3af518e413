//! Descriptors over Unix connections, credentials of the peer, and sockets with options.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use socket2::SockRef;
use weald::net::unix::UnixStream;
use weald::net::{Fd, SocketBuilder};

use crate::support::{Flag, MS, Mark, each_net, everywhere, in_each_mode, settle, source_of, v4};

/// Tells if the descriptor closes when the process becomes another program.
fn closes_on_exec(fd: &OwnedFd) -> bool {
    // SAFETY: an open descriptor, of which a flag is read.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    flags & libc::FD_CLOEXEC != 0
}

#[test]
fn descriptors_go_over_a_connection_with_the_bytes_that_they_were_sent_with() {
    everywhere(|| {
        let (near, far) = UnixStream::pair().unwrap();
        (&near).write_all(b"before").unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        assert_eq!(near.send_with_fds(b"pipe", &[reader.as_fd()]).unwrap(), 4);
        (&near).write_all(b"after").unwrap();
        drop(reader);

        let (mut got, mut fds) = (Vec::new(), Vec::new());
        let mut buffer = [0; 64];
        while got.len() < 15 {
            let (fds_before, bytes_before) = (fds.len(), got.len());
            let read = far.recv_with_fds(&mut buffer, &mut fds).unwrap();
            got.extend_from_slice(&buffer[..read]);
            if fds.len() > fds_before {
                // The descriptors come with their own bytes, perhaps behind earlier bytes, and before later ones.
                assert!(bytes_before <= 6 && got.len() == 10, "{bytes_before}");
            }
        }
        assert_eq!(got, b"beforepipeafter");
        let fd = fds.pop().unwrap();
        assert!(fds.is_empty() && closes_on_exec(&fd));
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        Fd::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(near);
        assert_eq!(far.recv_with_fds(&mut buffer, &mut fds).unwrap(), 0);
    });
}

#[test]
fn as_many_descriptors_as_the_kernel_takes_and_no_more() {
    everywhere(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let (most, more) = (vec![reader.as_fd(); 253], vec![reader.as_fd(); 254]);
        near.send_with_fds(b"!", &most).unwrap();
        let mut fds = Vec::new();
        assert_eq!(far.recv_with_fds(&mut [0; 8], &mut fds).unwrap(), 1);
        assert_eq!(fds.len(), 253);
        for (bytes, fds) in [(&b"!"[..], more), (&b""[..], most)] {
            let error = near.send_with_fds(bytes, &fds).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        near.send_with_fds(b"none", &[]).unwrap();
        assert_eq!(far.recv_with_fds(&mut [0; 8], &mut fds).unwrap(), 4);
        assert_eq!(fds.len(), 253);
    });
}

#[test]
fn who_waits_for_descriptors_holds_no_worker_and_can_be_interrupted() {
    in_each_mode(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let is_interrupted = Flag::default();
        let interrupted = is_interrupted.clone();
        let receiver = weald::spawn(move || {
            let (mut buffer, mut fds) = ([0; 8], Vec::new());
            let late = weald::timeout(10 * MS, || far.recv_with_fds(&mut buffer, &mut fds));
            assert!(late.is_err());
            weald::current().throw(Mark(1));
            let error = far.recv_with_fds(&mut buffer, &mut fds).unwrap_err();
            assert_eq!(source_of::<Mark>(&error), Some(&Mark(1)));
            interrupted.set();
            let read = far.recv_with_fds(&mut buffer, &mut fds).unwrap();
            (read, fds.len())
        });
        is_interrupted.wait();
        settle();
        let (reader, _writer) = std::io::pipe().unwrap();
        near.send_with_fds(b"two", &[reader.as_fd(); 2]).unwrap();
        assert_eq!(receiver.join().unwrap(), (3, 2));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn the_credentials_of_the_peer_are_those_of_this_process() {
    everywhere(|| {
        let (near, _far) = UnixStream::pair().unwrap();
        let peer = near.peer_cred().unwrap();
        // SAFETY: they have no precondition.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        assert_eq!((peer.uid, peer.gid), (uid, gid));
        assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn options_are_set_and_connections_have_those_of_their_listener() {
    each_net(|addr| {
        let options = SocketBuilder::new()
            .keep_alive(Duration::from_secs(70))
            .keep_alive_probes(Duration::from_secs(11), 4)
            .user_timeout(Duration::from_secs(9))
            .nodelay(true);
        let listener = options.listen(addr, 16).unwrap();
        let near = options.connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        for stream in [&near, &far] {
            let socket = SockRef::from(stream);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            let (time, interval) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
            assert_eq!(time.unwrap(), Duration::from_secs(70));
            assert_eq!(interval.unwrap(), Duration::from_secs(11));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
            let limit = socket.tcp_user_timeout().unwrap();
            assert_eq!(limit, Some(Duration::from_secs(9)));
        }
        (&near).write_all(b"bytes").unwrap();
        let mut buffer = [0; 5];
        (&far).read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"bytes");
    });
}

#[test]
fn several_listeners_may_share_a_port_if_all_of_them_say_so() {
    each_net(|addr| {
        let shares = SocketBuilder::new().reuse_port(true);
        let first = shares.listen(addr, 16).unwrap();
        let addr = first.local_addr().unwrap();
        let second = shares.listen(addr, 16).unwrap();
        assert_eq!(second.local_addr().unwrap(), addr);
        let alone = SocketBuilder::new().listen(addr, 16).unwrap_err();
        assert_eq!(alone.kind(), ErrorKind::AddrInUse);
        let refused = shares.listen(addr, 0).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        let one = shares.bind_udp(addr).unwrap();
        let other = shares.bind_udp(addr).unwrap();
        assert_eq!(one.local_addr().unwrap(), other.local_addr().unwrap());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn fast_open_carries_bytes_whether_the_system_allows_it_or_not() {
    everywhere(|| {
        let options = SocketBuilder::new().fast_open(16);
        let listener = options.listen(v4(), 16).unwrap();
        let addr = listener.local_addr().unwrap();
        // The second connection has the cookie of the first.
        for _ in 0..2 {
            let mut near = options.connect(addr).unwrap();
            near.write_all(b"early").unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let mut buffer = [0; 5];
            far.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"early");
            far.write_all(b"late").unwrap();
            near.read_exact(&mut buffer[..4]).unwrap();
            assert_eq!(&buffer[..4], b"late");
        }
    });
}

#[test]
fn a_connection_comes_from_the_address_that_was_said() {
    everywhere(|| {
        let listener = weald::tcp_listener(v4()).unwrap();
        let addr = listener.local_addr().unwrap();
        let near = SocketBuilder::new().local_addr(v4()).connect(addr).unwrap();
        let (_, from) = listener.accept().unwrap();
        assert_eq!(near.local_addr().unwrap(), from);
        let other = "[::1]:0".parse().unwrap();
        let error = SocketBuilder::new().local_addr(other).connect(addr);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
        let gone = weald::tcp_listener(v4()).unwrap().local_addr().unwrap();
        let refused = SocketBuilder::new().connect(gone).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn times_that_the_kernel_counts_in_seconds_are_rounded_up() {
    everywhere(|| {
        let listener = weald::tcp_listener(v4()).unwrap();
        let address = listener.local_addr().unwrap();
        // A connection that lingers for zero time is reset when it closes.
        let stream = SocketBuilder::new()
            .linger(5 * MS)
            .keep_alive(5 * MS)
            .connect(address)
            .unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!(socket.linger().unwrap(), Some(Duration::from_secs(1)));
        assert!(socket.keepalive().unwrap());
        let for_ever = SocketBuilder::new()
            .linger(Duration::MAX)
            .keep_alive(Duration::MAX);
        for_ever.connect(address).unwrap();
    });
}
