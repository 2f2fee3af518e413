//! A green stream as hyper wants it, and how its connection's thread waits.
//!
//! hyper polls, on the connection's own green thread. A call that would wait says `Pending` and notes in the [`Link`]
//! what it wants. The thread then waits for that (`drive.rs`). If only the next request can happen, the thread lets
//! the next read wait inside hyper's poll. Then a request costs one recv and one send, and no call that fails with
//! `EAGAIN`.
#![allow(unsafe_code, reason = "hyper's buffer is not initialised")]

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::registry::Member;
use crate::service::Busy;
use crate::stream::is_timeout;

/// The most bytes of one read. As many are set to zero before each read.
const MOST: usize = 16 * 1024;

/// How the next read is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// It tries. If an HTTP/1 connection has no request, it says without a try that it would wait.
    Auto,
    /// It tries.
    Try,
    /// It waits until this time.
    Wait(Instant),
}

/// What hyper's side and the thread's side of a connection share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) member: std::sync::Arc<Member>,
    /// Bytes that were read before hyper's part was made.
    early: RefCell<Bytes>,
    /// It speaks HTTP/1.
    is_first: bool,
    busy: Rc<Busy>,
    pub(crate) reads: Cell<Reads>,
    /// hyper wants to read, or to write, and could not.
    pub(crate) wants_read: Cell<bool>,
    pub(crate) wants_write: Cell<bool>,
    /// When bytes last came, and when the peer last took some.
    pub(crate) read_at: Cell<Instant>,
    pub(crate) wrote_at: Cell<Instant>,
    /// Bytes have come since this flag was last cleared.
    pub(crate) has_read: Cell<bool>,
}

impl Link {
    pub(crate) fn new(
        member: std::sync::Arc<Member>,
        early: Bytes,
        is_first: bool,
        busy: Rc<Busy>,
    ) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            member,
            has_read: Cell::new(!early.is_empty()),
            early: RefCell::new(early),
            is_first,
            busy,
            reads: Cell::new(Reads::Auto),
            wants_read: Cell::new(false),
            wants_write: Cell::new(false),
            read_at: Cell::new(now),
            wrote_at: Cell::new(now),
        })
    }

    /// Takes bytes that were read while hyper's part was dropped.
    pub(crate) fn put_back(&self, early: Bytes) {
        self.has_read.set(!early.is_empty());
        *self.early.borrow_mut() = early;
    }

    fn read(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let stream = &self.member.stream;
        match self.reads.get() {
            Reads::Auto if self.is_first && self.busy.is_idle() => {
                self.wants_read.set(true);
                return Poll::Pending;
            }
            Reads::Auto | Reads::Try => stream.never_wait(),
            Reads::Wait(until) => {
                stream.wait(Some(until.saturating_duration_since(Instant::now())));
            }
        }
        let waits = matches!(self.reads.get(), Reads::Wait(_));
        let got = stream.read(buffer);
        if waits {
            // The setting holds for one read only.
            self.reads.set(Reads::Auto);
            self.member.end_idle();
        }
        match got {
            // It also is `Pending` when a read that waited has reached its time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_timeout(&error) => {
                self.wants_read.set(true);
                Poll::Pending
            }
            Ok(0) => Poll::Ready(Ok(0)),
            Ok(count) => {
                self.has_read.set(true);
                self.read_at.set(Instant::now());
                Poll::Ready(Ok(count))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn wrote<T>(&self, written: io::Result<T>) -> Poll<io::Result<T>> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wants_write.set(true);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
            Ok(done) => Poll::Ready(Ok(done)),
        }
    }
}

/// hyper's side of a connection.
#[derive(Debug)]
pub(crate) struct Io(pub(crate) Rc<Link>);

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let link = &self.0;
        let mut early = link.early.borrow_mut();
        if !early.is_empty() {
            let count = early.len().min(into.remaining());
            into.put_slice(&early[..count]);
            early.advance(count);
            if early.is_empty() {
                *early = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        drop(early);
        // SAFETY: zeros are written, which uninitialises nothing.
        let room = unsafe { into.as_mut() };
        let count = room.len().min(MOST);
        let room = &mut room[..count];
        // SAFETY: zeros are written to all of `room`, so it is initialised bytes, borrowed alone.
        let room = unsafe {
            room.as_mut_ptr().write_bytes(0, count);
            std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<u8>(), count)
        };
        link.read(room).map_ok(|got| {
            // SAFETY: the read has filled so many of the initialised bytes.
            unsafe { into.advance(got.min(count)) };
        })
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let link = &self.0;
        link.member.stream.never_wait();
        let written = link.wrote(link.member.stream.write(bytes));
        note_progress(link, &written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let link = &self.0;
        link.member.stream.never_wait();
        let written = link.wrote(link.member.stream.write_vectored(bytes));
        note_progress(link, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let link = &self.0;
        if !link.member.stream.is_encrypted() {
            return Poll::Ready(Ok(()));
        }
        link.member.stream.never_wait();
        link.wrote(link.member.stream.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's thread does this after hyper has finished (`connection.rs`).
        Poll::Ready(Ok(()))
    }
}

fn note_progress(link: &Link, written: &Poll<io::Result<usize>>) {
    if let Poll::Ready(Ok(1..)) = written {
        link.wrote_at.set(Instant::now());
    }
}
