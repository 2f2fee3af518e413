//! WebSocket: the handshake is a response, and tungstenite speaks over the stream that the response hands over.
//!
//! `cargo run --release -p weald-http --example websocket -- 127.0.0.1:8080` serves an echo; without an address it asks
//! itself and ends.

use std::io;

use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};
use weald_http::{Request, Response, Server, StatusCode};

/// Serves one WebSocket. It may block as long as it likes, in the connection's green thread.
fn echo(mut socket: WebSocket<weald_http::Upgraded>) -> tungstenite::Result<()> {
    loop {
        match socket.read()? {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message)?,
            // tungstenite answers pings and the closing handshake.
            _ => socket.flush()?,
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is a handler")]
fn handler(request: Request) -> Response {
    let key = request.header("sec-websocket-key");
    let is_version = request.header("sec-websocket-version") == Some("13");
    let asks = |name: &str| name.eq_ignore_ascii_case("websocket");
    let (Some(key), true) = (key, request.upgrade().is_some_and(asks) && is_version) else {
        return Response::new("this is a WebSocket\n")
            .status(StatusCode::UPGRADE_REQUIRED)
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13");
    };
    let accept = derive_accept_key(key.as_bytes());
    Response::upgrade("websocket", |stream| {
        match echo(WebSocket::from_raw_socket(stream, Role::Server, None)) {
            Err(tungstenite::Error::ConnectionClosed) | Ok(()) => {}
            Err(error) => eprintln!("a WebSocket has ended: {error}"),
        }
    })
    .header("sec-websocket-accept", accept)
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = weald::tcp_listener(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    let server = Server::new(listener).serve(handler);
    let addr = server.local_addr();
    println!("ws://{addr}/");
    if address.is_some() {
        server.until_shutdown(std::time::Duration::from_secs(10))?;
        return Ok(());
    }
    let stream = weald::connect_tcp(addr)?;
    let asked = tungstenite::client(format!("ws://{addr}/"), stream);
    let (mut socket, _response) = asked.map_err(io::Error::other)?;
    socket
        .send(Message::text("tree"))
        .map_err(io::Error::other)?;
    let answer = socket.read().map_err(io::Error::other)?;
    println!("{answer}");
    assert_eq!(answer, Message::text("tree"));
    socket.close(None).map_err(io::Error::other)?;
    while socket.read().is_ok() {}
    server.shutdown(std::time::Duration::from_secs(1));
    Ok(())
}
