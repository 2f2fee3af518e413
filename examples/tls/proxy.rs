//! A proxy for TCP and TLS: two green threads a connection, one for each direction, plain blocking
//! code. Each side may speak TLS, so it can take TLS off, put it on, or do both.
//!
//! ```text
//! cargo run --release -p weald-examples-tls --bin proxy -- 127.0.0.1:8080 example.org:80
//! cargo run --release -p weald-examples-tls --bin proxy -- 127.0.0.1:8080 tls:example.org:443
//! cargo run --release -p weald-examples-tls --bin proxy -- tls:127.0.0.1:8443 127.0.0.1:8080 chain.pem key.pem
//! ```

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::time::Duration;

use weald::net::{Identity, ServerOptions, SslAcceptor, SslConnector, SslStream, TcpStream};

/// How long a target may take to answer the connection, its TLS handshake included.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// If a side takes nothing of what is written to it for this long, both sides are closed.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// One more connection waits until another has ended: each has two sockets, two threads and their buffers.
const MAX_CONNECTIONS: usize = 10_000;

/// How many bytes are read at once. The buffer is on the green thread's stack, so it costs the pages that are
/// touched.
const CHUNK_BYTES: usize = 16 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [listen, target] if !listen.starts_with("tls:") => serve(listen, None, target),
        [listen, target, chain, key] if listen.starts_with("tls:") => {
            Identity::from_pem_files(chain, key)
                .and_then(SslAcceptor::new)
                .and_then(|acceptor| serve(&listen["tls:".len()..], Some(acceptor), target))
        }
        _ => {
            eprintln!(
                "usage: proxy LISTEN [tls:]TARGET\n       \
                 proxy tls:LISTEN [tls:]TARGET CHAIN.pem KEY.pem"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One end of a connection.
enum End {
    Tcp(TcpStream),
    Tls(SslStream),
}

fn serve(listen: &str, acceptor: Option<SslAcceptor>, target: &str) -> io::Result<()> {
    let listener = weald::tcp_listener(listen)?;
    println!("{} -> {target}, Ctrl-C ends it", listener.local_addr()?);
    let target = target.to_owned();
    // There is one connector for all connections, so that sessions are resumed.
    let connector = SslConnector::new();
    // The handle lives as long as `main` waits; each connection gets a green thread of its own.
    let options = ServerOptions::new().max_connections(MAX_CONNECTIONS);
    let _server = weald::tcp_server_with(listener, options, move |tcp, peer| {
        let client = match &acceptor {
            None => Ok(End::Tcp(tcp)),
            // The handshake runs in this thread, at the first read or write.
            Some(acceptor) => SslStream::server(tcp, acceptor).map(End::Tls),
        };
        let relayed = client.and_then(|client| {
            let upstream = weald::timeout(CONNECT_LIMIT, || connect(&target, &connector))
                .unwrap_or_else(|elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)))?;
            client.limit_writes()?;
            upstream.limit_writes()?;
            Ok(relay(&client, &upstream))
        });
        match relayed {
            Ok((up, down)) => println!("{peer}: {up} bytes up, {down} bytes down"),
            Err(error) => println!("{peer}: no connection to {target}: {error}"),
        }
    });
    loop {
        weald::park();
    }
}

fn connect(target: &str, connector: &SslConnector) -> io::Result<End> {
    match target.strip_prefix("tls:") {
        None => weald::connect_tcp(target).map(End::Tcp),
        Some(target) => weald::connect_ssl_with(target, connector).map(End::Tls),
    }
}

/// Copies in both directions at once, until both have ended. Returns the numbers of bytes from and to the client.
fn relay(client: &End, upstream: &End) -> (u64, u64) {
    weald::scope(|scope| {
        let up = scope.spawn(|| pump(client, upstream));
        let down = pump(upstream, client);
        (up.join().unwrap_or(0), down)
    })
}

/// Copies bytes until `from` ends, and passes that end on, so a half-closed connection stays half-closed.
fn pump(mut from: &End, mut to: &End) -> u64 {
    let mut chunk = [0; CHUNK_BYTES];
    let mut moved_bytes = 0;
    loop {
        let moved = from.read(&mut chunk).and_then(|count| {
            to.write_all(&chunk[..count])?;
            Ok(count)
        });
        match moved {
            Ok(0) => {
                // An error means that it is closed already.
                let _ = to.shutdown(Shutdown::Write);
                return moved_bytes;
            }
            Ok(count) => moved_bytes += count as u64,
            Err(_) => {
                // A broken side ends both directions, and so wakes the other pump.
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return moved_bytes;
            }
        }
    }
}

impl End {
    fn limit_writes(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(WRITE_LIMIT)),
            Self::Tls(stream) => stream.set_write_timeout(Some(WRITE_LIMIT)),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Tls(stream) => stream.shutdown(how),
        }
    }
}

impl Read for &End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            End::Tcp(stream) => (&mut &*stream).read(buffer),
            End::Tls(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &End {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            End::Tcp(stream) => (&mut &*stream).write(buffer),
            End::Tls(stream) => (&mut &*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            End::Tcp(stream) => (&mut &*stream).flush(),
            End::Tls(stream) => (&mut &*stream).flush(),
        }
    }
}
