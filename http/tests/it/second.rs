//! HTTP/2, asked by a client that is not weald's: the crate h2 on tokio.

use std::future::poll_fn;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::client::SendRequest;
use weald_http::{Body, Bytes, HeaderMap, HeaderValue, Limits, Request, Response};

use crate::support::{LONG, connect, each_mode, read_all, serve, serve_with, wait_until};

/// Runs the client's part on an OS thread, in tokio, with a connection.
fn with_client<F, T>(addr: std::net::SocketAddr, part: impl FnOnce(SendRequest<Bytes>) -> F) -> T
where
    F: Future<Output = T>,
{
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    rt.block_on(async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let local = tokio::task::spawn(connection);
        let part = tokio::time::timeout(LONG, part(send)).await.unwrap();
        local.abort();
        part
    })
}

type Answer = (u16, Vec<u8>, Option<HeaderMap>);

/// Sends a request with a body, and returns its complete answer.
async fn exchange(send: &SendRequest<Bytes>, path: &str, body: &[u8]) -> Result<Answer, h2::Error> {
    let mut send = send.clone().ready().await?;
    let request = http::Request::post(format!("http://a{path}"))
        .body(())
        .unwrap();
    let (answer, mut stream) = send.send_request(request, body.is_empty())?;
    let mut rest = body;
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            break;
        };
        let (now, later) = rest.split_at(room?.min(rest.len()));
        stream.send_data(Bytes::copy_from_slice(now), later.is_empty())?;
        rest = later;
    }
    read(answer.await?).await
}

async fn read(answer: http::Response<h2::RecvStream>) -> Result<Answer, h2::Error> {
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok((status, bytes, body.trailers().await?))
}

#[test]
fn many_streams_are_answered_at_the_same_time() {
    each_mode(|rt| {
        let most = Arc::new(AtomicUsize::new(0));
        let inside = Arc::new(AtomicUsize::new(0));
        let (counts, peak) = (Arc::clone(&inside), Arc::clone(&most));
        let server = rt.run(|| {
            serve(move |mut request: Request| {
                let now = counts.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(now, Ordering::SeqCst);
                let text = request.read_text();
                // All requests are in their handlers at once.
                while peak.load(Ordering::SeqCst) < 50 {
                    weald::sleep(Duration::from_millis(1));
                }
                counts.fetch_sub(1, Ordering::SeqCst);
                text.map(|text| format!("{} {text}", request.path()))
            })
        });
        with_client(server.local_addr(), |send| async move {
            let all = (0..50).map(|n| {
                let send = send.clone();
                tokio::task::spawn(async move {
                    let (status, body, _) =
                        exchange(&send, &format!("/{n}"), b"tree").await.unwrap();
                    assert_eq!(status, 200);
                    assert_eq!(body, format!("/{n} tree").as_bytes());
                })
            });
            for one in all.collect::<Vec<_>>() {
                one.await.unwrap();
            }
        });
        assert_eq!(inside.load(Ordering::SeqCst), 0);
        assert!(server.shutdown(LONG));
    });
}

#[test]
fn large_bodies_and_trailers_go_both_ways_over_streams() {
    let server = serve_with(Limits::new().body_size(64 << 20), |request: Request| {
        let mut body = request.into_body();
        Response::new(Body::writer(move |out| {
            while let Some(chunk) = body.read_chunk()? {
                out.send(chunk)?;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("9"));
            out.send_trailers(trailers)
        }))
    });
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|n| (n % 251) as u8).collect();
    with_client(server.local_addr(), |send| async move {
        // The answer is read while the request is sent.
        let mut send = send.ready().await.unwrap();
        let request = http::Request::post("http://a/").body(()).unwrap();
        let (answer, mut stream) = send.send_request(request, false).unwrap();
        let expected = bytes.clone();
        let sender = tokio::task::spawn(async move {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                let room = poll_fn(|cx| stream.poll_capacity(cx))
                    .await
                    .unwrap()
                    .unwrap();
                let (now, later) = rest.split_at(room.min(rest.len()));
                stream
                    .send_data(Bytes::copy_from_slice(now), later.is_empty())
                    .unwrap();
                rest = later;
            }
        });
        let (status, body, trailers) = read(answer.await.unwrap()).await.unwrap();
        sender.await.unwrap();
        assert_eq!(status, 200);
        assert!(body == expected);
        assert_eq!(trailers.unwrap()["x-sum"], "9");
    });
}

#[test]
fn a_panic_is_a_500_or_resets_its_stream_and_nothing_else() {
    let server = serve(|request: Request| match request.path() {
        "/early" => panic!("on purpose"),
        "/late" => Response::new(Body::writer(|out| {
            out.write_all(b"a part")?;
            out.flush()?;
            panic!("on purpose")
        })),
        _ => Response::new("well"),
    });
    with_client(server.local_addr(), |send| async move {
        for _ in 0..3 {
            assert_eq!(exchange(&send, "/early", b"").await.unwrap().0, 500);
            let error = exchange(&send, "/late", b"").await.unwrap_err();
            assert!(error.is_reset(), "{error}");
            assert_eq!(exchange(&send, "/", b"").await.unwrap().1, b"well");
        }
    });
}

