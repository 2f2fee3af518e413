//! Counts and latencies of a server, and its access log.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::request::Parts;

/// The target of the access log's records.
const TARGET: &str = "weald_http::access";

/// So many powers of two of microseconds: the last is six days.
const POWERS: usize = 40;

/// What a server has done; from [`ServerHandle::metrics`](crate::ServerHandle::metrics).
///
/// The numbers are read one after the other while the server goes on, so they may differ by the requests of that moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metrics {
    /// Connections that are open.
    pub connections: usize,
    /// Requests that have come and whose answers have not gone.
    pub open_requests: usize,
    /// Answers by the first digit of their status; at 0 requests that ended without one.
    pub answers: [u64; 6],
    /// How long requests took, from the end of the head until the connection had the answer's last byte: at `n` those
    /// that took less than 2ⁿ microseconds, and not less than half of that.
    pub times: [u64; POWERS],
}

impl Metrics {
    /// All answers.
    pub fn requests(&self) -> u64 {
        self.answers.iter().sum()
    }

    /// A time that this part of the requests did not exceed, at most twice the true one; `None`: there were none.
    ///
    /// # Examples
    /// ```
    /// # let listener = weald::tcp_listener("127.0.0.1:0")?;
    /// # let server = weald_http::Server::new(listener).serve(|_request| "");
    /// let p99 = server.metrics().quantile(0.99);
    /// assert_eq!(p99, None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[allow(
        clippy::cast_precision_loss,
        reason = "a part of a count need not be exact"
    )]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let all: u64 = self.times.iter().sum();
        let mut seen = 0;
        self.times.iter().zip(0..).find_map(|(count, power)| {
            seen += count;
            let is_found = seen > 0 && seen as f64 >= part * all as f64;
            is_found.then(|| Duration::from_micros(1 << power))
        })
    }
}

/// The same while it is counted.
#[derive(Debug)]
pub(crate) struct Counts {
    open: AtomicUsize,
    answers: [AtomicU64; 6],
    times: [AtomicU64; POWERS],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            answers: [const { AtomicU64::new(0) }; 6],
            times: [const { AtomicU64::new(0) }; POWERS],
        }
    }
}

impl Counts {
    pub(crate) fn metrics(&self, connections: usize) -> Metrics {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Metrics {
            connections,
            open_requests: self.open.load(Ordering::Relaxed),
            answers: self.answers.each_ref().map(load),
            times: self.times.each_ref().map(load),
        }
    }
}

/// One request, from its head to its answer's end.
#[derive(Debug)]
pub(crate) struct Record {
    begun: Instant,
    /// 0: there is no answer yet.
    pub(crate) status: u16,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    /// Who asks for what; only if somebody reads the access log.
    line: Option<String>,
}

impl Record {
    pub(crate) fn begin(counts: &Counts, peer: Option<SocketAddr>, head: &Parts) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        let is_read = log::log_enabled!(target: TARGET, log::Level::Info);
        let line = is_read.then(|| {
            let (method, uri, version) = (&head.method, &head.uri, head.version);
            match peer {
                Some(peer) => format!("{peer} \"{method} {uri} {version:?}\""),
                None => format!("- \"{method} {uri} {version:?}\""),
            }
        });
        Self {
            begun: Instant::now(),
            status: 0,
            sent: 0,
            line,
        }
    }

    pub(crate) fn end(&self, counts: &Counts) {
        let time = self.begun.elapsed();
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let power = (u64::BITS - micros.leading_zeros()) as usize;
        let class = usize::from(self.status / 100).min(5);
        counts.times[power.min(POWERS - 1)].fetch_add(1, Ordering::Relaxed);
        counts.answers[class].fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(line) = &self.line {
            let (status, sent) = (self.status, self.sent);
            log::info!(target: TARGET, "{line} {status} {sent} {time:?}");
        }
    }
}
