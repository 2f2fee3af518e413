//! Every limit ends what it limits, with the status of that limit.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weald_http::{Body, Limits, Request, Response};

use crate::support::{
    LONG, ask, ask_and_close, body, connect, read_all, read_one, serve_with, status, wait_until,
};

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn a_head_that_is_too_long_is_a_431() {
    let server = serve_with(Limits::new().head_size(8192).head_fields(20), |_request| "");
    let addr = server.local_addr();
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    assert_eq!(status(&ask(addr, large)), 431);
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(100_000));
    assert_eq!(status(&ask(addr, endless)), 431);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(30));
    assert_eq!(status(&ask(addr, many)), 431);
    let fine = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(7000)
    );
    assert_eq!(status(&ask_and_close(addr, fine)), 200);
}

#[test]
fn a_head_of_very_many_fields_is_a_431_and_no_panic() {
    let limits = Limits::new().head_size(4 << 20).head_fields(usize::MAX);
    let server = serve_with(limits, |_request| "");
    for (count, expected) in [(20_000, 200), (40_000, 431)] {
        let fields: Vec<_> = (0..count).map(|n| format!("x{n}: y\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields.concat());
        assert_eq!(status(&ask_and_close(server.local_addr(), head)), expected);
    }
}

#[test]
fn a_head_that_takes_too_long_is_a_408() {
    // The time is long enough for the client's first byte to come in time on a busy machine.
    let time = Duration::from_secs(1);
    let server = serve_with(Limits::new().head_time(time), |_request| "well");
    // The client sends nothing at all, so there is nothing to answer.
    assert_eq!(read_all(&mut connect(server.local_addr())), "");
    // A byte comes now and then, at the beginning or after an answer.
    for is_first in [true, false] {
        let mut start = Instant::now();
        let mut stream = connect(server.local_addr());
        if !is_first {
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(body(&read_one(&mut stream)), "well");
            start = Instant::now();
        }
        let mut sends = stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            for byte in
                b"GET / HTTP/1.1\r\nHost: a\r\nX: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
            {
                if sends.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::sleep(time / 20);
            }
        });
        let answer = read_all(&mut stream);
        assert!(start.elapsed() >= time);
        assert_eq!(status(&answer), 408, "{answer}");
        drop(stream);
        sender.join().unwrap();
    }
    wait_until(|| server.connections() == 0);
}

#[test]
fn an_idle_connection_is_closed() {
    // The first limit is over before hyper is put away, the second one after that.
    for keep in [SHORT, Duration::from_millis(1300)] {
        let server = serve_with(Limits::new().keep_alive(keep), |_request| "well");
        let mut stream = connect(server.local_addr());
        // The server's time begins when it has answered. That may be long before the client knows.
        let start = Instant::now();
        write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(body(&read_one(&mut stream)), "well");
        assert_eq!(read_all(&mut stream), "");
        assert!(start.elapsed() >= keep);
    }
}

#[test]
fn a_body_that_is_too_long_or_too_slow_has_its_status() {
    let limits = Limits::new()
        .body_size(10)
        .body_pause(SHORT)
        .body_time(3 * SHORT);
    let server = serve_with(limits, |mut request: Request| {
        if request.path() == "/more" {
            request.set_body_limit(20);
        }
        request.read_text()
    });
    let addr = server.local_addr();
    let post = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
    };
    let text = "abcdefghijklmnopqrst";
    let answer = ask(addr, post("/", 20) + text);
    assert!(
        status(&answer) == 413 && answer.contains("connection: close"),
        "{answer}"
    );
    assert_eq!(body(&ask_and_close(addr, post("/more", 20) + text)), text);
    // A client that waits for `100 Continue` does not get it.
    let waits = post("/", 20).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let answer = ask(addr, waits);
    assert_eq!(status(&answer), 413, "{answer}");
    let chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\nabcdefghijklmnopqrst\r\n0\r\n\r\n";
    assert_eq!(status(&ask(addr, chunks)), 413);
    // The client stops, or sends a byte now and then.
    let answer = ask(addr, post("/", 10) + "abc");
    assert!(
        status(&answer) == 408 && answer.contains("connection: close"),
        "{answer}"
    );
    let mut stream = connect(addr);
    write!(stream, "{}", post("/", 10)).unwrap();
    let mut sends = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for _ in 0..9 {
            std::thread::sleep(SHORT / 2);
            if sends.write_all(b"x").is_err() {
                return;
            }
        }
    });
    assert_eq!(status(&read_all(&mut stream)), 408);
    drop(stream);
    sender.join().unwrap();
}

