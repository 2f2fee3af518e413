//! What a handler gets: a request's head, and its body to read.

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AsHeaderName, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{Extensions, HeaderMap, Method, Uri, Version};

use crate::incoming::RequestBody;
use crate::metrics::Metrics;
use crate::router::Params;
use crate::text::percent_decoded;

/// A request. Its body is a [`Read`], and so is the request itself.
///
/// # Examples
/// ```
/// use std::io::Read as _;
/// use weald_http::{Request, Response};
///
/// fn echo(mut request: Request) -> std::io::Result<String> {
///     let mut text = String::new();
///     request.read_to_string(&mut text)?;
///     Ok(text)
/// }
/// ```
pub struct Request {
    head: Parts,
    body: RequestBody,
    peer: Option<SocketAddr>,
    is_encrypted: bool,
}

impl Request {
    pub(crate) fn new(
        head: Parts,
        body: RequestBody,
        peer: Option<SocketAddr>,
        is_encrypted: bool,
    ) -> Self {
        Self {
            head,
            body,
            peer,
            is_encrypted,
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The target, as the client has sent it.
    pub fn uri(&self) -> &Uri {
        &self.head.uri
    }

    /// The target's path, percent-encoded as it came.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// What follows the `?` in the target.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// The names and values of the query, decoded as a form's are: `+` is a space. Left out is what is no UTF-8.
    pub fn query_pairs(&self) -> Vec<(String, String)> {
        let parts = self.query().unwrap_or_default().split('&');
        let pairs = parts.filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((percent_decoded(name, true)?, percent_decoded(value, true)?))
        });
        pairs.flatten().collect()
    }

    /// What a part of the path is, that a [`Router`](crate::Router)'s route has named; percent-decoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        let Params(params) = self.head.extensions.get()?;
        let found = params.iter().find(|(other, _)| other == name)?;
        Some(&found.1)
    }

    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The host and port that the client means: of the target if it names one, else of `Host`.
    pub fn host(&self) -> Option<&str> {
        let named = self.head.uri.authority().map(Authority::as_str);
        named.or_else(|| self.header(HOST))
    }

    /// All header fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The first value of a header field, if it is text.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// What others have left here: a router, a wrapper around the handler.
    pub fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    /// The same, to leave something.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.head.extensions
    }

    /// The client's address; `None` over a Unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The connection speaks TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// What the server that has got this request has done so far.
    ///
    /// # Examples
    /// See [`Metrics::to_prometheus`].
    pub fn server_metrics(&self) -> Metrics {
        self.body.server_metrics()
    }

    /// The body.
    pub fn body(&mut self) -> &mut RequestBody {
        &mut self.body
    }

    /// The body alone, to be read inside of an answer's body or by another green thread, also after the handler has
    /// answered. The connection takes its next request once the body was read or dropped; if it was dropped before its end
    /// the connection may close. When the connection ends, reads fail.
    pub fn into_body(self) -> RequestBody {
        self.body
    }

    /// Head and body, in the types of the crate `http`.
    pub fn into_parts(self) -> (Parts, RequestBody) {
        (self.head, self.body)
    }

    /// The most bytes that this request's body may have, instead of [`Limits::body_size`](crate::Limits::body_size).
    pub fn set_body_limit(&mut self, bytes: u64) {
        self.body.set_limit(bytes);
    }

    /// Reads the whole body. A blocking call.
    ///
    /// # Errors
    /// As reading: see [`RequestBody`].
    pub fn read_bytes(&mut self) -> io::Result<Bytes> {
        self.body.read_bytes()
    }

    /// Reads the whole body, as text. A blocking call.
    ///
    /// # Errors
    /// As reading: see [`RequestBody`]. `InvalidData`: it is no UTF-8; as an answer that is 400.
    pub fn read_text(&mut self) -> io::Result<String> {
        self.body.read_text()
    }

    /// The protocol that the client wants to change to, of HTTP/1.1's `Upgrade` field:
    /// [`Response::upgrade`](crate::Response::upgrade).
    pub fn upgrade(&self) -> Option<&str> {
        crate::check::upgrade(&self.head)
    }
}

impl Read for Request {
    /// Reads the body.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.head.method)
            .field("uri", &self.head.uri)
            .field("version", &self.head.version)
            .field("headers", &self.head.headers)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
