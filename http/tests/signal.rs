//! One line lets a server end well when the process is asked to end. The test has a process of its own, which sends
//! itself signals.

#![allow(unsafe_code, reason = "a signal is raised")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weald::signal::{Signal, Signals};
use weald_http::Server;

#[test]
fn a_server_ends_well_by_sigterm() {
    // From here on the signal has a handler, so it does not end the process.
    let _handler = Signals::new([Signal::SIGTERM]).unwrap();
    let runs = Arc::new(AtomicBool::new(false));
    let goes_on = Arc::new(AtomicBool::new(false));
    let (begins, waits) = (Arc::clone(&runs), Arc::clone(&goes_on));
    let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
    let server = Server::new(listener).serve(move |_request| {
        begins.store(true, Ordering::SeqCst);
        while !waits.load(Ordering::SeqCst) {
            weald::sleep(Duration::from_millis(1));
        }
        "well"
    });
    let addr = server.local_addr();
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    while !runs.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ends = std::thread::spawn(move || server.until_shutdown(Duration::from_secs(20)));
    // The server accepts until it has been told. It may begin to wait for the signal only after the first one was
    // sent, so there is a second one. The second one comes late, as a second signal ends the grace.
    while TcpStream::connect(addr).is_ok() {
        std::thread::sleep(Duration::from_millis(100));
        // SAFETY: the signal has a handler.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
        let raised = Instant::now();
        while TcpStream::connect(addr).is_ok() && raised.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    goes_on.store(true, Ordering::SeqCst);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.ends_with("\r\n\r\nwell") && answer.contains("connection: close"),
        "{answer}"
    );
    ends.join().unwrap().unwrap();
}
