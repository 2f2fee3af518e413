//! A request's body may be read after its answer was given.

use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::time::Duration;

use weald_http::{Limits, Request, RequestBody, Response, Server};

use crate::support::{LONG, body, connect, each_mode, read_all, read_one, serve_with, wait_until};

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn a_body_is_read_to_its_end_after_the_answer_and_the_connection_goes_on() {
    each_mode(|rt| {
        let (sends, gets) = mpsc::channel();
        let limits = Limits::new().head_time(SHORT).keep_alive(SHORT);
        let server = rt.run(|| {
            let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
            Server::new(listener)
                .limits(limits)
                .serve(move |request: Request| {
                    if request.path() != "/later" {
                        return "at once";
                    }
                    let sends = sends.clone();
                    let mut body = request.into_body();
                    weald::spawn(move || sends.send(body.read_text()).unwrap());
                    "later"
                })
        });
        let mut stream = connect(server.local_addr());
        for framing in ["Content-Length: 8", "Transfer-Encoding: chunked"] {
            let is_chunked = framing.ends_with("chunked");
            let parts = if is_chunked {
                ["4\r\ntree\r\n", "4\r\ntops\r\n0\r\n\r\n"]
            } else {
                ["tree", "tops"]
            };
            write!(
                stream,
                "POST /later HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"
            )
            .unwrap();
            assert_eq!(body(&read_one(&mut stream)), "later");
            for part in parts {
                // This is longer than a head may take, and longer than an idle connection is kept.
                std::thread::sleep(3 * SHORT);
                stream.write_all(part.as_bytes()).unwrap();
            }
            let text = gets.recv_timeout(LONG).unwrap();
            assert_eq!(text.unwrap(), "treetops");
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(body(&read_one(&mut stream)), "at once");
        }
        // Then the connection is idle.
        assert_eq!(read_all(&mut stream), "");
        wait_until(|| server.connections() == 0);
        assert!(server.shutdown(LONG));
    });
}

#[test]
fn a_body_that_is_dropped_after_the_answer_does_not_cut_the_answer_off() {
    const SIZE: usize = 4 << 20;
    let (sends, gets) = mpsc::channel::<RequestBody>();
    let server = serve_with(Limits::new(), move |request: Request| {
        sends.send(request.into_body()).unwrap();
        Response::new(vec![b'x'; SIZE])
    });
    let mut stream = connect(server.local_addr());
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    )
    .unwrap();
    let mut kept = gets.recv_timeout(LONG).unwrap();
    // These are more bytes than a server reads when it closes a connection.
    stream.write_all(&vec![b'y'; 50_000]).unwrap();
    assert_eq!(kept.read(&mut [0; 10]).unwrap(), 10);
    drop(kept);
    std::thread::sleep(SHORT);
    assert_eq!(body(&read_all(&mut stream)).len(), SIZE);
}

#[test]
fn a_body_that_is_never_read_fails_its_reader_when_the_server_ends() {
    let (sends, gets) = mpsc::channel::<RequestBody>();
    let server = serve_with(Limits::new(), move |request: Request| {
        sends.send(request.into_body()).unwrap();
        "taken"
    });
    let mut stream = connect(server.local_addr());
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n"
    )
    .unwrap();
    assert_eq!(body(&read_one(&mut stream)), "taken");
    let mut kept = gets.recv_timeout(LONG).unwrap();
    assert_eq!(server.connections(), 1);
    // The request counts as one that runs: it has the time of grace and no more.
    assert!(!server.shutdown(SHORT));
    assert!(kept.read_text().is_err());
}
