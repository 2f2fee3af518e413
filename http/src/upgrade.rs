//! The stream of a connection that has changed to another protocol.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};

use crate::registry::Member;

/// The stream that the closure of [`Response::upgrade`](crate::Response::upgrade) gets. It reads and writes as a
/// green stream does, also by shared reference: one green thread may read while another one writes.
pub struct Upgraded {
    member: Arc<Member>,
    /// Bytes that came right after the request.
    early: Mutex<Bytes>,
}

impl Upgraded {
    pub(crate) fn new(member: Arc<Member>, early: Bytes) -> Self {
        member.stream.wait(None);
        Self {
            member,
            early: Mutex::new(early),
        }
    }
}

impl Read for &Upgraded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if !early.is_empty() {
            let count = early.len().min(buffer.len());
            early.split_to(count).copy_to_slice(&mut buffer[..count]);
            return Ok(count);
        }
        drop(early);
        self.member.stream.read(buffer)
    }
}

impl Write for &Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.member.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.member.stream.flush()
    }
}

impl Read for Upgraded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}
