// The cases of `std_parity.rs` for TCP, included twice. `net` is std's module the first time and weald's the second.
//
// A case returns what it saw, as lines of text. The lines have no address that differs from run to run.

use std::io::{self, BufRead as _, BufReader, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use net::{Shutdown, TcpListener, TcpStream};

type Report = Vec<String>;

const LONG: Duration = Duration::from_secs(30);

fn pair(addr: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(addr).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, far)
}

/// Returns a result without the parts that differ from run to run: an error is shown by its kind.
fn line<T: std::fmt::Debug>(what: &str, result: io::Result<T>) -> String {
    format!("{what}: {:?}", result.map_err(|error| error.kind()))
}

/// The same for a call that may reach its timeout: std on Unix says `WouldBlock` there, weald says `TimedOut`.
fn timed<T: std::fmt::Debug>(what: &str, result: io::Result<T>) -> String {
    let passed = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
    match result {
        Err(error) if passed(error.kind()) => format!("{what}: passed"),
        other => line(what, other),
    }
}

/// Reads until this many bytes are there.
fn take(mut stream: impl Read, bytes: usize) -> String {
    let mut text = vec![0; bytes];
    stream.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Waits until this many bytes lie in the stream's buffer.
fn await_bytes(stream: &TcpStream, bytes: usize) {
    let mut seen = vec![0; bytes];
    while stream.peek(&mut seen).unwrap() < bytes {
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn a_connection_knows_both_its_ends(addr: SocketAddr) -> Report {
    let listener = TcpListener::bind(addr).unwrap();
    let to = listener.local_addr().unwrap();
    let near = TcpStream::connect(to).unwrap();
    let (far, from) = listener.accept().unwrap();
    vec![
        format!("{}", near.peer_addr().unwrap() == to),
        format!("{}", far.local_addr().unwrap() == to),
        format!("{}", near.local_addr().unwrap() == from),
        format!("{}", far.peer_addr().unwrap() == from),
        format!("{}", from.ip() == addr.ip()),
    ]
}

pub(crate) fn bytes_go_both_ways_through_the_value_and_through_a_reference(
    addr: SocketAddr,
) -> Report {
    let (mut near, mut far) = pair(addr);
    near.write_all(b"value").unwrap();
    (&near).write_all(b"reference").unwrap();
    near.flush().unwrap();
    (&near).flush().unwrap();
    let first = take(&far, 5);
    let second = take(&mut far, 9);
    far.write_all(b"and back").unwrap();
    vec![first, second, take(&mut near, 8)]
}

pub(crate) fn read_and_write_shut_down_apart(addr: SocketAddr) -> Report {
    let (mut near, mut far) = pair(addr);
    let mut report = vec![line("shutdown write", near.shutdown(Shutdown::Write))];
    let mut text = String::new();
    report.push(line("the far end reads", far.read_to_string(&mut text)));
    far.write_all(b"still open this way").unwrap();
    drop(far);
    report.push(line("and the near end", near.read_to_string(&mut text)));
    report.push(text);
    report
}

pub(crate) fn a_read_after_shutdown_read_is_the_end(addr: SocketAddr) -> Report {
    let (mut near, mut far) = pair(addr);
    let mut report = vec![line("shutdown read", near.shutdown(Shutdown::Read))];
    report.push(line("read", near.read(&mut [0])));
    report.push(line("peek", near.peek(&mut [0])));
    report.push(line("the other direction", near.write(b"w")));
    report.push(line("arrives", far.read(&mut [0])));
    report
}

pub(crate) fn a_write_after_shutdown_write_is_a_broken_pipe(addr: SocketAddr) -> Report {
    let (mut near, _far) = pair(addr);
    near.shutdown(Shutdown::Write).unwrap();
    let mut report = vec![line("write", near.write(b"x"))];
    report.push(line("vectored", near.write_vectored(&[IoSlice::new(b"x")])));
    near.shutdown(Shutdown::Both).unwrap();
    report.push(line("read", near.read(&mut [0])));
    report
}

pub(crate) fn shutdown_of_what_is_shut_down_or_gone(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    let mut report = vec![
        line("once", near.shutdown(Shutdown::Write)),
        line("twice", near.shutdown(Shutdown::Write)),
    ];
    report.push(line("both", near.shutdown(Shutdown::Both)));
    report.push(line("a read", (&far).read(&mut [0])));
    report
}

pub(crate) fn a_connection_is_refused(addr: SocketAddr) -> Report {
    let closed = TcpListener::bind(addr).unwrap().local_addr().unwrap();
    vec![
        line("connect", TcpStream::connect(closed).map(drop)),
        line(
            "connect_timeout",
            TcpStream::connect_timeout(&closed, LONG).map(drop),
        ),
    ]
}

pub(crate) fn addresses_are_tried_in_order_and_the_last_error_wins(addr: SocketAddr) -> Report {
    let closed = TcpListener::bind(addr).unwrap().local_addr().unwrap();
    let listener = TcpListener::bind(addr).unwrap();
    let open = listener.local_addr().unwrap();
    let stream = TcpStream::connect(&[closed, open, closed][..]);
    vec![
        format!("{}", stream.unwrap().peer_addr().unwrap() == open),
        line(
            "none of them",
            TcpStream::connect(&[closed, closed][..]).map(drop),
        ),
        line("bind", TcpListener::bind(&[open, addr][..]).map(drop)),
    ]
}

pub(crate) fn no_address_at_all(_: SocketAddr) -> Report {
    let none: &[SocketAddr] = &[];
    vec![
        line("connect", TcpStream::connect(none).map(drop)),
        line("bind", TcpListener::bind(none).map(drop)),
        line("nonsense", TcpStream::connect("no port here").map(drop)),
        line(
            "too high a port",
            TcpStream::connect("127.0.0.1:65536").map(drop),
        ),
    ]
}

pub(crate) fn connect_timeout_connects_and_refuses_zero(addr: SocketAddr) -> Report {
    let listener = TcpListener::bind(addr).unwrap();
    let to = listener.local_addr().unwrap();
    // The call has a listener of its own, as std connects before it looks at the time.
    let unused = TcpListener::bind(addr).unwrap();
    let zero = TcpStream::connect_timeout(&unused.local_addr().unwrap(), Duration::ZERO).map(drop);
    let mut near = TcpStream::connect_timeout(&to, LONG).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(b"as any other").unwrap();
    vec![
        line("zero", zero),
        take(&mut far, 12),
        line("its timeout", near.read_timeout()),
    ]
}

pub(crate) fn timeouts_read_back_and_are_shared_with_clones(addr: SocketAddr) -> Report {
    let (near, _far) = pair(addr);
    let clone = near.try_clone().unwrap();
    let mut report = vec![
        line("at first", near.read_timeout()),
        line("at first", near.write_timeout()),
    ];
    near.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    clone
        .set_write_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    for stream in [&near, &clone] {
        report.push(line("read", stream.read_timeout()));
        report.push(line("write", stream.write_timeout()));
    }
    report.push(line("zero", near.set_read_timeout(Some(Duration::ZERO))));
    report.push(line("zero", near.set_write_timeout(Some(Duration::ZERO))));
    near.set_read_timeout(None).unwrap();
    report.push(line("none", clone.read_timeout()));
    report
}

pub(crate) fn a_passed_timeout_is_an_error_and_the_stream_goes_on(addr: SocketAddr) -> Report {
    let (mut near, mut far) = pair(addr);
    near.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut report = vec![
        timed("read", near.read(&mut [0])),
        timed("peek", near.peek(&mut [0])),
    ];
    near.set_read_timeout(Some(LONG)).unwrap();
    far.write_all(b"in time").unwrap();
    report.push(take(&mut near, 7));
    far.set_write_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let block = vec![0; 1 << 20];
    let end = loop {
        if let Err(error) = far.write(&block) {
            break error;
        }
    };
    report.push(timed("write", Err::<(), _>(end)));
    report
}

pub(crate) fn nodelay_and_ttl_read_back(addr: SocketAddr) -> Report {
    let (near, _far) = pair(addr);
    let mut report = vec![line("at first", near.nodelay())];
    for on in [true, false] {
        report.push(line("set", near.set_nodelay(on)));
        report.push(line("nodelay", near.nodelay()));
    }
    if addr.is_ipv4() {
        report.push(line("set", near.set_ttl(77)));
        report.push(line("ttl", near.ttl()));
        report.push(line("too much", near.set_ttl(1000)));
        report.push(line("ttl", near.ttl()));
    }
    report
}

pub(crate) fn quickack_reads_back(addr: SocketAddr) -> Report {
    let (near, _far) = pair(addr);
    let mut report = Vec::new();
    for on in [false, true] {
        report.push(line("set", near.set_quickack(on)));
        report.push(line("quickack", near.quickack()));
    }
    report
}

pub(crate) fn take_error_is_none_on_a_sound_socket(addr: SocketAddr) -> Report {
    let (near, _far) = pair(addr);
    let none = |result: io::Result<Option<io::Error>>| {
        format!("{:?}", result.map(|e| e.map(|e| e.kind())).unwrap())
    };
    vec![
        none(near.take_error()),
        none(TcpListener::bind(addr).unwrap().take_error()),
    ]
}

pub(crate) fn nonblocking_calls_would_block(addr: SocketAddr) -> Report {
    let (mut near, mut far) = pair(addr);
    let mut report = vec![line("set", near.set_nonblocking(true))];
    report.push(line("read", near.read(&mut [0])));
    report.push(line("peek", near.peek(&mut [0])));
    report.push(line(
        "vectored",
        near.read_vectored(&mut [IoSliceMut::new(&mut [0])]),
    ));
    let block = vec![0; 1 << 20];
    let end = loop {
        if let Err(error) = near.write(&block) {
            break error;
        }
    };
    report.push(line("write", Err::<(), _>(end)));
    near.set_nonblocking(false).unwrap();
    far.write_all(b"waits again").unwrap();
    report.push(take(&mut near, 11));
    report
}

pub(crate) fn peek_does_not_take(addr: SocketAddr) -> Report {
    let (near, mut far) = pair(addr);
    far.write_all(b"abcd").unwrap();
    await_bytes(&near, 4);
    let mut two = [0; 2];
    let mut report = vec![
        line("peek", near.peek(&mut two)),
        line("again", near.peek(&mut two)),
        take(&near, 4),
    ];
    drop(far);
    report.push(line("at the end", near.peek(&mut two)));
    report
}

pub(crate) fn vectored_calls_move_the_same_bytes(addr: SocketAddr) -> Report {
    let (mut near, mut far) = pair(addr);
    let parts = [
        IoSlice::new(b"one"),
        IoSlice::new(b""),
        IoSlice::new(b" and two"),
    ];
    let mut report = vec![line("write", near.write_vectored(&parts))];
    report.push(line(
        "by reference",
        (&near).write_vectored(&[IoSlice::new(b"!")]),
    ));
    await_bytes(&far, 12);
    let (mut first, mut second) = ([0; 4], [0; 100]);
    report.push(line(
        "read",
        far.read_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)]),
    ));
    report.push(format!("{first:?} {:?}", &second[..8]));
    report.push(line("nothing", near.write_vectored(&[])));
    report
}

