//! How many green threads there are, and which listeners other than TCP's a server can serve.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weald_http::{Request, Server};

use crate::support::{LONG, body, connect, each_mode, read_one, serve, wait_until};

#[test]
fn a_connection_holds_one_green_thread_and_a_request_one_more() {
    each_mode(|rt| {
        let goes = Arc::new(AtomicBool::new(false));
        let waits = Arc::clone(&goes);
        let server = rt.run(|| {
            serve(move |request: Request| {
                while request.path() == "/wait" && !waits.load(Ordering::SeqCst) {
                    weald::sleep(Duration::from_millis(1));
                }
                "well"
            })
        });
        let addr = server.local_addr();
        let live = || rt.metrics().live;
        // One green thread accepts. The thread of `run` may be about to end.
        let none = 1;
        wait_until(|| live() == none);
        let mut streams: Vec<_> = (0..5).map(|_| connect(addr)).collect();
        // A connection counts before its thread is there.
        wait_until(|| server.connections() == 5 && live() == none + 5);
        for stream in &mut streams {
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(body(&read_one(stream)), "well");
        }
        wait_until(|| live() == none + 5);
        for stream in &mut streams {
            write!(stream, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        }
        wait_until(|| server.metrics().open_requests == 5);
        wait_until(|| live() == none + 10);
        goes.store(true, Ordering::SeqCst);
        for stream in &mut streams {
            assert_eq!(body(&read_one(stream)), "well");
        }
        drop(streams);
        wait_until(|| server.connections() == 0 && live() == none);
        assert!(server.shutdown(LONG));
    });
}

#[test]
fn a_unix_socket_is_served_too() {
    let folder = std::env::temp_dir().join(format!("weald-http-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    let listener = weald::net::unix::UnixListener::bind(&path).unwrap();
    let server = Server::new(listener).serve(|mut request: Request| {
        assert!(request.peer_addr().is_none());
        request.read_text()
    });
    assert_eq!(server.local_addr().as_pathname(), Some(&*path));
    let mut stream = UnixStream::connect(&path).unwrap();
    for _ in 0..2 {
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\ntree"
        )
        .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"tree") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    }
    // The connection waits in a read, which ends.
    assert!(server.shutdown(LONG));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}
