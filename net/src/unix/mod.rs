//! Unix sockets with the interface of `std::os::unix::net`.
//!
//! | file          | holds                                         |
//! |---------------|-----------------------------------------------|
//! | `address.rs`  | from std's addresses to socket2's, and back   |
//! | `stream.rs`   | connections                                   |
//! | `listener.rs` | listeners and their `Incoming`                |
//! | `datagram.rs` | datagram sockets                              |
//! | `pass.rs`     | passing descriptors, credentials of the peer  |
//!
//! # Examples
//! ```
//! use std::io::{Read, Write};
//! use weald::net::unix::UnixStream;
//!
//! let (mut near, mut far) = UnixStream::pair()?;
//! near.write_all(b"ping")?;
//! let mut buffer = [0; 4];
//! far.read_exact(&mut buffer)?;
//! assert_eq!(&buffer, b"ping");
//! # Ok::<(), std::io::Error>(())
//! ```

mod address;
mod datagram;
mod listener;
mod pass;
mod stream;

pub use std::os::unix::net::SocketAddr;

pub use self::datagram::UnixDatagram;
pub use self::listener::{Incoming, UnixListener};
pub use self::pass::UCred;
pub use self::stream::UnixStream;

use std::fmt;
use std::os::fd::AsRawFd;

use socket2::Socket;

use self::address::to_unix;

fn debug(name: &str, socket: &Socket, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut debug = f.debug_struct(name);
    debug.field("fd", &socket.as_raw_fd());
    if let Ok(addr) = socket.local_addr().and_then(|addr| to_unix(&addr)) {
        debug.field("local", &addr);
    }
    if let Ok(peer) = socket.peer_addr().and_then(|peer| to_unix(&peer)) {
        debug.field("peer", &peer);
    }
    debug.finish()
}