pub(crate) fn clones_are_the_same_connection(addr: SocketAddr) -> Report {
    let (near, mut far) = pair(addr);
    let mut clone = near.try_clone().unwrap();
    clone.write_all(b"by the clone").unwrap();
    let mut report = vec![take(&far, 12)];
    report.push(format!(
        "{}",
        near.local_addr().unwrap() == clone.local_addr().unwrap()
    ));
    drop(near);
    far.write_all(b"lives on").unwrap();
    report.push(take(&clone, 8));
    clone.set_nodelay(true).unwrap();
    report.push(line("shared option", clone.try_clone().unwrap().nodelay()));
    clone.shutdown(Shutdown::Both).unwrap();
    report.push(line("the end", far.read(&mut [0])));
    report
}

pub(crate) fn the_end_of_the_peer_is_the_end_of_the_stream(addr: SocketAddr) -> Report {
    let (mut near, mut far) = pair(addr);
    far.write_all(b"last words").unwrap();
    drop(far);
    let mut text = String::new();
    let mut report = vec![line("to the end", near.read_to_string(&mut text)), text];
    report.push(line("once more", near.read(&mut [0])));
    let end = loop {
        if let Err(error) = near.write(b"nobody hears") {
            break error.kind();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    report.push(format!(
        "{}",
        matches!(end, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
    ));
    report
}

pub(crate) fn empty_buffers_return_at_once(addr: SocketAddr) -> Report {
    let (mut near, mut far) = pair(addr);
    let mut report = vec![
        line("write", near.write(b"")),
        line("write_all", near.write_all(b"")),
    ];
    far.write_all(b"x").unwrap();
    await_bytes(&near, 1);
    report.push(line("read", near.read(&mut [])));
    report.push(take(&mut near, 1));
    report
}

pub(crate) fn descriptors_go_out_and_come_back(addr: SocketAddr) -> Report {
    let (near, mut far) = pair(addr);
    let number: RawFd = near.as_raw_fd();
    let borrowed: BorrowedFd<'_> = near.as_fd();
    let mut report = vec![format!("{}", borrowed.as_raw_fd() == number)];
    let owned: OwnedFd = near.into();
    let near = TcpStream::from(owned);
    let raw = near.into_raw_fd();
    report.push(format!("{}", raw == number));
    // SAFETY: the descriptor was given up by into_raw_fd just now, and is a stream's.
    let near = unsafe { TcpStream::from_raw_fd(raw) };
    far.write_all(b"the same one").unwrap();
    report.push(take(&near, 12));

    let listener = TcpListener::bind(addr).unwrap();
    let at = listener.local_addr().unwrap();
    let listener = TcpListener::from(OwnedFd::from(listener));
    // SAFETY: the descriptor is given up by into_raw_fd, and is a listener's.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    let client = TcpStream::connect(at).unwrap();
    report.push(format!(
        "{}",
        listener.accept().unwrap().1 == client.local_addr().unwrap()
    ));
    report
}

pub(crate) fn debug_names_the_type_and_both_ends(addr: SocketAddr) -> Report {
    let (near, _far) = pair(addr);
    let text = format!("{near:?}");
    let listener = TcpListener::bind(addr).unwrap();
    let of_listener = format!("{listener:?}");
    vec![
        format!("{}", text.starts_with("TcpStream {")),
        format!("{}", text.contains(&near.local_addr().unwrap().to_string())),
        format!("{}", text.contains(&near.peer_addr().unwrap().to_string())),
        format!("{}", of_listener.starts_with("TcpListener {")),
        format!(
            "{}",
            of_listener.contains(&listener.local_addr().unwrap().to_string())
        ),
    ]
}

pub(crate) fn to_socket_addrs_takes_all_that_std_takes(addr: SocketAddr) -> Report {
    fn connects(to: impl ToSocketAddrs) -> String {
        format!("{}", TcpStream::connect(to).is_ok())
    }
    let listener = TcpListener::bind(addr).unwrap();
    let to = listener.local_addr().unwrap();
    let text = to.to_string();
    let host = to.ip().to_string();
    vec![
        connects(to),
        connects(to),
        connects(&[to][..]),
        connects(text.as_str()),
        connects(text.clone()),
        connects((to.ip(), to.port())),
        connects((host.as_str(), to.port())),
        connects((host, to.port())),
        connects("127.0.0.1:0"),
    ]
}

pub(crate) fn everything_else_of_read_and_write_works_on_top(addr: SocketAddr) -> Report {
    let (mut near, far) = pair(addr);
    writeln!(near, "a line {}", 1).unwrap();
    Write::by_ref(&mut near)
        .write_all(b"a second\nrest")
        .unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut lines = BufReader::new(&far);
    let mut text = String::new();
    lines.read_line(&mut text).unwrap();
    lines.read_line(&mut text).unwrap();
    let mut rest = Vec::new();
    lines.read_to_end(&mut rest).unwrap();
    let mut report = vec![text, String::from_utf8(rest).unwrap()];
    io::copy(&mut &b"copied"[..], &mut &far).unwrap();
    drop(far);
    report.push(
        BufReader::new(near)
            .bytes()
            .map(|byte| char::from(byte.unwrap()))
            .collect(),
    );
    report
}
