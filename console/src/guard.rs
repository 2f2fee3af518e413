//! Who may ask, and the header fields that protect the answers.
//!
//! | danger | what protects |
//! |---|---|
//! | another machine | the address is loopback, or there is a token |
//! | another user of the machine | a token |
//! | a page of another site reads the console in the user's browser | no answer allows another origin; `Cross-Origin-Resource-Policy` |
//! | the same with a name of that site that leads to loopback (DNS rebinding) | the names that `Host` may have |
//! | a page of another site changes something by a form | `Origin` has to be that of the console |
//! | names of threads and functions are HTML | the page sets texts, never HTML; `Content-Security-Policy` |

use std::net::IpAddr;

use subtle::ConstantTimeEq as _;
use weald_http::header::{AUTHORIZATION, ORIGIN};
use weald_http::{Method, Request, Response, StatusCode};

/// What a document of the console may load and run: its own files. Nothing may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Which requests are answered.
pub(crate) struct Guard {
    token: Option<String>,
    hosts: Vec<String>,
    /// The address can be reached from other machines, by names that nobody knows here.
    is_open: bool,
}

impl Guard {
    pub(crate) fn new(token: Option<String>, hosts: Vec<String>, is_open: bool) -> Self {
        Self {
            token,
            hosts,
            is_open,
        }
    }

    /// Checks a request, and returns the refusal if there is one. The page itself (`is_public`) shows nothing of the
    /// program, so it needs no token.
    pub(crate) fn refuse(&self, request: &Request, is_public: bool) -> Option<Response> {
        if !self.is_open && !request.host().is_some_and(|host| self.is_own(host)) {
            return Some(refusal(
                StatusCode::MISDIRECTED_REQUEST,
                "the console answers to localhost and loopback addresses only (Builder::host allows further names)\n",
            ));
        }
        let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
        if is_change && request.headers().contains_key(ORIGIN) && !is_same_origin(request) {
            return Some(refusal(
                StatusCode::FORBIDDEN,
                "another site may not change anything here\n",
            ));
        }
        if is_public || self.has_token(request) {
            return None;
        }
        let refusal = refusal(StatusCode::UNAUTHORIZED, "the console asks for its token\n");
        Some(refusal.header("www-authenticate", "Bearer"))
    }

    fn has_token(&self, request: &Request) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let mut sent = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(sent), None) = (sent.next(), sent.next()) else {
            return false;
        };
        let Some((scheme, sent)) = sent.as_bytes().split_at_checked("Bearer ".len()) else {
            return false;
        };
        // The time tells the length of the token at most.
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(sent.ct_eq(token.as_bytes()))
    }

    fn is_own(&self, host: &str) -> bool {
        let name = without_port(host);
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        if let Ok(address) = address.unwrap_or(name).parse::<IpAddr>() {
            return address.to_canonical().is_loopback();
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let is = |own: &str| name.eq_ignore_ascii_case(own);
        is("localhost") || self.hosts.iter().any(|own| is(own))
    }
}

/// A host without `:port` at its end.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The request comes from a page of the console.
fn is_same_origin(request: &Request) -> bool {
    let origin = request.header(ORIGIN);
    let authority = origin.and_then(|origin| origin.split_once("://"));
    authority.is_some_and(|(_, origin)| Some(origin) == request.host())
}

fn refusal(status: StatusCode, text: &'static str) -> Response {
    Response::new(text)
        .status(status)
        .header("content-type", "text/plain; charset=utf-8")
}

/// Adds the header fields that each answer has.
pub(crate) fn protected(mut answer: Response) -> Response {
    let fields = [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in fields {
        let value = weald_http::HeaderValue::from_static(value);
        answer.headers_mut().entry(name).or_insert(value);
    }
    answer
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use super::Guard;

    #[test]
    fn only_names_of_the_loopback_and_those_that_were_allowed_are_own() {
        let guard = Guard::new(None, vec!["console.example".to_owned()], false);
        for own in [
            "localhost",
            "LOCALHOST:6680",
            "localhost.:1",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]",
            "[::1]:6680",
            "[::ffff:127.0.0.1]:1",
            "console.example:443",
        ] {
            assert!(guard.is_own(own), "{own}");
        }
        for other in [
            "",
            ":",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:80:80",
            "10.0.0.1",
            "[::2]:6680",
            "0.0.0.0:6680",
            "2130706433",
        ] {
            assert!(!guard.is_own(other), "{other}");
        }
    }
}
