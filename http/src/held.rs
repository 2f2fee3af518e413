//! Bodies that are still to be read. A handler may give its answer first and leave the reading to another green
//! thread. The connection is not idle until the body was read.
//!
//! Invariant 1: `live` counts the [`Source`]s of a connection. If hyper has something to do after a source was
//! dropped, hyper's own waker says so. The count goes down afterwards.
//! Invariant 2: the connection does not wait for a count that is zero. The connection sets `awaited` before it looks
//! at `live`, and a source looks at `awaited` after it has counted itself out. Both steps are read-modify-writes with
//! `SeqCst`, so one of the two sees the other. Nearly all bodies end before their answer, and these wake nobody.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

use crate::woke::Woke;

/// What the bodies of a connection's requests tell the connection.
#[derive(Debug)]
pub(crate) struct Held {
    live: AtomicUsize,
    awaited: AtomicBool,
    /// A body was dropped before its end.
    is_cut_short: AtomicBool,
    woke: Arc<Woke>,
}

impl Held {
    pub(crate) fn new(woke: Arc<Woke>) -> Arc<Self> {
        Arc::new(Self {
            live: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            is_cut_short: AtomicBool::new(false),
            woke,
        })
    }

    /// Tells if somebody may still read a body. If so, the connection is woken when nobody does any more.
    pub(crate) fn is_some(&self) -> bool {
        if self.live.load(Ordering::Acquire) == 0 {
            return false;
        }
        // Invariant 2.
        self.awaited.swap(true, Ordering::SeqCst);
        self.live.load(Ordering::SeqCst) > 0
    }

    /// Tells if the client may have sent more than was read.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_cut_short.load(Ordering::Acquire)
    }
}

/// A body as hyper gives it, counted.
#[derive(Debug)]
pub(crate) struct Source {
    incoming: Option<Incoming>,
    is_over: bool,
    held: Arc<Held>,
}

impl Source {
    pub(crate) fn new(incoming: Incoming, held: &Arc<Held>) -> Self {
        held.live.fetch_add(1, Ordering::Relaxed);
        Self {
            incoming: Some(incoming),
            is_over: false,
            held: Arc::clone(held),
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        if incoming.is_end_stream() {
            // All bytes that the client has announced have come. If a body ends after its answer, hyper says so only
            // when the next request comes.
            self.is_over = true;
            return Poll::Ready(None);
        }
        let polled = Pin::new(incoming).poll_frame(context);
        self.is_over |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let incoming = self.incoming.take();
        let has_more = incoming.as_ref().is_some_and(|one| !one.is_end_stream());
        if has_more && !self.is_over {
            self.held.is_cut_short.store(true, Ordering::Release);
        }
        // Invariant 1.
        drop(incoming);
        self.held.live.fetch_sub(1, Ordering::SeqCst);
        if self.held.awaited.load(Ordering::SeqCst) {
            self.held.woke.set();
        }
    }
}
