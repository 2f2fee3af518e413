//! An HTTP server for weald: handlers are plain functions that may block, each request in a green thread.
//!
//! ```
//! use std::io::{Read as _, Write as _};
//! use weald_http::{Request, Response, Server, StatusCode};
//!
//! fn handler(mut request: Request) -> std::io::Result<Response> {
//!     Ok(match request.path() {
//!         "/" => Response::new("welcome\n"),
//!         "/echo" => Response::new(request.read_text()?),
//!         _ => Response::new("no such page\n").status(StatusCode::NOT_FOUND),
//!     })
//! }
//!
//! let server = Server::new(weald::tcp_listener("127.0.0.1:0")?).serve(handler);
//! # let mut stream = weald::connect_tcp(server.local_addr())?;
//! # stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\ntree")?;
//! # let mut answer = String::new();
//! # stream.read_to_string(&mut answer)?;
//! # assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("tree"), "{answer}");
//! // In a service: server.until_shutdown(Duration::from_secs(10))?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! HTTP itself is [hyper](https://docs.rs/hyper)'s, without a runtime: HTTP/1.0, HTTP/1.1 with pipelining,
//! and HTTP/2. A connection holds one green thread, a request that runs one more; none outlives its connection.
//! What a client may ask for has limits: [`Limits`].
//!
//! | file | holds |
//! |---|---|
//! | `server.rs` | settings, listeners, the handle |
//! | `limits.rs` | sizes, times and numbers |
//! | `registry.rs` | the connections of a server, and how they hear that it closes |
//! | `connection.rs` | a connection from its first byte to its last |
//! | `drive.rs` | polls hyper, and waits for what it waits for |
//! | `io.rs`, `stream.rs`, `woke.rs` | a green stream as hyper wants it; the streams; what wakes |
//! | `second.rs` | the streams of HTTP/2 |
//! | `service.rs`, `handlers.rs` | what hyper calls for each request; the requests' threads |
//! | `date.rs` | the time in an answer |
//! | `check.rs` | what RFC 9110 and 9112 ask beyond hyper |
//! | `request.rs`, `incoming.rs` | what a handler gets, and its body |
//! | `held.rs` | bodies that are read after the answer |
//! | `response.rs`, `body.rs` | what it returns |
//! | `respond.rs`, `pipe.rs` | from there to hyper |
//! | `upgrade.rs` | other protocols |
//! | `client.rs` | a client: ureq over green sockets |
//! | `metrics.rs`, `quiet.rs` | counts, latencies, the access log; lines of the log that clients can cause |
//! | `router.rs`, `text.rs`, `json.rs` | paths, percent-encoding, JSON |

mod body;
mod check;
#[cfg(feature = "client")]
pub mod client;
mod connection;
mod date;
mod drive;
mod handlers;
mod held;
mod incoming;
mod io;
#[cfg(feature = "json")]
mod json;
mod limits;
mod metrics;
mod pipe;
mod quiet;
mod registry;
mod request;
mod respond;
mod response;
mod router;
mod second;
mod server;
mod service;
mod stream;
mod text;
mod upgrade;
mod woke;

pub use bytes::Bytes;
pub use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header,
};

pub use crate::body::{Body, BodyWriter};
pub use crate::incoming::{RequestBody, RequestError};
#[cfg(feature = "json")]
pub use crate::json::{Json, JsonError};
pub use crate::limits::Limits;
pub use crate::metrics::Metrics;
pub use crate::request::Request;
pub use crate::response::{IntoResponse, Response};
pub use crate::router::Router;
pub use crate::server::{Listener, Server, ServerHandle};
pub use crate::upgrade::Upgraded;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
