//! `ssl_server` is `tcp_server` whose handlers get streams with the handshake done.

use std::io::{Read as _, Write as _};

use weald::net::SslAcceptor;

use crate::support::{Count, HOUR, MS, in_each_mode, v4, wait_until};
use crate::tls_support::{LOCALHOST, acceptor, connector};

fn ssl_listener(acceptor: &SslAcceptor) -> weald::net::SslListener {
    weald::ssl_listener_with(v4(), acceptor).unwrap()
}

#[test]
fn the_handler_of_an_ssl_server_gets_a_stream_whose_handshake_is_done() {
    in_each_mode(|| {
        let server = weald::ssl_server(ssl_listener(&acceptor()), |mut stream, peer| {
            assert!(stream.protocol_version().is_some());
            assert_eq!(stream.peer_addr().unwrap(), peer);
            let mut text = [0; 4];
            stream.read_exact(&mut text).unwrap();
            stream.write_all(&text).unwrap();
        });
        let at = server.local_addr().to_string();
        for _ in 0..3 {
            let mut client = weald::connect_ssl_with(&at, &connector()).unwrap();
            client.write_all(b"echo").unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "echo");
        }
        assert!(server.shutdown(HOUR));
        assert!(weald::connect_ssl_with(&at, &connector()).is_err());
    });
}

#[test]
fn silent_and_wrong_clients_of_an_ssl_server_hold_up_nobody_and_never_reach_the_handler() {
    in_each_mode(|| {
        let acceptor = SslAcceptor::builder()
            .identity(LOCALHOST.identity())
            .handshake_timeout(Some(300 * MS))
            .build()
            .unwrap();
        let served = Count::default();
        let serves = served.clone();
        let server = weald::ssl_server(ssl_listener(&acceptor), move |mut stream, _| {
            serves.add();
            stream.write_all(b".").unwrap();
        });
        let to = server.local_addr();
        let mut silent: Vec<_> = (0..5).map(|_| weald::connect_tcp(to).unwrap()).collect();
        let mut wrong = weald::connect_tcp(to).unwrap();
        wrong.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        wait_until(|| server.connections() >= 5);
        let mut client = weald::connect_ssl_with(&to.to_string(), &connector()).unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop(client);
        // The wrong client is told so, and the silent ones are given up in time.
        wrong.read_to_end(&mut Vec::new()).unwrap();
        for client in &mut silent {
            assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        }
        wait_until(|| server.connections() == 0);
        assert_eq!(served.get(), 1);
        assert!(server.is_running());
        assert!(server.shutdown(HOUR));
    });
}
