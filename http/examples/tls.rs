//! HTTP/2 over TLS, with a certificate that it signs itself.
//!
//! `cargo run --release -p weald-http --example tls -- 127.0.0.1:8443`, then `curl -k https://127.0.0.1:8443/`.

use std::io;
use std::time::Duration;

use weald::net::Identity;
use weald_http::{Request, Server};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]);
    let made = made.map_err(io::Error::other)?;
    let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem())?;
    let listener = weald::ssl_listener(address.as_deref().unwrap_or("127.0.0.1:8443"), identity)?;
    let server = Server::new(listener).serve(|mut request: Request| {
        let body = request.read_text()?;
        let version = request.version();
        Ok::<_, io::Error>(format!(
            "{version:?} {} {}\n{body}",
            request.method(),
            request.path()
        ))
    });
    println!("https://{}/", server.local_addr());
    server.until_shutdown(Duration::from_secs(10))?;
    Ok(())
}
