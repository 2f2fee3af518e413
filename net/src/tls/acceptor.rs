//! The settings of a server, which many connections share.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{
    ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;

use super::errors::{error, invalid_data, invalid_input};
use super::identity::Identity;
use super::machine::Machine;
use super::permits::Permits;
use super::provider::{provider, ticketer};
use super::roots::{Kind, SslRoots};
use super::session::Bounds;
use super::settings::{HANDSHAKE_LIMIT, protocols};

/// How many sessions of clients without tickets can be resumed. Each takes about 1 KiB. The 256 of rustls are soon
/// full.
const SESSIONS: usize = 16 * 1024;

/// The settings of a server for TLS handshakes: its identity, its protocols, and which clients it lets in. Clones
/// share the settings, and [`reload`](Self::reload) changes them for all clones.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let acceptor = weald::net::SslAcceptor::builder()
///     .identity(weald::net::Identity::from_pem(&chain, &key)?)
///     .alpn(["h2", "http/1.1"])
///     .handshake_timeout(Some(Duration::from_secs(5)))
///     .build()?;
/// let listener = weald::ssl_listener_with("127.0.0.1:0", &acceptor)?;
/// // Later, with a new certificate:
/// acceptor.reload([weald::net::Identity::from_pem(&chain, &key)?])?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SslAcceptor(Arc<Shared>);

struct Shared {
    config: Arc<ServerConfig>,
    /// `None`: the program has made the configuration.
    identities: Option<Arc<Identities>>,
    bounds: Bounds,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl SslAcceptor {
    /// Returns a server with one identity. Its other settings are those of [`builder`](Self::builder).
    ///
    /// # Errors
    /// Those of [`SslAcceptorBuilder::build`].
    pub fn new(identity: Identity) -> io::Result<Self> {
        Self::builder().identity(identity).build()
    }

    /// Returns a server with a configuration of rustls, for settings that [`builder`](Self::builder) does not offer:
    /// versions, cipher suites, a key log, a verifier of clients with revocation lists, ticket keys that several
    /// servers share, or a choice of certificates by more than the name.
    ///
    /// The configuration may have any provider of cryptography ([`crypto_provider`](crate::crypto_provider) is
    /// weald's own), but early data (`max_early_data_size`) must be off. Its verifiers, resolvers, key logs and
    /// tickets are called in the handshake, on the stack of the green thread that runs it. Nothing else of the stream
    /// can go on meanwhile. They may make blocking calls of weald, but none on this stream.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use weald::net::rustls::{ServerConfig, version::TLS13};
    /// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    /// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// let identity = weald::net::Identity::from_pem(&chain, &key)?;
    /// let mut config = ServerConfig::builder_with_provider(weald::net::crypto_provider())
    ///     .with_protocol_versions(&[&TLS13])
    ///     .unwrap()
    ///     .with_no_client_auth()
    ///     .with_cert_resolver(Arc::new(weald::net::rustls::sign::SingleCertAndKey::from(
    ///         identity.certified_key(),
    ///     )));
    /// config.key_log = Arc::new(weald::net::rustls::KeyLogFile::new());
    /// let acceptor = weald::net::SslAcceptor::from_rustls(config)?;
    /// # drop(acceptor);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput`: the configuration allows early data.
    pub fn from_rustls(config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        Self::builder().rustls(config).build()
    }

    /// Returns this acceptor with these protocols offered by ALPN, unless it offers some already. It is for servers
    /// that know their protocol.
    ///
    /// # Errors
    /// Those of [`SslAcceptorBuilder::build`].
    ///
    /// # Examples
    /// ```
    /// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    /// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    /// let identity = weald::net::Identity::from_pem(&chain, &key)?;
    /// let acceptor = weald::net::SslAcceptor::new(identity)?.or_offer(["http/1.1"])?;
    /// assert_eq!(acceptor.rustls_config().alpn_protocols, [b"http/1.1"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn or_offer<P: AsRef<[u8]>>(&self, names: impl IntoIterator<Item = P>) -> io::Result<Self> {
        let shared = &*self.0;
        if !shared.config.alpn_protocols.is_empty() {
            return Ok(self.clone());
        }
        let mut config = (*shared.config).clone();
        config.alpn_protocols = protocols(names)?;
        Ok(Self(Arc::new(Shared {
            config: Arc::new(config),
            identities: shared.identities.clone(),
            bounds: shared.bounds.clone(),
        })))
    }

