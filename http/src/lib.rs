//! An HTTP server for weald. Handlers are plain functions that may block; each request has a green thread.
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
//! HTTP itself is [hyper](https://docs.rs/hyper)'s, without a runtime: HTTP/1.0, HTTP/1.1 with pipelining, and
//! HTTP/2. A connection holds one green thread, and each request that runs holds one more. None of them outlives its
//! connection. [`Limits`] bounds what a client may ask for.
//!
//! The files, from the top. A file names only files further down, never one further up.
//!
//! | file | holds |
//! |---|---|
//! | `server.rs` | settings, listeners, the handle |
//! | `connection.rs` | a connection from its first byte to its last |
//! | `second.rs` | the streams of HTTP/2 |
//! | `drive.rs` | polls hyper, and waits for what hyper waits for |
//! | `io.rs` | a green stream as hyper wants it |
//! | `service.rs`, `handlers.rs` | what hyper calls for each request; the requests' threads |
//! | `respond.rs` | the way of an answer from the handler to hyper |
//! | `router.rs`, `json.rs` | paths; JSON |
//! | `request.rs`, `response.rs` | what a handler gets; what it returns |
//! | `incoming.rs`, `held.rs` | the body of a request; bodies that are read after the answer |
//! | `body.rs`, `pipe.rs` | the body of an answer; its way to the connection's thread |
//! | `upgrade.rs` | the stream of a connection that changes to another protocol |
//! | `shared.rs`, `limits.rs` | what the connections of a server share; sizes, times and numbers |
//! | `registry.rs` | the connections of a server, and how they hear that it closes |
//! | `metrics.rs` | counts, latencies, the access log |
//! | `span.rs` | the span of a request, for the crate `tracing` |
//! | `check.rs` | what RFC 9110 and 9112 ask beyond hyper |
//! | `date.rs`, `text.rs` | the time in an answer; percent-encoding |
//! | `quiet.rs` | lines of the log that clients can cause |
//! | `client.rs` | a client: ureq over green sockets |
//! | `stream.rs`, `woke.rs` | the streams; what wakes a connection's thread |

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
mod shared;
mod span;
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
