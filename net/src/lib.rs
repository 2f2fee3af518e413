//! Green sockets: the interface of `std::net`, where a call that must wait suspends the green
//! thread and not the worker. On a plain OS thread they block that thread.
//!
//! | file        | holds                                                                    |
//! |-------------|--------------------------------------------------------------------------|
//! | `source.rs` | a registered descriptor: its readiness and who waits; the one wait loop  |
//! | `socket.rs` | what all sockets are made of                                             |
//! | `tcp.rs`    | streams and listeners                                                    |
//! | `udp.rs`    | datagrams                                                                |
//! | `unix/`     | the same over Unix sockets                                               |
//! | `fd.rs`     | any descriptor                                                           |
//! | `convert.rs`| from a descriptor to an `Fd`, and back                                   |
//! | `builder.rs`| sockets with options                                                     |
//! | `pauses.rs` | trying again after pauses, where nothing is told                         |
//! | `poll.rs`   | what the kernel says of descriptors, and waiting for several             |
//! | `poll_set.rs`| the epoll instance of such a wait                                       |
//! | `select.rs` | eventlet's `select`                                                      |
//! | `resolve.rs`| names to addresses                                                       |
//! | `race.rs`   | connecting to a name with several addresses                              |
//! | `server.rs` | `tcp_server` and its like                                                |
//! | `shim.rs`   | what a model check has a double of                                       |
//! | `tls/`      | TLS over green streams                                                   |
//! | `wrap.rs`   | std's sockets made green                                                 |
//!
//! # Examples
//! ```
//! use std::io::{Read, Write};
//!
//! let listener = weald_net::tcp_listener("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! let echo = weald_scheduler::spawn(move || {
//!     let (mut stream, _) = listener.accept()?;
//!     let mut buffer = [0; 5];
//!     stream.read_exact(&mut buffer)?;
//!     stream.write_all(&buffer)
//! });
//! let mut stream = weald_net::connect_tcp(addr)?;
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
/// The version of rustls that weald speaks TLS with, for configurations of its own.
#[cfg(feature = "tls")]
pub use rustls;

pub use crate::udp::UdpSocket;
pub use crate::wrap::{WrapSocket, wrap_socket};
