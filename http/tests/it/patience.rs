//! A client that is slow but goes on is served to its end. The server does not wait for a client that only seems to
//! go on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weald_http::{Body, Limits, Request, Response};

use crate::support::{LONG, body, connect, read_all, serve, serve_with, status, wait_until};

const SHORT: Duration = Duration::from_millis(150);

/// More bytes than the kernel keeps for a client that reads nothing.
const MUCH: usize = 24 << 20;

#[test]
fn a_client_that_takes_its_answer_slowly_is_not_idle() {
    // The head of the next request may have begun to come meanwhile. On a busy machine it takes some time to send the
    // rest.
    let head = Duration::from_secs(2);
    for (early, pause) in [("", SHORT / 2), ("GET /next HTTP/1.1\r\nHo", head / 6)] {
        let limits = Limits::new().keep_alive(SHORT).head_time(head);
        let server = serve_with(limits, |request: Request| match request.path() {
            "/" => Response::new(vec![b'x'; MUCH]),
            _ => Response::new("next"),
        });
        let mut stream = connect(server.local_addr());
        // Both are sent in one piece, so that the server reads them at once.
        let both = format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{early}");
        stream.write_all(both.as_bytes()).unwrap();
        let (mut left, mut slow) = (MUCH, 8);
        let mut some = vec![0; 1 << 20];
        while left > 0 {
            let count = stream.read(&mut some).unwrap();
            assert_ne!(count, 0, "{left} bytes are missing");
            // The head is only a few bytes.
            left = left.saturating_sub(count);
            if slow > 0 {
                slow -= 1;
                std::thread::sleep(pause);
            }
        }
        if !early.is_empty() {
            // This is longer than an idle connection is kept.
            std::thread::sleep(2 * SHORT);
            // A few bytes of the body may still be unread.
            write!(stream, "st: a\r\nConnection: close\r\n\r\n").unwrap();
            let rest = read_all(&mut stream);
            let next = rest.trim_start_matches('x');
            assert!(status(next) == 200 && body(next) == "next", "{next}");
        }
    }
}

/// Returns a frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Returns the beginning of a connection whose streams have no window.
fn begin() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE.
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    bytes
}

/// Returns a complete request for `GET http://a/`.
fn get(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &[0x82, 0x84, 0x86, 0x41, 1, b'a'])
}

/// Reads bytes and throws them away until the server closes.
fn ends(stream: &TcpStream) -> std::thread::JoinHandle<()> {
    let mut reads = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(1..) = reads.read(&mut some) {}
    })
}

#[test]
fn a_stream_without_a_window_ends_although_the_client_sends_pings() {
    for is_written in [false, true] {
        let limits = Limits::new().write_time(4 * SHORT);
        let server = serve_with(limits, move |_request| {
            let bytes = vec![b'x'; 1 << 20];
            if is_written {
                return Response::new(Body::writer(move |out| out.send(bytes)));
            }
            Response::new(bytes)
        });
        let mut stream = connect(server.local_addr());
        stream.write_all(&[begin(), get(1)].concat()).unwrap();
        let reader = ends(&stream);
        let start = Instant::now();
        while !reader.is_finished() {
            assert!(start.elapsed() < LONG, "it is held");
            let _ = stream.write_all(&frame(6, 0, 0, &[7; 8]));
            std::thread::sleep(SHORT / 5);
        }
        wait_until(|| server.connections() == 0);
    }
}

