//! TLS, spoken by rustls over a green stream.
//!
//! | file           | holds                                                                        |
//! |----------------|------------------------------------------------------------------------------|
//! | `identity.rs`  | a certificate chain with its key                                             |
//! | `roots.rs`     | whose signatures on certificates count                                       |
//! | `acceptor.rs`  | the settings of a server                                                     |
//! | `connector.rs` | the settings of a client; `connect_ssl`                                      |
//! | `listener.rs`  | `ssl_listener`, `ssl_server`                                                 |
//! | `stream.rs`    | the stream that programs read and write                                      |
//! | `split.rs`     | its two halves                                                               |
//! | `transport.rs` | what it is spoken over                                                       |
//! | `session.rs`   | who may read and write when; the handshake; interrupted calls                |
//! | `machine.rs`   | rustls: records in, plaintext out, and the reverse                           |
//! | `buffer.rs`    | bytes in between                                                             |
//! | `turn.rs`      | the lock that a call of these types waits for                                |
//! | `seats.rs`     | how many handshakes may compute at once                                      |
//! | `provider.rs`  | whose cryptography                                                           |
//!
//! Types of rustls are in the signatures only of what hands its own configuration in or out
//! (`from_rustls`, `certified_key`, `crypto_provider`): its next version breaks no other program.

mod acceptor;
mod buffer;
mod connector;
mod identity;
mod listener;
mod machine;
mod provider;
mod roots;
mod seats;
mod session;
mod split;
mod stream;
mod transport;
mod turn;

use std::io;
use std::time::Duration;

pub use self::acceptor::{ClientCertificates, SslAcceptor, SslAcceptorBuilder};
pub use self::connector::{SslConnector, SslConnectorBuilder, connect_ssl, connect_ssl_with};
pub use self::identity::Identity;
pub use self::listener::{
    SslIncoming, SslListener, ssl_listener, ssl_listener_with, ssl_server, ssl_server_with,
};
pub use self::provider::crypto_provider;
pub use self::roots::SslRoots;
pub use self::split::{SslReader, SslWriter};
pub use self::stream::SslStream;
pub use self::transport::SslTransport;

/// How long a handshake may take unless it is told otherwise. A guess: many times what a bad mobile
/// connection needs, and short enough that silent peers do not pile up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// TLS's error as the sockets have it.
fn error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn timed_out(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

fn invalid_input(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}

fn invalid_data(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Protocol names as rustls takes them.
fn protocols<P: AsRef<[u8]>>(names: impl IntoIterator<Item = P>) -> io::Result<Vec<Vec<u8>>> {
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
