//! Ordinary requests and answers.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::Duration;

use weald_http::{Request, Response, StatusCode};

use crate::support::{
    ask, ask_and_close, body, connect, each_mode, read_all, read_one, serve, status, wait_until,
};

#[allow(clippy::needless_pass_by_value, reason = "it is a handler")]
fn path(request: Request) -> String {
    request.path().to_owned()
}

#[test]
fn a_request_is_answered_in_every_mode() {
    each_mode(|rt| {
        rt.run(|| {
            let server = serve(path);
            let addr = server.local_addr();
            let answer = weald::blocking(|| ask(addr, "GET /a HTTP/1.0\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
            assert_eq!(body(&answer), "/a");
            assert!(server.shutdown(Duration::from_secs(5)));
        });
    });
}

#[test]
fn a_connection_is_kept_and_closed_as_the_client_says() {
    let server = serve(path);
    let mut stream = connect(server.local_addr());
    for n in 0..50 {
        write!(stream, "GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = read_one(&mut stream);
        assert_eq!(body(&answer), format!("/{n}"));
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    write!(
        stream,
        "GET /z HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let answer = read_all(&mut stream);
    assert!(
        answer.contains("connection: close") && body(&answer) == "/z",
        "{answer}"
    );
    // HTTP/1.0 keeps the connection only if the client asks for it.
    let mut stream = connect(server.local_addr());
    for _ in 0..2 {
        write!(stream, "GET /k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert_eq!(body(&read_one(&mut stream)), "/k");
    }
    wait_until(|| server.connections() == 1);
    drop(stream);
    wait_until(|| server.connections() == 0);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = serve(|request: Request| {
        let n: u64 = request.path()[1..].parse().unwrap();
        // The first handlers are the slowest.
        weald::sleep(Duration::from_millis(20 - n));
        n.to_string()
    });
    let all: Vec<_> = (0..20)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    let answer = ask_and_close(server.local_addr(), all.concat());
    let found: Vec<_> = answer
        .split("HTTP/1.1 200 OK")
        .skip(1)
        .map(|one| body(one).to_owned())
        .collect();
    let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let server = serve(path);
    let mut stream = connect(server.local_addr());
    write!(stream, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT").unwrap();
    assert_eq!(body(&read_one(&mut stream)), "/1");
    write!(stream, "TP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(body(&read_one(&mut stream)), "/2");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = serve(|mut request: Request| request.read_text());
    let mut stream = connect(server.local_addr());
    let text = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for byte in text.bytes() {
        stream.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(body(&read_one(&mut stream)), "abcde");
}

#[test]
fn a_client_that_has_closed_its_side_gets_its_answer() {
    let server = serve(|request: Request| {
        weald::sleep(Duration::from_millis(1));
        path(request)
    });
    for version in ["1.1", "1.0"] {
        for _ in 0..50 {
            let request = format!("GET /a HTTP/{version}\r\nHost: a\r\n\r\n");
            assert_eq!(body(&ask_and_close(server.local_addr(), request)), "/a");
        }
    }
}

#[test]
fn a_connection_that_was_long_idle_answers_again() {
    let server = serve(path);
    let mut stream = connect(server.local_addr());
    for n in 0..3 {
        // This is longer than the server keeps its memory for a request.
        std::thread::sleep(Duration::from_millis(if n == 1 { 1300 } else { 0 }));
        write!(stream, "GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(body(&read_one(&mut stream)), format!("/{n}"));
    }
    // Meanwhile half of a head lies there.
    write!(
        stream,
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHo"
    )
    .unwrap();
    assert_eq!(body(&read_one(&mut stream)), "/a");
    std::thread::sleep(Duration::from_millis(1300));
    write!(stream, "st: a\r\n\r\n").unwrap();
    assert_eq!(body(&read_one(&mut stream)), "/b");
}

#[test]
fn a_panic_is_a_500_and_nothing_else() {
    let server = serve(|request: Request| -> &'static str {
        assert_ne!(request.path(), "/bad", "on purpose");
        "well"
    });
    let mut stream = connect(server.local_addr());
    for _ in 0..3 {
        write!(stream, "GET /bad HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(status(&read_one(&mut stream)), 500);
        write!(stream, "GET /good HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(body(&read_one(&mut stream)), "well");
    }
    stream.shutdown(Shutdown::Write).unwrap();
    wait_until(|| server.connections() == 0);
}

#[test]
fn what_a_handler_returns_becomes_an_answer() {
    let server = serve(|request: Request| match request.path() {
        "/nothing" => Ok(Response::new("").status(StatusCode::NO_CONTENT)),
        "/error" => Err(std::io::Error::other("on purpose")),
        "/length" => Ok(Response::new("four").header("content-length", "17")),
        "/interim" => Ok(Response::new("four").status(StatusCode::EARLY_HINTS)),
        "/switch" => Ok(Response::new("").status(StatusCode::SWITCHING_PROTOCOLS)),
        "/reset" => Ok(Response::new("four").status(StatusCode::RESET_CONTENT)),
        "/close" => Ok(Response::new("four").header("connection", "close")),
        _ => Ok(Response::new("four").header("x-tree", "alder")),
    });
    let addr = server.local_addr();
    let get = |path: &str| ask_and_close(addr, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let answer = get("/");
    assert!(
        answer.contains("x-tree: alder") && answer.contains("date: "),
        "{answer}"
    );
    assert!(answer.contains("content-length: 4"), "{answer}");
    let answer = get("/nothing");
    assert!(
        status(&answer) == 204 && !answer.contains("content-length"),
        "{answer}"
    );
    assert_eq!(status(&get("/error")), 500);
    let answer = get("/length");
    assert!(
        answer.contains("content-length: 4") && body(&answer) == "four",
        "{answer}"
    );
    assert_eq!(status(&get("/interim")), 500);
    assert_eq!(status(&get("/switch")), 500);
    let answer = get("/reset");
    assert!(
        status(&answer) == 205 && body(&answer).is_empty(),
        "{answer}"
    );
    assert!(get("/close").contains("connection: close"));
    let answer = ask_and_close(addr, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        answer.contains("content-length: 4") && body(&answer).is_empty(),
        "{answer}"
    );
}

#[test]
fn what_was_answered_is_counted() {
    let server = serve(|request: Request| match request.path() {
        "/slow" => {
            weald::sleep(Duration::from_millis(20));
            Ok(())
        }
        _ => Err(StatusCode::NOT_FOUND),
    });
    let addr = server.local_addr();
    for path in ["/slow", "/slow", "/none"] {
        ask_and_close(addr, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    ask(addr, "GET / HTTP/1.1\r\n\r\n");
    let metrics = server.metrics();
    assert_eq!(metrics.answers, [0, 0, 2, 0, 2, 0]);
    assert_eq!((metrics.requests(), metrics.open_requests), (4, 0));
    let slowest = metrics.quantile(1.0).unwrap();
    assert!(slowest >= Duration::from_millis(20), "{slowest:?}");
    assert!(metrics.quantile(0.5).unwrap() <= slowest);
}

#[test]
fn an_answer_has_a_date_unless_its_handler_gives_one() {
    let server = serve(|request: Request| match request.path() {
        "/own" => Response::new("").header("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        _ => Response::new(""),
    });
    let dates = |request: &str| -> Vec<String> {
        let answer = ask_and_close(server.local_addr(), request);
        let lines = answer.lines().filter(|line| line.starts_with("date: "));
        lines.map(str::to_owned).collect()
    };
    // One answer comes from a handler, the other one refuses the request before there is a handler.
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let dates = dates(request);
        assert!(dates.len() == 1 && dates[0].ends_with(" GMT"), "{dates:?}");
    }
    let own = dates("GET /own HTTP/1.0\r\n\r\n");
    assert_eq!(own, ["date: Sun, 06 Nov 1994 08:49:37 GMT"]);
}
