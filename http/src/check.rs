//! What RFC 9110 and 9112 ask of a request beyond what hyper checks.
//!
//! | hyper refuses by itself, with 400 | hyper lets pass, and this file refuses |
//! |---|---|
//! | `Content-Length` that is no number, or two that differ | no `Host`, two of them, or an invalid one (400) |
//! | `Transfer-Encoding` in HTTP/1.0, or not `chunked` at its end | codings before `chunked` (501) |
//! | a bare CR, NUL, folded lines, a space before the colon | the target `*` except with `OPTIONS`, an authority except with `CONNECT` (400) |
//! | invalid chunk sizes | an absolute target with another scheme (400) |
//! | versions other than 1.0 and 1.1 | `CONNECT` (501), `Expect` with anything but `100-continue` (417) |
//!
//! Some faults are neither refused by hyper nor here. hyper cuts off a fragment of the target, so this file cannot
//! see it. Handlers decide about bytes in the target that the grammar does not have, backslashes for example, and
//! about zeros in front of a `Content-Length`.
//!
//! hyper reads a request with `Content-Length` and `Transfer-Encoding` by chunks and removes its `Content-Length`.
//! The connection closes after the answer: RFC 9112, 6.3.

use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, StatusCode, Version};

/// Checks the head, and sets `Host` to the authority of the target if there is one. Returns the status of the answer
/// if the head is refused.
pub(crate) fn head(head: &mut Parts) -> Result<(), StatusCode> {
    target(head)?;
    host(head)?;
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).into_iter();
    if let Some(first) = codings.next() {
        // hyper has checked that the last coding is `chunked`.
        let is_plain = first.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_plain || codings.next().is_some() {
            return Err(StatusCode::NOT_IMPLEMENTED);
        }
    }
    let mut expects = head.headers.get_all(EXPECT).into_iter();
    if expects.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(StatusCode::EXPECTATION_FAILED);
    }
    Ok(())
}

/// Checks the target: RFC 9112, 3.2.
fn target(head: &Parts) -> Result<(), StatusCode> {
    if head.method == Method::CONNECT {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let uri = &head.uri;
    let is_fine = match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(_)) => *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS,
        (None, None) if uri.path() == "*" => head.method == Method::OPTIONS,
        (None, None) => uri.path().starts_with('/'),
        // An authority alone is the form of `CONNECT`.
        _ => false,
    };
    is_fine.then_some(()).ok_or(StatusCode::BAD_REQUEST)
}

/// Checks `Host`: RFC 9112, 3.2 and 3.2.2; RFC 9113, 8.3.1.
fn host(head: &mut Parts) -> Result<(), StatusCode> {
    let mut hosts = head.headers.get_all(HOST).into_iter();
    let (host, other) = (hosts.next(), hosts.next());
    if other.is_some() || host.is_some_and(|host| !is_host(host)) {
        return Err(StatusCode::BAD_REQUEST);
    }
    if let Some(authority) = head.uri.authority() {
        let value = authority.as_str();
        if value.contains('@') {
            return Err(StatusCode::BAD_REQUEST);
        }
        let value = HeaderValue::from_str(value).map_err(|_| StatusCode::BAD_REQUEST)?;
        // HTTP/1.1 requires `Host` also beside an authority in the target.
        let is_missing = host.is_none() && head.version == Version::HTTP_11;
        head.headers.insert(HOST, value);
        return (!is_missing).then_some(()).ok_or(StatusCode::BAD_REQUEST);
    }
    let needs_one = head.version > Version::HTTP_10;
    if needs_one && host.is_none() {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(())
}

/// Tells if the value is a host with or without a port. It may be empty.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && Authority::try_from(bytes).is_ok())
}

/// Returns the protocol that an HTTP/1.1 client wants to change to.
pub(crate) fn upgrade(head: &Parts) -> Option<&str> {
    if head.version != Version::HTTP_11 {
        return None;
    }
    let names = head.headers.get_all(CONNECTION).into_iter();
    let mut names = names.filter_map(|value| value.to_str().ok());
    let is_asked = names.any(|value| has_token(value, "upgrade"));
    head.headers
        .get(UPGRADE)
        .filter(|_| is_asked)?
        .to_str()
        .ok()
}

fn has_token(list: &str, token: &str) -> bool {
    list.split(',')
        .any(|one| one.trim().eq_ignore_ascii_case(token))
}
