//! What is written to the log. The test has a process of its own, which has a logger.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use weald_http::Server;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {} {}", record.level(), record.target(), record.args());
        LINES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    fn flush(&self) {}
}

#[test]
fn a_handler_that_fails_is_a_line_a_second_at_most_and_each_request_one_of_the_access_log() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
    let server = Server::new(listener).serve(|_request| -> std::io::Result<()> {
        Err(std::io::Error::other("the database is gone"))
    });
    let start = Instant::now();
    let count = 50;
    for _ in 0..count {
        let mut stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 500 "), "{answer}");
        // The client is not told the cause of the failure.
        assert!(!answer.contains("database"), "{answer}");
    }
    let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
    let quiet = Server::new(listener).access_log(false).serve(|_request| "");
    let mut stream = TcpStream::connect(quiet.local_addr()).unwrap();
    stream.write_all(b"GET /quiet HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
    let lines = LINES.lock().unwrap();
    let of = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    let failed = of("ERROR weald_http weald-http: a handler has failed: the database is gone");
    assert!((1..=seconds + 1).contains(&failed), "{lines:?}");
    assert_eq!(of("INFO weald_http::access"), count);
    assert_eq!(of("/quiet"), 0);
}
