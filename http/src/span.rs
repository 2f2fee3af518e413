//! A span of the crate `tracing` for each request: feature `tracing`. Without the feature there is nothing here.

use std::net::SocketAddr;

use http::request::Parts;

/// The span of a request. The names of its fields are OpenTelemetry's for servers:
/// <https://opentelemetry.io/docs/specs/semconv/http/http-spans>. `otel.*` is for the crate tracing-opentelemetry.
#[cfg(feature = "tracing")]
#[derive(Clone, Debug)]
pub(crate) struct RequestSpan(tracing::Span);

#[cfg(feature = "tracing")]
impl RequestSpan {
    /// Begins a span. It has no parent: the span that is current on the connection's thread belongs to nobody's request.
    pub(crate) fn new(head: &Parts, peer: Option<SocketAddr>, is_encrypted: bool) -> Self {
        use http::{Method, Version, header};
        use tracing::field::{Empty, display};

        let span = tracing::info_span!(
            target: "weald_http",
            parent: None,
            "request",
            otel.kind = "server",
            otel.name = Empty,
            otel.status_code = Empty,
            http.request.method = Empty,
            http.request.method_original = Empty,
            http.route = Empty,
            http.response.status_code = Empty,
            http.response.body.size = Empty,
            // Not the query, which may hold secrets.
            url.path = head.uri.path(),
            url.scheme = if is_encrypted { "https" } else { "http" },
            network.protocol.version = match head.version {
                Version::HTTP_10 => "1.0",
                Version::HTTP_11 => "1.1",
                _ => "2",
            },
            network.peer.address = Empty,
            network.peer.port = Empty,
            client.address = Empty,
            user_agent.original = Empty,
            "error.type" = Empty,
        );
        if span.is_disabled() {
            return Self(span);
        }
        // A client can invent any number of methods, and a collector counts by this field.
        let known = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::CONNECT,
            Method::OPTIONS,
            Method::TRACE,
            Method::PATCH,
        ];
        let method = head.method.as_str();
        if known.contains(&head.method) {
            span.record("http.request.method", method);
            span.record("otel.name", method);
        } else {
            span.record("http.request.method", "_OTHER");
            span.record("http.request.method_original", method);
            span.record("otel.name", "HTTP");
        }
        if let Some(peer) = peer {
            span.record("network.peer.address", display(peer.ip()));
            span.record("network.peer.port", peer.port());
        }
        let agent = head.headers.get(header::USER_AGENT);
        if let Some(agent) = agent.and_then(|agent| agent.to_str().ok()) {
            span.record("user_agent.original", agent);
        }
        Self(span)
    }

    /// Calls the closure inside of the span.
    pub(crate) fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        self.0.in_scope(f)
    }

    /// Notes the status of the answer.
    pub(crate) fn answered(&self, status: u16) {
        self.0.record("http.response.status_code", status);
        if status >= 500 {
            self.0.record("error.type", tracing::field::display(status));
            self.0.record("otel.status_code", "ERROR");
        }
    }

    /// Notes how many bytes of the answer's body were taken. A status of 0: there was no answer.
    pub(crate) fn end(&self, status: u16, sent: u64) {
        if status == 0 {
            self.0.record("error.type", "no answer");
            self.0.record("otel.status_code", "ERROR");
        }
        self.0.record("http.response.body.size", sent);
    }
}

/// Notes in the current span which route was chosen.
#[cfg(feature = "tracing")]
pub(crate) fn route(method: &http::Method, path: &str) {
    let span = tracing::Span::current();
    if !span.is_disabled() {
        span.record("http.route", path);
        span.record(
            "otel.name",
            tracing::field::display(format_args!("{method} {path}")),
        );
    }
}

#[cfg(not(feature = "tracing"))]
#[derive(Clone, Debug)]
pub(crate) struct RequestSpan;

#[cfg(not(feature = "tracing"))]
#[allow(clippy::unused_self, reason = "as with the feature")]
impl RequestSpan {
    pub(crate) fn new(_head: &Parts, _peer: Option<SocketAddr>, _is_encrypted: bool) -> Self {
        Self
    }

    pub(crate) fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        f()
    }

    pub(crate) fn answered(&self, _status: u16) {}

    pub(crate) fn end(&self, _status: u16, _sent: u64) {}
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn route(_method: &http::Method, _path: &str) {}
