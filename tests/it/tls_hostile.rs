//! Bytes from the wire that come in pieces, changed or cut are refused or read, and never cause a panic.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use weald::net::{SslStream, SslTransport, TcpStream};

use crate::support::{MS, everywhere, green_pair, in_each_mode, v4};
use crate::tls_support::{LOCALHOST, acceptor, connector, pattern};

/// Numbers that are the same in every run: a step of xorshift64*.
#[derive(Debug)]
struct Dice(AtomicU64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    fn below(&self, bound: usize) -> usize {
        let mut number = self.0.load(SeqCst);
        number ^= number >> 12;
        number ^= number << 25;
        number ^= number >> 27;
        self.0.store(number, SeqCst);
        let high = number.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % bound
    }
}

/// TCP that reads in pieces, and changes one byte in `damage`; 0: none.
#[derive(Debug)]
struct Wire {
    tcp: TcpStream,
    dice: Dice,
    most: usize,
    damage: usize,
    /// After each piece a read says that it would wait.
    stutters: bool,
    stuttered: AtomicBool,
}

impl SslTransport for Wire {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stutters && !self.stuttered.fetch_xor(true, SeqCst) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let few = 1 + self.dice.below(buffer.len().min(self.most));
        let count = (&self.tcp).read(&mut buffer[..few])?;
        if self.damage > 0 {
            for byte in &mut buffer[..count] {
                if self.dice.below(self.damage) == 0 {
                    *byte ^= 1 << self.dice.below(8);
                }
            }
        }
        Ok(count)
    }

    fn send(&self, buffer: &[u8]) -> io::Result<usize> {
        (&self.tcp).write(buffer)
    }

    fn try_send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.tcp.try_send(buffer)
    }

    fn close(&self, how: Shutdown) -> io::Result<()> {
        self.tcp.shutdown(how)
    }
}

#[test]
fn changed_bytes_are_refused_by_both_sides_and_nothing_panics() {
    in_each_mode(|| {
        for seed in 0..60 {
            let (near, far) = green_pair(v4());
            // From about one change in a handshake to many.
            let damage = [3000, 1000, 200][usize::try_from(seed).unwrap() % 3];
            let wire = |tcp: TcpStream, seed| {
                // A changed length makes both sides wait for bytes that never come.
                tcp.set_read_timeout(Some(50 * MS)).unwrap();
                let dice = Dice::new(seed);
                Wire {
                    tcp,
                    dice,
                    most: 300,
                    damage,
                    stutters: false,
                    stuttered: AtomicBool::new(false),
                }
            };
            let client = wire(near, 2 * seed);
            let client = SslStream::client(client, &connector(), "localhost").unwrap();
            let server = SslStream::server(wire(far, 2 * seed + 1), &acceptor()).unwrap();
            let talk = |stream: &SslStream<Wire>, first: bool| -> io::Result<()> {
                let (mut reader, mut writer) = (stream, stream);
                for round in 0..20 {
                    if first {
                        writer.write_all(&pattern(round, 200))?;
                    }
                    let mut got = [0; 200];
                    reader.read_exact(&mut got)?;
                    assert!(got[..] == pattern(round, 200), "what is accepted is right");
                    if !first {
                        writer.write_all(&got)?;
                    }
                }
                Ok(())
            };
            let end = |stream: &SslStream<Wire>, first| {
                let result = talk(stream, first);
                // The side that fails ends the connection for the other.
                let _ = stream.shutdown(Shutdown::Both);
                result
            };
            let (near, far) = weald::scope(|s| {
                let server = s.spawn(|| end(&server, false));
                let near = end(&client, true);
                (near, server.join().expect("it does not panic"))
            });
            for error in [near, far].into_iter().filter_map(Result::err) {
                let expected = [
                    ErrorKind::InvalidData,
                    ErrorKind::UnexpectedEof,
                    ErrorKind::BrokenPipe,
                    ErrorKind::ConnectionReset,
                    ErrorKind::TimedOut,
                ];
                assert!(expected.contains(&error.kind()), "seed {seed}: {error:?}");
            }
        }
    });
}

/// A server on an OS thread whose records hold a few bytes, so that a message of a handshake, and a
/// ticket after it, takes many of them. It echoes, and counts to `bytes`.
fn tiny_records_server(bytes: usize) -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::from_pem_slice(LOCALHOST.chain.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(LOCALHOST.key.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    config.max_fragment_size = Some(48);
    config.send_tls13_tickets = 8;
    let listener = std::net::TcpListener::bind(v4()).unwrap();
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, tcp);
        let mut buffer = [0; 64];
        let mut echoed = 0;
        while echoed < bytes {
            let count = stream.read(&mut buffer).unwrap();
            stream.write_all(&buffer[..count]).unwrap();
            echoed += count;
        }
        // New keys: a message that comes between the data.
        stream.conn.refresh_traffic_keys().unwrap();
        stream.write_all(b"end").unwrap();
        stream.flush().unwrap();
    });
    (addr, server)
}

#[test]
fn writes_go_on_in_the_middle_of_messages_that_come_in_pieces() {
    const BYTES: usize = 4000;
    everywhere(|| {
        let (addr, server) = tiny_records_server(BYTES);
        let wire = Wire {
            tcp: weald::connect_tcp(addr).unwrap(),
            dice: Dice::new(7),
            most: 30,
            damage: 0,
            stutters: true,
            stuttered: AtomicBool::new(false),
        };
        let client = SslStream::client(wire, &connector(), "localhost").unwrap();
        let would_wait = |error: &io::Error| error.kind() == ErrorKind::WouldBlock;
        while let Err(error) = client.handshake() {
            assert!(would_wait(&error), "{error}");
        }
        // It writes after each piece, whatever that piece is in the middle of.
        let (mut written, mut got) = (0, Vec::new());
        let mut buffer = [0; 64];
        while got.len() < BYTES + 3 {
            match (&client).read(&mut buffer) {
                Ok(count) => got.extend_from_slice(&buffer[..count]),
                Err(error) => assert!(would_wait(&error), "{error}"),
            }
            if written < BYTES {
                (&client).write_all(&pattern(written, 40)).unwrap();
                written += 40;
            }
        }
        assert!(got[..BYTES] == pattern(0, BYTES) && got.ends_with(b"end"));
        server.join().unwrap();
    });
}
