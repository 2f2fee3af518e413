//! What a client may ask for: sizes, times and numbers.

use std::time::Duration;

/// A `HeaderMap` panics when it is to hold more than 24,576 fields. The server adds some fields.
const MOST_FIELDS: usize = 24_000;

/// The limits of a server. The defaults are fit for clients that nobody knows; each limit can be set.
///
/// | limit | default | what happens beyond it |
/// |---|---|---|
/// | [`head_size`](Self::head_size): bytes of a request's head | 32 KiB | 431, the connection closes; HTTP/2: 431 or a reset stream |
/// | [`head_fields`](Self::head_fields): fields of a head (HTTP/1) | 100 | 431, the connection closes |
/// | [`head_time`](Self::head_time): from a head's first byte to its last; also from the connection's start to its first byte | 10 s | 408 if a part of a head has come; the connection closes |
/// | [`body_size`](Self::body_size): bytes of a request's body | 2 MiB | the read fails; 413 if the handler returns the error |
/// | [`body_time`](Self::body_time): for the whole body, from its first read on | 5 min | the read fails; 408 if the handler returns the error |
/// | [`body_pause`](Self::body_pause): one read of the body | 30 s | the same |
/// | [`keep_alive`](Self::keep_alive): between two requests | 75 s | the connection closes |
/// | [`write_time`](Self::write_time): a write without any progress | 30 s | the connection closes |
/// | [`streams`](Self::streams): of HTTP/2, open at the same time | 100 | the stream is refused |
/// | handlers of an HTTP/2 connection, also of streams that were reset | twice `streams` | 503 |
/// | [`connections`](Self::connections): of the whole server | 10,000 | they wait in the listener's backlog |
/// | [`connections_per_address`](Self::connections_per_address) | none: a proxy in front has one address | 503 without TLS; the connection closes |
///
/// A TLS handshake has the limit of its acceptor, 10 s by default. A limit of zero admits nothing. To have no limit,
/// use `Duration::MAX`.
///
/// The time that a handler takes has no limit here; a handler can use [`weald::timeout`]. The reader or the closure of a
/// body runs after the handler has returned, so it needs a `timeout` of its own. Nor has the number of requests that run
/// at once: a [`weald::sync::Semaphore`] can bound it.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// let limits = weald_http::Limits::new()
///     .body_size(100 << 20)
///     .keep_alive(Duration::from_secs(15));
/// # drop(limits);
/// ```
#[derive(Clone, Debug)]
#[must_use = "limits do nothing before `Server::limits`"]
pub struct Limits {
    pub(crate) head_size: usize,
    pub(crate) head_fields: usize,
    pub(crate) head_time: Duration,
    pub(crate) body_size: u64,
    pub(crate) body_time: Duration,
    pub(crate) body_pause: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) write_time: Duration,
    pub(crate) streams: u32,
    pub(crate) connections: usize,
    pub(crate) connections_per_address: usize,
}

impl Limits {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self {
            head_size: 32 * 1024,
            head_fields: 100,
            head_time: Duration::from_secs(10),
            body_size: 2 * 1024 * 1024,
            body_time: Duration::from_secs(300),
            body_pause: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            write_time: Duration::from_secs(30),
            streams: 100,
            connections: 10_000,
            connections_per_address: usize::MAX,
        }
    }

    /// Sets the most bytes of a request's head. The least is 8 KiB, hyper's own bound.
    pub fn head_size(mut self, bytes: usize) -> Self {
        self.head_size = bytes.max(8 * 1024);
        self
    }

    /// Sets the most fields of a request's head, in HTTP/1. The limit is never above 24,000, as hyper could not hold
    /// more.
    pub fn head_fields(mut self, number: usize) -> Self {
        self.head_fields = number.min(MOST_FIELDS);
        self
    }

    /// Sets the longest time from the first byte of a request's head to its last, and from the start of a connection
    /// to its first byte.
    pub fn head_time(mut self, limit: Duration) -> Self {
        self.head_time = limit;
        self
    }

    /// Sets the most bytes of a request's body. A handler can set its own limit:
    /// [`Request::set_body_limit`](crate::Request::set_body_limit).
    pub fn body_size(mut self, bytes: u64) -> Self {
        self.body_size = bytes;
        self
    }

    /// Sets the longest time for a whole request body, from the handler's first read on.
    pub fn body_time(mut self, limit: Duration) -> Self {
        self.body_time = limit;
        self
    }

    /// Sets the longest time that one read of a request's body waits.
    pub fn body_pause(mut self, limit: Duration) -> Self {
        self.body_pause = limit;
        self
    }

    /// Sets the longest time between two requests of a connection.
    pub fn keep_alive(mut self, limit: Duration) -> Self {
        self.keep_alive = limit;
        self
    }

    /// Sets the longest time in which the client takes no byte of an answer; in HTTP/2, in which it takes not 16 KiB
    /// more of any answer.
    pub fn write_time(mut self, limit: Duration) -> Self {
        self.write_time = limit;
        self
    }

    /// Sets the most streams that an HTTP/2 connection has open.
    pub fn streams(mut self, number: u32) -> Self {
        self.streams = number.max(1);
        self
    }

    /// Sets the most connections of the server, at least 1. Choose a number below the process's limit of descriptors.
    pub fn connections(mut self, number: usize) -> Self {
        self.connections = number.max(1);
        self
    }

    /// Sets the most connections from one IP address, at least 1.
    pub fn connections_per_address(mut self, number: usize) -> Self {
        self.connections_per_address = number.max(1);
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}
