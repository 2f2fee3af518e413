//! Enough of Redis for redis-benchmark: PING, GET, SET, MSET, INCR, with pipelines.
//!
//! ```text
//! cargo run --release -p weald-examples --bin redis_like                        # 127.0.0.1:7379
//! redis-benchmark -p 7379 -t ping,get,set,mset,incr -c 50 -P 16 -q
//! ```

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use weald::net::{ServerOptions, TcpStream};
use weald::sync::{Mutex, PoisonError};

const MAX_WORDS: usize = 1024;
const MAX_WORD_BYTES: usize = 1 << 20;
/// All words of a command together.
const MAX_COMMAND_BYTES: usize = 4 << 20;
/// A client that takes none of its answers for this long is cut off.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// One more client waits until another leaves. Each may send a command of [`MAX_COMMAND_BYTES`].
const MAX_CLIENTS: usize = 1000;
/// A line holds a number, or a whole command if somebody types.
const MAX_LINE_BYTES: u64 = 4096;

type Store = Mutex<HashMap<Vec<u8>, Vec<u8>>>;

fn main() -> io::Result<()> {
    let listen = std::env::args().nth(1);
    let listen = listen.unwrap_or_else(|| "127.0.0.1:7379".to_owned());
    let store = Arc::new(Store::default());
    let options = ServerOptions::new().max_connections(MAX_CLIENTS);
    let listener = weald::tcp_listener(&*listen)?;
    weald::tcp_server_with(listener, options, move |stream, peer| {
        if let Err(error) = serve(&stream, &store) {
            eprintln!("redis_like: {peer}: {error}");
        }
    });
    println!("redis_like serves at {listen}");
    loop {
        weald::park();
    }
}

fn serve(stream: &TcpStream, store: &Store) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_LIMIT))?;
    let (mut reader, mut writer) = (BufReader::new(stream), BufWriter::new(stream));
    let mut reply = Vec::new();
    while let Some(words) = command(&mut reader)? {
        // The answer is written after the store's lock was released, so no other client waits for this one.
        reply.clear();
        answer(&words, store, &mut reply)?;
        writer.write_all(&reply)?;
        // What a pipeline has sent is answered together.
        if reader.buffer().is_empty() {
            writer.flush()?;
        }
    }
    Ok(())
}

/// The next command; `None` at the end.
fn command(reader: &mut impl BufRead) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(first) = line(reader)? else {
        return Ok(None);
    };
    let Some(count) = first.strip_prefix('*') else {
        let words = first.split_whitespace();
        return Ok(Some(words.map(Into::into).collect()));
    };
    let mut words = Vec::new();
    let mut left = MAX_COMMAND_BYTES;
    for _ in 0..number(count, MAX_WORDS)? {
        let head = line(reader)?.ok_or(ErrorKind::UnexpectedEof)?;
        let size = number(
            head.strip_prefix('$').unwrap_or_default(),
            MAX_WORD_BYTES.min(left),
        )?;
        left -= size;
        let mut word = vec![0; size + 2];
        reader.read_exact(&mut word)?;
        word.truncate(size);
        words.push(word);
    }
    Ok(Some(words))
}

fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    reader.by_ref().take(MAX_LINE_BYTES).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(text) => Ok(Some(text.to_owned())),
        None if line.is_empty() => Ok(None),
        None => Err(io::Error::new(ErrorKind::InvalidData, "a line without end")),
    }
}

fn number(digits: &str, bound: usize) -> io::Result<usize> {
    let number = digits.parse().ok().filter(|&number| number <= bound);
    number.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "this is not RESP"))
}

fn answer(words: &[Vec<u8>], store: &Store, to: &mut Vec<u8>) -> io::Result<()> {
    let Some((name, rest)) = words.split_first() else {
        return Ok(());
    };
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    match (name.to_ascii_uppercase().as_slice(), rest) {
        (b"PING", []) => write!(to, "+PONG\r\n"),
        (b"GET", [key]) => match store.get(key) {
            Some(value) => {
                write!(to, "${}\r\n", value.len())?;
                to.write_all(value)?;
                write!(to, "\r\n")
            }
            None => write!(to, "$-1\r\n"),
        },
        (b"SET" | b"MSET", pairs) if !pairs.is_empty() && pairs.len() % 2 == 0 => {
            for pair in pairs.chunks(2) {
                store.insert(pair[0].clone(), pair[1].clone());
            }
            write!(to, "+OK\r\n")
        }
        (b"INCR", [key]) => {
            let value = store.entry(key.clone()).or_insert_with(|| b"0".to_vec());
            let number = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok());
            let Some(next) = number.and_then(|number| number.checked_add(1)) else {
                return write!(to, "-ERR value is not an integer or out of range\r\n");
            };
            *value = next.to_string().into_bytes();
            write!(to, ":{next}\r\n")
        }
        (b"CONFIG" | b"COMMAND", _) => write!(to, "*0\r\n"),
        _ => write!(to, "-ERR unknown command or wrong number of arguments\r\n"),
    }
}
