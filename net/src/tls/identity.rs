//! A certificate chain with its key.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::errors::{error, invalid_data};
use super::provider::provider;

/// The identity of a server or a client: a chain of certificates and the key of the first one.
///
/// # Examples
/// ```
/// # let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// # let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
/// let identity = weald::net::Identity::from_pem(&chain, &key)?;
/// let listener = weald::ssl_listener("127.0.0.1:0", identity)?;
///
/// let other = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
/// assert!(weald::net::Identity::from_pem(&chain, other.signing_key.serialize_pem()).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
}

impl Identity {
    /// Returns the identity that two PEM texts hold. The first certificate is the server's own, and each is followed
    /// by that of its issuer. The key is PKCS#8, PKCS#1 or SEC1, not encrypted.
    ///
    /// # Errors
    /// `InvalidData`: there is no certificate or no key, one of them cannot be read, or they do not belong together.
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> io::Result<Self> {
        let chain = certificates(chain.as_ref())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_ref()).map_err(|error| match error {
            pem::Error::NoItemsFound => invalid_data("no private key in the PEM text"),
            error => invalid_data(format!("the private key cannot be read: {error}")),
        })?;
        let key =
            CertifiedKey::from_der(chain, key, &provider()).map_err(|failed| match failed {
                rustls::Error::InconsistentKeys(_) => {
                    invalid_data("the private key is not that of the certificate")
                }
                failed => error(failed),
            })?;
        Ok(Self { key: Arc::new(key) })
    }

    /// Returns the identity that two PEM files hold. The files are read without blocking a worker.
    ///
    /// # Errors
    /// Those of [`from_pem`](Self::from_pem); the system's, with the path in the text.
    pub fn from_pem_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Self> {
        weald_scheduler::io::enter()?;
        let (chain, key) = (chain.as_ref(), key.as_ref());
        let (chain, key) =
            weald_scheduler::blocking(|| Ok::<_, io::Error>((read(chain)?, read(key)?)))?;
        Self::from_pem(chain, key)
    }
}

impl Identity {
    /// Returns the identity in rustls' type, for a resolver of certificates.
    ///
    /// # Examples
    /// See [`SslAcceptor::from_rustls`](crate::SslAcceptor::from_rustls).
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl From<Arc<CertifiedKey>> for Identity {
    /// Takes an identity of rustls, whose key may be in a hardware module for example. It is not checked that key and
    /// certificate belong together.
    fn from(key: Arc<CertifiedKey>) -> Self {
        Self { key }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Identity");
        debug
            .field("certificates", &self.key.cert.len())
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Returns all certificates of a PEM text; at least one.
pub(super) fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates
        .map_err(|error| invalid_data(format!("a certificate cannot be read: {error}")))?;
    if certificates.is_empty() {
        return Err(invalid_data("no certificate in the PEM text"));
    }
    Ok(certificates)
}
