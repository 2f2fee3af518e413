//! A chat by lines over TCP: a hub that owns the room, and a `select!` for each client.
//!
//! `cargo run --release -p weald-examples --bin chat -- 127.0.0.1:7000`, then several times `nc 127.0.0.1 7000`

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weald::net::{ServerOptions, TcpStream};
use weald::sync::channel::{Receiver, Sender, bounded};

/// A client that leaves more lines than this unread is cut off. Nobody waits for it meanwhile.
const UNREAD_LINES: usize = 256;
const LINE_BYTES: u64 = 1024;
/// A client that neither sends nor receives anything for this long is asked if it is there.
const SILENCE: Duration = Duration::from_secs(300);
/// A client that takes nothing of what is written to it for this long is cut off.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// One more client waits until another leaves: each has a thread or two, and a queue.
const MAX_CLIENTS: usize = 1000;

/// The events that the hub hears of.
enum Event {
    Came(SocketAddr, Sender<Arc<str>>),
    Said(SocketAddr, String),
    Left(SocketAddr),
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = weald::tcp_listener(address.as_deref().unwrap_or("127.0.0.1:7000"))?;
    println!("chat on {}, Ctrl-C ends it", listener.local_addr()?);
    let (tell, events) = bounded(UNREAD_LINES);
    let options = ServerOptions::new().max_connections(MAX_CLIENTS);
    let _server = weald::tcp_server_with(listener, options, move |stream, peer| {
        let (outbox, inbox) = bounded(UNREAD_LINES);
        // The hub lives as long as the program, so it can be told.
        let _ = tell.send(Event::Came(peer, outbox));
        let stream = Arc::new(stream);
        if let Err(error) = serve(&stream, peer, &tell, &inbox) {
            eprintln!("{peer}: {error}");
        }
        // Its reader ends with the connection.
        let _ = stream.shutdown(Shutdown::Both);
        let _ = tell.send(Event::Left(peer));
    });
    hub(&events);
    Ok(())
}

/// Tells everybody what happens. Only the hub owns the room, so there is no lock.
fn hub(events: &Receiver<Event>) {
    let mut room = HashMap::new();
    for event in events {
        let line: Arc<str> = match event {
            Event::Came(peer, outbox) => {
                room.insert(peer, outbox);
                format!("* {peer} has come\n").into()
            }
            Event::Said(peer, line) => format!("{peer}: {line}\n").into(),
            Event::Left(peer) => {
                room.remove(&peer);
                format!("* {peer} has left\n").into()
            }
        };
        // A client whose outbox is full loses its outbox, and with it the connection.
        room.retain(|_, outbox| outbox.try_send(Arc::clone(&line)).is_ok());
    }
}

/// Serves one client, until it hangs up, breaks a rule or is too slow.
fn serve(
    stream: &Arc<TcpStream>,
    peer: SocketAddr,
    tell: &Sender<Event>,
    inbox: &Receiver<Arc<str>>,
) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_LIMIT))?;
    let (said, lines) = bounded(0);
    let reads = Arc::clone(stream);
    weald::spawn(move || {
        let mut reader = BufReader::new(&*reads);
        let mut line = String::new();
        while let Ok(1..) = (&mut reader).take(LINE_BYTES).read_line(&mut line) {
            if said.send(line.trim_end().to_string()).is_err() {
                return;
            }
            line.clear();
        }
    });
    loop {
        weald::select! {
            recv(lines) -> line => match line {
                Ok(line) => drop(tell.send(Event::Said(peer, line))),
                Err(_) => return Ok(()),
            },
            recv(inbox) -> line => match line {
                Ok(line) => (&**stream).write_all(line.as_bytes())?,
                // The hub has given the client up.
                Err(_) => return Ok(()),
            },
            default(SILENCE) => (&**stream).write_all(b"* are you there?\n")?,
        }
    }
}
