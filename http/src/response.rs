//! What a handler returns.

use std::fmt;
use std::io;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::body::{Body, Kind};
use crate::incoming::RequestError;
use crate::quiet::Quiet;
use crate::upgrade::Upgraded;

/// An answer: a status, header fields and a [`Body`].
///
/// The server writes `Content-Length`, `Transfer-Encoding` and `Connection`, and corrects those that a handler sets.
/// It keeps `Connection: close`. It adds a `Date` if the handler has set none. (For `HEAD` a `Content-Length` is
/// kept: it tells what `GET` would send.)
///
/// # Examples
/// ```
/// use weald_http::{Response, StatusCode};
/// let response = Response::new("no such tree")
///     .status(StatusCode::NOT_FOUND)
///     .header("content-type", "text/plain");
/// assert_eq!(response.status_code(), 404);
/// ```
#[must_use = "an answer does nothing before a handler returns it"]
pub struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Response {
    /// Returns an answer with status 200 and this body.
    pub fn new(body: impl Into<Body>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    /// Sets the status.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets a header field, in place of others with that name.
    ///
    /// # Panics
    /// If HTTP does not allow the name or the value. For values that the program has not chosen itself use
    /// `HeaderValue::try_from` and [`headers_mut`](Self::headers_mut).
    #[track_caller]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
    {
        let (Ok(name), Ok(value)) = (name.try_into(), value.try_into()) else {
            panic!("not a valid name or value of a header field");
        };
        self.headers.insert(name, value);
        self
    }

    /// Returns an answer with status 101, which hands the stream of the connection to the program. After the head was
    /// sent, `serve` gets the stream, in the connection's green thread. The connection closes when `serve` returns.
    /// The answer has an `Upgrade` field with `protocol`; add the other fields that the protocol asks for.
    ///
    /// The client must have asked for it ([`Request::upgrade`](crate::Request::upgrade)) in HTTP/1.1. Otherwise it
    /// gets 400.
    ///
    /// # Panics
    /// If `protocol` is not a valid value of a header field.
    pub fn upgrade(protocol: &str, serve: impl FnOnce(Upgraded) + Send + 'static) -> Self {
        let mut response = Self::new(Body(Kind::Upgrade(Box::new(serve))));
        response.status = StatusCode::SWITCHING_PROTOCOLS;
        response
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let Ok(value) = HeaderValue::from_str(protocol) else {
            panic!("{protocol:?} is not a valid value of a header field");
        };
        response.headers.insert(UPGRADE, value);
        response
    }

    /// Returns the status.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Returns the header fields.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the header fields, to change them.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Returns an answer with a short text about the status.
    pub(crate) fn of(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or("error");
        text(format!("{reason}\n")).status(status)
    }
}

fn text(body: impl Into<Body>) -> Response {
    let mut response = Response::new(body);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers.insert(CONTENT_TYPE, plain);
    response
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &self.body)
            .finish()
    }
}

/// Complaints about handlers that have failed.
static FAILED: Quiet = Quiet::new();

/// A type that a handler may return.
///
/// | type | answer |
/// |---|---|
/// | [`Response`], `http::Response<B>` | itself |
/// | `&str`, `String` | 200, `text/plain; charset=utf-8` |
/// | `Vec<u8>`, [`Bytes`], [`Body`] | 200, without a type |
/// | `()` | 204 |
/// | [`StatusCode`] | that status, without a body |
/// | `(StatusCode, T)` | the answer of `T`, with that status |
/// | `Option<T>` | the answer of `T`; `None`: 404 |
/// | `Result<T, E>` | the answer of `T` or of `E` |
/// | [`io::Error`] | 400, 408 or 413 if the error comes from reading the request; else 500, and a line in the log, once a second at most |
///
/// # Examples
/// ```
/// use weald_http::{Request, StatusCode};
/// fn handler(mut request: Request) -> std::io::Result<(StatusCode, String)> {
///     Ok((StatusCode::CREATED, request.read_text()?))
/// }
/// ```
pub trait IntoResponse {
    /// Makes the answer.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl<B: Into<Body>> IntoResponse for http::Response<B> {
    fn into_response(self) -> Response {
        let (head, body) = self.into_parts();
        Response {
            status: head.status,
            headers: head.headers,
            body: body.into(),
        }
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        text(self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        text(self)
    }
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl IntoResponse for $type {
            fn into_response(self) -> Response {
                Response::new(self)
            }
        }
    )*};
}
plain!(Vec<u8>, Bytes, Body, &'static [u8]);

impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::new(()).status(StatusCode::NO_CONTENT)
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(()).status(self)
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        self.1.into_response().status(self.0)
    }
}

impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        match self {
            Some(answer) => answer.into_response(),
            None => Response::of(StatusCode::NOT_FOUND),
        }
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(answer) => answer.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

impl IntoResponse for io::Error {
    fn into_response(self) -> Response {
        let inner = self.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(error) = inner {
            return Response::of(RequestError::status(error));
        }
        FAILED.say(log::Level::Error, &format!("a handler has failed: {self}"));
        Response::of(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