    /// Returns rustls' configuration.
    pub fn rustls_config(&self) -> &Arc<ServerConfig> {
        &self.0.config
    }

    /// Returns settings to begin with: TLS 1.2 and 1.3, no client certificates, no ALPN, resumption by tickets and by
    /// a cache of 16384 sessions, 10 s for a handshake.
    pub fn builder() -> SslAcceptorBuilder {
        SslAcceptorBuilder {
            identities: Vec::new(),
            protocols: Vec::new(),
            clients: ClientCertificates::None,
            config: None,
            limit: Some(HANDSHAKE_LIMIT),
            permits: None,
        }
    }

    /// Replaces the identities of this acceptor, its clones and the listeners that have it. Connections whose
    /// handshake has begun keep the old ones.
    ///
    /// # Errors
    /// `InvalidInput`: the list is empty, or the acceptor was made from a configuration of rustls, whose own resolver
    /// chooses the identity. Then nothing changes.
    pub fn reload(&self, identities: impl IntoIterator<Item = Identity>) -> io::Result<()> {
        let Some(place) = &self.0.identities else {
            return Err(invalid_input(
                "the configuration of rustls chooses the certificate: change its resolver",
            ));
        };
        let table = Table::new(identities.into_iter().collect())?;
        let old = {
            let mut place = place.0.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *place, Arc::new(table))
        };
        drop(old);
        Ok(())
    }

    pub(super) fn machine(&self) -> io::Result<Machine> {
        Machine::server(Arc::clone(&self.0.config)).map_err(error)
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.0.bounds.clone()
    }
}

/// Whether clients must show who they are.
///
/// # Examples
/// ```
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// use weald::net::{ClientCertificates, Identity, SslAcceptor, SslRoots};
/// let acceptor = SslAcceptor::builder()
///     .identity(Identity::from_pem(&chain, &key)?)
///     .client_certificates(ClientCertificates::Required(SslRoots::from_pem(&chain)?))
///     .build()?;
/// # drop(acceptor);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientCertificates {
    /// Clients are not asked for a certificate.
    None,
    /// Clients may show a certificate. If they do, these roots must vouch for it.
    Optional(SslRoots),
    /// Clients must show a certificate that these roots vouch for.
    Required(SslRoots),
}

/// A builder of an [`SslAcceptor`].
///
/// # Examples
/// See [`SslAcceptor`].
#[derive(Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct SslAcceptorBuilder {
    identities: Vec<Identity>,
    protocols: Vec<Vec<u8>>,
    clients: ClientCertificates,
    config: Option<Arc<ServerConfig>>,
    limit: Option<Duration>,
    permits: Option<usize>,
}

impl SslAcceptorBuilder {
    /// Takes a configuration of rustls, in place of identities, protocols and client certificates; see
    /// [`SslAcceptor::from_rustls`].
    pub fn rustls(mut self, config: impl Into<Arc<ServerConfig>>) -> Self {
        self.config = Some(config.into());
        self
    }

