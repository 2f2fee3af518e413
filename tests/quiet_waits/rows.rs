//! The table: each kind of descriptor, in each state, with weald's own calls that such a descriptor has.

use Call::*;

use crate::states::{
    Made, eventfd, fill, full_listener, full_queue, pair, pipe_reader, pipe_writer, shut, tcp,
    tcp_listener, tcp_reset, terminal, udp, udp_error, unix_listener, urge,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    TcpListener,
    Udp,
    Unix,
    UnixListener,
    Datagram,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    /// Sends to the place that the state has filled.
    SendTo,
    /// Connects to the listener whose queue the state has filled.
    Connect,
    Accept,
    Readable,
    Writable,
    /// poll(2), with `select`'s urgent data, and with nothing asked.
    PollIn,
    PollOut,
    PollPri,
    PollNothing,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) make: fn(&std::path::Path) -> Made,
    pub(crate) calls: &'static [Call],
}

const STREAM: &[Call] = &[Read, Write, PollIn, PollOut, PollPri, PollNothing];

pub(crate) fn rows() -> Vec<Row> {
    let row = |name, kind, make, calls| Row {
        name,
        kind,
        make,
        calls,
    };
    vec![
        row("tcp, idle", Kind::Tcp, |_| tcp(|_, _| ()), STREAM),
        row(
            "tcp, full",
            Kind::Tcp,
            |_| tcp(|near, _| fill(near)),
            STREAM,
        ),
        row(
            "tcp, full, the peer has half-closed",
            Kind::Tcp,
            |_| {
                tcp(|near, far| {
                    shut(far, libc::SHUT_WR);
                    fill(near);
                })
            },
            &[Read, Write, PollIn, PollOut, PollPri, Readable, Writable],
        ),
        row(
            "tcp, half-closed here, the peer still sends",
            Kind::Tcp,
            |_| tcp(|near, _| shut(near, libc::SHUT_WR)),
            STREAM,
        ),
        row(
            "tcp, shut for reading",
            Kind::Tcp,
            |_| tcp(|near, _| shut(near, libc::SHUT_RD)),
            STREAM,
        ),
        row(
            "tcp, an urgent byte",
            Kind::Tcp,
            |_| tcp(|_, far| urge(far)),
            STREAM,
        ),
        row(
            "tcp, an urgent byte and full",
            Kind::Tcp,
            |_| {
                tcp(|near, far| {
                    urge(far);
                    fill(near);
                })
            },
            STREAM,
        ),
        row("tcp, reset", Kind::Tcp, |_| tcp_reset(), STREAM),
        row(
            "tcp listener, idle",
            Kind::TcpListener,
            |_| tcp_listener(false),
            &[Accept, PollIn, PollOut, PollNothing],
        ),
        row(
            "tcp listener, shut",
            Kind::TcpListener,
            |_| tcp_listener(true),
            &[Accept],
        ),
        row(
            "a stream as a listener",
            Kind::TcpListener,
            |_| tcp(|_, _| ()),
            &[Accept],
        ),
        row(
            "udp as a listener",
            Kind::TcpListener,
            |_| udp(false),
            &[Accept],
        ),
        row(
            "udp, idle",
            Kind::Udp,
            |_| udp(false),
            &[Read, PollIn, PollPri, PollNothing],
        ),
        row(
            "udp, shut for reading",
            Kind::Udp,
            |_| udp(true),
            &[Read, PollIn, PollNothing],
        ),
        row(
            "udp, an error in the queue",
            Kind::Udp,
            |_| udp_error(true),
            &[Read, PollIn, PollOut, PollPri, PollNothing],
        ),
        row(
            "udp, an error to be told",
            Kind::Udp,
            |_| udp_error(false),
            &[Read],
        ),
        row(
            "unix, idle",
            Kind::Unix,
            |_| pair(libc::SOCK_STREAM, |_, _| ()),
            STREAM,
        ),
        row(
            "unix, full",
            Kind::Unix,
            |_| pair(libc::SOCK_STREAM, |near, _| fill(near)),
            STREAM,
        ),
        row(
            "unix, full, the peer has half-closed",
            Kind::Unix,
            |_| {
                pair(libc::SOCK_STREAM, |near, far| {
                    shut(far, libc::SHUT_WR);
                    fill(near);
                })
            },
            STREAM,
        ),
        row(
            "unix, the peer is gone",
            Kind::Unix,
            |_| (pair(libc::SOCK_STREAM, |_, _| ()).0, Box::new(())),
            STREAM,
        ),
        row(
            "seqpacket, idle",
            Kind::Unix,
            |_| pair(libc::SOCK_SEQPACKET, |_, _| ()),
            STREAM,
        ),
        row(
            "seqpacket, full",
            Kind::Unix,
            |_| pair(libc::SOCK_SEQPACKET, |near, _| fill(near)),
            STREAM,
        ),
        row(
            "seqpacket, full, the peer has half-closed",
            Kind::Unix,
            |_| {
                pair(libc::SOCK_SEQPACKET, |near, far| {
                    shut(far, libc::SHUT_WR);
                    fill(near);
                })
            },
            STREAM,
        ),
        row(
            "unix listener, idle",
            Kind::UnixListener,
            |place| unix_listener(place, false),
            &[Accept, PollIn, PollOut, PollNothing],
        ),
        row(
            "unix listener, shut",
            Kind::UnixListener,
            |place| unix_listener(place, true),
            &[Accept, PollIn, PollNothing],
        ),
        row(
            "unix listener, its queue is full",
            Kind::UnixListener,
            full_listener,
            &[Connect],
        ),
        row(
            "datagrams, idle",
            Kind::Datagram,
            |_| pair(libc::SOCK_DGRAM, |_, _| ()),
            STREAM,
        ),
        row(
            "datagrams, full",
            Kind::Datagram,
            |_| pair(libc::SOCK_DGRAM, |near, _| fill(near)),
            STREAM,
        ),
        row(
            "datagrams, shut for reading",
            Kind::Datagram,
            |_| pair(libc::SOCK_DGRAM, |near, _| shut(near, libc::SHUT_RD)),
            &[Read, Write, PollIn, PollNothing],
        ),
        row(
            "datagrams, shut for writing",
            Kind::Datagram,
            |_| pair(libc::SOCK_DGRAM, |near, _| shut(near, libc::SHUT_WR)),
            &[Read, Write, PollIn],
        ),
        row(
            "datagrams, the peer is gone",
            Kind::Datagram,
            |_| (pair(libc::SOCK_DGRAM, |_, _| ()).0, Box::new(())),
            &[Write, PollOut],
        ),
        row(
            "datagrams, to a full queue, connected",
            Kind::Datagram,
            |place| full_queue(place, true),
            &[Read, Write, SendTo, PollIn, PollOut],
        ),
        row(
            "datagrams, to a full queue, not connected",
            Kind::Datagram,
            |place| full_queue(place, false),
            &[SendTo, PollIn],
        ),
        row("pipe, empty", Kind::Any, |_| pipe_reader(false), ANY_READER),
        row(
            "pipe, nobody writes",
            Kind::Any,
            |_| pipe_reader(true),
            ANY_READER,
        ),
        row("pipe, full", Kind::Any, |_| pipe_writer(false), ANY_WRITER),
        row(
            "pipe, nobody reads",
            Kind::Any,
            |_| pipe_writer(true),
            ANY_WRITER,
        ),
        row("eventfd, zero", Kind::Any, |_| eventfd(false), ANY_READER),
        row("eventfd, full", Kind::Any, |_| eventfd(true), ANY_WRITER),
        row(
            "terminal, idle",
            Kind::Any,
            |_| terminal(false),
            &[Read, Readable, PollIn, PollPri],
        ),
        row(
            "terminal, hung up",
            Kind::Any,
            |_| terminal(true),
            &[Read, Readable, PollIn],
        ),
        row(
            "a stream as any descriptor, full",
            Kind::Any,
            |_| tcp(|near, _| fill(near)),
            &[Read, Write, Readable, Writable],
        ),
        row(
            "udp as any descriptor, shut",
            Kind::Any,
            |_| udp(true),
            &[Read, Readable],
        ),
    ]
}

const ANY_READER: &[Call] = &[Read, Readable, PollIn, PollPri];

const ANY_WRITER: &[Call] = &[Write, Writable, PollOut];
