//! Requests that two readers could read differently, or that break RFC 9110 or 9112. Each gets the status that the
//! RFCs ask for, and nothing after it is taken for a request.
//!
//! A second request follows every refused one. An answer to the second one would mean that the two sides disagree on
//! where the first one ends.

use crate::support::{ask_and_close, body, serve, status};

/// What follows a request. It must be answered only if the first request was.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

fn check(table: &[(u16, &str)], follows: bool) {
    let server = serve(|mut request: weald_http::Request| {
        let text = request.read_text()?;
        Ok::<_, std::io::Error>(format!("[{} {text}]", request.path()))
    });
    for (expected, request) in table {
        let answer = ask_and_close(server.local_addr(), format!("{request}{NEXT}"));
        assert_eq!(status(&answer), *expected, "{request:?}: {answer}");
        let has_next = answer.contains("[/next ]");
        assert_eq!(has_next, follows, "{request:?}: {answer}");
        if !follows {
            assert_eq!(
                answer.matches("HTTP/1.1 ").count(),
                1,
                "{request:?}: {answer}"
            );
        }
    }
}

#[test]
fn lengths_that_are_none_are_refused() {
    let post =
        |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
    let lengths = [
        "Content-Length: -1",
        "Content-Length: +4",
        "Content-Length: 4x",
        "Content-Length: 0x4",
        "Content-Length: 4 4",
        "Content-Length: 4, 4",
        "Content-Length: 4, 5",
        "Content-Length: ",
        "Content-Length: 4.0",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999999",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 4",
        "Content-Length : 4",
        "Content-Length\t: 4",
        "Content-Length",
    ];
    let table: Vec<_> = lengths.iter().map(|fields| post(fields, "tree")).collect();
    let table: Vec<_> = table.iter().map(|one| (400, one.as_str())).collect();
    check(&table, false);
}

