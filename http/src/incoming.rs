//! A request's body. The handler's green thread reads it; the connection's thread fills it.

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::held::{Held, Source};
use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::woke::Woke;

/// A fault in a request, with the status that tells the client. Errors of reading a body are [`io::Error`]s with this
/// inside; a handler that returns such an error answers with the status.
///
/// # Examples
/// ```
/// use weald_http::{RequestError, StatusCode};
/// fn status(error: &std::io::Error) -> Option<StatusCode> {
///     Some(error.get_ref()?.downcast_ref::<RequestError>()?.status())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    status: StatusCode,
    text: &'static str,
}

impl RequestError {
    /// Returns 400, 408 or 413.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, text }
    }

    fn into_io(self) -> io::Error {
        let kind = match self.status {
            StatusCode::REQUEST_TIMEOUT => io::ErrorKind::TimedOut,
            StatusCode::PAYLOAD_TOO_LARGE => io::ErrorKind::FileTooLarge,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl Error for RequestError {}

/// What the reader of the body leaves for the writer of the answer.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The status of the error that a read has met; 0 if there was none.
    failed: AtomicU16,
    /// The body, if it was dropped before its end.
    unread: Mutex<Option<Source>>,
}

impl Trace {
    /// Returns the status of the error that a read has met.
    pub(crate) fn failed(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.failed.load(Ordering::Relaxed)).ok()
    }

    /// Takes the body, if it was dropped before its end.
    pub(crate) fn take_unread(&self) -> Option<Source> {
        self.unread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// The body of a request. Reading it is a blocking call. If the client waits to be asked for the body (`Expect:
/// 100-continue`), the first read asks.
///
/// # Errors
/// With a [`RequestError`] inside: `FileTooLarge` if the body is longer than the limit, `TimedOut` if it does not
/// come in time, `InvalidData` if the client has broken it off or it is not HTTP. Any other error is an exception of
/// weald's.
pub struct RequestBody {
    incoming: Option<Source>,
    /// Bytes that were received and not read.
    chunk: Bytes,
    /// The length that the client has announced.
    length: Option<u64>,
    taken: u64,
    limit: u64,
    shared: Arc<Shared>,
    /// When the first read began.
    begun: Option<Instant>,
    trailers: Option<HeaderMap>,
    error: Option<RequestError>,
    trace: Arc<Trace>,
    /// Made by the first read that may wait.
    woke: Option<(Arc<Woke>, Waker)>,
}

impl RequestBody {
    pub(crate) fn new(
        incoming: Incoming,
        shared: &Arc<Shared>,
        held: &Arc<Held>,
        trace: &Arc<Trace>,
    ) -> Self {
        let is_empty = incoming.is_end_stream();
        Self {
            length: incoming.size_hint().exact(),
            incoming: (!is_empty).then(|| Source::new(incoming, held)),
            chunk: Bytes::new(),
            taken: 0,
            limit: shared.limits.body_size,
            shared: Arc::clone(shared),
            begun: None,
            trailers: None,
            error: None,
            trace: Arc::clone(trace),
            woke: None,
        }
    }

    pub(crate) fn server_metrics(&self) -> Metrics {
        self.shared.metrics()
    }

    /// Returns how many bytes the body has, if the client has announced it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Sets the limit; see [`Request::set_body_limit`](crate::Request::set_body_limit).
    pub fn set_limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// Returns the trailers that followed the body, once the body was read to its end.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// Reads the next bytes without copying them. Returns `None` at the end. A blocking call.
    ///
    /// # Errors
    /// See [`RequestBody`].
    pub fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        self.fill()?;
        let chunk = std::mem::take(&mut self.chunk);
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Reads all that is left. A blocking call.
    ///
    /// # Errors
    /// See [`RequestBody`].
    pub fn read_bytes(&mut self) -> io::Result<Bytes> {
        let Some(first) = self.read_chunk()? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.read_chunk()? else {
            return Ok(first);
        };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.read_chunk()? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// Reads all that is left, as text. A blocking call.
    ///
    /// # Errors
    /// See [`RequestBody`]; `InvalidData` if the body is not UTF-8.
    pub fn read_text(&mut self) -> io::Result<String> {
        String::from_utf8(self.read_bytes()?.into()).map_err(|_| {
            let text = "the body of the request is no UTF-8";
            RequestError::new(StatusCode::BAD_REQUEST, text).into_io()
        })
    }

    /// Waits until `chunk` holds something or the body has ended.
    fn fill(&mut self) -> io::Result<()> {
        if let Some(error) = &self.error {
            return Err(error.clone().into_io());
        }
        while self.chunk.is_empty() {
            let Some(mut incoming) = self.incoming.take() else {
                return Ok(());
            };
            let polled = self.next(&mut incoming);
            self.incoming = Some(incoming);
            let frame = match polled? {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.incoming = None;
                    return Ok(());
                }
                Err(error) => {
                    if error.status != StatusCode::BAD_REQUEST {
                        self.shared.complain(error.text);
                    }
                    self.trace
                        .failed
                        .store(error.status.as_u16(), Ordering::Relaxed);
                    self.incoming = None;
                    self.error = Some(error.clone());
                    return Err(error.into_io());
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    self.taken = self.taken.saturating_add(data.len() as u64);
                    self.chunk = data;
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
        Ok(())
    }

    /// Waits for the next frame. The inner error is the request's, the outer one an exception.
    #[allow(clippy::type_complexity, reason = "two kinds of errors")]
    fn next(
        &mut self,
        incoming: &mut Source,
    ) -> io::Result<Result<Option<http_body::Frame<Bytes>>, RequestError>> {
        let too_long = Err(RequestError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body of the request is longer than the limit",
        ));
        if self.length.is_some_and(|length| length > self.limit) || self.taken > self.limit {
            return Ok(too_long);
        }
        let now = Instant::now();
        let begun = *self.begun.get_or_insert(now);
        let last = begun.checked_add(self.shared.limits.body_time);
        let pause = now.checked_add(self.shared.limits.body_pause);
        let deadline = last.into_iter().chain(pause).min();
        let (woke, waker) = self.woke.get_or_insert_with(|| {
            let woke = Arc::<Woke>::default();
            let waker = Waker::from(Arc::clone(&woke));
            (woke, waker)
        });
        let frame = match wait_for_frame(incoming, woke, waker, deadline)? {
            None => {
                let text = "the body of the request does not come in time";
                return Ok(Err(RequestError::new(StatusCode::REQUEST_TIMEOUT, text)));
            }
            Some(Err(error)) => return Ok(Err(broken(&error))),
            Some(Ok(frame)) => frame,
        };
        let data = frame.as_ref().and_then(http_body::Frame::data_ref);
        let more = data.map_or(0, Bytes::len) as u64;
        if self.taken.saturating_add(more) > self.limit {
            return Ok(too_long);
        }
        Ok(Ok(frame))
    }
}

fn broken(error: &hyper::Error) -> RequestError {
    log::debug!("weald-http: the body of a request: {error:?}");
    RequestError::new(
        StatusCode::BAD_REQUEST,
        "the body of the request was broken off, or is not valid HTTP",
    )
}

/// Waits for a frame. The inner `None` means that the body has ended, the outer one that the time has passed.
#[allow(clippy::type_complexity, reason = "a result of hyper's, in ours")]
fn wait_for_frame(
    incoming: &mut Source,
    woke: &Woke,
    waker: &Waker,
    deadline: Option<Instant>,
) -> io::Result<Option<hyper::Result<Option<http_body::Frame<Bytes>>>>> {
    weald_scheduler::io::enter()?;
    let mut context = Context::from_waker(waker);
    loop {
        if let Poll::Ready(frame) = incoming.poll_frame(&mut context) {
            weald_scheduler::io::spend();
            return Ok(Some(frame.transpose()));
        }
        if !woke.wait(deadline)? {
            return Ok(None);
        }
    }
}

/// Reads what is left of a body and throws it away: `most` bytes at most, and not longer than `until`. Returns true
/// if the body has ended.
pub(crate) fn drain(incoming: &mut Source, most: usize, until: Instant) -> bool {
    let woke = Arc::<Woke>::default();
    let waker = Waker::from(Arc::clone(&woke));
    let mut left = most;
    loop {
        let Ok(Some(Ok(frame))) = wait_for_frame(incoming, &woke, &waker, Some(until)) else {
            return false;
        };
        let Some(frame) = frame else { return true };
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(less) = left.checked_sub(length) else {
            return false;
        };
        left = less;
    }
}

impl Read for RequestBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.fill()?;
        let count = self.chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.chunk[..count]);
        self.chunk.advance(count);
        Ok(count)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take()
            && self.error.is_none()
        {
            *self
                .trace
                .unread
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(incoming);
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("length", &self.length)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
