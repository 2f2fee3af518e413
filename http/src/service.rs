//! The service that hyper calls for each request: it starts a green thread, and returns a future of the answer. All
//! of it runs on the connection's own thread.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONNECTION, DATE};
use http::{HeaderValue, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use weald_scheduler::GreenThread;

use crate::check;
use crate::handlers::Handlers;
use crate::held::Held;
use crate::incoming::{RequestBody, Trace};
use crate::metrics::Record;
use crate::pipe::{PIECE, Receiver};
use crate::request::Request;
use crate::respond::{AnswerSlot, Answered, Outgoing, Responder, Serve};
use crate::response::Response;
use crate::shared::Shared;
use crate::span::RequestSpan;
use crate::woke::Woke;

/// When a client resets a stream of HTTP/2, a new stream may begin at once, but the handler of the old one may still
/// run. A connection has at most this many times as many handlers as streams.
const LINGERING: usize = 2;

/// What a server calls for each request.
pub(crate) type Handler = Arc<dyn Fn(Request) -> Response + Send + Sync>;

/// What keeps a connection from being idle.
#[derive(Debug)]
pub(crate) struct Busy {
    /// Requests that hyper has handed over and whose answers it has not taken whole.
    pub(crate) open: Cell<usize>,
    /// Bodies that somebody may still read.
    pub(crate) held: Arc<Held>,
}

impl Busy {
    pub(crate) fn new(woke: &Arc<Woke>) -> Rc<Self> {
        Rc::new(Self {
            open: Cell::new(0),
            held: Held::new(Arc::clone(woke)),
        })
    }

    /// Tells if there is no request, nor a part of one that somebody reads.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.get() == 0 && !self.held.is_some()
    }
}

/// What the requests of a connection have in common.
pub(crate) struct Requests {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handler: Handler,
    /// The green threads that run the handler.
    pub(crate) handlers: Rc<Handlers>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) is_encrypted: bool,
    pub(crate) busy: Rc<Busy>,
    /// How many requests hyper has handed over.
    pub(crate) count: Cell<u64>,
    /// When `open` became zero.
    pub(crate) idle_since: Cell<Instant>,
    /// When a part of an answer's body was last taken.
    pub(crate) moved_at: Cell<Instant>,
    /// The closure that gets the connection after an upgrade.
    pub(crate) serve: RefCell<Option<Serve>>,
    /// The connection closes although the client may still be sending.
    pub(crate) is_unread: Cell<bool>,
}

/// An open request.
pub(crate) struct Open {
    requests: Rc<Requests>,
    record: Record,
    span: RequestSpan,
}

