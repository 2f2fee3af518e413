//! What do TLS handshakes, bulk bytes and small requests cost, both ends together, on one worker?
//! Units: microseconds of CPU for one handshake, milliseconds for a GiB, seconds for a million
//! requests.
//!
//! `cargo bench -p weald-benches --bench tls`
//!
//! Client and server of a contestant run in one process, so its CPU time is what both cost, the
//! kernel's loopback included. All have the same rustls with the same provider, certificate (ECDSA,
//! P-256) and tickets.

mod rivals;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weald::net::{Identity, SslAcceptor, SslConnector, SslListener, SslStream};
use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, cpu_time, repetitions, unless_quick,
    weald_runtime,
};

const CONTESTANTS: &[Contestant] = &[
    Contestant::WealdShared,
    Contestant::WealdPinned,
    Contestant::Tokio,
];

const FULL: &str = "TLS handshakes, full";
const RESUMED: &str = "TLS handshakes, resumed";
const BULK: &str = "TLS bulk, writes of 64 KiB";
const REQUESTS: &str = "TLS requests of 64 bytes, 50 connections";

const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS_A_GIB: u64 = 16 * 1024;
const MESSAGE_BYTES: usize = 64;
const CONNECTIONS: u64 = 50;

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let case = |name: &str, amount, label| Case {
        name: name.into(),
        workers: 1,
        amount,
        metrics: vec![Metric::less(label)],
        contestants: CONTESTANTS,
        lifetime: Lifetime::Case,
    };
    let cases = [
        case(FULL, unless_quick(800, 50), "CPU for a handshake (us)"),
        case(RESUMED, unless_quick(1200, 50), "CPU for a handshake (us)"),
        case(BULK, unless_quick(8000, 500), "CPU for a GiB (ms)"),
        case(
            REQUESTS,
            unless_quick(40_000, 5000),
            "CPU for a million requests (s)",
        ),
    ];
    compare(&cases, repetitions(5));
}

/// A certificate for all names under `bench.test`, and its key.
fn certificate() -> (String, String) {
    let names = vec!["*.bench.test".to_owned()];
    let params = CertificateParams::new(names).expect("they are names");
    let key = KeyPair::generate().expect("there is randomness");
    let certificate = params.self_signed(&key).expect("the key signs");
    (certificate.pem(), key.serialize_pem())
}

/// A name that no session is kept for, or always the same.
fn name(case: &str, number: u64) -> String {
    let number = if case == FULL { number } else { 0 };
    format!("n{number}.bench.test")
}

fn serve(role: &Role) -> ! {
    let (chain, key) = certificate();
    let case = role.case.clone();
    // Names go on from one question to the next.
    let mut first = 0;
    match role.contestant {
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            let ends = Rustls::new(&chain, &key);
            answer(|amount| {
                let before = cpu_time().total_s();
                rivals::tokio_run(&runtime, ends.clone().run(case.clone(), first, amount));
                first += amount;
                vec![cost(&case, cpu_time().total_s() - before, amount)]
            })
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            let identity = Identity::from_pem(&chain, &key).expect("they belong together");
            let acceptor = SslAcceptor::new(identity).expect("the settings are good");
            let connector = SslConnector::from_pem(&chain).expect("it is a certificate");
            answer(|amount| {
                let before = cpu_time().total_s();
                runtime.run(|| weald_run(&acceptor, &connector, &case, first, amount));
                first += amount;
                vec![cost(&case, cpu_time().total_s() - before, amount)]
            })
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "amounts are small")]
fn cost(case: &str, seconds: f64, amount: u64) -> f64 {
    let each = seconds / amount as f64;
    match case {
        BULK => each * CHUNKS_A_GIB as f64 * 1e3,
        // A second for a million is a microsecond for one.
        _ => each * 1e6,
    }
}

// weald

fn weald_run(
    acceptor: &SslAcceptor,
    connector: &SslConnector,
    case: &str,
    first: u64,
    amount: u64,
) {
    let tcp = weald::tcp_listener((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
    let listener = SslListener::new(tcp, acceptor.clone());
    let addr = listener.local_addr().expect("it is bound");
    let connect = |number| {
        let tcp = weald::connect_tcp(addr).expect("it listens");
        tcp.set_nodelay(true).expect("it is TCP");
        SslStream::client(tcp, connector, &name(case, number)).expect("it is a name")
    };
    weald::scope(|scope| match case {
        FULL | RESUMED => {
            let server = scope.spawn(|| {
                for _ in 0..amount {
                    let (mut stream, _) = listener.accept().expect("it comes");
                    weald::spawn(move || {
                        stream.write_all(&[1]).expect("it shakes hands");
                        let _ = stream.read(&mut [0]);
                    });
                }
            });
            for number in first..first + amount {
                let mut stream = connect(number);
                stream.read_exact(&mut [0]).expect("it shakes hands");
                stream.shutdown(Shutdown::Write).expect("it is there");
            }
            server.join().expect("the server ends well");
        }
        BULK => {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().expect("it comes");
                let mut buffer = vec![0; CHUNK_BYTES];
                while stream.read(&mut buffer).expect("it comes whole") > 0 {}
            });
            let mut stream = connect(0);
            let chunk = vec![7; CHUNK_BYTES];
            for _ in 0..amount {
                stream.write_all(&chunk).expect("it is read");
            }
            stream.shutdown(Shutdown::Write).expect("it is there");
        }
        _ => {
            scope.spawn(|| {
                for _ in 0..CONNECTIONS {
                    let (mut stream, _) = listener.accept().expect("it comes");
                    weald::spawn(move || {
                        let mut buffer = [0; 4096];
                        while let Ok(count @ 1..) = stream.read(&mut buffer) {
                            stream.write_all(&buffer[..count]).expect("it is read");
                        }
                    });
                }
            });
            let connect = &connect;
            for _ in 0..CONNECTIONS {
                scope.spawn(move || {
                    let mut stream = connect(0);
                    let mut buffer = [0; MESSAGE_BYTES];
                    for _ in 0..amount / CONNECTIONS {
                        stream.write_all(&buffer).expect("it is read");
                        stream.read_exact(&mut buffer).expect("it comes back");
                    }
                    stream.shutdown(Shutdown::Write).expect("it is there");
                });
            }
        }
    });
}

