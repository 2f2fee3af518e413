//! The authorities whose signatures on certificates count.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;

use super::errors::{error, invalid_data};
use super::identity::certificates;
use super::provider::provider;
use crate::shim::sync::Mutex;

/// The certificate authorities that are trusted.
///
/// # Examples
/// ```
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let pem = made.cert.pem();
/// let own = weald::net::SslRoots::from_pem(&pem)?;
/// let connector = weald::net::SslConnector::builder().roots(own).build()?;
/// # drop(connector);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct SslRoots(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Platform,
    Own(Arc<RootCertStore>),
}

impl SslRoots {
    /// Returns the authorities of the operating system: its own verifier if it has one, on Linux its files
    /// (`SSL_CERT_FILE` and `SSL_CERT_DIR` name other files). They are read at the first connection.
    pub fn platform() -> Self {
        Self(Kind::Platform)
    }

    /// Returns Mozilla's authorities as of the day when this library was built, whatever the system trusts.
    #[cfg(feature = "webpki-roots")]
    pub fn webpki() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self(Kind::Own(Arc::new(roots)))
    }

    /// Returns only the authorities of a PEM text.
    ///
    /// # Errors
    /// `InvalidData`: the text has no certificate, or one that cannot be read.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem.as_ref())? {
            roots
                .add(certificate)
                .map_err(|error| invalid_data(format!("not a root certificate: {error}")))?;
        }
        Ok(Self(Kind::Own(Arc::new(roots))))
    }
}

impl From<Arc<RootCertStore>> for SslRoots {
    /// Takes a store of rustls.
    fn from(roots: Arc<RootCertStore>) -> Self {
        Self(Kind::Own(roots))
    }
}

impl fmt::Debug for SslRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Platform => f.write_str("SslRoots(platform)"),
            Kind::Own(roots) => write!(f, "SslRoots({})", roots.len()),
        }
    }
}

/// Returns the system's verifier, which is made once.
pub(super) fn platform_verifier() -> io::Result<Arc<dyn ServerCertVerifier>> {
    static VERIFIER: Mutex<Option<Arc<dyn ServerCertVerifier>>> = Mutex::new(None);
    let verifier = || VERIFIER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(verifier) = &*verifier() {
        return Ok(Arc::clone(verifier));
    }
    // This reads files. If two threads do it at once, the later result is kept.
    let new = weald_scheduler::blocking(|| rustls_platform_verifier::Verifier::new(provider()));
    let new: Arc<dyn ServerCertVerifier> = Arc::new(new.map_err(error)?);
    *verifier() = Some(Arc::clone(&new));
    Ok(new)
}
