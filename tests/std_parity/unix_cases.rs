// The cases of `std_parity.rs` for Unix sockets, included twice. `unix` is std's module the first time and weald's
// the second.
//
// A case gets an empty folder and returns what it saw, as lines of text. The lines have no path that differs from run
// to run.

use std::io::{self, BufRead as _, BufReader, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::time::Duration;

use unix::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

type Report = Vec<String>;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

// The signatures, method by method.

const _: () = {
    type Own<S, T> = fn(&S) -> io::Result<T>;
    type Set<S, T> = fn(&S, T) -> io::Result<()>;
    type Limit = Option<Duration>;
    const _CONNECT: fn(&'static str) -> io::Result<UnixStream> = UnixStream::connect;
    const _CONNECT_ADDR: fn(&SocketAddr) -> io::Result<UnixStream> = UnixStream::connect_addr;
    const _PAIR: fn() -> io::Result<(UnixStream, UnixStream)> = UnixStream::pair;
    const _CLONE: Own<UnixStream, UnixStream> = UnixStream::try_clone;
    const _ADDRS: [Own<UnixStream, SocketAddr>; 2] = [UnixStream::local_addr, UnixStream::peer_addr];
    const _SET_TIMEOUTS: [Set<UnixStream, Limit>; 2] =
        [UnixStream::set_read_timeout, UnixStream::set_write_timeout];
    const _TIMEOUTS: [Own<UnixStream, Limit>; 2] =
        [UnixStream::read_timeout, UnixStream::write_timeout];
    const _NONBLOCKING: Set<UnixStream, bool> = UnixStream::set_nonblocking;
    const _ERROR: Own<UnixStream, Option<io::Error>> = UnixStream::take_error;
    const _SHUTDOWN: Set<UnixStream, Shutdown> = UnixStream::shutdown;

    const _BIND: fn(&'static str) -> io::Result<UnixListener> = UnixListener::bind;
    const _BIND_ADDR: fn(&SocketAddr) -> io::Result<UnixListener> = UnixListener::bind_addr;
    const _ACCEPT: fn(&UnixListener) -> io::Result<(UnixStream, SocketAddr)> = UnixListener::accept;
    const _OWN_CLONE: Own<UnixListener, UnixListener> = UnixListener::try_clone;
    const _OWN_ADDR: Own<UnixListener, SocketAddr> = UnixListener::local_addr;
    const _OWN_NONBLOCKING: Set<UnixListener, bool> = UnixListener::set_nonblocking;
    const _OWN_ERROR: Own<UnixListener, Option<io::Error>> = UnixListener::take_error;
    const _INCOMING: fn(&UnixListener) -> unix::Incoming<'_> = UnixListener::incoming;

    type Datagram = UnixDatagram;
    const _AT: fn(&'static str) -> io::Result<Datagram> = Datagram::bind;
    const _AT_ADDR: fn(&SocketAddr) -> io::Result<Datagram> = Datagram::bind_addr;
    const _UNBOUND: fn() -> io::Result<Datagram> = Datagram::unbound;
    const _TWO: fn() -> io::Result<(Datagram, Datagram)> = Datagram::pair;
    const _TO: Set<Datagram, &'static str> = Datagram::connect;
    const _TO_ADDR: fn(&Datagram, &SocketAddr) -> io::Result<()> = Datagram::connect_addr;
    const _SAME: Own<Datagram, Datagram> = Datagram::try_clone;
    const _BOTH: [Own<Datagram, SocketAddr>; 2] = [Datagram::local_addr, Datagram::peer_addr];
    const _FROM: fn(&Datagram, &mut [u8]) -> io::Result<(usize, SocketAddr)> = Datagram::recv_from;
    const _RECV: fn(&Datagram, &mut [u8]) -> io::Result<usize> = Datagram::recv;
    const _SEND_TO: fn(&Datagram, &[u8], &'static str) -> io::Result<usize> = Datagram::send_to;
    const _SEND_TO_ADDR: fn(&Datagram, &[u8], &SocketAddr) -> io::Result<usize> =
        Datagram::send_to_addr;
    const _SEND: fn(&Datagram, &[u8]) -> io::Result<usize> = Datagram::send;
    const _SET_LIMITS: [Set<Datagram, Limit>; 2] =
        [Datagram::set_read_timeout, Datagram::set_write_timeout];
    const _LIMITS: [Own<Datagram, Limit>; 2] = [Datagram::read_timeout, Datagram::write_timeout];
    const _AT_ONCE: Set<Datagram, bool> = Datagram::set_nonblocking;
    const _LAST: Own<Datagram, Option<io::Error>> = Datagram::take_error;
    const _END: Set<Datagram, Shutdown> = Datagram::shutdown;
};

// The traits.

const _: () = {
    const fn socket<T>()
    where
        T: std::fmt::Debug + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static,
        T: AsFd + AsRawFd + FromRawFd + IntoRawFd + From<OwnedFd> + Into<OwnedFd>,
    {
    }
    const fn stream<T: Read + Write>() {}
    const fn incoming<T>()
    where
        T: Iterator<Item = io::Result<UnixStream>>
            + std::fmt::Debug
            + Send
            + Sync,
    {
    }
    const fn into_incoming<'a, T: IntoIterator<IntoIter = unix::Incoming<'a>>>() {}
    socket::<UnixStream>();
    socket::<UnixListener>();
    socket::<UnixDatagram>();
    stream::<UnixStream>();
    stream::<&UnixStream>();
    incoming::<unix::Incoming<'static>>();
    into_incoming::<&'static UnixListener>();
};

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

/// The next datagram.
fn take_one(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// Returns an address as text, without the folder.
fn kind(addr: &SocketAddr) -> String {
    match addr.as_pathname() {
        Some(path) => path.file_name().unwrap().to_str().unwrap().to_owned(),
        None if addr.is_unnamed() => "unnamed".to_owned(),
        None => "abstract".to_owned(),
    }
}

pub(crate) fn a_connection_knows_both_its_ends(folder: &Path) -> Report {
    let path = folder.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let near = UnixStream::connect(&path).unwrap();
    let (far, from) = listener.accept().unwrap();
    vec![
        kind(&listener.local_addr().unwrap()),
        kind(&near.local_addr().unwrap()),
        kind(&near.peer_addr().unwrap()),
        kind(&far.local_addr().unwrap()),
        kind(&far.peer_addr().unwrap()),
        kind(&from),
        line("error", near.take_error().map(|error| error.is_none())),
        line("error", listener.take_error().map(|error| error.is_none())),
    ]
}

pub(crate) fn bytes_go_both_ways_in_every_manner(_: &Path) -> Report {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    near.write_all(b"value").unwrap();
    (&near).write_all(b"reference").unwrap();
    near.flush().unwrap();
    (&near).flush().unwrap();
    let mut report = vec![take(&far, 5), take(&mut far, 9)];
    let slices = [IoSlice::new(b"in "), IoSlice::new(b"two parts")];
    report.push(line("write_vectored", far.write_vectored(&slices)));
    let (mut first, mut second) = ([0; 4], [0; 20]);
    let slices = &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    report.push(line("read_vectored", near.read_vectored(slices)));
    report.push(String::from_utf8_lossy(&first).into_owned());
    report.push(String::from_utf8_lossy(&second).into_owned());
    writeln!(far, "a line").unwrap();
    let mut text = String::new();
    BufReader::new(&near).read_line(&mut text).unwrap();
    report.push(text);
    report.push(line("nothing", near.write(&[])));
    report
}

pub(crate) fn both_directions_shut_down_apart(_: &Path) -> Report {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let mut report = vec![line("shutdown write", near.shutdown(Shutdown::Write))];
    let mut text = String::new();
    report.push(line("the far end reads", far.read_to_string(&mut text)));
    report.push(line("write", near.write(b"x")));
    far.write_all(b"still open this way").unwrap();
    report.push(take(&near, 19));
    report.push(line("twice", near.shutdown(Shutdown::Write)));
    report.push(line("both", near.shutdown(Shutdown::Both)));
    report.push(line("read", near.read(&mut [0])));
    report.push(line("the far end writes", far.write(b"x")));
    drop(far);
    report.push(line("after the end", near.shutdown(Shutdown::Both)));
    report
}

pub(crate) fn the_end_of_the_peer_is_the_end_of_the_stream(_: &Path) -> Report {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"last words").unwrap();
    drop(far);
    let mut text = String::new();
    let mut report = vec![line("read", (&near).read_to_string(&mut text)), text];
    report.push(line("read", (&near).read(&mut [0])));
    report.push(line("write", (&near).write(b"anybody?")));
    report
}

pub(crate) fn a_peer_that_closes_on_unread_bytes_resets(_: &Path) -> Report {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(b"unread").unwrap();
    drop(far);
    vec![
        line("read", near.read(&mut [0])),
        line("read", near.read(&mut [0])),
    ]
}

pub(crate) fn nobody_there_or_no_socket_is_refused(folder: &Path) -> Report {
    let path = folder.join("gone");
    drop(UnixListener::bind(&path).unwrap());
    std::fs::write(folder.join("file"), "").unwrap();
    vec![
        line("nobody listens", UnixStream::connect(&path).map(drop)),
        line("a file", UnixStream::connect(folder.join("file")).map(drop)),
        line("no path", UnixStream::connect(folder.join("no")).map(drop)),
        line("taken", UnixListener::bind(&path).map(drop)),
        line("taken", UnixDatagram::bind(&path).map(drop)),
        line("a zero", UnixStream::connect("zero\0inside").map(drop)),
        line("too long", UnixStream::connect("x".repeat(200)).map(drop)),
        line("too long", UnixListener::bind("x".repeat(200)).map(drop)),
        line("another type", {
            let _datagrams = UnixDatagram::bind(folder.join("datagrams")).unwrap();
            UnixStream::connect(folder.join("datagrams")).map(drop).map_err(|e| {
                io::Error::other(e.raw_os_error().unwrap().to_string())
            })
        }),
    ]
}

pub(crate) fn timeouts_read_back_and_pass(_: &Path) -> Report {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let clone = near.try_clone().unwrap();
    let mut report = vec![
        line("at first", near.read_timeout()),
        line("at first", near.write_timeout()),
    ];
    near.set_read_timeout(Some(SHORT)).unwrap();
    clone.set_write_timeout(Some(SHORT)).unwrap();
    report.push(timed("read", near.read(&mut [0])));
    let block = vec![0; 1 << 20];
    let end = loop {
        if let Err(error) = near.write(&block) {
            break error;
        }
    };
    report.push(timed("write", Err::<(), _>(end)));
    report.push(line("zero", near.set_read_timeout(Some(Duration::ZERO))));
    report.push(line("zero", near.set_write_timeout(Some(Duration::ZERO))));
    near.set_read_timeout(Some(LONG)).unwrap();
    report.push(line("of the clone", clone.read_timeout()));
    far.write_all(b"in time").unwrap();
    report.push(take(&mut near, 7));
    near.set_read_timeout(None).unwrap();
    report.push(line("none", clone.read_timeout()));
    report
}

pub(crate) fn nonblocking_calls_would_block(folder: &Path) -> Report {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let mut report = vec![line("set", near.set_nonblocking(true))];
    report.push(line("read", near.read(&mut [0])));
    near.set_nonblocking(false).unwrap();
    far.write_all(b"waited for").unwrap();
    report.push(take(&mut near, 10));

    let path = folder.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    report.push(line("accept", listener.accept().map(drop)));
    let _client = UnixStream::connect(&path).unwrap();
    report.push(line("accept", listener.accept().map(drop)));

    let (one, other) = UnixDatagram::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    report.push(line("recv", one.recv(&mut [0])));
    report.push(line("recv_from", one.recv_from(&mut [0]).map(drop)));
    let end = loop {
        if let Err(error) = one.send(b"until it is full") {
            break error;
        }
    };
    report.push(line("send", Err::<(), _>(end)));
    report.push(take_one(&other));
    report
}

pub(crate) fn incoming_gives_one_connection_after_another(folder: &Path) -> Report {
    let path = folder.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let mut report = vec![format!("{:?}", listener.incoming().size_hint())];
    let clients: Vec<UnixStream> = (0..3_u8)
        .map(|number| {
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(&[b'0' + number]).unwrap();
            client
        })
        .collect();
    for stream in listener.incoming().take(2) {
        report.push(take(stream.unwrap(), 1));
    }
    for stream in (&listener).into_iter().take(1) {
        report.push(take(stream.unwrap(), 1));
    }
    drop(clients);
    report
}

pub(crate) fn listeners_share_their_queue_with_clones(folder: &Path) -> Report {
    let path = folder.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let clone = listener.try_clone().unwrap();
    let _clients = [(); 2].map(|()| UnixStream::connect(&path).unwrap());
    let mut report = vec![line("clone", clone.accept().map(drop))];
    drop(listener);
    report.push(line("the clone alone", clone.accept().map(drop)));
    report
}

pub(crate) fn addresses_made_by_hand_work_as_paths_do(folder: &Path) -> Report {
    let addr = SocketAddr::from_pathname(folder.join("by hand")).unwrap();
    let listener = UnixListener::bind_addr(&addr).unwrap();
    let near = UnixStream::connect_addr(&addr).unwrap();
    listener.accept().unwrap();
    let mut report = vec![kind(&near.peer_addr().unwrap())];

    let addr = SocketAddr::from_pathname(folder.join("datagrams")).unwrap();
    let far = UnixDatagram::bind_addr(&addr).unwrap();
    let near = UnixDatagram::unbound().unwrap();
    report.push(line("sent", near.send_to_addr(b"to it", &addr)));
    report.push(take_one(&far));
    report.push(line("connect", near.connect_addr(&addr)));
    near.send(b"connected").unwrap();
    report.push(take_one(&far));
    report.push(kind(&near.peer_addr().unwrap()));
    report
}

#[cfg(target_os = "linux")]
pub(crate) fn abstract_names_need_no_file(folder: &Path) -> Report {
    let name = folder.join("\0abstract");
    let addr = SocketAddr::from_abstract_name(name.as_os_str().as_encoded_bytes()).unwrap();
    let listener = UnixListener::bind_addr(&addr).unwrap();
    let near = UnixStream::connect_addr(&addr).unwrap();
    let (far, _) = listener.accept().unwrap();
    let same = |addr: &SocketAddr| {
        addr.as_abstract_name() == Some(name.as_os_str().as_encoded_bytes())
    };
    // An unnamed address lets the kernel choose.
    let unnamed = SocketAddr::from_pathname("").unwrap();
    let chosen = UnixDatagram::bind_addr(&unnamed).unwrap();
    vec![
        format!("{}", same(&near.peer_addr().unwrap())),
        format!("{}", same(&far.local_addr().unwrap())),
        line("taken", UnixListener::bind_addr(&addr).map(drop)),
        kind(&chosen.local_addr().unwrap()),
    ]
}

pub(crate) fn datagrams_tell_where_they_come_from(folder: &Path) -> Report {
    let (path, own) = (folder.join("far"), folder.join("near"));
    let far = UnixDatagram::bind(&path).unwrap();
    let near = UnixDatagram::bind(&own).unwrap();
    let mut buffer = [0; 64];
    let mut report = vec![line("sent", near.send_to(b"named", &path))];
    let (length, from) = far.recv_from(&mut buffer).unwrap();
    report.push(format!("{length} from {}", kind(&from)));
    report.push(line("an answer", far.send_to_addr(b"back", &from)));
    report.push(take_one(&near));
    let unbound = UnixDatagram::unbound().unwrap();
    report.push(kind(&unbound.local_addr().unwrap()));
    unbound.send_to(b"whose?", &path).unwrap();
    report.push(kind(&far.recv_from(&mut buffer).unwrap().1));
    report.push(line("no peer", unbound.peer_addr().map(drop)));
    report.push(line("no peer", unbound.send(b"to whom")));
    report.push(line("error", near.take_error().map(|error| error.is_none())));
    report
}

pub(crate) fn datagrams_keep_their_bounds(_: &Path) -> Report {
    let (near, far) = UnixDatagram::pair().unwrap();
    for text in ["first and long", "second", "", "third"] {
        near.send(text.as_bytes()).unwrap();
    }
    vec![
        line("cut", far.recv(&mut [0; 5])),
        take_one(&far),
        line("an empty one", far.recv(&mut [0; 5])),
        line("nothing of it fits", far.recv(&mut [])),
        format!("{:?}", near.send(&vec![0; 10 << 20]).map_err(|error| error.raw_os_error())),
    ]
}

pub(crate) fn a_connected_datagram_socket_has_one_peer(folder: &Path) -> Report {
    let path = folder.join("far");
    let far = UnixDatagram::bind(&path).unwrap();
    let near = UnixDatagram::unbound().unwrap();
    let mut report = vec![line("connect", near.connect(&path))];
    near.send(b"to the peer").unwrap();
    report.push(take_one(&far));
    report.push(kind(&near.peer_addr().unwrap()));
    drop(far);
    report.push(line("gone", near.send(b"anybody?")));
    report.push(line("connect", near.connect(&path)));
    report.push(line("no such", near.connect(folder.join("no"))));
    report
}

pub(crate) fn datagram_timeouts_and_shutdown(_: &Path) -> Report {
    let (near, far) = UnixDatagram::pair().unwrap();
    let clone = near.try_clone().unwrap();
    near.set_read_timeout(Some(SHORT)).unwrap();
    clone.set_write_timeout(Some(SHORT)).unwrap();
    let mut report = vec![
        line("read", clone.read_timeout()),
        line("write", near.write_timeout()),
        line("zero", near.set_read_timeout(Some(Duration::ZERO))),
        timed("recv", near.recv(&mut [0])),
    ];
    let end = loop {
        if let Err(error) = near.send(b"until it is full") {
            break error;
        }
    };
    report.push(timed("send", Err::<(), _>(end)));
    report.push(take_one(&far));
    report.push(line("shutdown", near.shutdown(Shutdown::Write)));
    report.push(line("send", near.send(b"x")));
    report.push(line("shutdown", near.shutdown(Shutdown::Both)));
    report.push(line("recv", near.recv(&mut [0])));
    report
}

pub(crate) fn descriptors_go_out_and_come_back(folder: &Path) -> Report {
    let (near, mut far) = UnixStream::pair().unwrap();
    let number = near.as_raw_fd();
    let mut report = vec![format!("{}", near.as_fd().as_raw_fd() == number)];
    let raw = UnixStream::from(OwnedFd::from(near)).into_raw_fd();
    report.push(format!("{}", raw == number));
    // SAFETY: the descriptor was given up by into_raw_fd just now, and is a stream's.
    let near = unsafe { UnixStream::from_raw_fd(raw) };
    far.write_all(b"the same one").unwrap();
    report.push(take(&near, 12));

    let path = folder.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let listener = UnixListener::from(OwnedFd::from(listener));
    // SAFETY: the descriptor is given up by into_raw_fd, and is a listener's.
    let listener = unsafe { UnixListener::from_raw_fd(listener.into_raw_fd()) };
    let _client = UnixStream::connect(&path).unwrap();
    report.push(line("accept", listener.accept().map(drop)));

    let (one, other) = UnixDatagram::pair().unwrap();
    let one = UnixDatagram::from(OwnedFd::from(one));
    other.send(b"and this").unwrap();
    report.push(take_one(&one));
    report
}

pub(crate) fn debug_names_the_type_and_the_addresses(folder: &Path) -> Report {
    let path = folder.join("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let near = UnixStream::connect(&path).unwrap();
    let datagrams = UnixDatagram::bind(folder.join("datagrams")).unwrap();
    let masked = |text: String, fd: i32| {
        text.replace(folder.to_str().unwrap(), "folder")
            .replace(&format!("fd: {fd}"), "fd: N")
            // On Linux std shows the type that holds the number.
            .replace("FileDesc(OwnedFd { fd: N })", "N")
    };
    vec![
        masked(format!("{listener:?}"), listener.as_raw_fd()),
        masked(format!("{near:?}"), near.as_raw_fd()),
        masked(format!("{datagrams:?}"), datagrams.as_raw_fd()),
    ]
}
