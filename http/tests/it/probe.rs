//! The classes of Http11Probe that `framing.rs` does not have: what RFC 9110 and 9112 ask of odd requests, by the
//! names that Http11Probe gives them. The table says where hyper is laxer than the RFCs.

use crate::support::{ask_and_close, serve, status};

/// What follows a request. It must be answered if the request was framed well, and only then.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// The name, the status, whether the connection goes on, the request.
type Row<'a> = (&'a str, u16, bool, &'a [u8]);

fn check(table: &[Row<'_>]) {
    let server = serve(|mut request: weald_http::Request| {
        let text = request.read_text()?;
        Ok::<_, std::io::Error>(format!("[{} {text}]", request.path()))
    });
    let mut faults = Vec::new();
    for (name, expected, goes_on, request) in table {
        let bytes = [*request, NEXT.as_bytes()].concat();
        let answer = ask_and_close(server.local_addr(), bytes);
        let has_next = answer.contains("[/next ]");
        if status(&answer) != *expected || has_next != *goes_on {
            faults.push(format!("{name}: {answer:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

macro_rules! post {
    ($fields:literal, $body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n\r\n", $body).as_bytes()
    };
}

macro_rules! get {
    ($line:literal) => {
        concat!($line, "\r\nHost: a\r\n\r\n").as_bytes()
    };
}

const LENGTHS_AND_CODINGS: &[Row<'static>] = &[
    // The grammar is 1*DIGIT, so leading zeros are digits.
    (
        "SMUG-CL-LEADING-ZEROS",
        200,
        true,
        post!("Content-Length: 004", "tree"),
    ),
    (
        "SMUG-CL-EXTRA-LEADING-SP",
        200,
        true,
        post!("Content-Length:   4", "tree"),
    ),
    (
        "SMUG-CL-TRAILING-SPACE",
        200,
        true,
        post!("Content-Length: 4  ", "tree"),
    ),
    (
        "SMUG-CL-UNDERSCORE",
        400,
        false,
        post!("Content-Length: 0_4", "tree"),
    ),
    (
        "SMUG-CL-OCTAL",
        400,
        false,
        post!("Content-Length: 0o4", "tree"),
    ),
    (
        "SMUG-CL-UNICODE",
        400,
        false,
        post!("Content-Length: \u{664}", "tree"),
    ),
    (
        "MAL-CL-VTAB",
        400,
        false,
        post!("Content-Length: \u{b}4", "tree"),
    ),
    (
        "SMUG-TE-TRAILING-SPACE",
        200,
        true,
        post!("Transfer-Encoding: chunked ", "0\r\n\r\n"),
    ),
    (
        "SMUG-TE-CASE-MISMATCH",
        200,
        true,
        post!("Transfer-Encoding: Chunked", "0\r\n\r\n"),
    ),
    (
        "SMUG-TE-TAB-BEFORE-VALUE",
        200,
        true,
        post!("Transfer-Encoding:\tchunked", "0\r\n\r\n"),
    ),
    (
        "SMUG-TE-LEADING-COMMA",
        501,
        false,
        post!("Transfer-Encoding: , chunked", "0\r\n\r\n"),
    ),
    (
        "SMUG-TE-TRAILING-COMMA",
        400,
        false,
        post!("Transfer-Encoding: chunked,", "0\r\n\r\n"),
    ),
    (
        "SMUG-TE-PARAMETERS",
        400,
        false,
        post!("Transfer-Encoding: chunked;q=1", "0\r\n\r\n"),
    ),
    (
        "SMUG-TE-VTAB",
        400,
        false,
        post!("Transfer-Encoding: \u{b}chunked", "0\r\n\r\n"),
    ),
    (
        "SMUG-TE-FORMFEED",
        400,
        false,
        post!("Transfer-Encoding: \u{c}chunked", "0\r\n\r\n"),
    ),
    (
        "SMUG-TE-NULL",
        400,
        false,
        post!("Transfer-Encoding: chunked\0", "0\r\n\r\n"),
    ),
    // This is another field, so the length holds.
    (
        "SMUG-TE-UNDERSCORE",
        200,
        true,
        post!(
            "Content-Length: 5\r\nTransfer_Encoding: chunked",
            "0\r\n\r\n"
        ),
    ),
];

#[test]
fn lengths_and_codings() {
    check(LENGTHS_AND_CODINGS);
}

#[test]
fn chunks() {
    let extension = "x".repeat(70_000);
    let long = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;{extension}\r\ntree\r\n0\r\n\r\n"
    );
    let trailers = "X: y\r\n".repeat(2000);
    let many = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntree\r\n0\r\n{trailers}\r\n"
    );
    check(&[
        (
            "SMUG-CHUNK-UNDERSCORE",
            400,
            false,
            post!("Transfer-Encoding: chunked", "0_4\r\ntree\r\n0\r\n\r\n"),
        ),
        (
            "SMUG-CHUNK-SIZE-CR",
            400,
            false,
            post!("Transfer-Encoding: chunked", "4\r\rtree\r\n0\r\n\r\n"),
        ),
        (
            "SMUG-CHUNK-SPILL",
            400,
            false,
            post!("Transfer-Encoding: chunked", "2\r\ntree\r\n0\r\n\r\n"),
        ),
        (
            "SMUG-CHUNK-EXT-LF",
            400,
            false,
            post!("Transfer-Encoding: chunked", "4;a\ntree\r\n0\r\n\r\n"),
        ),
        (
            "SMUG-CHUNK-LAST-LF",
            400,
            false,
            post!("Transfer-Encoding: chunked", "4\r\ntree\r\n0\n\n"),
        ),
        ("MAL-CHUNK-EXT-64K", 400, false, long.as_bytes()),
        ("MAL-TRAILERS-MANY", 400, false, many.as_bytes()),
        // Trailers are kept apart from the head, whatever they contain.
        (
            "SMUG-TRAILER-CL",
            200,
            true,
            post!(
                "Transfer-Encoding: chunked",
                "0\r\nContent-Length: 50\r\n\r\n"
            ),
        ),
        (
            "SMUG-TRAILER-TE",
            200,
            true,
            post!(
                "Transfer-Encoding: chunked",
                "0\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
        ),
        (
            "SMUG-TRAILER-HOST",
            200,
            true,
            post!("Transfer-Encoding: chunked", "0\r\nHost: evil\r\n\r\n"),
        ),
    ]);
}

const REQUEST_LINES: &[Row<'static>] = &[
    (
        "COMP-VERSION-MISSING-MINOR",
        400,
        false,
        get!("GET / HTTP/1"),
    ),
    (
        "COMP-VERSION-LEADING-ZEROS",
        400,
        false,
        get!("GET / HTTP/01.1"),
    ),
    (
        "COMP-VERSION-WHITESPACE",
        400,
        false,
        get!("GET / HTTP/ 1.1"),
    ),
    ("COMP-VERSION-LONG", 400, false, get!("GET / HTTP/1.10")),
    ("COMP-VERSION-0", 400, false, get!("GET / HTTP/0.9")),
    ("COMP-METHOD-CASE", 200, true, get!("get / HTTP/1.1")),
    ("COMP-TRACE", 200, true, get!("TRACE / HTTP/1.1")),
    (
        "COMP-SPACE-IN-TARGET",
        400,
        false,
        get!("GET /a b HTTP/1.1"),
    ),
    (
        "COMP-CONNECT-NO-PORT",
        501,
        false,
        get!("CONNECT a HTTP/1.1"),
    ),
    (
        "COMP-CONNECT-ORIGIN-FORM",
        501,
        false,
        get!("CONNECT /a HTTP/1.1"),
    ),
    ("MAL-URL-CONTROL", 400, false, get!("GET /a\u{1}b HTTP/1.1")),
    ("MAL-URL-DELETE", 400, false, get!("GET /a\u{7f}b HTTP/1.1")),
    // These bytes are data. The handler decides what they mean.
    (
        "MAL-URL-PERCENT-NULL",
        200,
        true,
        get!("GET /a%00b HTTP/1.1"),
    ),
    (
        "MAL-URL-PERCENT-CRLF",
        200,
        true,
        get!("GET /a%0d%0aX:%20y HTTP/1.1"),
    ),
    // hyper is laxer than the grammar here: it hands these targets on as they are, and cuts a fragment off.
    ("MAL-URL-BACKSLASH", 200, true, get!("GET /a\\b HTTP/1.1")),
    ("MAL-NON-ASCII-URL", 200, true, get!("GET /ä HTTP/1.1")),
    (
        "COMP-FRAGMENT-IN-TARGET",
        200,
        true,
        get!("GET /a#b HTTP/1.1"),
    ),
    (
        "MAL-NON-ASCII-HEADER-NAME",
        400,
        false,
        "GET / HTTP/1.1\r\nHost: a\r\nÄ: x\r\n\r\n".as_bytes(),
    ),
    (
        "MAL-CONTROL-CHARS-HEADER",
        400,
        false,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
    ),
    (
        "MAL-WHITESPACE-ONLY-LINE",
        400,
        false,
        b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
    ),
    (
        "COMP-WHITESPACE-BEFORE-HEADERS",
        400,
        false,
        b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
    ),
    (
        "MAL-BINARY-GARBAGE",
        400,
        false,
        b"\xff\xfe\x00\x01\x02\r\n\r\n",
    ),
];

#[test]
fn request_lines() {
    check(REQUEST_LINES);
}

#[test]
fn what_is_too_long() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000));
    let method = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(100_000));
    let name = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}: x\r\n\r\n",
        "n".repeat(100_000)
    );
    check(&[
        ("MAL-LONG-URL", 431, false, long.as_bytes()),
        ("MAL-LONG-METHOD", 431, false, method.as_bytes()),
        ("MAL-LONG-HEADER-NAME", 431, false, name.as_bytes()),
    ]);
}

#[test]
fn bodies_where_nobody_looks_for_them() {
    check(&[
        ("SMUG-GET-CL-BODY", 200, true, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\ntree"),
        ("SMUG-OPTIONS-CL-BODY", 200, true, b"OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\ntree"),
        ("SMUG-DELETE-CHUNKED", 200, true, b"DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        // The next request counts as a body until the length is reached.
        ("SMUG-GET-CL-PREFIX", 400, false, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n"),
        ("COMP-UPGRADE-H2C", 200, true, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"),
        ("COMP-NO-CL-NO-TE", 200, true, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]);
}
