//! HTTP/1.1 by hyper over green sockets: futures that need no runtime run on green threads. It shows how little
//! that takes; a service takes the crate `weald-http`.
//!
//! `cargo run --release -p weald-examples-hyper -- 127.0.0.1:7002`, then `curl http://127.0.0.1:7002/`; without
//! an address it asks itself and ends.

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use weald::net::TcpStream;

/// A green socket in the form that hyper wants: a call that would wait says so, and a green thread waits in its place
/// and wakes the future.
struct Io(Arc<TcpStream>);

impl Io {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(Arc::new(stream)))
    }

    fn poll<T>(
        &self,
        context: &mut Context<'_>,
        writes: bool,
        call: impl FnOnce(&TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        match call(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
        let (stream, waker) = (Arc::clone(&self.0), context.waker().clone());
        weald::spawn(move || {
            // An error is found by the next call too.
            let _ = if writes {
                weald::select! { writable(&*stream) -> ready => ready }
            } else {
                weald::select! { readable(&*stream) -> ready => ready }
            };
            waker.wake();
        });
        Poll::Pending
    }
}

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 8192];
        let most = into.remaining().min(bytes.len());
        self.poll(context, false, |mut stream| {
            let read = stream.read(&mut bytes[..most])?;
            into.put_slice(&bytes[..read]);
            Ok(())
        })
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(context, true, |mut stream| stream.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.shutdown(std::net::Shutdown::Write) {
            // The client has closed first.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// An ordinary function: it may block, which suspends the green thread of its connection.
fn page(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    weald::sleep(std::time::Duration::from_millis(10));
    Response::new(Full::from(format!("you asked for {}\n", request.uri())))
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = weald::tcp_listener(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    let addr = listener.local_addr()?;
    println!("http://{addr}/");
    let _server = weald::tcp_server(listener, |stream, peer| {
        let service = service_fn(|request| async move { Ok::<_, Infallible>(page(&request)) });
        let mut server = hyper::server::conn::http1::Builder::new();
        // A client that has closed its side waits for its answer all the same.
        server.half_close(true);
        let result =
            Io::new(stream).map(|stream| weald::block_on(server.serve_connection(stream, service)));
        if !matches!(result, Ok(Ok(()))) {
            eprintln!("{peer}: {result:?}");
        }
    });
    if address.is_some() {
        weald::park();
    }
    let mut stream = weald::connect_tcp(addr)?;
    stream.write_all(b"GET /tree HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}