    /// Adds an identity. A client gets the first identity whose certificate has the name that the client asks for
    /// (SNI). A client that asks for no name, or for another name, gets the first identity of all.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Sets the protocols spoken over TLS (ALPN), the preferred one first. A client that offers only other protocols
    /// is refused. A client that offers none is let in.
    pub fn alpn<P: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = P>) -> Self {
        self.protocols = names
            .into_iter()
            .map(|name| name.as_ref().to_vec())
            .collect();
        self
    }

    /// Sets if clients must show certificates.
    pub fn client_certificates(mut self, clients: ClientCertificates) -> Self {
        self.clients = clients;
        self
    }

    /// Sets how long a handshake may take, from the first read or write on; `None` sets no limit.
    pub fn handshake_timeout(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// Sets how many handshakes may compute at once, at least 1. Further ones wait, within their time. With a number
    /// below the number of workers, the other workers remain for established connections, however many new
    /// connections come. A handshake that waits for its client does not count.
    pub fn max_handshakes(mut self, bound: usize) -> Self {
        self.permits = Some(bound.max(1));
        self
    }

    /// Returns the acceptor.
    ///
    /// # Errors
    /// `InvalidInput`: no identity; the name of a protocol is empty or longer than 255 bytes; the platform's roots
    /// for clients, which are for servers only; a configuration of rustls that allows early data, or one beside other
    /// settings that belong into it. `InvalidData`: roots that cannot be used.
    pub fn build(self) -> io::Result<SslAcceptor> {
        let bounds = Bounds {
            limit: self.limit,
            permits: self.permits.map(|count| Arc::new(Permits::new(count))),
        };
        if let Some(config) = self.config {
            let is_alone = self.identities.is_empty()
                && self.protocols.is_empty()
                && matches!(self.clients, ClientCertificates::None);
            if !is_alone {
                return Err(invalid_input(
                    "set identities, protocols and client certificates in the configuration of rustls",
                ));
            }
            if config.max_early_data_size > 0 {
                return Err(invalid_input(
                    "early data must be off: max_early_data_size 0",
                ));
            }
            return Ok(SslAcceptor(Arc::new(Shared {
                config,
                identities: None,
                bounds,
            })));
        }
        let identities = Arc::new(Identities(RwLock::new(Arc::new(Table::new(
            self.identities,
        )?))));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(error)?;
        let builder = match self.clients {
            ClientCertificates::None => builder.with_no_client_auth(),
            ClientCertificates::Optional(roots) => {
                let verifier = clients(roots)?.allow_unauthenticated().build();
                builder
                    .with_client_cert_verifier(verifier.map_err(|e| invalid_data(e.to_string()))?)
            }
            ClientCertificates::Required(roots) => {
                let verifier = clients(roots)?.build();
                builder
                    .with_client_cert_verifier(verifier.map_err(|e| invalid_data(e.to_string()))?)
            }
        };
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&identities) as _;
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = protocols(self.protocols)?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.ticketer = ticketer().map_err(error)?;
        Ok(SslAcceptor(Arc::new(Shared {
            config: Arc::new(config),
            identities: Some(identities),
            bounds,
        })))
    }
}

fn clients(roots: SslRoots) -> io::Result<rustls::server::ClientCertVerifierBuilder> {
    match roots.0 {
        Kind::Own(roots) => Ok(WebPkiClientVerifier::builder_with_provider(
            roots,
            provider(),
        )),
        Kind::Platform => Err(invalid_input(
            "the platform's roots are for servers: give roots for the certificates of clients",
        )),
    }
}

/// The identities of an acceptor. They may change.
#[derive(Debug)]
struct Identities(RwLock<Arc<Table>>);

/// Which identity a name belongs to.
#[derive(Debug)]
struct Table {
    default: Arc<CertifiedKey>,
    /// Names in lower case. `*.example.org` stands for all names with one more label.
    names: HashMap<String, Arc<CertifiedKey>>,
}

impl Table {
    fn new(identities: Vec<Identity>) -> io::Result<Self> {
        let Some(first) = identities.first() else {
            return Err(invalid_input("a server needs at least one identity"));
        };
        let default = Arc::clone(&first.key);
        let mut names = HashMap::new();
        for Identity { key } in identities {
            // The certificate can be read: that was seen when the key was compared with it.
            let first = key.cert.first().map(webpki::EndEntityCert::try_from);
            let Some(Ok(certificate)) = first else {
                return Err(invalid_data("the certificate cannot be read"));
            };
            for name in certificate.valid_dns_names() {
                let name = name.to_ascii_lowercase();
                names.entry(name).or_insert_with(|| Arc::clone(&key));
            }
        }
        Ok(Self { default, names })
    }

    fn find(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.names.get(&name).or_else(|| {
                let (_, domain) = name.split_once('.')?;
                self.names.get(&format!("*.{domain}"))
            })
        });
        Arc::clone(found.unwrap_or(&self.default))
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        Some(table.find(hello.server_name()))
    }
}
