//! A TCP proxy: two green threads a connection, one for each direction, plain blocking code.
//!
//! `cargo run --release --example proxy -- 127.0.0.1:8080 example.org:80`

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::time::Duration;

use weald::net::TcpStream;

/// How long a target may take to answer the connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What is read at once. On the green thread's stack, so touched pages are what it costs.
const CHUNK_BYTES: usize = 8 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target] = arguments.as_slice() else {
        eprintln!("usage: proxy LISTEN TARGET, for example: proxy 127.0.0.1:8080 example.org:80");
        return ExitCode::from(2);
    };
    match serve(listen, target.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot listen on `{listen}`: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(listen: &str, target: String) -> io::Result<()> {
    let listener = weald::tcp_listener(listen)?;
    println!("{} -> {target}, Ctrl-C ends it", listener.local_addr()?);
    // The handle lives as long as `main` waits; each connection gets a green thread of its own.
    let _server = weald::tcp_server(listener, move |client, peer| {
        match weald::timeout(CONNECT_LIMIT, || weald::connect_tcp(target.as_str())) {
            Ok(Ok(upstream)) => {
                let (up, down) = relay(&client, &upstream);
                println!("{peer}: {up} bytes up, {down} bytes down");
            }
            Ok(Err(error)) => println!("{peer}: no connection to {target}: {error}"),
            Err(elapsed) => println!("{peer}: no connection to {target}: {elapsed}"),
        }
    });
    loop {
        weald::park();
    }
}

/// Both directions at once, until both have ended. Returns the bytes from and to the client.
fn relay(client: &TcpStream, upstream: &TcpStream) -> (u64, u64) {
    weald::scope(|scope| {
        let up = scope.spawn(|| pump(client, upstream));
        let down = pump(upstream, client);
        (up.join().unwrap_or(0), down)
    })
}

/// Moves bytes until `from` ends, and passes that end on: a half-closed connection stays one.
fn pump(mut from: &TcpStream, mut to: &TcpStream) -> u64 {
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
