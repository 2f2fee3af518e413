// The cases of `std_parity.rs` for UDP, included twice. `net` is std's module the first time and weald's the second.
//
// A case returns what it saw, as lines of text. The lines have no address that differs from run to run.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use net::UdpSocket;

type Report = Vec<String>;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

// The signatures, method by method.

const _: () = {
    type Own<T> = fn(&UdpSocket) -> io::Result<T>;
    type Set<T> = fn(&UdpSocket, T) -> io::Result<()>;
    const _BIND: fn(SocketAddr) -> io::Result<UdpSocket> = UdpSocket::bind;
    const _FROM: [fn(&UdpSocket, &mut [u8]) -> io::Result<(usize, SocketAddr)>; 2] =
        [UdpSocket::recv_from, UdpSocket::peek_from];
    const _TO: fn(&UdpSocket, &[u8], SocketAddr) -> io::Result<usize> = UdpSocket::send_to;
    const _ADDRS: [Own<SocketAddr>; 2] = [UdpSocket::peer_addr, UdpSocket::local_addr];
    const _CLONE: Own<UdpSocket> = UdpSocket::try_clone;
    const _SET_TIMEOUTS: [Set<Option<Duration>>; 2] =
        [UdpSocket::set_read_timeout, UdpSocket::set_write_timeout];
    const _TIMEOUTS: [Own<Option<Duration>>; 2] =
        [UdpSocket::read_timeout, UdpSocket::write_timeout];
    const _SET_FLAGS: [Set<bool>; 4] = [
        UdpSocket::set_broadcast,
        UdpSocket::set_multicast_loop_v4,
        UdpSocket::set_multicast_loop_v6,
        UdpSocket::set_nonblocking,
    ];
    const _FLAGS: [Own<bool>; 3] = [
        UdpSocket::broadcast,
        UdpSocket::multicast_loop_v4,
        UdpSocket::multicast_loop_v6,
    ];
    const _SET_NUMBERS: [Set<u32>; 2] = [UdpSocket::set_multicast_ttl_v4, UdpSocket::set_ttl];
    const _NUMBERS: [Own<u32>; 2] = [UdpSocket::multicast_ttl_v4, UdpSocket::ttl];
    const _GROUPS_V4: [fn(&UdpSocket, &Ipv4Addr, &Ipv4Addr) -> io::Result<()>; 2] =
        [UdpSocket::join_multicast_v4, UdpSocket::leave_multicast_v4];
    const _GROUPS_V6: [fn(&UdpSocket, &Ipv6Addr, u32) -> io::Result<()>; 2] =
        [UdpSocket::join_multicast_v6, UdpSocket::leave_multicast_v6];
    const _ERROR: Own<Option<io::Error>> = UdpSocket::take_error;
    const _CONNECT: Set<SocketAddr> = UdpSocket::connect;
    const _SEND: fn(&UdpSocket, &[u8]) -> io::Result<usize> = UdpSocket::send;
    const _RECV: [fn(&UdpSocket, &mut [u8]) -> io::Result<usize>; 2] =
        [UdpSocket::recv, UdpSocket::peek];
};

// The traits.

const _: () = {
    const fn socket<T>()
    where
        T: std::fmt::Debug + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static,
        T: AsFd + AsRawFd + FromRawFd + IntoRawFd + From<OwnedFd> + Into<OwnedFd>,
    {
    }
    socket::<UdpSocket>();
};

