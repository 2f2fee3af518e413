//! The settings of a client, which many connections share.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;

use super::errors::{error, invalid_input};
use super::identity::Identity;
use super::machine::Machine;
use super::provider::provider;
use super::roots::{Kind, SslRoots, platform_verifier};
use super::session::Bounds;
use super::settings::{HANDSHAKE_LIMIT, protocols};

/// For how many servers a session is kept, to resume it.
const SERVERS: usize = 1024;

/// The settings of a client for TLS handshakes: which roots it trusts, its protocols and its identity. Clones share
/// the settings and the sessions. Keep one connector for the life of the program, or no session is ever resumed.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let identity = weald::net::Identity::from_pem(&chain, &key)?;
/// let listener = weald::ssl_listener("127.0.0.1:0", identity)?;
/// let addr = format!("localhost:{}", listener.local_addr()?.port());
/// let server = weald::spawn(move || {
///     let (mut stream, _peer) = listener.accept()?;
///     stream.write_all(b"welcome")
/// });
/// let connector = weald::net::SslConnector::from_pem(&chain)?;
/// let mut text = String::new();
/// weald::connect_ssl_with(&addr, &connector)?.read_to_string(&mut text)?;
/// assert_eq!(text, "welcome");
/// server.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SslConnector(Arc<Shared>);

struct Shared {
    settings: SslConnectorBuilder,
    /// Made at the first use, which reads the platform's roots.
    config: OnceLock<Arc<ClientConfig>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl SslConnector {
    /// Returns a client that trusts the roots of the operating system. Its other settings are those of
    /// [`builder`](Self::builder).
    pub fn new() -> Self {
        let settings = Self::builder();
        Self(Arc::new(Shared {
            settings,
            config: OnceLock::new(),
        }))
    }

    /// Returns a client that trusts only the authorities of a PEM text.
    ///
    /// # Errors
    /// `InvalidData`: the text has no certificate, or one that cannot be read.
    pub fn from_pem(roots: impl AsRef<[u8]>) -> io::Result<Self> {
        Self::builder().roots(SslRoots::from_pem(roots)?).build()
    }

    /// Returns a client with a configuration of rustls, for settings that [`builder`](Self::builder) does not offer:
    /// versions, cipher suites, a key log, or a verifier of the program's own.
    ///
    /// Early data must be off; the rest is free, as described at
    /// [`SslAcceptor::from_rustls`](crate::SslAcceptor::from_rustls).
    ///
    /// # Examples
    /// ```
    /// use weald::net::rustls::{ClientConfig, RootCertStore, version::TLS13};
    /// let config = ClientConfig::builder_with_provider(weald::net::crypto_provider())
    ///     .with_protocol_versions(&[&TLS13])
    ///     .unwrap()
    ///     .with_root_certificates(RootCertStore::empty())
    ///     .with_no_client_auth();
    /// let connector = weald::net::SslConnector::from_rustls(config)?;
    /// # drop(connector);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput`: the configuration has early data on.
    pub fn from_rustls(config: impl Into<Arc<ClientConfig>>) -> io::Result<Self> {
        Self::builder().rustls(config).build()
    }

    /// Returns settings to begin with: TLS 1.2 and 1.3, the platform's roots, no ALPN, no certificate, 10 s for a
    /// handshake.
    pub fn builder() -> SslConnectorBuilder {
        SslConnectorBuilder {
            roots: None,
            identity: None,
            protocols: Vec::new(),
            config: None,
            limit: Some(HANDSHAKE_LIMIT),
        }
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.0.config.get() {
            return Ok(Arc::clone(config));
        }
        let config = self.0.settings.config()?;
        // The thread that is first here wins, so sessions are kept in one place.
        Ok(Arc::clone(self.0.config.get_or_init(|| config)))
    }

    /// Returns TLS with the server of this name or IP address.
    pub(super) fn machine(&self, name: &str) -> io::Result<Machine> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            invalid_input(format!("{name:?} is neither a DNS name nor an IP address"))
        })?;
        Machine::client(self.config()?, name).map_err(error)
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            limit: self.0.settings.limit,
            permits: None,
        }
    }
}

impl Default for SslConnector {
    fn default() -> Self {
        Self::new()
    }
}

/// A builder of an [`SslConnector`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let connector = weald::net::SslConnector::builder()
///     .alpn(["http/1.1"])
///     .handshake_timeout(Some(Duration::from_secs(5)))
///     .build()?;
/// # drop(connector);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct SslConnectorBuilder {
    /// `None`: the platform's roots.
    roots: Option<SslRoots>,
    identity: Option<Identity>,
    protocols: Vec<Vec<u8>>,
    config: Option<Arc<ClientConfig>>,
    limit: Option<Duration>,
}

impl SslConnectorBuilder {
    /// Sets which roots are trusted.
    pub fn roots(mut self, roots: SslRoots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Takes a configuration of rustls, in place of roots, identity and protocols; see [`SslConnector::from_rustls`].
    pub fn rustls(mut self, config: impl Into<Arc<ClientConfig>>) -> Self {
        self.config = Some(config.into());
        self
    }

    /// Sets the identity of the client, for servers that ask for one.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Sets the protocols to speak over TLS (ALPN), the preferred one first.
    pub fn alpn<P: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = P>) -> Self {
        self.protocols = names
            .into_iter()
            .map(|name| name.as_ref().to_vec())
            .collect();
        self
    }

    /// Sets how long a handshake may take; `None` sets no limit.
    pub fn handshake_timeout(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }

    /// Returns the connector. If it trusts the platform's roots, they are read at the first connection.
    ///
    /// # Errors
    /// `InvalidInput`: the name of a protocol is empty or longer than 255 bytes; a configuration of rustls that has
    /// early data on, or one beside other settings that belong into it.
    pub fn build(self) -> io::Result<SslConnector> {
        protocols(&self.protocols)?;
        if let Some(config) = &self.config {
            if self.roots.is_some() || self.identity.is_some() || !self.protocols.is_empty() {
                return Err(invalid_input(
                    "set roots, identity and protocols in the configuration of rustls",
                ));
            }
            if config.enable_early_data {
                return Err(invalid_input(
                    "early data must be off: enable_early_data false",
                ));
            }
        }
        Ok(SslConnector(Arc::new(Shared {
            settings: self,
            config: OnceLock::new(),
        })))
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = &self.config {
            return Ok(Arc::clone(config));
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(error)?;
        let builder = match self.roots.as_ref().map(|roots| &roots.0) {
            Some(Kind::Own(roots)) => builder.with_root_certificates(Arc::clone(roots)),
            None | Some(Kind::Platform) => builder
                .dangerous()
                .with_custom_certificate_verifier(platform_verifier()?),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = SingleCertAndKey::from(Arc::clone(&identity.key));
                let resolver: Arc<dyn ResolvesClientCert> = Arc::new(key);
                builder.with_client_cert_resolver(resolver)
            }
        };
        config.alpn_protocols = protocols(&self.protocols)?;
        config.resumption = Resumption::in_memory_sessions(SERVERS);
        Ok(Arc::new(config))
    }
}
