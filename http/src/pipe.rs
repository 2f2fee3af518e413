//! An answer's body on its way from the handler's green thread to the connection's.
//!
//! The handler's thread pushes, and waits while too much is under way. The connection's thread polls and never waits.
//! If one side ends first, the other one gets an error.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use weald_scheduler::io::{WaitQueue, Woken};

/// The most bytes of an HTTP/2 answer that hyper gets at once: the size of a frame. hyper keeps a piece until the
/// client takes it, and does not tell when that happens. Small pieces keep small what is out of sight here.
pub(crate) const PIECE: usize = 16 * 1024;

/// A push waits if this many bytes are under way.
const ROOM: usize = 64 * 1024;

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

#[derive(Debug, Default)]
struct Shared {
    pieces: Mutex<VecDeque<Piece>>,
    /// Bytes in `pieces`.
    queued: AtomicUsize,
    /// The whole body was pushed; set after its last piece.
    is_whole: AtomicBool,
    /// The sender is gone; set after `is_whole`.
    sender_is_gone: AtomicBool,
    /// The receiver is gone.
    is_refused: AtomicBool,
    /// The connection's thread.
    reader: AtomicWaker,
    /// The handler's thread, which waits for room.
    room: WaitQueue,
}

impl Shared {
    fn pieces(&self) -> std::sync::MutexGuard<'_, VecDeque<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handler's end. Dropping it without `finish` breaks the answer off.
#[derive(Debug)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
    /// How long a push waits for room.
    limit: Option<Duration>,
}

/// Returns a pipe for a body, with the length of the body if that is known.
pub(crate) fn pipe(length: Option<u64>, limit: Option<Duration>) -> (Sender, Receiver) {
    let shared = Arc::new(Shared::default());
    let sender = Sender {
        shared: Arc::clone(&shared),
        limit,
    };
    // The connections that need the limit also need small pieces.
    let most = limit.map_or(usize::MAX, |_| PIECE);
    let receiver = Receiver {
        shared,
        length,
        most,
        breaks_off: false,
    };
    (sender, receiver)
}

impl Sender {
    fn push(&self, piece: Piece, length: usize) -> io::Result<()> {
        weald_scheduler::io::enter()?;
        let shared = &self.shared;
        let is_refused = || shared.is_refused.load(Ordering::Acquire);
        let deadline = || self.limit.and_then(weald_scheduler::io::deadline);
        let (mut until, mut seen) = (None, usize::MAX);
        loop {
            if is_refused() {
                let text = "the client takes no more of this answer";
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, text));
            }
            let queued = shared.queued.load(Ordering::Acquire);
            if queued < ROOM {
                break;
            }
            if queued < seen {
                // The client has taken some bytes.
                (until, seen) = (deadline(), queued);
            }
            let can_go_on = || shared.queued.load(Ordering::Acquire) < ROOM || is_refused();
            match shared.room.wait(can_go_on, until, true) {
                Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
                Woken::TimedOut if shared.queued.load(Ordering::Acquire) < seen => {}
                Woken::TimedOut => {
                    let text = "the client has taken nothing of this answer for too long";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                Woken::Notified | Woken::Ready | Woken::Again => {}
            }
        }
        shared.queued.fetch_add(length, Ordering::Release);
        shared.pieces().push_back(piece);
        shared.reader.wake();
        weald_scheduler::io::spend();
        Ok(())
    }

    /// Sends bytes. Waits while too much is under way.
    pub(crate) fn send(&self, bytes: Bytes) -> io::Result<()> {
        let length = bytes.len();
        self.push(Piece::Data(bytes), length)
    }

    pub(crate) fn send_trailers(&self, trailers: HeaderMap) -> io::Result<()> {
        self.push(Piece::Trailers(trailers), 0)
    }

    /// Ends the body.
    pub(crate) fn finish(self) {
        self.shared.is_whole.store(true, Ordering::Release);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.sender_is_gone.store(true, Ordering::Release);
        self.shared.reader.wake();
    }
}

/// The connection's end.
#[derive(Debug)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    length: Option<u64>,
    /// The most bytes of one frame.
    most: usize,
    /// The next poll tells that the answer was broken off.
    breaks_off: bool,
}

impl Receiver {
    /// Takes the next piece, or the part of it that fits into one frame.
    fn take(&self) -> Option<Piece> {
        let mut pieces = self.shared.pieces();
        if let Some(Piece::Data(bytes)) = pieces.front_mut()
            && bytes.len() > self.most
        {
            return Some(Piece::Data(bytes.split_to(self.most)));
        }
        pieces.pop_front()
    }

    fn next(&self) -> Option<Poll<Option<io::Result<Frame<Bytes>>>>> {
        // This load comes before the look at the pieces: nothing is pushed after `sender_is_gone` is set.
        let sender_is_gone = self.shared.sender_is_gone.load(Ordering::Acquire);
        let piece = self.take();
        let frame = match piece {
            Some(Piece::Data(bytes)) => {
                self.shared.queued.fetch_sub(bytes.len(), Ordering::Release);
                self.shared.room.wake_one();
                Frame::data(bytes)
            }
            Some(Piece::Trailers(trailers)) => Frame::trailers(trailers),
            None if !sender_is_gone => return None,
            None if self.shared.is_whole.load(Ordering::Acquire) => return Some(Poll::Ready(None)),
            None => {
                let text = "the handler has broken its answer off";
                return Some(Poll::Ready(Some(Err(io::Error::other(text)))));
            }
        };
        Some(Poll::Ready(Some(Ok(frame))))
    }
}

impl Body for Receiver {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.next().or_else(|| {
            self.shared.reader.register(context.waker());
            // A piece may have come before the waker was registered.
            self.next()
        });
        if matches!(next, Some(Poll::Ready(Some(Err(_))))) && !self.breaks_off {
            // hyper drops what it has not written when a body fails. With one more poll it first writes what was
            // flushed.
            self.breaks_off = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        next.unwrap_or(Poll::Pending)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.is_refused.store(true, Ordering::Release);
        self.shared.room.wake_all();
        // Nobody takes these pieces any more.
        self.shared.pieces().clear();
    }
}