/// Two sockets, each connected to the other.
fn pair(addr: SocketAddr) -> (UdpSocket, UdpSocket) {
    let (near, far) = (
        UdpSocket::bind(addr).unwrap(),
        UdpSocket::bind(addr).unwrap(),
    );
    near.connect(far.local_addr().unwrap()).unwrap();
    far.connect(near.local_addr().unwrap()).unwrap();
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

/// The next datagram of a connected socket.
fn take(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

pub(crate) fn datagrams_go_to_an_address_and_tell_where_they_come_from(
    addr: SocketAddr,
) -> Report {
    let (near, far) = (
        UdpSocket::bind(addr).unwrap(),
        UdpSocket::bind(addr).unwrap(),
    );
    let mut report = vec![line(
        "sent",
        near.send_to(b"a datagram", far.local_addr().unwrap()),
    )];
    let mut buffer = [0; 64];
    let (length, from) = far.recv_from(&mut buffer).unwrap();
    report.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    report.push(format!("{}", from == near.local_addr().unwrap()));
    report.push(line("an answer", far.send_to(b"back", from)));
    report.push(line("arrives", near.recv_from(&mut buffer).map(|got| got.0)));
    report
}

pub(crate) fn a_connected_socket_sends_and_receives(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    near.send(b"there").unwrap();
    let mut report = vec![take(&far)];
    far.send(b"and back").unwrap();
    report.push(take(&near));
    report.push(format!(
        "{}",
        near.peer_addr().unwrap() == far.local_addr().unwrap()
    ));
    // A datagram of another socket is not taken.
    let stranger = UdpSocket::bind(addr).unwrap();
    stranger
        .send_to(b"strange", near.local_addr().unwrap())
        .unwrap();
    far.send(b"mine").unwrap();
    report.push(take(&near));
    report
}

pub(crate) fn without_a_peer_send_and_peer_addr_fail(addr: SocketAddr) -> Report {
    let socket = UdpSocket::bind(addr).unwrap();
    let code = |error: io::Error| error.raw_os_error();
    vec![
        line("peer", socket.peer_addr().map(drop)),
        format!("{:?}", socket.send(b"to whom").map_err(code)),
    ]
}

pub(crate) fn peek_leaves_the_datagram(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    near.send(b"only once").unwrap();
    let mut buffer = [0; 4];
    vec![
        line("peek", far.peek(&mut buffer)),
        line("peek_from", far.peek_from(&mut buffer).map(|got| got.0)),
        take(&far),
    ]
}

pub(crate) fn what_does_not_fit_is_cut_off(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    for text in ["first and long", "second", ""] {
        near.send(text.as_bytes()).unwrap();
    }
    let mut buffer = [0; 5];
    let mut report = vec![line("cut", far.recv(&mut buffer))];
    report.push(line("nothing of it fits", far.recv(&mut [])));
    report.push(line("an empty one", far.recv(&mut buffer)));
    report
}

pub(crate) fn empty_datagrams_arrive(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    let mut report = vec![line("sent", near.send(&[]))];
    report.push(line("received", far.recv(&mut [0; 4])));
    report
}

pub(crate) fn too_long_datagrams_are_refused(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    let block = vec![0; 100_000];
    let code = |error: io::Error| error.raw_os_error();
    vec![
        format!("{:?}", near.send(&block).map_err(code)),
        format!(
            "{:?}",
            near.send_to(&block, far.local_addr().unwrap()).map_err(code)
        ),
    ]
}

pub(crate) fn nobody_there_is_told_by_the_next_call(addr: SocketAddr) -> Report {
    let near = UdpSocket::bind(addr).unwrap();
    let gone = UdpSocket::bind(addr).unwrap().local_addr().unwrap();
    near.connect(gone).unwrap();
    near.send(b"anybody?").unwrap();
    let refused = line("recv", near.recv(&mut [0]));
    vec![refused, line("the error is taken", near.take_error().map(|e| e.is_none()))]
}

pub(crate) fn timeouts_read_back_and_pass(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    let clone = near.try_clone().unwrap();
    let mut report = vec![
        line("at first", near.read_timeout()),
        line("at first", near.write_timeout()),
    ];
    near.set_read_timeout(Some(SHORT)).unwrap();
    clone.set_write_timeout(Some(LONG)).unwrap();
    report.push(timed("recv", near.recv(&mut [0])));
    report.push(timed("recv_from", clone.recv_from(&mut [0]).map(drop)));
    report.push(timed("peek", near.peek(&mut [0])));
    report.push(line("write", near.write_timeout()));
    report.push(line("zero", near.set_read_timeout(Some(Duration::ZERO))));
    report.push(line("zero", near.set_write_timeout(Some(Duration::ZERO))));
    near.set_read_timeout(None).unwrap();
    report.push(line("none", clone.read_timeout()));
    far.send(b"in time").unwrap();
    report.push(take(&near));
    report
}

pub(crate) fn nonblocking_calls_would_block(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    let mut report = vec![line("set", near.set_nonblocking(true))];
    report.push(line("recv", near.recv(&mut [0])));
    report.push(line("recv_from", near.recv_from(&mut [0]).map(drop)));
    report.push(line("peek", near.peek(&mut [0])));
    report.push(line("send", near.send(b"room")));
    near.set_nonblocking(false).unwrap();
    report.push(take(&far));
    far.send(b"waited for").unwrap();
    report.push(take(&near));
    report
}

pub(crate) fn options_read_back(addr: SocketAddr) -> Report {
    let socket = UdpSocket::bind(addr).unwrap();
    let mut report = vec![line("at first", socket.broadcast())];
    for on in [true, false] {
        report.push(line("set", socket.set_broadcast(on)));
        report.push(line("broadcast", socket.broadcast()));
    }
    if addr.is_ipv4() {
        report.push(line("at first", socket.multicast_loop_v4()));
        report.push(line("at first", socket.multicast_ttl_v4()));
        report.push(line("set", socket.set_multicast_loop_v4(false)));
        report.push(line("set", socket.set_multicast_ttl_v4(7)));
        report.push(line("loop", socket.multicast_loop_v4()));
        report.push(line("ttl", socket.multicast_ttl_v4()));
        report.push(line("set", socket.set_ttl(77)));
        report.push(line("ttl", socket.ttl()));
        report.push(line("too much", socket.set_ttl(1000)));
    } else {
        report.push(line("at first", socket.multicast_loop_v6()));
        report.push(line("set", socket.set_multicast_loop_v6(false)));
        report.push(line("loop", socket.multicast_loop_v6()));
    }
    report.push(line("error", socket.take_error().map(|e| e.is_none())));
    report
}

pub(crate) fn groups_are_joined_and_left(addr: SocketAddr) -> Report {
    let socket = UdpSocket::bind(addr).unwrap();
    let code = |error: io::Error| error.raw_os_error();
    if addr.is_ipv4() {
        let (group, own) = (Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::LOCALHOST);
        vec![
            format!("{:?}", socket.join_multicast_v4(&group, &own).map_err(code)),
            format!("{:?}", socket.join_multicast_v4(&group, &own).map_err(code)),
            format!("{:?}", socket.leave_multicast_v4(&group, &own).map_err(code)),
            format!("{:?}", socket.leave_multicast_v4(&group, &own).map_err(code)),
            format!("{:?}", socket.join_multicast_v4(&own, &own).map_err(code)),
        ]
    } else {
        let group = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 0x1234);
        vec![
            format!("{:?}", socket.join_multicast_v6(&group, 1).map_err(code)),
            format!("{:?}", socket.leave_multicast_v6(&group, 1).map_err(code)),
            format!("{:?}", socket.leave_multicast_v6(&group, 1).map_err(code)),
        ]
    }
}

pub(crate) fn addresses_are_tried_in_order(addr: SocketAddr) -> Report {
    let taken = UdpSocket::bind(addr).unwrap();
    let at = taken.local_addr().unwrap();
    let none: &[SocketAddr] = &[];
    let second = UdpSocket::bind(&[at, addr][..]).unwrap();
    vec![
        line("taken", UdpSocket::bind(at).map(drop)),
        format!("{}", second.local_addr().unwrap() != at),
        line("no address to bind to", UdpSocket::bind(none).map(drop)),
        line("to connect to", second.connect(none)),
        line("to send to", second.send_to(b"x", none)),
        line("nonsense", second.send_to(b"x", "no port here")),
        line("the first counts", second.send_to(b"x", &[at, addr][..])),
        line("arrives", taken.recv(&mut [0; 4])),
    ]
}

pub(crate) fn a_clone_is_the_same_socket(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    let clone = far.try_clone().unwrap();
    near.send(b"one").unwrap();
    near.send(b"two").unwrap();
    let first = take(&clone);
    drop(clone);
    vec![first, take(&far)]
}

pub(crate) fn descriptors_go_out_and_come_back(addr: SocketAddr) -> Report {
    let (near, far) = pair(addr);
    let number = near.as_raw_fd();
    let mut report = vec![format!("{}", near.as_fd().as_raw_fd() == number)];
    let owned: OwnedFd = near.into();
    let raw = UdpSocket::from(owned).into_raw_fd();
    report.push(format!("{}", raw == number));
    // SAFETY: the descriptor was given up by into_raw_fd just now, and is a socket's.
    let near = unsafe { UdpSocket::from_raw_fd(raw) };
    far.send(b"the same one").unwrap();
    report.push(take(&near));
    report
}

pub(crate) fn debug_names_the_type_and_its_address(addr: SocketAddr) -> Report {
    let socket = UdpSocket::bind(addr).unwrap();
    let text = format!("{socket:?}");
    vec![
        format!("{}", text.starts_with("UdpSocket {")),
        format!("{}", text.contains(&socket.local_addr().unwrap().to_string())),
    ]
}