// tokio

#[derive(Clone)]
struct Rustls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Rustls {
    fn new(chain: &str, key: &str) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificate = CertificateDer::from_pem_slice(chain.as_bytes()).expect("it is one");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("it is one");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("it is one");
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("there is randomness");
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::in_memory_sessions(1024);
        Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        }
    }

    async fn connect(
        self,
        addr: std::net::SocketAddr,
        name: String,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let tcp = TcpStream::connect(addr).await.expect("it listens");
        tcp.set_nodelay(true).expect("it is TCP");
        let name = ServerName::try_from(name).expect("it is a name");
        self.connector
            .connect(name, tcp)
            .await
            .expect("it shakes hands")
    }

    async fn accept(
        acceptor: TlsAcceptor,
        tcp: TcpStream,
    ) -> tokio_rustls::server::TlsStream<TcpStream> {
        tcp.set_nodelay(true).expect("it is TCP");
        acceptor.accept(tcp).await.expect("it shakes hands")
    }

    async fn run(self, case: String, first: u64, amount: u64) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback is there");
        let addr = listener.local_addr().expect("it is bound");
        let acceptor = self.acceptor.clone();
        match &*case {
            FULL | RESUMED => {
                let server = tokio::spawn(async move {
                    for _ in 0..amount {
                        let (tcp, _) = listener.accept().await.expect("it comes");
                        let acceptor = acceptor.clone();
                        tokio::spawn(async move {
                            let mut stream = Self::accept(acceptor, tcp).await;
                            stream.write_all(&[1]).await.expect("it is read");
                            stream.flush().await.expect("it is read");
                            let _ = stream.read(&mut [0]).await;
                        });
                    }
                });
                for number in first..first + amount {
                    let mut stream = self.clone().connect(addr, name(&case, number)).await;
                    stream.read_exact(&mut [0]).await.expect("it comes");
                    stream.shutdown().await.expect("it is there");
                }
                server.await.expect("the server ends well");
            }
            BULK => {
                let server = tokio::spawn(async move {
                    let (tcp, _) = listener.accept().await.expect("it comes");
                    let mut stream = Self::accept(acceptor, tcp).await;
                    let mut buffer = vec![0; CHUNK_BYTES];
                    while stream.read(&mut buffer).await.expect("it comes whole") > 0 {}
                });
                let mut stream = self.connect(addr, name(&case, 0)).await;
                let chunk = vec![7; CHUNK_BYTES];
                for _ in 0..amount {
                    stream.write_all(&chunk).await.expect("it is read");
                }
                stream.shutdown().await.expect("it is there");
                server.await.expect("the server ends well");
            }
            _ => {
                tokio::spawn(async move {
                    for _ in 0..CONNECTIONS {
                        let (tcp, _) = listener.accept().await.expect("it comes");
                        let acceptor = acceptor.clone();
                        tokio::spawn(async move {
                            let mut stream = Self::accept(acceptor, tcp).await;
                            let mut buffer = [0; 4096];
                            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                                stream
                                    .write_all(&buffer[..count])
                                    .await
                                    .expect("it is read");
                                stream.flush().await.expect("it is read");
                            }
                        });
                    }
                });
                let mut clients = Vec::new();
                for _ in 0..CONNECTIONS {
                    let connect = self.clone().connect(addr, name(&case, 0));
                    clients.push(tokio::spawn(async move {
                        let mut stream = connect.await;
                        let mut buffer = [0; MESSAGE_BYTES];
                        for _ in 0..amount / CONNECTIONS {
                            stream.write_all(&buffer).await.expect("it is read");
                            stream.flush().await.expect("it is read");
                            stream.read_exact(&mut buffer).await.expect("it comes back");
                        }
                        stream.shutdown().await.expect("it is there");
                    }));
                }
                for client in clients {
                    client.await.expect("the client ends well");
                }
            }
        }
    }
}
