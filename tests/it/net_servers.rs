//! `unix_server` is `tcp_server` over another listener, and the handle tells the server's state.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use weald::net::ServerOptions;
use weald::net::unix::{UnixListener, UnixStream};

use crate::support::{Count, Flag, HOUR, everywhere, in_each_mode, settle, v4, wait_until};

/// A path that nobody else uses.
fn place() -> PathBuf {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::env::temp_dir().join(format!("weald-servers-{}-{number}", std::process::id()))
}

#[test]
fn a_unix_server_serves_until_it_is_stopped_and_knows_its_address() {
    everywhere(|| {
        let path = place();
        let listener = UnixListener::bind(&path).unwrap();
        let server = weald::unix_server(listener, |mut stream, peer| {
            assert!(peer.is_unnamed());
            let mut byte = [0];
            while let Ok(1) = stream.read(&mut byte) {
                stream.write_all(&byte).unwrap();
            }
        });
        assert_eq!(server.local_addr().as_pathname(), Some(&*path));
        assert!(server.is_running());
        let mut clients: Vec<_> = (0..3)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        for client in &mut clients {
            client.write_all(b"!").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(server.connections(), 3);
        clients.truncate(1);
        wait_until(|| server.connections() == 1);
        drop(clients);
        assert!(server.shutdown(HOUR));
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_unix_server_has_the_limits_of_a_tcp_server() {
    in_each_mode(|| {
        let path = place();
        let options = ServerOptions::new().max_connections(2);
        let inside = Count::default();
        let (enters, go) = (inside.clone(), Flag::default());
        let waits = go.clone();
        let listener = UnixListener::bind(&path).unwrap();
        let server = weald::unix_server_with(listener, options, move |mut stream, _| {
            enters.add();
            waits.wait();
            stream.write_all(b".").unwrap();
        });
        let mut clients: Vec<_> = (0..5)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        wait_until(|| inside.get() == 2);
        settle();
        assert_eq!(inside.get(), 2);
        go.set();
        for client in &mut clients {
            client.read_exact(&mut [0]).unwrap();
        }
        assert!(server.shutdown(HOUR));
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_handle_tells_that_its_listener_was_shut_down_and_nobody_is_served_any_more() {
    in_each_mode(|| {
        let listener = weald::tcp_listener(v4()).unwrap();
        let clone = listener.try_clone().unwrap();
        let server = weald::tcp_server(listener, |mut stream, _| {
            let _ = stream.read(&mut [0]);
        });
        let client = weald::connect_tcp(server.local_addr()).unwrap();
        wait_until(|| server.connections() == 1);
        assert!(server.is_running());
        // SAFETY: no pointers.
        let shut = unsafe { libc::shutdown(clone.as_raw_fd(), libc::SHUT_RD) };
        assert_eq!(shut, 0);
        wait_until(|| !server.is_running());
        assert_eq!(server.connections(), 1, "handlers that run go on");
        drop(client);
        assert!(server.shutdown(HOUR));
    });
}

#[test]
fn a_server_whose_listener_was_told_not_to_wait_serves_all_the_same() {
    in_each_mode(|| {
        let listener = weald::tcp_listener(v4()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let to = listener.local_addr().unwrap();
        let server = weald::tcp_server(listener, |mut stream, _| stream.write_all(b".").unwrap());
        for _ in 0..3 {
            settle();
            let mut client = weald::connect_tcp(to).unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        assert!(server.shutdown(HOUR));
    });
}

#[test]
fn a_handler_that_has_not_begun_when_the_server_kills_never_begins() {
    in_each_mode(|| {
        let begun = Count::default();
        let begins = begun.clone();
        let server = weald::tcp_server(weald::tcp_listener(v4()).unwrap(), move |_, _| {
            begins.add();
            weald::sleep(HOUR);
        });
        let to = server.local_addr();
        let _clients: Vec<_> = (0..5).map(|_| weald::connect_tcp(to).unwrap()).collect();
        wait_until(|| server.connections() == 5);
        let before = begun.get();
        assert!(!server.shutdown(std::time::Duration::ZERO));
        assert!(begun.get() >= before && begun.get() <= 5);
    });
}

/// Connects from a path that fills all the room for a path, without a zero at its end. The kernel allows that.
#[cfg(target_os = "linux")]
fn connect_from_longest_path(from: &std::path::Path, to: &std::path::Path) -> UnixStream {
    use std::os::fd::{FromRawFd as _, OwnedFd};
    use std::os::unix::ffi::OsStrExt as _;

    let address = |path: &std::path::Path| {
        let bytes = path.as_os_str().as_bytes();
        // SAFETY: plain numbers.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX.try_into().unwrap();
        for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
            *place = libc::c_char::from_ne_bytes([*byte]);
        }
        address
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).unwrap();
    // SAFETY: a new descriptor, and addresses with their length.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        assert!(socket >= 0);
        let socket = OwnedFd::from_raw_fd(socket);
        let (from, to) = (address(from), address(to));
        let bound = libc::bind(socket.as_raw_fd(), (&raw const from).cast(), length);
        assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
        let connected = libc::connect(socket.as_raw_fd(), (&raw const to).cast(), length);
        assert_eq!(connected, 0, "{}", std::io::Error::last_os_error());
        socket.into()
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_whose_path_std_cannot_say_is_served_without_a_name_and_so_is_the_next_one() {
    in_each_mode(|| {
        let path = place();
        let start = format!("{}-", path.display());
        let longest = PathBuf::from(format!("{start}{}", "x".repeat(108 - start.len())));
        let listener = UnixListener::bind(&path).unwrap();
        let server = weald::unix_server(listener, |mut stream, peer| {
            assert!(peer.is_unnamed());
            stream.write_all(b".").unwrap();
        });
        let strange = connect_from_longest_path(&longest, &path);
        let usual = UnixStream::connect(&path).unwrap();
        for mut client in [strange, usual] {
            client.read_exact(&mut [0]).unwrap();
        }
        assert!(server.is_running());
        assert!(server.shutdown(HOUR));
        for path in [path, longest] {
            std::fs::remove_file(path).unwrap();
        }
    });
}
