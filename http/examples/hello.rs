//! The smallest service. It ends well under `docker stop` and Ctrl-C.
//!
//! `cargo run --release -p weald-http --example hello -- 127.0.0.1:8080`, then `curl http://127.0.0.1:8080/`.

use std::time::Duration;

use weald_http::{Request, Server};

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = weald::tcp_listener(address.as_deref().unwrap_or("127.0.0.1:8080"))?;
    let server = Server::new(listener).serve(|mut request: Request| {
        let body = request.read_text()?;
        Ok::<_, std::io::Error>(format!("{} {}\n{body}", request.method(), request.path()))
    });
    println!("http://{}/", server.local_addr());
    let well = server.until_shutdown(Duration::from_secs(10))?;
    println!("ended {}", if well { "well" } else { "by force" });
    Ok(())
}
