//! The load of an echo server: one thread, one epoll.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::Epoll;

const MESSAGE_BYTES: usize = 64;
const BUFFER_BYTES: usize = 4096;

/// A server that stays silent for so long has failed.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    sent: Instant,
    received_bytes: usize,
}

/// Connections to an echo server on loopback, each with one message on its way.
#[derive(Debug)]
pub struct Load {
    poll: Epoll,
    connections: Vec<Connection>,
}

impl Load {
    /// Connects so often; each connection has been answered once.
    ///
    /// # Errors
    /// The system's, or the server's silence.
    pub fn connect(port: u16, count: usize) -> io::Result<Self> {
        let poll = Epoll::new()?;
        let mut connections = Vec::with_capacity(count);
        for token in 0..count {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            // A connection that was accepted has answered once, so no connection is left in a backlog.
            stream.set_read_timeout(Some(SILENCE_LIMIT))?;
            stream.write_all(&[0; MESSAGE_BYTES])?;
            stream.read_exact(&mut [0; MESSAGE_BYTES])?;
            stream.set_nonblocking(true)?;
            poll.add(&stream, token)?;
            connections.push(Connection {
                stream,
                sent: Instant::now(),
                received_bytes: 0,
            });
        }
        for connection in &mut connections {
            connection.send()?;
        }
        Ok(Self { poll, connections })
    }

    /// Keeps all connections busy for `length`, and appends the microseconds of each request.
    ///
    /// # Errors
    /// The system's, or the server's: it hung up, or fell silent.
    pub fn run(&mut self, length: Duration, latencies_us: &mut Vec<u32>) -> io::Result<()> {
        let deadline = Instant::now() + length;
        let mut tokens = Vec::new();
        let mut buffer = [0; BUFFER_BYTES];
        while Instant::now() < deadline {
            self.poll.wait(&mut tokens, SILENCE_LIMIT)?;
            if tokens.is_empty() {
                return Err(io::Error::other("the server has fallen silent"));
            }
            for &token in &tokens {
                let connection = &mut self.connections[token];
                match connection.stream.read(&mut buffer) {
                    Ok(0) => return Err(io::Error::other("the server hung up")),
                    Ok(count) => connection.received_bytes += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                }
                if connection.received_bytes >= MESSAGE_BYTES {
                    let waited = connection.sent.elapsed().as_micros();
                    latencies_us.push(u32::try_from(waited).unwrap_or(u32::MAX));
                    connection.send()?;
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self) -> io::Result<()> {
        self.received_bytes = 0;
        self.sent = Instant::now();
        // 64 bytes always fit: the answer to the last ones is back, so the buffer is empty.
        self.stream.write_all(&[0; MESSAGE_BYTES])
    }
}
