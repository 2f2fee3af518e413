//! A server in each mode, and a client that sends raw bytes and uses std on OS threads.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use weald::{Runtime, ThreadLocals};
use weald_http::{IntoResponse, Limits, Request, Server, ServerHandle};

/// A time that is longer than anything in these tests takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Starts a server on a port of its own, in the default runtime.
pub(crate) fn serve<R: IntoResponse>(
    handler: impl Fn(Request) -> R + Send + Sync + 'static,
) -> ServerHandle {
    serve_with(Limits::new(), handler)
}

pub(crate) fn serve_with<R: IntoResponse>(
    limits: Limits,
    handler: impl Fn(Request) -> R + Send + Sync + 'static,
) -> ServerHandle {
    let listener = weald::tcp_listener("127.0.0.1:0").unwrap();
    Server::new(listener).limits(limits).serve(handler)
}

/// Starts a server at an address where no server of another test listens. After its end no server listens there, as
/// long as each test takes another number.
pub(crate) fn serve_alone<R: IntoResponse>(
    number: u8,
    handler: impl Fn(Request) -> R + Send + Sync + 'static,
) -> ServerHandle {
    // All of 127.0.0.0/8 is this machine on Linux; elsewhere it is one address.
    let host = if cfg!(target_os = "linux") { number } else { 1 };
    let listener = weald::tcp_listener((std::net::Ipv4Addr::new(127, 0, 0, host), 0)).unwrap();
    Server::new(listener).serve(handler)
}

/// Runs the check in a runtime of each mode, with 1 and with 2 workers.
pub(crate) fn each_mode(check: impl Fn(&Runtime)) {
    for workers in [1, 2] {
        for mode in 0..3 {
            let builder = Runtime::builder().workers(workers);
            let builder = match mode {
                0 => builder.thread_locals(ThreadLocals::Pinned),
                // SAFETY: the tests hold nothing thread-local over a blocking call.
                1 => unsafe { builder.share_thread_locals() },
                _ => builder.thread_locals(ThreadLocals::Own),
            };
            match builder.build() {
                Ok(rt) => check(&rt),
                Err(error) => eprintln!("not tested: {error}"),
            }
        }
    }
}

/// Connects a client.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends the bytes and reads all that comes back until the server closes.
pub(crate) fn ask(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(addr);
    // The server may have closed already.
    let _ = stream.write_all(bytes.as_ref());
    read_all(&mut stream)
}

/// Sends the bytes, closes the client's side after them, and reads all that comes back.
pub(crate) fn ask_and_close(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(addr);
    let _ = stream.write_all(bytes.as_ref());
    let _ = stream.shutdown(Shutdown::Write);
    read_all(&mut stream)
}

pub(crate) fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let text = String::from_utf8_lossy(&answer);
        panic!("{error}, after {text:?}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads one answer with a `Content-Length`, or only a head, and nothing after it.
pub(crate) fn read_one(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            return String::from_utf8(answer).unwrap();
        }
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

/// Returns the status of an answer; 0 means that there is no answer.
pub(crate) fn status(answer: &str) -> u16 {
    let mut words = answer.split(' ');
    words
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_default()
}

/// Returns what follows the first head.
pub(crate) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

pub(crate) fn wait_until(mut happened: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !happened() {
        assert!(start.elapsed() < LONG, "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}
