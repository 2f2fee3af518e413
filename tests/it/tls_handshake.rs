//! Handshakes: which thread runs them, which peers are refused, and how long a peer may take.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use weald::net::{
    ClientCertificates, Identity, SslAcceptor, SslConnector, SslRoots, SslStream, TcpStream,
};

use crate::support::{Count, HOUR, MS, each_net, everywhere, green_pair, in_each_mode, settle, v4};
use crate::tls_support::{
    Authority, LOCALHOST, TRUSTED, acceptor, client_and_socket, connector, raw_pair_with,
    server_and_socket, shake, tls_pair, tls_pair_with,
};

fn refusal(result: std::io::Result<()>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    error.to_string()
}

#[test]
fn accept_returns_before_the_client_has_said_a_word() {
    each_net(|addr| {
        let listener = weald::ssl_listener(addr, LOCALHOST.identity()).unwrap();
        let at = listener.local_addr().unwrap();
        let _silent: Vec<TcpStream> = (0..3).map(|_| weald::connect_tcp(at).unwrap()).collect();
        for _ in 0..3 {
            let (_stream, peer) = listener.accept().unwrap();
            assert!(peer.ip().is_loopback());
        }
        let client = weald::spawn(move || {
            let mut client = weald::connect_ssl_with(&at.to_string(), &connector()).unwrap();
            client.write_all(b"x").unwrap();
            client
        });
        let mut served = listener.incoming().next().unwrap().unwrap();
        served.read_exact(&mut [0]).unwrap();
        drop(client.join().unwrap());
    });
}

