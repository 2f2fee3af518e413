//! Bodies of answers: bytes, something to read, or a closure that writes.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::pipe::Sender;
use crate::upgrade::Upgraded;

/// What is read of a `Read` at once, in bytes, and gathered of small writes.
const PIECE: usize = 16 * 1024;

/// The body of a [`Response`](crate::Response).
///
/// Bytes are sent as they are. What is read or written piece by piece is sent as it comes: by chunks in
/// HTTP/1.1, to the end of the connection in HTTP/1.0, or with `Content-Length` if its length is known. It
/// is read, or the closure runs, in the request's green thread after the handler has returned; it waits
/// while the client is slow. For `HEAD`, and for answers that have no body, it does not run.
///
/// # Examples
/// ```
/// use std::io::Write as _;
/// use weald_http::{Body, Response};
///
/// let page = Response::new(Body::from("hello"));
/// let file = Response::new(Body::reader(std::io::repeat(b'x')));
/// let lines = Response::new(Body::writer(|out| {
///     (0..10).try_for_each(|n| writeln!(out, "line {n}"))
/// }));
/// # drop((page, file, lines));
/// ```
pub struct Body(pub(crate) Kind);

pub(crate) type Writes = Box<dyn FnOnce(&mut BodyWriter) -> io::Result<()> + Send>;

pub(crate) enum Kind {
    Bytes(Bytes),
    Reader(Box<dyn Read + Send>, Option<u64>),
    Writer(Writes, Option<u64>),
    Upgrade(Box<dyn FnOnce(Upgraded) + Send>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// What `reader` reads, to its end. An error breaks the answer off.
    pub fn reader(reader: impl Read + Send + 'static) -> Self {
        Self(Kind::Reader(Box::new(reader), None))
    }

    /// What `reader` reads, which are so many bytes: the answer has a `Content-Length`. If there are
    /// fewer the answer is broken off, and more are not read.
    pub fn sized_reader(length: u64, reader: impl Read + Send + 'static) -> Self {
        Self(Kind::Reader(Box::new(reader), Some(length)))
    }

    /// What the closure writes. An error, or a panic, breaks the answer off.
    pub fn writer(writes: impl FnOnce(&mut BodyWriter) -> io::Result<()> + Send + 'static) -> Self {
        Self(Kind::Writer(Box::new(writes), None))
    }

    /// What the closure writes, which are so many bytes: the answer has a `Content-Length`.
    pub fn sized_writer(
        length: u64,
        writes: impl FnOnce(&mut BodyWriter) -> io::Result<()> + Send + 'static,
    ) -> Self {
        Self(Kind::Writer(Box::new(writes), Some(length)))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Bytes(bytes) => f.debug_tuple("Body").field(bytes).finish(),
            Kind::Reader(_, length) => write!(f, "Body(a reader, {length:?} bytes)"),
            Kind::Writer(_, length) => write!(f, "Body(a writer, {length:?} bytes)"),
            Kind::Upgrade(_) => f.write_str("Body(an upgrade)"),
        }
    }
}

macro_rules! from {
    ($($type:ty),*) => {$(
        impl From<$type> for Body {
            fn from(bytes: $type) -> Self {
                Self(Kind::Bytes(Bytes::from(bytes)))
            }
        }
    )*};
}
from!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<BytesMut> for Body {
    fn from(bytes: BytesMut) -> Self {
        Self::from(bytes.freeze())
    }
}

/// What the closure of [`Body::writer`] writes into.
///
/// Small writes are gathered; [`flush`](Write::flush) sends what there is. A write waits while the
/// client is slow.
#[derive(Debug)]
pub struct BodyWriter {
    sender: Sender,
    gathered: BytesMut,
    /// How many bytes may follow, where the length was told.
    left: Option<u64>,
    has_trailers: bool,
}

impl BodyWriter {
    pub(crate) fn new(sender: Sender, length: Option<u64>) -> Self {
        Self {
            sender,
            gathered: BytesMut::new(),
            left: length,
            has_trailers: false,
        }
    }

    /// Sends bytes without copying them, after what was written before.
    ///
    /// # Errors
    /// As [`write`](Write::write).
    pub fn send(&mut self, bytes: impl Into<Bytes>) -> io::Result<()> {
        let bytes = bytes.into();
        self.take_from_left(bytes.len())?;
        self.push_gathered()?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.sender.send(bytes)
    }

    /// Ends the body with trailers. HTTP/1.1 sends those that the answer's `Trailer` field names, to clients
    /// that have said `TE: trailers`, in answers without `Content-Length`; HTTP/2 sends all.
    ///
    /// # Errors
    /// As [`write`](Write::write).
    pub fn send_trailers(&mut self, trailers: HeaderMap) -> io::Result<()> {
        if self.has_trailers {
            return Err(misuse("the trailers were sent already"));
        }
        self.push_gathered()?;
        self.has_trailers = true;
        self.sender.send_trailers(trailers)
    }

    fn take_from_left(&mut self, count: usize) -> io::Result<()> {
        if self.has_trailers {
            return Err(misuse("the trailers were sent already"));
        }
        if let Some(left) = &mut self.left {
            let Some(less) = left.checked_sub(count as u64) else {
                return Err(misuse("more was written than the answer's Content-Length"));
            };
            *left = less;
        }
        Ok(())
    }

    fn push_gathered(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.sender.send(self.gathered.split().freeze())
    }

    /// All was written.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.push_gathered()?;
        if self.left.is_some_and(|left| left > 0) {
            return Err(misuse("less was written than the answer's Content-Length"));
        }
        self.sender.finish();
        Ok(())
    }

    /// Sends all that `reader` reads; where the length was told, no more than that.
    pub(crate) fn copy(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        loop {
            let most = self.left.map_or(PIECE, |left| {
                usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
            });
            if most == 0 {
                return Ok(());
            }
            let mut piece = BytesMut::zeroed(most);
            let count = match reader.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            piece.truncate(count);
            self.send(piece.freeze())?;
        }
    }
}

impl Write for BodyWriter {
    /// # Errors
    /// `BrokenPipe`: the client takes no more. `TimedOut`: it has taken nothing for too long.
    /// `InvalidInput`: it is more than the length that was told. Or an exception of weald's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take_from_left(bytes.len())?;
        if self.gathered.len() + bytes.len() > PIECE {
            self.push_gathered()?;
        }
        if bytes.len() >= PIECE {
            self.sender.send(Bytes::copy_from_slice(bytes))?;
        } else {
            self.gathered.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push_gathered()
    }
}

fn misuse(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
