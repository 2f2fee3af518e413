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
use crate::text::percent_decoded;

/// The parts of the path that a route has named, and their names. A router leaves them in the request's extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(pub(crate) Vec<(String, String)>);

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

    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// Returns the target, as the client has sent it.
    pub fn uri(&self) -> &Uri {
        &self.head.uri
    }

    /// Returns the target's path, percent-encoded as it came.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// Returns what follows the `?` in the target.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// Returns the names and values of the query, decoded as those of a form: `+` is a space. Pairs that are not
    /// UTF-8 are left out.
    pub fn query_pairs(&self) -> Vec<(String, String)> {
        let parts = self.query().unwrap_or_default().split('&');
        let pairs = parts.filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((percent_decoded(name, true)?, percent_decoded(value, true)?))
        });
        pairs.flatten().collect()
    }

    /// Returns the part of the path that has this name in the [`Router`](crate::Router)'s route, percent-decoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        let Params(params) = self.head.extensions.get()?;
        let found = params.iter().find(|(other, _)| other == name)?;
        Some(&found.1)
    }

    /// Returns the version: HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Returns the host and port that the client asks for: from the target if the target has them, else from `Host`.
    pub fn host(&self) -> Option<&str> {
        let named = self.head.uri.authority().map(Authority::as_str);
        named.or_else(|| self.header(HOST))
    }

    /// Returns all header fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Returns the first value of a header field, if the value is text.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// Returns values that others have left with the request, a router or a wrapper around the handler for example.
    pub fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    /// Returns the same, to add values.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.head.extensions
    }

    /// Returns the client's address, or `None` over a Unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Tells if the connection speaks TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Returns what the server of this request has done so far.
    ///
    /// # Examples
    /// See [`Metrics::to_prometheus`].
    pub fn server_metrics(&self) -> Metrics {
        self.body.server_metrics()
    }

    /// Returns the body.
    pub fn body(&mut self) -> &mut RequestBody {
        &mut self.body
    }

    /// Takes the body out of the request. It can be read inside an answer's body or by another green thread, also
    /// after the handler has answered. The connection takes its next request once the body was read or dropped. If
    /// the body was dropped before its end, the connection may close. When the connection ends, reads fail.
    pub fn into_body(self) -> RequestBody {
        self.body
    }

    /// Returns head and body, in the types of the crate `http`.
    pub fn into_parts(self) -> (Parts, RequestBody) {
        (self.head, self.body)
    }

    /// Sets the most bytes of this request's body, instead of [`Limits::body_size`](crate::Limits::body_size).
    pub fn set_body_limit(&mut self, bytes: u64) {
        self.body.set_limit(bytes);
    }

    /// Reads the whole body. A blocking call.
    ///
    /// # Errors
    /// See [`RequestBody`].
    pub fn read_bytes(&mut self) -> io::Result<Bytes> {
        self.body.read_bytes()
    }

    /// Reads the whole body, as text. A blocking call.
    ///
    /// # Errors
    /// See [`RequestBody`]. `InvalidData` if the body is not UTF-8; a handler that returns this error answers 400.
    pub fn read_text(&mut self) -> io::Result<String> {
        self.body.read_text()
    }

    /// Returns the protocol that the client wants to change to, from the `Upgrade` field of HTTP/1.1. See
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
