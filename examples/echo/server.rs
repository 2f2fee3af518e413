//! The server, on green threads or on OS threads.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use weald::net::ServerHandle;

use crate::options::{Kind, Options};

/// Bytes of a buffer, on both sides. After a read that fills its buffer, more bytes may be left. A read that does not fill
/// its buffer has taken all bytes, which saves the next call.
pub(crate) const BUFFER: usize = 1024;

/// How many connections may wait to be accepted. The load connects one after the other, so few ever do.
const BACKLOG: u32 = 1024;

/// Sends back what comes, until the connection ends. Both halves run exactly this code for a connection.
fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; BUFFER];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

pub(crate) enum Server {
    Green(ServerHandle),
    Threads {
        addr: SocketAddr,
        refused: Arc<AtomicUsize>,
    },
}

pub(crate) fn start(options: &Options, kind: Kind) -> io::Result<Server> {
    let listener = weald::tcp_listener_with((Ipv4Addr::LOCALHOST, options.port), BACKLOG)?;
    if kind != Kind::Threads {
        let server = weald::tcp_server(listener, |stream, _peer| echo(stream));
        return Ok(Server::Green(server));
    }
    let listener = std::net::TcpListener::from(std::os::fd::OwnedFd::from(listener));
    let addr = listener.local_addr()?;
    let refused = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&refused);
    thread::Builder::new().spawn(move || {
        for stream in listener.incoming().flatten() {
            // The stack is as large as a green thread's may grow.
            let builder = thread::Builder::new().stack_size(256 << 10);
            if builder.spawn(move || echo(stream)).is_err() {
                counts.fetch_add(1, Ordering::Relaxed);
            }
        }
    })?;
    Ok(Server::Threads { addr, refused })
}

impl Server {
    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::Green(server) => server.local_addr(),
            Self::Threads { addr, .. } => *addr,
        }
    }

    /// Returns how many connections got no thread.
    pub(crate) fn refused(&self) -> usize {
        match self {
            Self::Green(_) => 0,
            Self::Threads { refused, .. } => refused.load(Ordering::Relaxed),
        }
    }

    /// Returns true if nothing had to be cut. OS threads cannot be ended; the end of the process ends them.
    pub(crate) fn stop(self, grace: Duration) -> bool {
        match self {
            Self::Green(server) => server.shutdown(grace),
            Self::Threads { .. } => true,
        }
    }
}
