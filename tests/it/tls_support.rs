//! Certificates made on the spot, and pairs of streams that speak TLS.

use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use weald::net::{Identity, SslAcceptor, SslConnector, SslStream, TcpStream};

use crate::support::{green_pair, v4};

/// An authority that signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Leaf {
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem(&self.chain, &self.key).unwrap()
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Makes a certificate for these DNS names and IP addresses.
    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, |_| {})
    }

    pub(crate) fn expired(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    fn leaf_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf {
            chain,
            key: key.serialize_pem(),
        }
    }
}

/// The authority that the tests trust.
pub(crate) static TRUSTED: LazyLock<Authority> = LazyLock::new(|| Authority::new("trusted"));

/// The certificate of `localhost` and of the loopback addresses.
pub(crate) static LOCALHOST: LazyLock<Leaf> =
    LazyLock::new(|| TRUSTED.leaf(&["localhost", "127.0.0.1", "::1"]));

pub(crate) fn acceptor() -> SslAcceptor {
    SslAcceptor::new(LOCALHOST.identity()).unwrap()
}

pub(crate) fn connector() -> SslConnector {
    SslConnector::from_pem(&TRUSTED.pem).unwrap()
}

/// Returns a client and a server that have not made the handshake.
pub(crate) fn raw_pair_with(
    connector: &SslConnector,
    acceptor: &SslAcceptor,
    name: &str,
) -> (SslStream, SslStream) {
    let (near, far) = green_pair(v4());
    let near = SslStream::client(near, connector, name).unwrap();
    (near, SslStream::server(far, acceptor).unwrap())
}

/// Returns what both ends say of the handshake.
pub(crate) fn shake(
    client: &SslStream,
    server: &SslStream,
) -> (std::io::Result<()>, std::io::Result<()>) {
    weald::scope(|s| {
        let server = s.spawn(|| server.handshake());
        let client = client.handshake();
        (client, server.join().unwrap())
    })
}

/// Returns a client and a server that have made the handshake.
pub(crate) fn tls_pair_with(
    connector: &SslConnector,
    acceptor: &SslAcceptor,
    name: &str,
) -> (SslStream, SslStream) {
    let (client, server) = raw_pair_with(connector, acceptor, name);
    let (near, far) = shake(&client, &server);
    near.unwrap();
    far.unwrap();
    (client, server)
}

pub(crate) fn tls_pair() -> (SslStream, SslStream) {
    tls_pair_with(&connector(), &acceptor(), "localhost")
}

/// Returns a client that speaks TLS, and a server's socket that has not begun.
pub(crate) fn client_and_socket() -> (SslStream, TcpStream) {
    let (near, far) = green_pair(v4());
    (
        SslStream::client(near, &connector(), "localhost").unwrap(),
        far,
    )
}

/// Returns a server that speaks TLS, and a client's socket that has not begun.
pub(crate) fn server_and_socket() -> (SslStream, TcpStream) {
    let (near, far) = green_pair(v4());
    (SslStream::server(near, &acceptor()).unwrap(), far)
}

/// Returns bytes in which a lost, doubled or moved byte shows.
pub(crate) fn pattern(from: usize, count: usize) -> Vec<u8> {
    let byte = |at: usize| ((at * 31) ^ (at >> 8)).to_le_bytes()[0];
    (from..from + count).map(byte).collect()
}
