//! A client that goes away while its request is handled ends the handler.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weald_http::{Request, Server};

use crate::support::{LONG, body, connect, each_mode, read_all, wait_until};

/// Notes that it was dropped.
struct Tells(Arc<AtomicBool>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Makes the connection be reset when the stream is dropped.
fn resets(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// What the client does, whether it may close only its side, and whether bytes of a next request are there.
const WAYS: [(&str, bool, bool); 4] = [
    ("resets", true, false),
    ("resets", true, true),
    ("closes its side", false, false),
    ("goes", false, true),
];

#[test]
fn a_client_that_goes_away_ends_its_handler() {
    each_mode(|rt| {
        // All run at once, as each takes a second.
        let runs = WAYS.map(|(way, half_close, is_early)| {
            let (begun, ended) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicBool::new(false)),
            );
            let (begins, tells) = (Arc::clone(&begun), Arc::clone(&ended));
            let server = rt.run(|| {
                let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
                Server::new(listener)
                    .half_close(half_close)
                    .serve(move |_request| {
                        let _tells = Tells(Arc::clone(&tells));
                        begins.store(true, Ordering::SeqCst);
                        weald::sleep(Duration::MAX);
                    })
            });
            let mut stream = connect(server.local_addr());
            let early = if is_early { "GET /next" } else { "" };
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n{early}").unwrap();
            wait_until(|| begun.load(Ordering::SeqCst));
            match way {
                "resets" => resets(&stream),
                "goes" => {}
                _ => stream.shutdown(Shutdown::Write).unwrap(),
            }
            let stays = (way == "closes its side").then_some(stream);
            (way, server, ended, stays)
        });
        for (way, server, ended, _stays) in runs {
            wait_until(|| ended.load(Ordering::SeqCst));
            wait_until(|| server.connections() == 0);
            assert!(server.shutdown(LONG), "{way}");
        }
    });
}

#[test]
fn a_client_that_closes_its_side_waits_for_its_answer_unless_told_otherwise() {
    let (looked, goes) = (
        Duration::from_millis(1500),
        Arc::new(AtomicBool::new(false)),
    );
    let waits = Arc::clone(&goes);
    let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
    let server = Server::new(listener).serve(move |_request: Request| {
        while !waits.load(Ordering::SeqCst) {
            weald::sleep(Duration::from_millis(1));
        }
        "well"
    });
    let mut stream = connect(server.local_addr());
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Meanwhile the server has looked if the client has gone.
    std::thread::sleep(looked);
    assert_eq!(server.metrics().open_requests, 1);
    goes.store(true, Ordering::SeqCst);
    assert_eq!(body(&read_all(&mut stream)), "well");
}
