//! Random bytes, sent whole and sent in pieces. `PROPTEST_CASES` sets how many; `.ci/full` sends more.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use weald_http::{Limits, Request};

use crate::support::{body, connect, serve_with, status};

/// Whole requests and parts of requests, right ones and wrong ones.
const PARTS: [&str; 34] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /b HTTP/1.0\r\n\r\n",
    "HEAD /c?d=e HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\ntree",
    "POST /g HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntree\r\n0\r\n\r\n",
    "POST /h HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\ntree",
    "PUT /i HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "GET http://a/j HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\n",
    "GET / HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\n",
    "POST / HTTP/1.0\r\n",
    "Host: a\r\n",
    "Host: b\r\n",
    "Content-Length: 4\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: +4\r\n",
    "Content-Length: 4, 4\r\n",
    "Content-Length : 4\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Connection: keep-alive\r\n",
    "Connection: close\r\n",
    "Upgrade: h2c\r\n",
    " folded\r\n",
    "\r\n",
    "\n",
    "tree",
    "4\r\ntree\r\n",
    "4;a=b\r\ntree\r\n",
    "0\r\n\r\n",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        10 => select(&PARTS[..]).prop_map(|part| part.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..30),
    ];
    let changes = prop_oneof![
        3 => Just(Vec::new()),
        1 => vec((any::<Index>(), any::<u8>()), 1..4),
    ];
    (vec(part, 1..7), changes).prop_map(|(parts, changes)| {
        let mut bytes = parts.concat();
        for (place, byte) in changes {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        bytes
    })
}

/// What came back: the statuses of the answers, and what the handler has seen.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    statuses: Vec<u16>,
    seen: Vec<String>,
}

/// Cuts what a server has sent into its answers.
fn answers(mut rest: &str, heads: &[bool]) -> Result<Vec<u16>, String> {
    let mut statuses = Vec::new();
    while !rest.is_empty() {
        let head = rest.split_once("\r\n\r\n").ok_or("half a head")?.0;
        if !rest.starts_with("HTTP/1.") {
            return Err(format!("no answer: {rest:?}"));
        }
        let status = status(rest);
        rest = body(rest);
        if status == 100 {
            continue;
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = match length.map(str::parse) {
            Some(Ok(length)) => length,
            _ => return Err(format!("no length: {head:?}")),
        };
        // An answer to HEAD has the length of a body, and no body.
        let is_head = status == 200 && heads.get(statuses.len()).is_some_and(|is_head| *is_head);
        // So has a refusal of HEAD, which is the last answer.
        if !is_head && !rest.is_empty() {
            rest = rest.get(length..).ok_or("half a body")?;
        }
        statuses.push(status);
    }
    Ok(statuses)
}

/// Sends the bytes in pieces, closes the client's side, and reads all that comes back.
fn send(
    addr: SocketAddr,
    pieces: &[&[u8]],
    seen: &Mutex<Vec<String>>,
) -> Result<Outcome, TestCaseError> {
    seen.lock().unwrap().clear();
    let mut stream = connect(addr);
    for piece in pieces {
        // The server may have closed already.
        let _ = stream.write_all(piece);
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        return Err(TestCaseError::fail(format!("{error}, after {all:?}")));
    }
    let seen = seen.lock().unwrap().clone();
    let heads: Vec<_> = seen.iter().map(|line| line.starts_with("HEAD ")).collect();
    let text = String::from_utf8_lossy(&all);
    let statuses = answers(&text, &heads)
        .map_err(|error| TestCaseError::fail(format!("{error}, in {text:?}")))?;
    Ok(Outcome { statuses, seen })
}

/// Leaves out a last 400. If a head has a fault and no end, hyper sees the fault only if the first read brings it.
/// Otherwise it looks for the end of the head first, and a head that is broken off has no answer.
fn without_refusal(outcome: &Outcome) -> (&[u16], &[String]) {
    let statuses = match &outcome.statuses[..] {
        [others @ .., 400] => others,
        all => all,
    };
    (statuses, &outcome.seen)
}

#[test]
fn random_bytes_have_the_same_answers_however_they_arrive() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let limits = Limits::new().body_size(1000).head_size(8192);
    let server = serve_with(limits, move |mut request: Request| {
        let text = request.read_text();
        let line = format!("{} {} {text:?}", request.method(), request.path());
        notes.lock().unwrap().push(line);
        text.map(|text| format!("you sent {text}"))
    });
    let addr = server.local_addr();
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (bytes(), vec(any::<Index>(), 0..5));
    let result = TestRunner::new(config).run(&strategy, |(bytes, cuts)| {
        if bytes.starts_with(b"PRI * HTTP/2") {
            // The answer is HTTP/2.
            return Ok(());
        }
        let whole = send(addr, &[&bytes], &seen)?;
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
        let cut = send(addr, &pieces, &seen)?;
        prop_assert_eq!(without_refusal(&whole), without_refusal(&cut));
        // Each call of the handler has its answer, and at most one answer more is a refusal.
        let (calls, all) = (whole.seen.len(), whole.statuses.len());
        prop_assert!(calls <= all, "{:?}", whole);
        for status in &whole.statuses {
            let is_known = matches!(
                status,
                200 | 400 | 405 | 408 | 411 | 413 | 414 | 417 | 431 | 501 | 505
            );
            prop_assert!(is_known, "{:?}", whole);
        }
        let good = send(addr, &[PARTS[0].as_bytes()], &seen)?;
        prop_assert_eq!(good.statuses, vec![200]);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(server.shutdown(Duration::from_secs(30)));
}
