//! The limits of the calls of a TLS stream: timeouts include the wait for other threads, a write whose time runs out
//! loses nothing silently, and the settings may be rustls's own.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weald::net::rustls::version::{TLS12, TLS13};
use weald::net::rustls::{ClientConfig, KeyLog, RootCertStore, ServerConfig, sign};
use weald::net::{
    Identity, SslAcceptor, SslConnector, SslStream, SslTransport, TcpStream, crypto_provider,
};

use crate::support::{Count, Flag, MS, green_pair, in_each_mode, settle, v4};
use crate::tls_support::{
    LOCALHOST, TRUSTED, acceptor, connector, pattern, raw_pair_with, shake, tls_pair, tls_pair_with,
};

#[test]
fn a_read_and_a_write_wait_no_longer_for_their_turn_than_their_timeouts_say() {
    in_each_mode(|| {
        let (near, far) = tls_pair();
        let near = Arc::new(near);
        let holder = {
            let near = Arc::clone(&near);
            weald::spawn(move || (&*near).read(&mut [0; 8]))
        };
        settle();
        // That thread holds the turn of readers, without a limit.
        near.set_read_timeout(Some(20 * MS)).unwrap();
        let error = (&*near).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        near.set_nonblocking(true).unwrap();
        let error = (&*near).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        near.set_nonblocking(false).unwrap();
        near.set_read_timeout(None).unwrap();
        (&far).write_all(b"!").unwrap();
        assert_eq!(holder.join().unwrap().unwrap(), 1);

        // This thread holds the turn of writers: the peer reads nothing.
        let written = Arc::new(AtomicUsize::new(0));
        let writer = {
            let near = Arc::clone(&near);
            let written = Arc::clone(&written);
            weald::spawn(move || {
                for _ in 0..1024 {
                    (&*near).write_all(&[0; 16 << 10])?;
                    written.fetch_add(1, Ordering::Relaxed);
                }
                std::io::Result::Ok(())
            })
        };
        // Until it is stuck.
        let mut seen = 0;
        loop {
            for _ in 0..3 {
                settle();
            }
            let now = written.load(Ordering::Relaxed);
            if now > 0 && now == seen {
                break;
            }
            seen = now;
        }
        near.set_write_timeout(Some(20 * MS)).unwrap();
        for result in [(&*near).write(b"?").map(drop), (&*near).flush()] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        }
        let said = near.shutdown(Shutdown::Write).unwrap_err();
        assert_eq!(said.kind(), ErrorKind::TimedOut);
        writer.thread().kill();
        let _ = writer.join();
    });
}

/// Reads all there is, until the end or an error. Returns what came.
fn read_all(mut stream: SslStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    all
}

#[test]
fn a_write_that_runs_out_of_time_fails_and_the_same_bytes_again_are_sent_once() {
    in_each_mode(|| {
        const BYTES: usize = 12 << 20;
        let bytes = pattern(0, BYTES);
        let (mut near, far) = tls_pair();
        near.set_write_timeout(Some(20 * MS)).unwrap();
        let mut written = 0;
        let error = loop {
            match near.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        near.set_write_timeout(None).unwrap();
        let reader = weald::spawn(move || read_all(far));
        // The bytes go in pieces, and through a flush.
        near.flush().unwrap();
        written += near.write(&bytes[written..written + 10]).unwrap();
        near.write_all(&bytes[written..]).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap() == bytes, "each byte came once");
    });
}

#[test]
fn other_bytes_follow_those_of_a_write_that_ran_out_of_time() {
    in_each_mode(|| {
        let (near, far) = tls_pair();
        near.set_write_timeout(Some(20 * MS)).unwrap();
        let mut reported = 0;
        while let Ok(count) = (&near).write(&pattern(reported, 50_000)) {
            reported += count;
        }
        let reader = weald::spawn(move || read_all(far));
        near.set_write_timeout(None).unwrap();
        // There are several writers, which do not know each other's limits.
        weald::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (&near).write_all(b"something else").unwrap());
            }
        });
        near.shutdown(Shutdown::Write).unwrap();
        let all = reader.join().unwrap();
        assert!(all.len() >= reported, "{} of {reported}", all.len());
        assert!(all[..reported] == pattern(0, reported));
        assert!(all.ends_with(&b"something else".repeat(3)));
    });
}

#[test]
fn the_last_bytes_of_a_dropped_stream_leave_the_settings_of_its_clones_alone() {
    in_each_mode(|| {
        let (mut near, far) = tls_pair();
        let clone = near.get_ref().try_clone().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut reported = 0;
        while let Ok(count) = near.write(&pattern(reported, 50_000)) {
            reported += count;
        }
        drop(near);
        settle();
        assert_eq!(clone.write_timeout().unwrap(), None);
        let error = (&clone).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let all = read_all(far);
        assert!(all[..reported] == pattern(0, reported));
    });
}