#[test]
fn transfer_codings_that_do_not_end_in_chunked_alone_are_refused() {
    let post = |fields: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n4\r\ntree\r\n0\r\n\r\n")
    };
    let bad = [
        (400, "Transfer-Encoding: identity"),
        (400, "Transfer-Encoding: gzip"),
        (400, "Transfer-Encoding: chunked, gzip"),
        (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip"),
        (400, "Transfer-Encoding: xchunked"),
        (400, "Transfer-Encoding: chunkedx"),
        (400, "Transfer-Encoding: \"chunked\""),
        (400, "Transfer-Encoding: "),
        (400, "Transfer-Encoding : chunked"),
        (400, "Transfer-Encoding:\r\n chunked"),
        (501, "Transfer-Encoding: gzip, chunked"),
        (501, "Transfer-Encoding: chunked, chunked"),
        (
            501,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        (501, "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        (400, "Content-Length: 4\r\nTransfer-Encoding: gzip"),
    ];
    let table: Vec<_> = bad
        .iter()
        .map(|(code, fields)| (*code, post(fields)))
        .collect();
    let table: Vec<_> = table
        .iter()
        .map(|(code, one)| (*code, one.as_str()))
        .collect();
    check(&table, false);
    // HTTP/1.0 has no transfer codings.
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntree\r\n0\r\n\r\n";
    check(&[(400, old)], false);
}

#[test]
fn a_length_beside_chunks_is_ignored_and_the_connection_closes() {
    let server = serve(|mut request: weald_http::Request| {
        assert!(request.header("content-length").is_none());
        request.read_text()
    });
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n4\r\ntree\r\n0\r\n\r\n{NEXT}");
        let answer = ask_and_close(server.local_addr(), request);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(
            answer.contains("connection: close") && body(&answer) == "tree",
            "{answer}"
        );
    }
}

#[test]
fn chunks_that_are_none_are_refused() {
    let post = |body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    let bodies = [
        "x\r\ntree\r\n0\r\n\r\n",
        "-4\r\ntree\r\n0\r\n\r\n",
        "+4\r\ntree\r\n0\r\n\r\n",
        "0x4\r\ntree\r\n0\r\n\r\n",
        " 4\r\ntree\r\n0\r\n\r\n",
        "4\r\ntreeX\r\n0\r\n\r\n",
        "3\r\ntree\r\n0\r\n\r\n",
        "\r\ntree\r\n0\r\n\r\n",
        "4\rtree\r\n0\r\n\r\n",
        "4\ntree\r\n0\r\n\r\n",
        "4\r\ntree\n0\r\n\r\n",
        "4;a\nb\r\ntree\r\n0\r\n\r\n",
        "10000000000000000\r\ntree\r\n0\r\n\r\n",
        "fffffffffffffffff\r\ntree\r\n0\r\n\r\n",
        "4\r\ntree\r\n0\r\nbad trailer\r\n\r\n",
    ];
    let table: Vec<_> = bodies.iter().map(|body| post(body)).collect();
    let table: Vec<_> = table.iter().map(|one| (400, one.as_str())).collect();
    check(&table, false);
    // Requests that the grammar allows.
    let fine = [
        "4\r\ntree\r\n0\r\n\r\n",
        "0004\r\ntree\r\n000\r\n\r\n",
        "4;name=value\r\ntree\r\n0;last\r\n\r\n",
        "4;name=\"a;b\"\r\ntree\r\n0\r\nX-Sum: 7\r\n\r\n",
        "0\r\n\r\n",
    ];
    let table: Vec<_> = fine.iter().map(|body| post(body)).collect();
    let table: Vec<_> = table.iter().map(|one| (200, one.as_str())).collect();
    check(&table, true);
}

#[test]
fn heads_that_are_none_are_refused() {
    let bad = [
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tfolded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/11\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
        "/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n",
    ];
    let table: Vec<_> = bad.iter().map(|one| (400, *one)).collect();
    check(&table, false);
    // A line may end in LF alone (RFC 9112, 2.2), and an empty line may come first.
    let fine = [
        "GET / HTTP/1.1\nHost: a\n\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:a\r\nX:\r\nY: \t a b \t \r\n\r\n",
        "TREE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let table: Vec<_> = fine.iter().map(|one| (200, *one)).collect();
    check(&table, true);
}

#[test]
fn targets_and_hosts_are_checked() {
    let bad = [
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a:b:c\r\n\r\n"),
        (400, "GET http://a/ HTTP/1.1\r\n\r\n"),
        (400, "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (501, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        (417, "GET / HTTP/1.1\r\nHost: a\r\nExpect: the-moon\r\n\r\n"),
    ];
    check(&bad, false);
    let fine = [
        (200, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        (200, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (200, "GET / HTTP/1.1\r\nHost: a.b:80\r\n\r\n"),
        (200, "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
        (200, "GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (200, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    check(&fine, true);
    // The target gives the host, not the field.
    let server = serve(|request: weald_http::Request| {
        format!("{:?} {:?}", request.host(), request.header("host"))
    });
    let request = "GET http://other:80/ HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = ask_and_close(server.local_addr(), request);
    assert_eq!(body(&answer), "Some(\"other:80\") Some(\"other:80\")");
}

#[test]
fn what_is_cut_off_is_not_handled_as_a_whole() {
    let server = serve(|mut request: weald_http::Request| request.read_text());
    let addr = server.local_addr();
    for head in ["", "G", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let answer = ask_and_close(addr, head);
        assert!(answer.is_empty(), "{head:?}: {answer}");
    }
    for body in [
        "Content-Length: 4\r\n\r\ntre",
        "Transfer-Encoding: chunked\r\n\r\n4\r\ntree\r\n",
    ] {
        let answer = ask_and_close(addr, format!("POST / HTTP/1.1\r\nHost: a\r\n{body}"));
        assert_eq!(status(&answer), 400, "{body:?}: {answer}");
    }
}
