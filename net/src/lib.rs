//! Green sockets with the interface of `std::net`. A call that must wait suspends the green thread and not the
//! worker. On a plain OS thread it blocks that thread.
//!
//! | file        | holds                                                                    |
//! |-------------|--------------------------------------------------------------------------|
//! | `source/`   | a registered descriptor: its readiness and its waiters; the one wait loop |
//! | `socket.rs` | the common parts of all sockets                                          |
//! | `tcp.rs`    | streams and listeners                                                    |
//! | `udp.rs`    | datagrams                                                                |
//! | `unix/`     | the same over Unix sockets                                               |
//! | `fd.rs`     | any descriptor                                                           |
//! | `convert.rs`| from a descriptor to an `Fd`, and back                                   |
//! | `builder.rs`| sockets with options                                                     |
//! | `pauses.rs` | trying again after pauses, where no event tells                          |
//! | `poll.rs`   | what the kernel tells of descriptors, and waiting for several            |
//! | `poll_set.rs`| the epoll instance of such a wait                                       |
//! | `select.rs` | eventlet's `select`                                                      |
//! | `resolve.rs`| from names to addresses                                                  |
//! | `race.rs`   | connecting to a name with several addresses                              |
//! | `server/`   | `tcp_server` and similar functions                                       |
//! | `shim.rs`   | the parts that a model check replaces                                    |
//! | `tls/`      | TLS over green streams                                                   |
//! | `wrap.rs`   | std's sockets made green                                                 |
//!
//! # Examples
//! ```
//! use std::io::{Read, Write};
//!
//! let listener = weald::tcp_listener("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! let echo = weald::spawn(move || {
//!     let (mut stream, _) = listener.accept()?;
//!     let mut buffer = [0; 5];
//!     stream.read_exact(&mut buffer)?;
//!     stream.write_all(&buffer)
//! });
//! let mut stream = weald::connect_tcp(addr)?;
//! stream.write_all(b"hello")?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer)?;
//! assert_eq!(answer, "hello");
//! echo.join().unwrap()?;
//! # Ok::<(), std::io::Error>(())
//! ```

#[macro_use]
mod for_models;

mod ask;
mod builder;
mod convert;
mod faces;
mod fd;
mod low_water;
mod pauses;
mod poll;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod poll_set;
mod pollable;
mod question;
mod race;
mod resolve;
mod select;
mod server;
mod shim;
mod socket;
mod socket_calls;
mod source;
mod system_names;
mod tcp;
mod timeout;
#[cfg(feature = "tls")]
mod tls;
mod udp;
pub mod unix;
mod wrap;

pub use std::net::{Shutdown, SocketAddr, ToSocketAddrs};

pub use crate::builder::SocketBuilder;
pub use crate::fd::Fd;
pub use crate::poll::{PollFd, poll};
pub use crate::resolve::{Resolve, SystemResolver, resolve, set_resolver};
pub use crate::select::{Selected, select};
pub use crate::server::{
    ServerHandle, ServerOptions, tcp_server, tcp_server_with, unix_server, unix_server_with,
};
pub use crate::tcp::{
    Incoming, TcpListener, TcpStream, connect_tcp, connect_tcp_from, tcp_listener,
    tcp_listener_with,
};
#[cfg(feature = "tls")]
pub use crate::tls::{
    ClientCertificates, Identity, SslAcceptor, SslAcceptorBuilder, SslConnector,
    SslConnectorBuilder, SslIncoming, SslListener, SslReader, SslRoots, SslStream, SslTransport,
    SslWriter, connect_ssl, connect_ssl_with, crypto_provider, ssl_listener, ssl_listener_with,
    ssl_server, ssl_server_with,
};
/// The version of rustls that weald uses, for configurations of the program's own.
#[cfg(feature = "tls")]
pub use rustls;

pub use crate::udp::UdpSocket;
pub use crate::wrap::{WrapSocket, wrap_socket};
