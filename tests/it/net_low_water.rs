//! `SO_RCVLOWAT` of green streams: a read that waits takes as much as it asks for, as a read of std's does. Each
//! check runs on std's streams as well.

use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use weald::net;

use crate::support::{HOUR, MS, each_net, everywhere, settle, v4};

trait Stream: Read + Write + AsFd + Send + Sized {
    fn limit(&self, limit: Duration);
    fn nonblocking(&self);
    fn end(&self);
}

macro_rules! streams {
    ($($stream:ty),*) => {$(
        impl Stream for $stream {
            fn limit(&self, limit: Duration) {
                self.set_read_timeout(Some(limit)).unwrap();
            }

            fn nonblocking(&self) {
                self.set_nonblocking(true).unwrap();
            }

            fn end(&self) {
                self.shutdown(Shutdown::Write).unwrap();
            }
        }
    )*};
}
streams!(
    net::TcpStream,
    net::unix::UnixStream,
    std::net::TcpStream,
    std::os::unix::net::UnixStream
);

fn set_mark(of: &impl AsFd, mark: libc::c_int) {
    let size = libc::socklen_t::try_from(size_of_val(&mark)).unwrap();
    let fd = of.as_fd().as_raw_fd();
    let value = (&raw const mark).cast();
    // SAFETY: a pointer to a local of that size.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, size) };
    assert_eq!(set, 0);
}

/// A mark of ten for the first stream; three bytes of the second have come.
fn marked<S: Stream>(pair: &impl Fn() -> (S, S)) -> (S, S) {
    let (near, mut far) = pair();
    set_mark(&near, 10);
    far.write_all(b"abc").unwrap();
    (near, far)
}

fn read(from: &mut impl Read, room: usize) -> Result<Vec<u8>, ErrorKind> {
    let mut buffer = vec![0; room];
    let count = from.read(&mut buffer).map_err(|error| error.kind())?;
    buffer.truncate(count);
    Ok(buffer)
}

fn check<S: Stream>(pair: impl Fn() -> (S, S)) {
    // It waits for that many bytes, and then takes all there are.
    let (mut near, mut far) = marked(&pair);
    weald::scope(|scope| {
        let reader = scope.spawn(|| read(&mut near, 64));
        settle();
        assert!(!reader.is_finished());
        // Linux takes the bytes that are there first, and then waits for as many again.
        far.write_all(b"defghijklm").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"abcdefghijklm");
    });
    // The mark has gone.
    set_mark(&near, 1);
    far.write_all(b"x").unwrap();
    assert_eq!(read(&mut near, 64).unwrap(), b"x");

    // It waits for no more than it has room for.
    let (mut near, _far) = marked(&pair);
    assert_eq!(read(&mut near, 3).unwrap(), b"abc");

    // Into several buffers.
    let (mut near, mut far) = marked(&pair);
    weald::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut first, mut second) = ([0; 4], [0; 64]);
            let mut both = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            near.read_vectored(&mut both).unwrap()
        });
        settle();
        assert!(!reader.is_finished());
        far.write_all(b"defghijklm").unwrap();
        assert_eq!(reader.join().unwrap(), 13);
    });

    // The end comes first.
    let (mut near, far) = marked(&pair);
    weald::scope(|scope| {
        let reader = scope.spawn(|| [read(&mut near, 64), read(&mut near, 64)]);
        settle();
        assert!(!reader.is_finished());
        far.end();
        let [last, end] = reader.join().unwrap();
        assert_eq!((last.unwrap(), end.unwrap()), (b"abc".to_vec(), vec![]));
    });

    // The limit passes first, with something there and with nothing.
    let (mut near, _far) = marked(&pair);
    near.limit(20 * MS);
    assert_eq!(read(&mut near, 64).unwrap(), b"abc");
    let late = read(&mut near, 64).unwrap_err();
    assert!(matches!(late, ErrorKind::TimedOut | ErrorKind::WouldBlock));

    // The stream must not wait.
    let (mut near, _far) = marked(&pair);
    near.nonblocking();
    assert_eq!(read(&mut near, 64).unwrap(), b"abc");
    assert_eq!(read(&mut near, 64).unwrap_err(), ErrorKind::WouldBlock);
}

/// What only green streams do.
fn check_green<S: Stream>(pair: impl Fn() -> (S, S)) {
    // An exception takes nothing out.
    let (mut near, _far) = marked(&pair);
    let outcome = weald::timeout(10 * MS, || read(&mut near, 64).unwrap_err());
    assert!(outcome.is_err());
    set_mark(&near, 1);
    assert_eq!(read(&mut near, 64).unwrap(), b"abc");

    // A caller that asks for less does not lose bytes either.
    let (mut near, _far) = marked(&pair);
    assert!(weald::timeout(10 * MS, || read(&mut near, 64)).is_err());
    assert_eq!(read(&mut near, 3).unwrap(), b"abc");

    // It also waits with a limit that does not pass.
    let (mut near, mut far) = marked(&pair);
    near.limit(HOUR);
    weald::scope(|scope| {
        let reader = scope.spawn(|| read(&mut near, 64));
        settle();
        far.write_all(b"defghij").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"abcdefghij");
    });
}

#[test]
fn a_read_of_a_tcp_stream_waits_for_as_much_as_is_asked_for() {
    each_net(|addr| {
        let pair = || {
            let listener = weald::tcp_listener(addr).unwrap();
            let near = weald::connect_tcp(listener.local_addr().unwrap()).unwrap();
            (near, listener.accept().unwrap().0)
        };
        check(pair);
        check_green(pair);
    });
    check(|| {
        let listener = std::net::TcpListener::bind(v4()).unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    });
}

#[test]
fn a_read_of_a_unix_stream_waits_for_as_much_as_is_asked_for() {
    everywhere(|| {
        let pair = || net::unix::UnixStream::pair().unwrap();
        check(pair);
        check_green(pair);
    });
    check(|| std::os::unix::net::UnixStream::pair().unwrap());
}

#[test]
fn a_connection_has_the_mark_of_its_listener_and_a_wrapped_stream_keeps_its_own() {
    each_net(|addr| {
        let listener = weald::tcp_listener(addr).unwrap();
        set_mark(&listener, 4);
        let mut near = weald::connect_tcp(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let adopted = weald::wrap_socket(far.into_std());
        for mut far in [adopted.try_clone().unwrap(), adopted] {
            weald::scope(|scope| {
                near.write_all(b"ab").unwrap();
                let reader = scope.spawn(|| read(&mut far, 64));
                settle();
                assert!(!reader.is_finished());
                near.write_all(b"cd").unwrap();
                assert_eq!(reader.join().unwrap().unwrap(), b"abcd");
            });
        }
    });
}
