//! A chat by lines over TCP: a reader and a writer a client, a bounded queue between them.
//!
//! `cargo run --release --example chat -- 127.0.0.1:7000`, then several times `nc 127.0.0.1 7000`

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weald::GreenThread;
use weald::net::TcpStream;

/// A client that leaves more lines than this unread is cut off; nobody waits for it meanwhile.
const UNREAD_LINES: usize = 256;
const LINE_BYTES: u64 = 1024;

/// The lines on their way to one client.
#[derive(Default)]
struct Outbox {
    lines: VecDeque<Arc<str>>,
    closed: bool,
}

struct Client {
    stream: TcpStream,
    outbox: Mutex<Outbox>,
}

/// All clients, each with the green thread that writes to it. As every lock here it is held for a
/// moment and never over a blocking call, so std's does.
type Room = Mutex<HashMap<SocketAddr, (Arc<Client>, GreenThread)>>;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = weald::tcp_listener(address.as_deref().unwrap_or("127.0.0.1:7000"))?;
    println!("chat on {}, Ctrl-C ends it", listener.local_addr()?);
    let room = Room::default();
    let _server = weald::tcp_server(listener, move |stream, peer| {
        let outbox = Mutex::default();
        let client = Arc::new(Client { stream, outbox });
        let served = Arc::clone(&client);
        let writer = weald::spawn(move || write_lines(&served));
        lock(&room).insert(peer, (Arc::clone(&client), writer.thread().clone()));
        say(&room, &format!("* {peer} has come\n"));
        read_lines(&room, peer, &client.stream);
        lock(&room).remove(&peer);
        lock(&client.outbox).closed = true;
        writer.thread().unpark();
        say(&room, &format!("* {peer} has left\n"));
    });
    loop {
        weald::park();
    }
}

/// Says what the client says, until it hangs up or breaks a rule.
fn read_lines(room: &Room, peer: SocketAddr, stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while let Ok(1..) = (&mut reader).take(LINE_BYTES).read_line(&mut line) {
        say(room, &format!("{peer}: {}\n", line.trim_end()));
        line.clear();
    }
}

/// Puts a line into every outbox and wakes the writers. Waits for nobody.
fn say(room: &Room, line: &str) {
    let line: Arc<str> = line.into();
    for (client, writer) in lock(room).values() {
        let mut outbox = lock(&client.outbox);
        if outbox.lines.len() < UNREAD_LINES {
            outbox.lines.push_back(Arc::clone(&line));
        } else if !outbox.closed {
            outbox.closed = true;
            // Ends its reader's read and its writer's write. An error: it has hung up already.
            let _ = client.stream.shutdown(Shutdown::Both);
        }
        writer.unpark();
    }
}

/// Writes what is in the outbox, parks when it is empty, ends when it is closed.
fn write_lines(client: &Client) {
    loop {
        let (line, closed) = {
            let mut outbox = lock(&client.outbox);
            (outbox.lines.pop_front(), outbox.closed)
        };
        match line {
            Some(line) if (&client.stream).write_all(line.as_bytes()).is_ok() => {}
            None if !closed => weald::park(),
            _ => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