#[test]
fn what_write_has_reported_comes_though_the_stream_is_dropped_at_once() {
    in_each_mode(|| {
        for gives_up in [false, true] {
            let (mut near, far) = tls_pair();
            if gives_up {
                near.set_write_timeout(Some(20 * MS)).unwrap();
            } else {
                near.set_nonblocking(true).unwrap();
            }
            let mut reported = 0;
            while let Ok(count) = near.write(&pattern(reported, 50_000)) {
                reported += count;
            }
            drop(near);
            settle();
            let all = read_all(far);
            assert!(all.len() >= reported, "{} of {reported}", all.len());
            assert!(all[..reported] == pattern(0, reported));
        }
    });
}

fn server_config(
    versions: &[&'static weald::net::rustls::SupportedProtocolVersion],
) -> ServerConfig {
    let key = sign::SingleCertAndKey::from(LOCALHOST.identity().certified_key());
    ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(key))
}

fn client_config() -> ClientConfig {
    use weald::net::rustls::pki_types::CertificateDer;
    use weald::net::rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(TRUSTED.pem.as_bytes()).unwrap();
    roots.add(root).unwrap();
    ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[derive(Debug, Default)]
struct Counts(Count);

impl KeyLog for Counts {
    fn log(&self, _label: &str, _random: &[u8], _secret: &[u8]) {
        self.0.add();
    }
}

#[test]
fn a_configuration_of_rustls_chooses_versions_and_has_its_key_log() {
    in_each_mode(|| {
        for (version, name) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
            let logged = Count::default();
            let mut config = server_config(&[version]);
            config.key_log = Arc::new(Counts(logged.clone()));
            let acceptor = SslAcceptor::from_rustls(config).unwrap();
            let connector = SslConnector::from_rustls(client_config()).unwrap();
            let (near, far) = tls_pair_with(&connector, &acceptor, "localhost");
            assert_eq!(near.protocol_version(), Some(name));
            (&near).write_all(b"!").unwrap();
            (&far).read_exact(&mut [0]).unwrap();
            assert!(logged.get() > 0);
        }
    });
}

#[test]
fn a_configuration_of_rustls_is_refused_with_early_data_and_beside_settings_of_weald() {
    let invalid = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    };
    let mut early = server_config(&[&TLS13]);
    early.max_early_data_size = 1024;
    invalid(SslAcceptor::from_rustls(early).map(drop));
    let mut early = client_config();
    early.enable_early_data = true;
    invalid(SslConnector::from_rustls(early).map(drop));
    let both = SslAcceptor::builder().rustls(server_config(&[&TLS13]));
    invalid(both.identity(LOCALHOST.identity()).build().map(drop));
    let both = SslConnector::builder().rustls(client_config());
    invalid(both.alpn(["h2"]).build().map(drop));
    let acceptor = SslAcceptor::from_rustls(server_config(&[&TLS13])).unwrap();
    invalid(acceptor.reload([LOCALHOST.identity()]));
    let same = Identity::from(LOCALHOST.identity().certified_key());
    assert!(SslAcceptor::new(same).is_ok());
}

#[test]
fn ticket_keys_that_two_servers_share_resume_sessions_of_each_other() {
    in_each_mode(|| {
        let first = acceptor();
        let config = ServerConfig::clone(first.rustls_config());
        let second = SslAcceptor::from_rustls(config).unwrap();
        let connector = connector();
        for (acceptor, resumed) in [(&first, false), (&second, true)] {
            let (near, far) = raw_pair_with(&connector, acceptor, "localhost");
            let (client, server) = shake(&near, &far);
            client.unwrap();
            server.unwrap();
            // The tickets come after the handshake.
            (&far).write_all(b"!").unwrap();
            (&near).read_exact(&mut [0]).unwrap();
            assert_eq!(near.is_resumed(), resumed);
        }
    });
}

/// A transport of a program's own, with limits.
struct Limited(TcpStream);

impl SslTransport for Limited {
    fn receive(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&self.0).read(buffer)
    }

    fn send(&self, buffer: &[u8]) -> std::io::Result<usize> {
        (&self.0).write(buffer)
    }

    fn receive_limit(&self) -> Option<std::time::Duration> {
        Some(20 * MS)
    }

    fn close(&self, how: Shutdown) -> std::io::Result<()> {
        self.0.shutdown(how)
    }
}

#[test]
fn a_transport_says_how_long_a_reader_waits_for_its_turn() {
    in_each_mode(|| {
        let (near, far) = green_pair(v4());
        let near = SslStream::client(Limited(near), &connector(), "localhost").unwrap();
        let ends = Flag::default();
        let until = ends.clone();
        let server = weald::spawn(move || {
            let far = SslStream::server(far, &acceptor()).unwrap();
            far.handshake().unwrap();
            until.wait();
        });
        near.handshake().unwrap();
        let near = Arc::new(near);
        let holder = {
            let near = Arc::clone(&near);
            weald::spawn(move || (&*near).read(&mut [0]))
        };
        settle();
        let error = (&*near).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        ends.set();
        server.join().unwrap();
        let _ = holder.join();
    });
}
