//! TLS, spoken by rustls over a green stream.
//!
//! | file           | holds                                                                        |
//! |----------------|------------------------------------------------------------------------------|
//! | `identity.rs`  | a certificate chain with its key                                             |
//! | `roots.rs`     | the authorities that are trusted                                             |
//! | `acceptor.rs`  | the settings of a server                                                     |
//! | `connector.rs` | the settings of a client                                                     |
//! | `settings.rs`  | what the settings of both share                                              |
//! | `connect.rs`   | `connect_ssl`                                                                |
//! | `listener.rs`  | `ssl_listener`, `ssl_server`                                                 |
//! | `stream.rs`    | the stream that programs read and write                                      |
//! | `split.rs`     | the two halves of a stream                                                   |
//! | `transport.rs` | the stream below TLS                                                         |
//! | `session.rs`   | which thread may read and write when; the handshake; interrupted calls       |
//! | `machine.rs`   | rustls: records in, plaintext out, and the reverse                           |
//! | `buffer.rs`    | the bytes between the two                                                    |
//! | `turn.rs`      | the lock that a call of these types waits for                                |
//! | `permits.rs`   | how many handshakes may compute at once                                      |
//! | `provider.rs`  | the provider of cryptography                                                 |
//! | `errors.rs`    | errors of TLS as errors of sockets                                           |
//!
//! Types of rustls are only in the signatures of functions that take or return rustls' own configuration
//! (`from_rustls`, `certified_key`, `crypto_provider`). So the next version of rustls breaks only programs that use
//! these.

mod acceptor;
mod buffer;
mod connect;
mod connector;
mod errors;
mod identity;
mod listener;
mod machine;
mod permits;
mod provider;
mod roots;
mod session;
mod settings;
mod split;
mod stream;
mod transport;
mod turn;

pub use self::acceptor::{ClientCertificates, SslAcceptor, SslAcceptorBuilder};
pub use self::connect::{connect_ssl, connect_ssl_with};
pub use self::connector::{SslConnector, SslConnectorBuilder};
pub use self::identity::Identity;
pub use self::listener::{
    SslIncoming, SslListener, ssl_listener, ssl_listener_with, ssl_server, ssl_server_with,
};
pub use self::provider::crypto_provider;
pub use self::roots::SslRoots;
pub use self::split::{SslReader, SslWriter};
pub use self::stream::SslStream;
pub use self::transport::SslTransport;
