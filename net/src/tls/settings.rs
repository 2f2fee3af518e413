//! What the settings of clients and servers share.

use std::io;
use std::time::Duration;

use super::errors::invalid_input;

/// How long a handshake may take by default. It is a guess: many times what a bad mobile connection needs, and short
/// enough that silent peers do not pile up.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Returns protocol names in rustls' type.
pub(super) fn protocols<P: AsRef<[u8]>>(
    names: impl IntoIterator<Item = P>,
) -> io::Result<Vec<Vec<u8>>> {
    let names: Vec<Vec<u8>> = names
        .into_iter()
        .map(|name| name.as_ref().to_vec())
        .collect();
    match names
        .iter()
        .find(|name| name.is_empty() || name.len() > 255)
    {
        None => Ok(names),
        Some(name) => Err(invalid_input(format!(
            "the name of a protocol must have 1 to 255 bytes, not {}",
            name.len()
        ))),
    }
}
