//! Clients of HTTP/1.1: one thread, one epoll, as many bytes of answers as were asked for.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use weald_benches::Epoll;

/// What is asked for, again and again.
const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n";
const BUFFER_BYTES: usize = 64 * 1024;

/// A server that stays silent for this long has failed.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    pub(crate) connections: usize,
    /// Requests that are sent at once; the next ones follow when all are answered.
    pub(crate) pipelined: usize,
    /// After this many requests a connection is closed and a new one made.
    pub(crate) requests: usize,
    /// Between an answer and the next request.
    pub(crate) pause: Duration,
}

struct Connection {
    stream: TcpStream,
    sent: Instant,
    received_bytes: usize,
    requests: usize,
    /// When it is to send again, if it pauses.
    due: Option<Instant>,
}

/// Connections to a server on loopback, each with requests on their way.
pub(crate) struct Load {
    port: u16,
    habit: Habit,
    batch: Vec<u8>,
    /// All answers have the same length.
    answer_bytes: usize,
    poll: Epoll,
    connections: Vec<Connection>,
}

impl Load {
    /// Connects. Each connection has been answered once.
    pub(crate) fn connect(port: u16, habit: Habit) -> io::Result<Self> {
        let poll = Epoll::new()?;
        let mut load = Self {
            port,
            habit,
            batch: REQUEST.repeat(habit.pipelined),
            answer_bytes: 0,
            poll,
            connections: Vec::with_capacity(habit.connections),
        };
        for token in 0..habit.connections {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_read_timeout(Some(SILENCE_LIMIT))?;
            stream.write_all(REQUEST)?;
            load.answer_bytes = answer_bytes(&mut stream)?;
            let connection = load.prepare(stream, token)?;
            load.connections.push(connection);
        }
        Ok(load)
    }

    fn prepare(&self, stream: TcpStream, token: usize) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.poll.add(&stream, token)?;
        Ok(Connection {
            stream,
            sent: Instant::now(),
            received_bytes: 0,
            requests: 0,
            due: None,
        })
    }

    /// Keeps the connections busy for `length`, and appends the microseconds of each batch. Returns how many requests
    /// were answered.
    pub(crate) fn run(&mut self, length: Duration, latencies_us: &mut Vec<u32>) -> io::Result<u64> {
        let end = Instant::now() + length;
        for connection in &mut self.connections {
            connection.send(&self.batch)?;
        }
        let (mut tokens, mut buffer) = (Vec::new(), vec![0; BUFFER_BYTES]);
        let (mut count, mut waiting) = (0, self.connections.len());
        // It goes on until each connection has its answer, so that the next run begins with silence.
        while waiting > 0 {
            let limit = if self.habit.pause.is_zero() {
                SILENCE_LIMIT
            } else {
                Duration::from_millis(1)
            };
            self.poll.wait(&mut tokens, limit)?;
            if tokens.is_empty() && self.habit.pause.is_zero() {
                return Err(io::Error::other("the server has fallen silent"));
            }
            let now = Instant::now();
            for &token in &tokens {
                let expected = self.answer_bytes * self.habit.pipelined;
                let connection = &mut self.connections[token];
                if !connection.receive(&mut buffer, expected)? {
                    continue;
                }
                let waited = now.saturating_duration_since(connection.sent).as_micros();
                latencies_us.push(u32::try_from(waited).unwrap_or(u32::MAX));
                connection.requests += self.habit.pipelined;
                count += self.habit.pipelined as u64;
                let is_over = connection.requests >= self.habit.requests;
                if is_over {
                    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
                    self.connections[token] = self.prepare(stream, token)?;
                }
                if now >= end {
                    waiting -= 1;
                } else if self.habit.pause.is_zero() {
                    self.connections[token].send(&self.batch)?;
                } else {
                    self.connections[token].due = Some(now + self.habit.pause);
                }
            }
            if !self.habit.pause.is_zero() {
                waiting -= self.send_what_is_due(end)?;
            }
        }
        Ok(count)
    }

    /// Returns how many send no more, as the time is over.
    fn send_what_is_due(&mut self, end: Instant) -> io::Result<usize> {
        let (now, mut ended) = (Instant::now(), 0);
        for connection in &mut self.connections {
            let Some(due) = connection.due.filter(|due| *due <= now) else {
                if connection.due.is_none() && now > end + SILENCE_LIMIT {
                    return Err(io::Error::other("the server has fallen silent"));
                }
                continue;
            };
            connection.due = None;
            if now >= end {
                ended += 1;
                continue;
            }
            connection.send(&self.batch)?;
            connection.sent = due;
        }
        Ok(ended)
    }
}

impl Connection {
    fn send(&mut self, batch: &[u8]) -> io::Result<()> {
        self.received_bytes = 0;
        self.sent = Instant::now();
        // A few KiB always fit: all answers are back, so the buffer is empty.
        self.stream.write_all(batch)
    }

    /// Returns true if all that was asked for has come.
    fn receive(&mut self, buffer: &mut [u8], expected: usize) -> io::Result<bool> {
        match self.stream.read(buffer) {
            Ok(0) => return Err(io::Error::other("the server hung up")),
            Ok(count) => self.received_bytes += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if self.received_bytes > expected {
            return Err(io::Error::other("the answers differ in length"));
        }
        Ok(self.received_bytes == expected)
    }
}

/// Reads one answer, which has a `Content-Length` of two digits.
fn answer_bytes(stream: &mut TcpStream) -> io::Result<usize> {
    let nonsense = || io::Error::other("the server answers nonsense");
    let mut answer = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
        if answer.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(answer).map_err(|_| nonsense())?;
    let head = head.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        return Err(nonsense());
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .ok_or_else(nonsense)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(head.len() + length)
}
