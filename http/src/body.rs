//! Bodies of answers: bytes, something to read, or a closure that writes.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::pipe::Sender;
use crate::upgrade::Upgraded;

/// How many bytes are read from a `Read` at once, and how many bytes of small writes are gathered.
const PIECE: usize = 16 * 1024;

/// The body of a [`Response`](crate::Response).
///
/// Bytes are sent as they are. A reader or a closure gives the body piece by piece, and each piece is sent as it
/// comes: in chunks in HTTP/1.1, up to the end of the connection in HTTP/1.0, or with `Content-Length` if the length
/// is known. The reading, or the closure, runs in the request's green thread after the handler has returned, and
/// waits while the client is slow. For `HEAD`, and for answers that have no body, it does not run.
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
    /// Returns a body of no bytes.
    pub fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// Returns a body that sends all that `reader` reads. An error breaks the answer off.
    pub fn reader(reader: impl Read + Send + 'static) -> Self {
        Self(Kind::Reader(Box::new(reader), None))
    }

    /// Returns a body that sends `length` bytes of what `reader` reads. The answer has a `Content-Length`. If the
    /// reader has fewer bytes, the answer is broken off; if it has more, they are not read.
    pub fn sized_reader(length: u64, reader: impl Read + Send + 'static) -> Self {
        Self(Kind::Reader(Box::new(reader), Some(length)))
    }

    /// Returns a body that sends what the closure writes. An error or a panic breaks the answer off.
    pub fn writer(writes: impl FnOnce(&mut BodyWriter) -> io::Result<()> + Send + 'static) -> Self {
        Self(Kind::Writer(Box::new(writes), None))
    }

    /// Returns a body that sends the `length` bytes that the closure writes. The answer has a `Content-Length`.
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

/// The writer that the closure of [`Body::writer`] gets.
///
/// Small writes are gathered; [`flush`](Write::flush) sends them. A write waits while the client is slow.
#[derive(Debug)]
pub struct BodyWriter {
    sender: Sender,
    gathered: BytesMut,
    /// How many bytes may still follow, if the length was given.
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

    /// Sends bytes without copying them, after what was written before. A blocking call.
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

    /// Ends the body with trailers. HTTP/1.1 sends only the trailers that the answer's `Trailer` field names, only to
    /// clients that have said `TE: trailers`, and only in answers without `Content-Length`. HTTP/2 sends all.
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

    /// Ends the body: all was written.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.push_gathered()?;
        if self.left.is_some_and(|left| left > 0) {
            return Err(misuse("less was written than the answer's Content-Length"));
        }
        self.sender.finish();
        Ok(())
    }

    /// Sends all that `reader` reads, but no more than the length if one was given.
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
    /// `BrokenPipe`: the client takes no more. `TimedOut`: the client has taken nothing for too long. `InvalidInput`:
    /// the body is longer than the given length. An exception of weald's.
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
