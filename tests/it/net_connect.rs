//! How TCP connections and listeners begin; on IPv4 and IPv6.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use weald::net;

use crate::support::{MS, check_names, each_net, everywhere, v4};

#[test]
fn a_refused_connection_is_an_error_and_every_address_is_tried() {
    each_net(|addr| {
        let closed = {
            let listener = weald::tcp_listener(addr).unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(
            weald::connect_tcp(closed).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        let listener = weald::tcp_listener(addr).unwrap();
        let open = listener.local_addr().unwrap();
        let stream = weald::connect_tcp(&[closed, open][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        let none: &[SocketAddr] = &[];
        assert_eq!(
            weald::connect_tcp(none).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    });
}

#[test]
fn names_are_looked_up_and_text_and_pairs_are_addresses_too() {
    everywhere(|| {
        let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = weald::connect_tcp(format!("127.0.0.1:{port}")).unwrap();
        let pair = weald::connect_tcp(("127.0.0.1", port)).unwrap();
        let name = weald::connect_tcp(("localhost", port)).unwrap();
        for stream in [text, pair, name] {
            assert_eq!(stream.peer_addr().unwrap().port(), port);
        }
        assert!(weald::connect_tcp("not an address").is_err());
    });
}

#[test]
fn connect_tcp_from_starts_at_the_local_address() {
    each_net(|addr| {
        let listener = weald::tcp_listener(addr).unwrap();
        let to = listener.local_addr().unwrap();
        let mut port = weald::tcp_listener(addr).unwrap().local_addr().unwrap();
        let stream = weald::connect_tcp_from(to, port).unwrap();
        assert_eq!(stream.local_addr().unwrap(), port);
        port.set_port(0);
        let any = weald::connect_tcp_from(to, port).unwrap();
        assert_eq!(any.local_addr().unwrap().ip(), port.ip());
    });
}

#[test]
fn a_listener_may_be_opened_again_at_once_on_a_port_that_was_in_use() {
    each_net(|addr| {
        let listener = weald::tcp_listener(addr).unwrap();
        let at = listener.local_addr().unwrap();
        let client = weald::connect_tcp(at).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        // Closed from this side first: the port is left in TIME_WAIT.
        drop(accepted);
        drop(listener);
        drop(client);
        assert_eq!(weald::tcp_listener(at).unwrap().local_addr().unwrap(), at);
    });
}

#[test]
fn a_backlog_that_is_absurd_is_refused_with_its_value() {
    everywhere(|| {
        for absurd in [0, u32::MAX] {
            let error = weald::tcp_listener_with(v4(), absurd)
                .map(drop)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            check_names(&error.to_string(), &absurd.to_string(), &[""]);
        }
        weald::tcp_listener_with(v4(), 1).unwrap();
        weald::tcp_listener_with(v4(), 128).unwrap();
    });
}

#[test]
fn a_connect_that_gets_no_answer_times_out() {
    each_net(|addr| {
        // With its queue full the listener answers nobody.
        let listener = weald::tcp_listener_with(addr, 1).unwrap();
        let to = listener.local_addr().unwrap();
        let zero = net::TcpStream::connect_timeout(&to, Duration::ZERO);
        assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
        let mut queued = Vec::new();
        let error = loop {
            match net::TcpStream::connect_timeout(&to, 100 * MS) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 50, "the queue never fills");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let outcome = weald::timeout(50 * MS, || net::TcpStream::connect(to).map(drop));
        assert!(outcome.is_err());
    });
}
