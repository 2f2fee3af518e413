//! A server ends. Threads that wait end at once, and handlers that run have the time of grace.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weald_http::{Request, Response};

use crate::support::{
    LONG, body, connect, each_mode, read_all, read_one, serve, serve_alone, wait_until,
};

/// Notes that it was dropped.
struct Tells(Arc<AtomicBool>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn what_is_idle_ends_at_once_and_what_runs_within_its_grace() {
    each_mode(|rt| {
        let runs = Arc::new(AtomicBool::new(false));
        let goes_on = Arc::new(AtomicBool::new(false));
        let (tells, waits) = (Arc::clone(&runs), Arc::clone(&goes_on));
        let server = rt.run(|| {
            serve_alone(2, move |request: Request| {
                if request.path() == "/slow" {
                    tells.store(true, Ordering::SeqCst);
                    while !waits.load(Ordering::SeqCst) {
                        weald::sleep(Duration::from_millis(1));
                    }
                }
                "well"
            })
        });
        let addr = server.local_addr();
        let mut fresh = connect(addr);
        let mut kept = connect(addr);
        write!(kept, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(body(&read_one(&mut kept)), "well");
        let mut slow = connect(addr);
        write!(slow, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        wait_until(|| runs.load(Ordering::SeqCst));
        let start = Instant::now();
        let ends = rt.spawn(move || server.shutdown(LONG));
        assert_eq!(read_all(&mut fresh), "");
        assert_eq!(read_all(&mut kept), "");
        // The connection was closed, so the server has begun to end.
        goes_on.store(true, Ordering::SeqCst);
        let answer = read_all(&mut slow);
        assert!(
            answer.contains("connection: close") && body(&answer) == "well",
            "{answer}"
        );
        assert!(ends.join().unwrap());
        assert!(start.elapsed() < LONG / 2);
        assert!(std::net::TcpStream::connect(addr).is_err());
    });
}

#[test]
fn what_still_runs_after_the_grace_is_killed() {
    each_mode(|rt| {
        let ended = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&ended);
        let runs = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&runs);
        let server = rt.run(|| {
            serve(move |_request| {
                let _tells = Tells(Arc::clone(&tells));
                begins.store(true, Ordering::SeqCst);
                weald::sleep(Duration::MAX);
            })
        });
        let mut stream = connect(server.local_addr());
        write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        wait_until(|| runs.load(Ordering::SeqCst));
        assert!(!server.shutdown(Duration::from_millis(20)));
        assert!(ended.load(Ordering::SeqCst));
        read_all(&mut stream);
    });
}

#[test]
fn an_upgraded_connection_is_the_programs() {
    use std::io::Read as _;
    let server = serve(|request: Request| {
        let Some("tree") = request.upgrade() else {
            return Response::new("no upgrade");
        };
        Response::upgrade("tree", |mut stream| {
            let mut bytes = [0; 4];
            while stream.read_exact(&mut bytes).is_ok() {
                bytes.reverse();
                stream.write_all(&bytes).unwrap();
            }
        })
    });
    let addr = server.local_addr();
    let mut stream = connect(addr);
    // The first bytes of the other protocol come with the request.
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tree\r\n\r\nabcd"
    )
    .unwrap();
    let head = read_one(&mut stream);
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("upgrade: tree"),
        "{head}"
    );
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"dcba");
    stream.write_all(b"efgh").unwrap();
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hgfe");
    drop(stream);
    wait_until(|| server.connections() == 0);
    let mut stream = connect(addr);
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: tree\r\n\r\n").unwrap();
    assert_eq!(body(&read_one(&mut stream)), "no upgrade");
    // An answer to `HEAD` has nothing after its head.
    let mut stream = connect(addr);
    write!(
        stream,
        "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tree\r\n\r\n"
    )
    .unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"HTTP/1.1 400");
    // The end of the server ends the upgraded connection, too.
    let mut stream = connect(addr);
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tree\r\n\r\n"
    )
    .unwrap();
    read_one(&mut stream);
    assert!(!server.shutdown(Duration::from_millis(20)));
    assert_eq!(read_all(&mut stream), "");
}