/// Notes that it was dropped.
struct Ended(Arc<AtomicBool>);
impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_stream_that_is_reset_ends_its_handler_and_no_other() {
    let (ended, begun) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (tells, begins) = (Arc::clone(&ended), Arc::clone(&begun));
    let server = serve(move |request: Request| {
        if request.path() == "/wait" {
            let _ended = Ended(Arc::clone(&tells));
            begins.store(true, Ordering::SeqCst);
            weald::sleep(Duration::MAX);
        }
        "well"
    });
    with_client(server.local_addr(), |send| async move {
        let mut ready = send.clone().ready().await.unwrap();
        let request = http::Request::get("http://a/wait").body(()).unwrap();
        let (answer, mut stream) = ready.send_request(request, true).unwrap();
        while !begun.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
        while !ended.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(exchange(&send, "/", b"").await.unwrap().1, b"well");
    });
    wait_until(|| server.connections() == 0);
}

#[test]
fn a_server_that_ends_says_goaway_and_answers_what_runs() {
    each_mode(|rt| {
        let begun = Arc::new(AtomicBool::new(false));
        let goes_on = Arc::new(AtomicBool::new(false));
        let (begins, waits) = (Arc::clone(&begun), Arc::clone(&goes_on));
        let server = rt.run(|| {
            serve(move |request: Request| {
                if request.path() == "/wait" {
                    begins.store(true, Ordering::SeqCst);
                    while !waits.load(Ordering::SeqCst) {
                        weald::sleep(Duration::from_millis(1));
                    }
                }
                "well"
            })
        });
        let addr = server.local_addr();
        let rt = &rt;
        with_client(addr, |send| async move {
            let exchanges = send.clone();
            let running =
                tokio::task::spawn(async move { exchange(&exchanges, "/wait", b"").await });
            while !begun.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let ends = rt.spawn(move || server.shutdown(LONG));
            // The client is answered until it has heard of the end.
            while exchange(&send, "/", b"").await.is_ok() {}
            goes_on.store(true, Ordering::SeqCst);
            assert_eq!(running.await.unwrap().unwrap().1, b"well");
            while !ends.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(ends.join().unwrap());
        });
    });
}

#[test]
fn limits_hold_for_streams() {
    let limits = Limits::new()
        .body_size(10)
        .streams(3)
        .write_time(Duration::from_millis(150))
        // On a busy machine the client takes some time between two requests.
        .keep_alive(Duration::from_secs(2));
    let server = serve_with(limits, |mut request: Request| {
        if request.path() == "/large" {
            return Ok(Response::new(vec![b'x'; 10 << 20]));
        }
        request.read_text().map(Response::new)
    });
    let addr = server.local_addr();
    with_client(addr, |send| async move {
        assert_eq!(exchange(&send, "/", b"more than ten").await.unwrap().0, 413);
        assert_eq!(exchange(&send, "/", b"ten").await.unwrap().0, 200);
        // The client opens no window for the answer.
        let mut ready = send.clone().ready().await.unwrap();
        let request = http::Request::get("http://a/large").body(()).unwrap();
        let (answer, _stream) = ready.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        let mut body = answer.into_body();
        let ended = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        };
        assert!(!matches!(ended, Some(Ok(_))));
    });
    wait_until(|| server.connections() == 0);
    // One client sends its hello and no more. The hello of another one is never complete.
    let mut stream = connect(addr);
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    read_all(&mut stream);
    wait_until(|| server.connections() == 0);
}

#[test]
fn curl_speaks_it_in_the_clear_and_over_tls() {
    if std::process::Command::new("curl")
        .arg("-V")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: curl is not installed");
        return;
    }
    let curl = |args: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args([
            "-sS",
            "-k",
            "--max-time",
            "20",
            "-w",
            " %{http_version} %{http_code}",
        ]);
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let handler = |mut request: Request| request.read_text();
    let plain = serve(handler);
    let url = format!("http://{}/", plain.local_addr());
    assert_eq!(
        curl(&["--http2-prior-knowledge", "-d", "tree", &url]),
        "tree 2 200"
    );
    assert_eq!(curl(&["--http2", "-d", "tree", &url]), "tree 1.1 200");
    assert_eq!(curl(&["--http1.0", "-d", "tree", &url]), "tree 1 200");
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = weald::net::Identity::from_pem(chain, key).unwrap();
    let listener = weald::ssl_listener("127.0.0.1:0", identity).unwrap();
    let server = weald_http::Server::new(listener).serve(handler);
    let url = format!("https://localhost:{}/", server.local_addr().port());
    assert_eq!(curl(&["-d", "tree", &url]), "tree 2 200");
    assert_eq!(
        curl(&["--http1.1", "-d", "tree", &url, &url]),
        "tree 1.1 200tree 1.1 200"
    );
    assert!(server.shutdown(LONG));
}

#[test]
fn a_client_that_begins_wrong_is_refused() {
    let server = serve(|_request| "well");
    let addr = server.local_addr();
    // Nothing tells this client from a client of HTTP/1.
    let mut stream = connect(addr);
    stream
        .write_all(b"INVALID CONNECTION PREFACE\r\n\r\n")
        .unwrap();
    assert!(read_all(&mut stream).starts_with("HTTP/1.1 400 "));
    // This client means HTTP/2, and gets no HTTP/1.
    let mut stream = connect(addr);
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
        .unwrap();
    assert!(!read_all(&mut stream).contains("HTTP/1"));
    wait_until(|| server.connections() == 0);
}
