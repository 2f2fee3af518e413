//! The provider of cryptography. All connections of weald use the same one. They never use the process-wide default,
//! which panics if two crates of a program disagree about it.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use rustls::crypto::ring as chosen;

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("the feature `tls` needs a provider: enable `aws-lc-rs` or `ring`");

/// Returns the provider of cryptography that weald's own settings use: that of the feature `aws-lc-rs` or `ring`. Use
/// it in configurations of rustls of your own.
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

/// Returns a maker of session tickets. It has keys of its own and changes them every few hours.
pub(super) fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    chosen::Ticketer::new()
}