#[test]
fn a_key_that_does_not_fit_is_an_error_where_the_identity_is_made() {
    let other = TRUSTED.leaf(&["localhost"]);
    for (chain, key) in [
        (LOCALHOST.chain.as_str(), other.key.as_str()),
        ("", &other.key),
        (&other.chain, ""),
        (&other.chain, &other.chain),
        (&other.key, &other.key),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &other.key,
        ),
    ] {
        let error = Identity::from_pem(chain, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    }
    let folder = std::env::temp_dir().join(format!("weald-identity-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    std::fs::write(&chain, &other.chain).unwrap();
    std::fs::write(&key, &other.key).unwrap();
    Identity::from_pem_files(&chain, &key).unwrap();
    let error = Identity::from_pem_files(&chain, folder.join("none.pem")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("none.pem"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_cannot_be_a_setting_is_invalid_input() {
    let invalid =
        |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    invalid(SslAcceptor::builder().build().unwrap_err());
    invalid(SslConnector::builder().alpn([""]).build().unwrap_err());
    let builder = SslAcceptor::builder().identity(LOCALHOST.identity());
    let platform = ClientCertificates::Required(SslRoots::platform());
    invalid(builder.client_certificates(platform).build().unwrap_err());
    invalid(acceptor().reload([]).unwrap_err());
    for addr in [
        "localhost",
        "localhost:",
        ":443",
        "localhost:70000",
        "a b:443",
    ] {
        invalid(weald::connect_ssl_with(addr, &connector()).unwrap_err());
    }
    assert!(SslConnector::from_pem("nothing").is_err());
}

#[test]
fn a_client_refuses_a_stranger_an_expired_certificate_and_a_wrong_name() {
    let stranger = Authority::new("stranger").leaf(&["localhost"]);
    let expired = TRUSTED.expired(&["localhost"]);
    let named = TRUSTED.leaf(&["elsewhere.example"]);
    everywhere(|| {
        for (leaf, words) in [
            (&stranger, "UnknownIssuer"),
            (&expired, "expired"),
            (&named, "not valid for name"),
        ] {
            let acceptor = SslAcceptor::new(leaf.identity()).unwrap();
            let (client, server) = raw_pair_with(&connector(), &acceptor, "localhost");
            let (near, far) = shake(&client, &server);
            let text = refusal(near);
            assert!(text.contains(words), "{text}");
            assert!(refusal(far).contains("alert"));
            // The error stays at every later call.
            assert_eq!(
                (&client).read(&mut [0]).unwrap_err().kind(),
                ErrorKind::InvalidData
            );
            assert_eq!(
                (&client).write(b"x").unwrap_err().kind(),
                ErrorKind::InvalidData
            );
        }
    });
}

#[test]
fn connect_ssl_with_tells_what_is_wrong_with_the_server() {
    in_each_mode(|| {
        let stranger = Authority::new("stranger").leaf(&["localhost"]);
        let listener = weald::ssl_listener(v4(), stranger.identity()).unwrap();
        let at = listener.local_addr().unwrap();
        let server = weald::spawn(move || listener.accept().unwrap().0.handshake());
        let error = weald::connect_ssl_with(&at.to_string(), &connector()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        assert!(server.join().unwrap().is_err());
    });
}

#[test]
fn garbage_in_place_of_a_handshake_is_invalid_data_on_both_sides() {
    everywhere(|| {
        for garbage in [
            &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
            &[0; 64],
            &[0x16, 3, 1, 0, 4, 0xff, 0, 0, 0],
        ] {
            let (server, mut socket) = server_and_socket();
            socket.write_all(garbage).unwrap();
            assert!(!refusal(server.handshake()).is_empty());
            assert_eq!(
                (&server).read(&mut [0]).unwrap_err().kind(),
                ErrorKind::InvalidData
            );
            let (client, mut socket) = client_and_socket();
            socket.write_all(garbage).unwrap();
            assert!(!refusal(client.handshake()).is_empty());
        }
    });
}

#[test]
fn a_peer_that_goes_away_in_the_handshake_is_an_unexpected_end() {
    everywhere(|| {
        let (server, socket) = server_and_socket();
        drop(socket);
        let error = server.handshake().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let (client, mut socket) = client_and_socket();
        weald::scope(|s| {
            let client = s.spawn(|| client.handshake());
            socket.read_exact(&mut [0; 5]).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            let error = client.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        });
    });
}

#[test]
fn a_silent_peer_and_one_that_trickles_are_given_up_in_time() {
    const LIMIT: Duration = Duration::from_millis(40);
    everywhere(|| {
        let acceptor = SslAcceptor::builder()
            .identity(LOCALHOST.identity())
            .handshake_timeout(Some(LIMIT))
            .build()
            .unwrap();
        let (near, silent) = green_pair(v4());
        let server = SslStream::server(near, &acceptor).unwrap();
        let begun = Instant::now();
        let error = (&server).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("handshake"), "{error}");
        assert!(begun.elapsed() >= LIMIT);
        // The time does not start again.
        assert_eq!(server.handshake().unwrap_err().kind(), ErrorKind::TimedOut);
        drop(silent);

        let (near, mut slow) = green_pair(v4());
        let server = SslStream::server(near, &acceptor).unwrap();
        weald::scope(|s| {
            let served = s.spawn(|| server.handshake());
            // A record of 512 bytes, byte by byte.
            let _ = slow.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]);
            while !served.is_finished() {
                let _ = slow.write_all(&[0]);
                weald::sleep(MS);
            }
            let error = served.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        });

        // A client waits no longer for a silent server.
        let connector = SslConnector::builder()
            .roots(SslRoots::from_pem(&TRUSTED.pem).unwrap())
            .handshake_timeout(Some(LIMIT))
            .build()
            .unwrap();
        let listener = weald::tcp_listener(v4()).unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let error = weald::connect_ssl_with(&at, &connector).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_users_own_limit_around_a_handshake_stays_the_users() {
    everywhere(|| {
        let (server, _silent) = server_and_socket();
        let outcome = weald::timeout(10 * MS, || server.handshake().unwrap_err().kind());
        assert!(outcome.is_err());
        let outcome = weald::timeout(HOUR, weald::checkpoint);
        assert!(outcome.is_ok());
    });
}

#[test]
fn an_interrupted_handshake_goes_on_with_the_next_call() {
    in_each_mode(|| {
        let (client, server) = raw_pair_with(&connector(), &acceptor(), "localhost");
        let waits = crate::support::Flag::default();
        weald::scope(|s| {
            let handle = s.spawn(|| {
                waits.set();
                let error = server.handshake().unwrap_err();
                assert_eq!(
                    crate::support::source_of::<crate::support::Mark>(&error),
                    Some(&crate::support::Mark(1))
                );
                server.handshake()
            });
            waits.wait();
            settle();
            handle.thread().throw(crate::support::Mark(1));
            settle();
            client.handshake().unwrap();
            handle.join().unwrap().unwrap();
        });
    });
}

#[test]
fn silent_peers_take_no_seat_from_other_handshakes() {
    in_each_mode(|| {
        let acceptor = SslAcceptor::builder()
            .identity(LOCALHOST.identity())
            .max_handshakes(1)
            .build()
            .unwrap();
        let silent: Vec<_> = (0..4).map(|_| green_pair(v4())).collect();
        let held = Count::default();
        let waiting: Vec<_> = silent
            .into_iter()
            .map(|(near, far)| {
                let server = SslStream::server(near, &acceptor).unwrap();
                let held = held.clone();
                let handle = weald::spawn(move || {
                    held.add();
                    server.handshake()
                });
                (handle, far)
            })
            .collect();
        crate::support::wait_until(|| held.get() == 4);
        weald::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| drop(tls_pair_with(&connector(), &acceptor, "localhost")));
            }
        });
        for (handle, far) in waiting {
            drop(far);
            let error = handle.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
    });
}

#[test]
fn the_name_chooses_the_identity_and_a_reload_changes_it() {
    let names = [
        TRUSTED.leaf(&["first.example"]),
        TRUSTED.leaf(&["second.example", "*.wild.example"]),
    ];
    let renewed = TRUSTED.leaf(&["first.example", "second.example"]);
    let own = |client: &SslStream| client.peer_certificates()[0].clone();
    in_each_mode(|| {
        let acceptor = SslAcceptor::builder()
            .identity(names[0].identity())
            .identity(names[1].identity())
            .build()
            .unwrap();
        let connector = connector();
        let shown = |name: &str| own(&tls_pair_with(&connector, &acceptor, name).0);
        let (first, second) = (shown("first.example"), shown("second.example"));
        assert_ne!(first, second);
        assert_eq!(shown("a.wild.example"), second);
        assert_eq!(shown("SECOND.example"), second);
        // A name that no identity has gets the first identity, which the client then refuses.
        let (client, server) = raw_pair_with(&connector, &acceptor, "third.example");
        assert!(refusal(shake(&client, &server).0).contains("not valid for name"));
        acceptor.clone().reload([renewed.identity()]).unwrap();
        let now = shown("first.example");
        assert!(now != first && now != second);
        assert_eq!(shown("second.example"), now);
    });
}

#[test]
fn a_protocol_is_agreed_upon_and_others_are_refused() {
    everywhere(|| {
        let acceptor = SslAcceptor::builder()
            .identity(LOCALHOST.identity())
            .alpn(["h2", "http/1.1"])
            .build()
            .unwrap();
        let speaks = |names: &[&str]| {
            let builder = SslConnector::builder().roots(SslRoots::from_pem(&TRUSTED.pem).unwrap());
            builder.alpn(names).build().unwrap()
        };
        let (client, server) = tls_pair_with(&speaks(&["http/1.1"]), &acceptor, "localhost");
        assert_eq!(client.alpn_protocol().unwrap(), b"http/1.1");
        assert_eq!(server.alpn_protocol().unwrap(), b"http/1.1");
        assert_eq!(client.protocol_version(), Some("TLSv1.3"));
        assert!(client.cipher_suite().unwrap().starts_with("TLS13_"));
        let (client, server) = tls_pair_with(&speaks(&[]), &acceptor, "localhost");
        assert_eq!(
            (client.alpn_protocol(), server.alpn_protocol()),
            (None, None)
        );
        let (client, server) = raw_pair_with(&speaks(&["smtp"]), &acceptor, "localhost");
        let (near, far) = shake(&client, &server);
        assert!(near.is_err() && far.is_err());
        let (fresh, _socket) = client_and_socket();
        assert_eq!(
            (fresh.alpn_protocol(), fresh.protocol_version()),
            (None, None)
        );
    });
}

#[test]
fn client_certificates_are_asked_for_checked_and_shown() {
    let roots = SslRoots::from_pem(&TRUSTED.pem).unwrap();
    let member = TRUSTED.leaf(&["member"]);
    let stranger = Authority::new("stranger").leaf(&["member"]);
    everywhere(|| {
        let accepts = |clients| {
            let builder = SslAcceptor::builder().identity(LOCALHOST.identity());
            builder.client_certificates(clients).build().unwrap()
        };
        let shows = |leaf: &crate::tls_support::Leaf| {
            let builder = SslConnector::builder().roots(roots.clone());
            builder.identity(leaf.identity()).build().unwrap()
        };
        let required = accepts(ClientCertificates::Required(roots.clone()));
        let (_client, server) = tls_pair_with(&shows(&member), &required, "localhost");
        assert_eq!(server.peer_certificates().len(), 1);
        for client in [connector(), shows(&stranger)] {
            let (client, server) = raw_pair_with(&client, &required, "localhost");
            let (_, far) = shake(&client, &server);
            assert!(!refusal(far).is_empty());
            // In TLS 1.3 the client has ended its handshake by then, and learns of the refusal when it reads.
            let error = (&client).read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        }
        let optional = accepts(ClientCertificates::Optional(roots.clone()));
        let (_client, server) = tls_pair_with(&connector(), &optional, "localhost");
        assert!(server.peer_certificates().is_empty());
        let (_client, server) = tls_pair_with(&shows(&member), &optional, "localhost");
        assert_eq!(server.peer_certificates().len(), 1);
        let (client, server) = raw_pair_with(&shows(&stranger), &optional, "localhost");
        assert!(!refusal(shake(&client, &server).1).is_empty());
    });
}

#[test]
fn a_second_connection_resumes_the_first_ones_session() {
    everywhere(|| {
        let (acceptor, connector) = (acceptor(), connector());
        let (client, server) = tls_pair_with(&connector, &acceptor, "localhost");
        assert!(!client.is_resumed() && !server.is_resumed());
        // The tickets come with the first bytes.
        (&server).write_all(b"x").unwrap();
        (&client).read_exact(&mut [0]).unwrap();
        let again = connector.clone();
        let (client, server) = tls_pair_with(&again, &acceptor, "localhost");
        assert!(client.is_resumed() && server.is_resumed());
        let (client, _server) = tls_pair();
        assert!(!client.is_resumed(), "another connector has no session");
    });
}

#[test]
fn the_platforms_roots_are_those_that_the_system_names() {
    let folder = std::env::temp_dir().join(format!("weald-roots-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("roots.pem");
    std::fs::write(&file, &TRUSTED.pem).unwrap();
    let leaf = (LOCALHOST.chain.clone(), LOCALHOST.key.clone());
    let env = [
        ("SSL_CERT_FILE", file.to_str().unwrap()),
        ("WEALD_TEST_CHAIN", &leaf.0),
        ("WEALD_TEST_KEY", &leaf.1),
    ];
    let test = "tls_handshake::the_platforms_roots_are_those_that_the_system_names";
    let child = crate::support::in_child(test, &env, || {
        let chain = std::env::var("WEALD_TEST_CHAIN").unwrap();
        let key = std::env::var("WEALD_TEST_KEY").unwrap();
        let identity = Identity::from_pem(chain, key).unwrap();
        let listener = weald::ssl_listener(v4(), identity).unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let server = weald::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"trusted").unwrap();
        });
        let mut text = String::new();
        weald::connect_ssl(&at)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "trusted");
        server.join().unwrap();
    });
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(child.success, "{}", child.stderr);
}
