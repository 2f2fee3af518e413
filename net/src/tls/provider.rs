//! The cryptography: one provider for all of weald's connections, never the process-wide default,
//! which panics where two crates of a program disagree about it.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use rustls::crypto::ring as chosen;

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("the feature `tls` needs a provider: enable `aws-lc-rs` or `ring`");

/// Returns the cryptography that weald's own settings use: that of the feature `aws-lc-rs` or `ring`. For
/// configurations of rustls that are to use the same.
///
/// # Examples
/// See [`SslAcceptor::from_rustls`](crate::SslAcceptor::from_rustls).
pub fn crypto_provider() -> Arc<CryptoProvider> {
    provider()
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(chosen::default_provider())))
}

/// Makes session tickets with keys of its own, which it changes every few hours.
pub(super) fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    chosen::Ticketer::new()
}