#[test]
fn streams_that_are_reset_do_not_heap_up_handlers() {
    /// Its destructor waits, as a destructor may.
    struct Ends(Arc<AtomicUsize>, Arc<AtomicBool>);

    impl Drop for Ends {
        fn drop(&mut self) {
            while !self.1.load(Ordering::SeqCst) {
                weald::sleep(Duration::from_millis(1));
            }
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    let (live, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let goes_on = Arc::new(AtomicBool::new(false));
    let server = {
        let (live, most, goes_on) = (live.clone(), most.clone(), goes_on.clone());
        serve_with(Limits::new().streams(5), move |_request| {
            let _ends = Ends(live.clone(), goes_on.clone());
            most.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            weald::sleep(Duration::MAX);
        })
    };
    let mut stream = connect(server.local_addr());
    // The first stream is not reset before its handler runs.
    stream.write_all(&[begin(), get(1)].concat()).unwrap();
    let reader = ends(&stream);
    wait_until(|| most.load(Ordering::SeqCst) == 1);
    stream.write_all(&frame(3, 0, 1, &[0, 0, 0, 8])).unwrap();
    for number in 1..100 {
        let number = 2 * number + 1;
        if stream
            .write_all(&[get(number), frame(3, 0, number, &[0, 0, 0, 8])].concat())
            .is_err()
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(most.load(Ordering::SeqCst) <= 10, "{most:?}");
    goes_on.store(true, Ordering::SeqCst);
    drop(stream.shutdown(std::net::Shutdown::Both));
    reader.join().unwrap();
    wait_until(|| server.connections() == 0);
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

#[test]
fn a_stream_that_is_reset_ends_what_writes_its_body() {
    let (begun, ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let server = {
        let (begun, ended) = (begun.clone(), ended.clone());
        serve(move |_request| {
            let (begun, ended) = (begun.clone(), ended.clone());
            Response::new(Body::writer(move |out| {
                struct Tells(Arc<AtomicBool>);
                impl Drop for Tells {
                    fn drop(&mut self) {
                        self.0.store(true, Ordering::SeqCst);
                    }
                }
                let _tells = Tells(ended);
                out.write_all(b"first")?;
                out.flush()?;
                begun.store(true, Ordering::SeqCst);
                // The next event never comes.
                weald::sleep(Duration::MAX);
                Ok(())
            }))
        })
    };
    let mut stream = connect(server.local_addr());
    stream.write_all(&[begin(), get(1)].concat()).unwrap();
    let reader = ends(&stream);
    wait_until(|| begun.load(Ordering::SeqCst));
    stream.write_all(&frame(3, 0, 1, &[0, 0, 0, 8])).unwrap();
    wait_until(|| ended.load(Ordering::SeqCst));
    assert_eq!(server.connections(), 1);
    drop(stream.shutdown(std::net::Shutdown::Both));
    reader.join().unwrap();
}

#[test]
fn an_answer_by_http_2_goes_on_beyond_the_time_of_keep_alive() {
    const SIZE: usize = 512 * 1024;
    for is_closing in [false, true] {
        // The answer takes longer than that. The client's request does not, however busy the machine is.
        let keep = if is_closing {
            LONG
        } else {
            Duration::from_secs(1)
        };
        let server = serve_with(Limits::new().keep_alive(keep), |_request| {
            Response::new(vec![b'x'; SIZE])
        });
        let addr = server.local_addr();
        let rt = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut server = Some(server);
        let count = rt.block_on(async {
            let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
            let (send, connection) = h2::client::handshake(stream).await.unwrap();
            let connection = tokio::task::spawn(connection);
            let request = http::Request::get("http://a/").body(()).unwrap();
            let mut send = send.ready().await.unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            let shutdown = is_closing.then(|| server.take().unwrap());
            let shutdown = std::thread::spawn(|| shutdown.map(|server| server.shutdown(LONG)));
            let mut count = 0;
            while let Some(chunk) = body.data().await {
                let chunk = chunk.unwrap_or_else(|error| panic!("after {count} bytes: {error}"));
                count += chunk.len();
                // In all, this is longer than the server would wait for a client that has nothing more to do.
                tokio::time::sleep(SHORT / 2).await;
                let _ = body.flow_control().release_capacity(chunk.len());
            }
            drop((send, body));
            connection.abort();
            assert_ne!(shutdown.join().unwrap(), Some(false));
            count
        });
        assert_eq!(count, SIZE);
    }
}
