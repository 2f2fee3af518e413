//! The way of an answer from the handler to the connection's thread, in the request's green thread.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Version};

use crate::body::{Body, BodyWriter, Kind, Writes};
use crate::incoming::{Trace, drain};
use crate::pipe::{Receiver, pipe};
use crate::quiet::Quiet;
use crate::response::Response;
use crate::upgrade::Upgraded;

/// If the handler has left a part of the body unread, up to this many bytes are read and thrown away to keep the
/// connection.
const UNREAD: usize = 64 * 1024;

/// The longest time for that.
const UNREAD_TIME: Duration = Duration::from_millis(500);

/// What goes to the connection's thread.
pub(crate) enum Outgoing {
    Bytes(Bytes),
    Pipe(Receiver),
}

pub(crate) type Serve = Box<dyn FnOnce(Upgraded) + Send>;

/// The body of an answer that is sent piece by piece.
enum Content {
    Reader(Box<dyn Read + Send>),
    Writer(Writes),
}

/// An answer on its way to the connection's thread.
pub(crate) struct Answered {
    pub(crate) head: http::Response<()>,
    pub(crate) body: Outgoing,
    pub(crate) serve: Option<Serve>,
    /// The connection closes although the client may still be sending.
    pub(crate) is_unread: bool,
}

/// The place where the answer is left for the connection's thread.
#[derive(Default)]
pub(crate) struct AnswerSlot {
    answered: Mutex<Option<Answered>>,
    waker: AtomicWaker,
}

impl AnswerSlot {
    fn take(&self) -> Option<Answered> {
        self.answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Answered> {
        if let Some(answered) = self.take() {
            return Poll::Ready(answered);
        }
        self.waker.register(context.waker());
        // The answer may have come before the waker was registered.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    pub(crate) fn put(&self, answered: Answered) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered);
        self.waker.wake();
    }
}

/// Complaints about answers with a status that a handler may not send.
static INADMISSIBLE: Quiet = Quiet::new();

/// The right and the duty to answer one request. Dropping it answers with an error.
pub(crate) struct Responder {
    /// `None`: the request was answered.
    slot: Option<Arc<AnswerSlot>>,
    method: Method,
    version: Version,
    may_upgrade: bool,
    /// The client waits to be asked for the body.
    expects: bool,
    /// The length of the body that the client has announced.
    length: Option<u64>,
    trace: Arc<Trace>,
    /// How long a stream of HTTP/2 may make no progress.
    limit: Option<Duration>,
}

impl Responder {
    pub(crate) fn new(
        slot: Arc<AnswerSlot>,
        head: &Parts,
        length: Option<u64>,
        trace: Arc<Trace>,
        limit: Duration,
    ) -> Self {
        Self {
            slot: Some(slot),
            method: head.method.clone(),
            version: head.version,
            may_upgrade: crate::check::upgrade(head).is_some(),
            expects: head.headers.contains_key(EXPECT),
            length,
            trace,
            // A connection of HTTP/1 has a limit of its own (`drive.rs`).
            limit: (head.version == Version::HTTP_2).then_some(limit),
        }
    }

    /// Sends the answer and its whole body.
    pub(crate) fn answer(mut self, response: Response) {
        let response = self.admissible(response);
        if let Err(error) = self.send(response) {
            // Most of the time the client has broken it off, and nobody is left to be told.
            log::debug!("weald-http: an answer was broken off: {error}");
        }
    }

    /// Replaces an answer that HTTP cannot send.
    fn admissible(&self, response: Response) -> Response {
        let is_upgrade = matches!(response.body.0, Kind::Upgrade(_));
        // An answer to `HEAD` ends with its head, so it cannot upgrade.
        if is_upgrade && (!self.may_upgrade || self.method == Method::HEAD) {
            return Response::of(StatusCode::BAD_REQUEST);
        }
        let is_interim = response.status.is_informational();
        if is_upgrade != (response.status == StatusCode::SWITCHING_PROTOCOLS)
            || (is_interim && !is_upgrade)
        {
            let text = format!("a handler cannot answer {}", response.status);
            INADMISSIBLE.say(log::Level::Error, &text);
            return Response::of(StatusCode::INTERNAL_SERVER_ERROR);
        }
        response
    }

