//! Bodies that are read and written piece by piece.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weald_http::{Body, HeaderMap, HeaderValue, Limits, Request, Response};

use crate::support::{
    ask, ask_and_close, body, connect, read_all, read_one, serve, serve_with, status, wait_until,
};

/// Returns the content of a body that was sent in chunks.
fn dechunk(mut text: &str) -> String {
    let mut content = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return content;
        }
        content += &rest[..size];
        text = rest[size..].strip_prefix("\r\n").unwrap();
    }
}

#[test]
fn a_large_body_goes_both_ways() {
    let server = serve_with(Limits::new().body_size(64 << 20), |request: Request| {
        Response::new(Body::reader(request.into_body()))
    });
    let mut stream = connect(server.local_addr());
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 251) as u8).collect();
    write!(
        stream,
        "POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    )
    .unwrap();
    let (mut sends, sent) = (stream.try_clone().unwrap(), bytes.clone());
    let sender = std::thread::spawn(move || sends.write_all(&sent).unwrap());
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    sender.join().unwrap();
    assert!(answer.ends_with(&bytes));
}

#[test]
fn a_large_answer_is_whole_for_a_slow_client_that_has_closed_its_side() {
    let server = serve(|_request| vec![b'x'; 8 << 20]);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc",
    ] {
        let mut stream = connect(server.local_addr());
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(body(&read_all(&mut stream)).len(), 8 << 20);
    }
}

#[test]
fn a_body_is_written_by_chunks_to_its_end_or_to_its_length() {
    let server = serve(|request: Request| match request.path() {
        "/chunks" => Response::new(Body::writer(|out| {
            for n in 0..3 {
                writeln!(out, "line {n}")?;
                out.flush()?;
            }
            Ok(())
        })),
        "/sized" => Response::new(Body::sized_writer(6, |out| out.write_all(b"abcdef"))),
        "/reader" => Response::new(Body::sized_reader(3, std::io::repeat(b'x'))),
        "/told" => {
            Response::new(Body::writer(|out| out.write_all(b"abcd"))).header("content-length", "4")
        }
        "/more" => Response::new(Body::sized_writer(3, |out| out.write_all(b"abcdef"))),
        "/less" => Response::new(Body::sized_writer(3, |out| out.write_all(b"a"))),
        _ => Response::new(Body::writer(|out| {
            out.write_all(b"a part")?;
            out.flush()?;
            panic!("on purpose")
        })),
    });
    let addr = server.local_addr();
    let get = |path: &str| ask_and_close(addr, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(dechunk(body(&get("/chunks"))), "line 0\nline 1\nline 2\n");
    let old = ask(addr, "GET /chunks HTTP/1.0\r\n\r\n");
    assert_eq!(body(&old), "line 0\nline 1\nline 2\n");
    for (path, content) in [("/sized", "abcdef"), ("/reader", "xxx"), ("/told", "abcd")] {
        let answer = get(path);
        let length = format!("content-length: {}\r\n", content.len());
        assert!(
            answer.contains(&length) && body(&answer) == content,
            "{answer}"
        );
    }
    // A body that does not come to its end is not taken for a complete one.
    for path in ["/more", "/less"] {
        assert!(body(&get(path)).len() < 3);
    }
    let broken = get("/panic");
    assert!(
        broken.contains("a part") && !broken.ends_with("0\r\n\r\n"),
        "{broken}"
    );
    let head = ask_and_close(addr, "HEAD /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(status(&head) == 200 && body(&head).is_empty(), "{head}");
}

#[test]
fn a_request_may_wait_to_be_asked_for_its_body() {
    let server = serve(|mut request: Request| match request.path() {
        "/read" => request.read_text(),
        _ => Ok("unread".to_owned()),
    });
    let mut stream = connect(server.local_addr());
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    write!(stream, "{}", head("/read")).unwrap();
    assert_eq!(status(&read_one(&mut stream)), 100);
    write!(stream, "tree").unwrap();
    assert_eq!(body(&read_one(&mut stream)), "tree");
    // The server cannot tell if the bytes that follow are the body.
    write!(stream, "{}", head("/unread")).unwrap();
    let answer = read_all(&mut stream);
    assert!(
        answer.contains("connection: close") && body(&answer) == "unread",
        "{answer}"
    );
}

#[test]
fn an_unread_body_is_skipped_or_closes_the_connection() {
    let server = serve(|_request| "unread");
    let mut stream = connect(server.local_addr());
    let mut times = 0;
    while times < 3 {
        let begun = Instant::now();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let is_written = write!(stream, "tree").is_ok();
        // The server waits for half a second, and the machine may be busy.
        if begun.elapsed() > Duration::from_millis(250) {
            stream = connect(server.local_addr());
            continue;
        }
        assert!(is_written);
        times += 1;
        let answer = read_one(&mut stream);
        assert!(
            !answer.contains("connection: close") && body(&answer) == "unread",
            "{answer}"
        );
    }
    // The client goes on sending, and reads the answer anyway.
    let large = vec![b'x'; 1 << 20];
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        10 << 20
    );
    write!(stream, "{head}").unwrap();
    stream.write_all(&large).unwrap();
    let answer = read_all(&mut stream);
    assert!(
        answer.contains("connection: close") && body(&answer) == "unread",
        "{answer}"
    );
}

#[test]
fn trailers_go_both_ways() {
    let server = serve(|mut request: Request| {
        let text = request.read_text()?;
        let trailers = request.body().trailers().cloned().unwrap_or_default();
        let found = trailers
            .get("x-sum")
            .map(|sum| sum.to_str().unwrap().to_owned());
        Ok::<_, std::io::Error>(
            Response::new(Body::writer(move |out| {
                write!(out, "{text} {found:?}")?;
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("9"));
                out.send_trailers(trailers)
            }))
            .header("trailer", "x-sum"),
        )
    });
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
        4\r\ntree\r\n0\r\nx-sum: 7\r\n\r\n";
    let answer = ask_and_close(server.local_addr(), request);
    assert!(answer.contains("tree Some(\"7\")"), "{answer}");
    assert!(answer.ends_with("0\r\nx-sum: 9\r\n\r\n"), "{answer}");
}

#[test]
fn a_client_that_goes_away_ends_the_handler() {
    struct Ended(Arc<AtomicUsize>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let ended = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&ended);
    let server = serve(move |request: Request| {
        let guard = Ended(Arc::clone(&counts));
        if request.path() == "/waits" {
            let _ = request.into_body().read_text();
            weald::sleep(Duration::MAX);
        }
        Response::new(Body::writer(move |out| {
            let _guard = guard;
            loop {
                out.write_all(&[b'x'; 4096])?;
            }
        }))
    });
    let mut stream = connect(server.local_addr());
    write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut some = [0; 100];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    wait_until(|| ended.load(Ordering::SeqCst) == 1 && server.connections() == 0);
}