impl Open {
    fn new(requests: &Rc<Requests>, head: &http::request::Parts) -> Self {
        requests.busy.open.set(requests.busy.open.get() + 1);
        requests.count.set(requests.count.get() + 1);
        Self {
            record: Record::begin(
                &requests.shared.counts,
                requests.shared.access_log,
                requests.peer,
                head,
            ),
            span: RequestSpan::new(head, requests.peer, requests.is_encrypted),
            requests: Rc::clone(requests),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let requests = &self.requests;
        self.record.end(&requests.shared.counts);
        self.span.end(self.record.status, self.record.sent);
        let left = requests.busy.open.get() - 1;
        requests.busy.open.set(left);
        if left == 0 {
            requests.idle_since.set(Instant::now());
        }
    }
}

/// The service that hyper calls.
pub(crate) struct Service(pub(crate) Rc<Requests>);

impl hyper::service::Service<http::Request<Incoming>> for Service {
    type Response = http::Response<Frames>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Answer {
        let (head, incoming) = request.into_parts();
        let open = Open::new(&self.0, &head);
        let slot = Arc::<AnswerSlot>::default();
        let is_second = head.version == Version::HTTP_2;
        let thread = self.0.start(head, incoming, &slot, &open.span);
        Answer {
            slot,
            open: Some(open),
            thread,
            piece: if is_second { PIECE } else { usize::MAX },
        }
    }
}

impl Requests {
    fn start(
        &self,
        mut head: http::request::Parts,
        incoming: Incoming,
        slot: &Arc<AnswerSlot>,
        span: &RequestSpan,
    ) -> Option<GreenThread> {
        if let Err(status) = check::head(&mut head) {
            let is_closed = head.version != Version::HTTP_2;
            slot.put(refusal(status, is_closed));
            return None;
        }
        let shared = &self.shared;
        let is_second = head.version == Version::HTTP_2;
        if is_second && self.handlers.live() >= LINGERING * shared.limits.streams as usize {
            shared.complain("a client resets streams faster than their handlers end");
            slot.put(refusal(StatusCode::SERVICE_UNAVAILABLE, false));
            return None;
        }
        let trace = Arc::<Trace>::default();
        let body = RequestBody::new(incoming, shared, &self.busy.held, &trace);
        let limit = shared.limits.write_time;
        let responder = Responder::new(Arc::clone(slot), &head, body.length(), trace, limit);
        let request = Request::new(head, body, self.peer, self.is_encrypted);
        let handler = Arc::clone(&self.handler);
        let span = span.clone();
        let thread = self.handlers.spawn(move || {
            span.run(|| {
                let response = handler(request);
                responder.answer(response);
            });
        });
        // If there was no thread, the responder was dropped, and has answered 500.
        thread
            .inspect_err(|error| {
                let text = format!("there is no green thread for a request: {error}");
                self.shared.complain(&text);
            })
            .ok()
    }
}

/// Returns an answer without a handler. `is_closed`: the connection closes afterwards.
fn refusal(status: StatusCode, is_closed: bool) -> Answered {
    let Response { mut headers, .. } = Response::of(status);
    headers.insert(DATE, crate::date::now());
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    *head.headers_mut() = headers;
    if is_closed {
        head.headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let reason = status.canonical_reason().unwrap_or_default();
    Answered {
        head,
        body: Outgoing::Bytes(Bytes::from_static(reason.as_bytes())),
        serve: None,
        is_unread: is_closed,
    }
}

/// The future of an answer.
pub(crate) struct Answer {
    slot: Arc<AnswerSlot>,
    /// Goes on to the body.
    open: Option<Open>,
    thread: Option<GreenThread>,
    /// The most bytes of the body that hyper gets at once.
    piece: usize,
}

impl Future for Answer {
    type Output = Result<http::Response<Frames>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(answered) = self.slot.poll(context) else {
            return Poll::Pending;
        };
        let mut open = self.open.take();
        if let Some(Open {
            requests,
            record,
            span,
        }) = &mut open
        {
            record.status = answered.head.status().as_u16();
            span.answered(record.status);
            requests
                .is_unread
                .set(requests.is_unread.get() | answered.is_unread);
            if answered.serve.is_some() {
                *requests.serve.borrow_mut() = answered.serve;
            }
        }
        let body = match answered.body {
            Outgoing::Bytes(bytes) => Content::Bytes(bytes),
            Outgoing::Pipe(receiver) => Content::Pipe(receiver),
        };
        let left = body.length();
        let frames = Frames {
            content: body,
            open,
            thread: self.thread.take(),
            piece: self.piece,
            left,
            is_over: left == Some(0),
        };
        Poll::Ready(Ok(answered.head.map(|()| frames)))
    }
}

impl Drop for Answer {
    /// Kills the handler: the client has reset the stream, or the connection has ended, so nobody waits for the
    /// answer.
    fn drop(&mut self) {
        if self.open.is_some()
            && let Some(thread) = &self.thread
        {
            thread.kill();
        }
    }
}

enum Content {
    Bytes(Bytes),
    Pipe(Receiver),
}

impl Content {
    /// Returns how many bytes the body has, if that is known.
    fn length(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Pipe(receiver) => receiver.size_hint().exact(),
        }
    }
}

/// The body of an answer, in the form that hyper wants.
pub(crate) struct Frames {
    content: Content,
    open: Option<Open>,
    /// The thread that writes the body, if the body is not given as bytes.
    thread: Option<GreenThread>,
    piece: usize,
    /// How many bytes are to come, if that is known.
    left: Option<u64>,
    /// All was taken, or the handler has broken the body off.
    is_over: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.piece;
        let polled = match &mut self.content {
            Content::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Bytes(bytes) => {
                let now = bytes.split_to(bytes.len().min(piece));
                Poll::Ready(Some(Ok(Frame::data(now))))
            }
            Content::Pipe(receiver) => Pin::new(receiver).poll_frame(context),
        };
        if let Poll::Ready(frame) = &polled {
            let data = frame
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.data_ref());
            let count = data.map(|data| data.len() as u64);
            if let Some(open) = &mut self.open {
                if piece == PIECE {
                    // In HTTP/1 there is only one body, and its bytes are the writes that `drive.rs` watches.
                    open.requests.moved_at.set(Instant::now());
                }
                open.record.sent += count.unwrap_or(0);
            }
            self.left = self
                .left
                .map(|left| left.saturating_sub(count.unwrap_or(0)));
            self.is_over = count.is_none() || self.left == Some(0);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Bytes(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Pipe(receiver) => receiver.size_hint(),
        }
    }
}

impl Drop for Frames {
    /// Kills the writer: the client has reset the stream, or the connection has ended, so nobody takes the rest.
    fn drop(&mut self) {
        if !self.is_over
            && let Content::Pipe(_) = self.content
            && let Some(thread) = &self.thread
        {
            thread.kill();
        }
    }
}
