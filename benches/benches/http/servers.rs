//! The servers: all answer a short text, with a length, a type and a date.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use weald_benches::{Contestant, Epoll, Role, weald_runtime};
use weald_http::{Response, Server};

use crate::rivals;

const TEXT: &str = "Hello, World!";

/// How long a burner computes before it gives way.
const SLICE: Duration = Duration::from_millis(100);

/// Starts the server, and so many that compute beside its connections. It runs until the process ends.
pub(crate) fn start(role: &Role, burners: usize) -> io::Result<SocketAddr> {
    match role.contestant {
        Contestant::Epoll => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr();
            std::thread::spawn(move || epoll(&listener).expect("epoll serves"));
            address
        }
        Contestant::Tokio => {
            let runtime = Box::leak(Box::new(rivals::tokio_runtime(role.workers)));
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
            let listener = runtime.block_on(listener)?;
            let address = listener.local_addr();
            runtime.spawn(hyper_on_tokio(listener));
            for _ in 0..burners {
                runtime.spawn(async {
                    loop {
                        burn();
                        tokio::task::yield_now().await;
                    }
                });
            }
            address
        }
        weald => {
            let runtime = Box::leak(Box::new(weald_runtime(weald, role.workers)));
            let server = runtime.run(|| {
                let listener = weald::tcp_listener((Ipv4Addr::LOCALHOST, 0))?;
                io::Result::Ok(
                    Server::new(listener)
                        .serve(|_request| Response::new(TEXT).header("content-type", "text/plain")),
                )
            })?;
            for _ in 0..burners {
                // It runs until the process ends.
                drop(runtime.spawn(|| {
                    loop {
                        burn();
                        weald::yield_now();
                    }
                }));
            }
            Ok(server.local_addr())
        }
    }
}

/// Computes for a slice without looking at the clock all the time.
fn burn() {
    let end = Instant::now() + SLICE;
    while Instant::now() < end {
        for n in 0..1000_u64 {
            std::hint::black_box(n);
        }
    }
}

async fn hyper_on_tokio(listener: tokio::net::TcpListener) {
    use hyper_util::rt::{TokioIo, TokioTimer};

    while let Ok((stream, _peer)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|_request: hyper::Request<Incoming>| async {
                let body = http_body_util::Full::new(Bytes::from_static(TEXT.as_bytes()));
                let answer = hyper::Response::builder().header("content-type", "text/plain");
                Ok::<_, Infallible>(answer.body(body).expect("the head is one"))
            });
            // These are the limits of time that weald-http has.
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
        });
    }
}

/// The floor: counts ends of heads, and writes as many answers, each the same.
fn epoll(listener: &TcpListener) -> io::Result<()> {
    const LISTENER: usize = usize::MAX;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         date: Mon, 30 Nov 2026 12:00:00 GMT\r\n\r\n{TEXT}",
        TEXT.len()
    );
    let answers = answer.repeat(64);
    let poll = Epoll::new()?;
    listener.set_nonblocking(true)?;
    poll.add(listener, LISTENER)?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let (mut tokens, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        poll.wait(&mut tokens, Duration::from_secs(3600))?;
        for &token in &tokens {
            if token == LISTENER {
                if let Ok((stream, _peer)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let place = streams.iter().position(Option::is_none);
                    let place = place.unwrap_or(streams.len());
                    poll.add(&stream, place)?;
                    streams.resize_with(streams.len().max(place + 1), || None);
                    streams[place] = Some(stream);
                }
                continue;
            }
            let Some(stream) = &mut streams[token] else {
                continue;
            };
            let served = match stream.read(&mut buffer) {
                // The load sends whole requests, and no other requests.
                Ok(count @ 1..) => {
                    let heads = buffer[..count]
                        .windows(4)
                        .filter(|four| *four == b"\r\n\r\n");
                    let length = answer.len() * heads.count();
                    stream.write_all(&answers.as_bytes()[..length]).is_ok()
                }
                Ok(_) => false,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
            if !served {
                streams[token] = None;
            }
        }
    }
}