#[test]
fn a_client_that_takes_nothing_loses_its_connection() {
    let ended = Arc::new(AtomicBool::new(false));
    let tells = Arc::clone(&ended);
    let server = serve_with(Limits::new().write_time(SHORT), move |_request| {
        let tells = Arc::clone(&tells);
        Response::new(Body::writer(move |out| {
            let piece = [b'x'; 16 * 1024];
            let result = loop {
                if let Err(error) = out.write_all(&piece) {
                    break error;
                }
            };
            tells.store(true, Ordering::SeqCst);
            Err(result)
        }))
    });
    let mut stream = connect(server.local_addr());
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_until(|| ended.load(Ordering::SeqCst) && server.connections() == 0);
    // A client that is slow but goes on is served. In all, that takes longer than one write may take.
    let time = Duration::from_secs(1);
    let server = serve_with(Limits::new().write_time(time), |_request| {
        Response::new(vec![b'x'; 3 << 20])
    });
    let mut stream = connect(server.local_addr());
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut count = 0;
    let mut some = vec![0; 256 * 1024];
    loop {
        let more = stream.read(&mut some).unwrap();
        if more == 0 {
            break;
        }
        count += more;
        std::thread::sleep(time / 10);
    }
    assert!(count > 3 << 20);
}

#[test]
fn connections_are_counted_in_all_and_for_each_address() {
    let server = serve_with(Limits::new().connections_per_address(2), |_request| "well");
    let addr = server.local_addr();
    let first = connect(addr);
    let second = connect(addr);
    wait_until(|| server.connections() == 2);
    assert_eq!(status(&ask(addr, "GET / HTTP/1.0\r\n\r\n")), 503);
    drop(first);
    wait_until(|| server.connections() == 1);
    assert_eq!(status(&ask(addr, "GET / HTTP/1.0\r\n\r\n")), 200);
    drop(second);

    let server = serve_with(Limits::new().connections(1), |_request| "well");
    let addr = server.local_addr();
    let first = connect(addr);
    wait_until(|| server.connections() == 1);
    let mut second = connect(addr);
    write!(second, "GET / HTTP/1.0\r\n\r\n").unwrap();
    second.set_read_timeout(Some(SHORT)).unwrap();
    let waits = second.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(
        waits,
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    ));
    drop(first);
    second.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(status(&read_all(&mut second)), 200);
}

#[test]
fn a_handshake_counts_for_its_address() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = weald::net::Identity::from_pem(chain, key).unwrap();
    let listener = weald::ssl_listener("127.0.0.1:0", identity).unwrap();
    let limits = Limits::new().connections_per_address(2);
    let server = weald_http::Server::new(listener)
        .limits(limits)
        .serve(|_request| "well");
    let addr = server.local_addr();
    // The clients send nothing, so no handshake ends.
    let _first = connect(addr);
    let _second = connect(addr);
    wait_until(|| server.connections() == 2);
    assert_eq!(read_all(&mut connect(addr)), "");
    wait_until(|| server.connections() == 2);
    // A server that ends does not wait for handshakes.
    let start = Instant::now();
    assert!(server.shutdown(LONG));
    assert!(start.elapsed() < LONG / 6);
}
