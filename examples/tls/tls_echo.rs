//! An echo server that speaks TLS: what comes is sent back. A request of HTTP comes back as the body
//! of an answer, so that a browser or curl sees something too.
//!
//! ```text
//! cargo run --release -p weald-examples-tls --bin tls_echo                                  # makes a certificate
//! cargo run --release -p weald-examples-tls --bin tls_echo -- 127.0.0.1:7443 chain.pem key.pem
//! openssl s_client -connect localhost:7443 -CAfile target/tls_echo.pem
//! curl --cacert target/tls_echo.pem https://localhost:7443/
//! ```

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::process::ExitCode;
use std::time::Duration;

use weald::net::{Identity, ServerOptions, SslAcceptor, SslStream};

/// How long a client may take for its handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// A client that takes nothing of what is sent back for this long is cut off.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// One more connection waits until another has ended.
const MAX_CONNECTIONS: usize = 10_000;

/// Where the program leaves the certificate that it makes for itself, for clients to trust.
const OWN_CERTIFICATE: &str = "target/tls_echo.pem";

/// How many bytes are read at once. The buffer is on the green thread's stack, so it costs the pages that are
/// touched.
const CHUNK_BYTES: usize = 8 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [] => own_identity().and_then(|own| serve("127.0.0.1:7443", own)),
        [listen] => own_identity().and_then(|own| serve(listen, own)),
        [listen, chain, key] => {
            Identity::from_pem_files(chain, key).and_then(|given| serve(listen, given))
        }
        _ => {
            eprintln!("usage: tls_echo [LISTEN [CHAIN.pem KEY.pem]]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A certificate for this machine alone, new with every start.
fn own_identity() -> io::Result<Identity> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    std::fs::create_dir_all("target")?;
    std::fs::write(OWN_CERTIFICATE, made.cert.pem())?;
    println!("trust {OWN_CERTIFICATE}");
    Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem())
}

fn serve(listen: &str, identity: Identity) -> io::Result<()> {
    let acceptor = SslAcceptor::builder()
        .identity(identity)
        .alpn(["http/1.1"])
        .handshake_timeout(Some(HANDSHAKE_LIMIT))
        .build()?;
    let listener = weald::ssl_listener_with(listen, &acceptor)?;
    println!(
        "echo with TLS on {}, Ctrl-C ends it",
        listener.local_addr()?
    );
    // The server goes on when descriptors run out, and slow clients delay no others.
    let options = ServerOptions::new().max_connections(MAX_CONNECTIONS);
    let _server = weald::ssl_server_with(listener, options, |stream, peer| match echo(&stream) {
        Ok(bytes) => println!("{peer}: {bytes} bytes"),
        Err(error) => println!("{peer}: {error}"),
    });
    loop {
        weald::park();
    }
}

/// Sends back what comes until the client closes. Returns how many bytes came.
fn echo(mut stream: &SslStream) -> io::Result<u64> {
    stream.set_write_timeout(Some(WRITE_LIMIT))?;
    let mut chunk = [0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        let is_first = bytes == 0;
        bytes += count as u64;
        if is_first && is_http(&chunk[..count]) {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {count}\r\n\r\n"
            )?;
            stream.write_all(&chunk[..count])?;
            break;
        }
        stream.write_all(&chunk[..count])?;
    }
    // This tells the client that the answer is complete. The end of the connection alone does not.
    stream.shutdown(Shutdown::Write)?;
    Ok(bytes)
}

/// Tells if the text begins like a request. This is good enough for a demonstration.
fn is_http(text: &[u8]) -> bool {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.ends_with(b" HTTP/1.1\r") || line.ends_with(b" HTTP/1.0\r")
}