    /// Reads a small rest of the request's body. Returns true if more is left, so that the connection must close.
    fn leaves_unread(&self) -> bool {
        if self.trace.failed().is_some() {
            return true;
        }
        let Some(mut unread) = self.trace.take_unread() else {
            return false;
        };
        // A client that waits to be asked for the body may send it or not.
        let is_much = self.length.is_some_and(|length| length > UNREAD as u64);
        if self.expects || is_much {
            return true;
        }
        !drain(&mut unread, UNREAD, Instant::now() + UNREAD_TIME)
    }

    fn send(&mut self, response: Response) -> io::Result<()> {
        let is_first_version = self.version != Version::HTTP_2;
        let is_unread = is_first_version && self.leaves_unread();
        let Some(slot) = self.slot.take() else {
            return Ok(());
        };
        let (mut head, body) = self.frame(response);
        if is_unread {
            head.headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let give = |body, serve| {
            slot.put(Answered {
                head,
                body,
                serve,
                is_unread,
            });
        };
        let (length, content) = match body.0 {
            Kind::Bytes(bytes) => {
                give(Outgoing::Bytes(bytes), None);
                return Ok(());
            }
            Kind::Upgrade(serve) => {
                give(Outgoing::Bytes(Bytes::new()), Some(serve));
                return Ok(());
            }
            Kind::Reader(reader, length) => (length, Content::Reader(reader)),
            Kind::Writer(writes, length) => (length, Content::Writer(writes)),
        };
        let (sender, receiver) = pipe(length, self.limit);
        give(Outgoing::Pipe(receiver), None);
        let mut writer = BodyWriter::new(sender, length);
        match content {
            Content::Reader(mut reader) => writer.copy(&mut reader)?,
            Content::Writer(body) => body(&mut writer)?,
        }
        writer.finish()
    }

    /// Returns head and body, with correct fields for the length of the message.
    fn frame(&self, response: Response) -> (http::Response<()>, Body) {
        let Response {
            status,
            mut headers,
            mut body,
        } = response;
        let told = headers.get(CONTENT_LENGTH).and_then(|value| {
            let text = value.to_str().ok()?;
            text.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| text.parse::<u64>().ok())?
        });
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
        if !matches!(body.0, Kind::Upgrade(_)) {
            let closes = headers.get(CONNECTION).is_some_and(|value| {
                let text = value.to_str().unwrap_or_default();
                text.split(',')
                    .any(|one| one.trim().eq_ignore_ascii_case("close"))
            });
            headers.remove(CONNECTION);
            if closes && self.version != Version::HTTP_2 {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        headers.entry(DATE).or_insert_with(crate::date::now);
        let length = match &mut body.0 {
            Kind::Bytes(bytes) => Some(bytes.len() as u64),
            Kind::Reader(_, length) | Kind::Writer(_, length) => {
                *length = length.or(told);
                *length
            }
            Kind::Upgrade(_) => None,
        };
        let is_empty = matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        );
        if self.method == Method::HEAD || is_empty {
            // The length of what `GET` would have sent.
            let is_silent = status == StatusCode::NO_CONTENT || status == StatusCode::RESET_CONTENT;
            let has_some = length.is_some_and(|length| length > 0);
            let length = if has_some { length } else { told.or(length) };
            let may_tell = !is_silent && (self.method == Method::HEAD || told.is_some());
            if let Some(length) = length.filter(|_| may_tell) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            body = Body::empty();
        }
        let mut head = http::Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        (head, body)
    }
}

impl Drop for Responder {
    /// Answers for a handler that a panic or an exception of weald's has ended.
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else {
            return;
        };
        let failed = self.trace.failed();
        let status = failed.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (mut head, body) = self.frame(Response::of(status));
        // The rest of the body is not read here, as that may wait.
        let is_unread = self.version != Version::HTTP_2
            && (failed.is_some() || self.trace.take_unread().is_some());
        if is_unread {
            head.headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let body = match body.0 {
            Kind::Bytes(bytes) => bytes,
            _ => Bytes::new(),
        };
        slot.put(Answered {
            head,
            body: Outgoing::Bytes(body),
            serve: None,
            is_unread,
        });
    }
}
