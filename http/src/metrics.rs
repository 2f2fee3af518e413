//! Counts and latencies of a server, and its access log.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::request::Parts;

/// The target of the access log's records.
const TARGET: &str = "weald_http::access";

/// The number of powers of two of microseconds. The last one is six days.
const POWERS: usize = 40;

/// What a server has done; from [`ServerHandle::metrics`](crate::ServerHandle::metrics).
///
/// The numbers are read one after the other while the server goes on, so they may differ by the requests of that
/// moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metrics {
    /// Connections that are open.
    pub connections: usize,
    /// Requests that have come and whose answers have not gone.
    pub open_requests: usize,
    /// Answers by the first digit of their status. Index 0 counts requests that ended without an answer.
    pub answers: [u64; 6],
    /// How long requests took, from the end of the head until the connection had the answer's last byte. Index `n`
    /// counts the requests that took less than 2ⁿ microseconds and at least half of that.
    pub times: [u64; POWERS],
    /// The sum of the times of all requests, each in whole microseconds.
    pub total_time: Duration,
}

impl Metrics {
    /// Returns the number of all answers.
    pub fn requests(&self) -> u64 {
        self.answers.iter().sum()
    }

    /// Returns a time that this part of the requests did not exceed. It is at most twice the true time. `None`: there
    /// were no requests.
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

    /// Returns the numbers as a page in Prometheus's text format, of the type `text/plain; version=0.0.4` (not OpenMetrics):
    /// `http_connections`, `http_open_requests`, `http_requests_total` by the class of the status, and the histogram
    /// `http_request_duration_seconds`.
    ///
    /// # Examples
    /// ```
    /// use weald_http::{Request, Response};
    /// fn page(request: Request) -> Response {
    ///     let text = request.server_metrics().to_prometheus();
    ///     Response::new(text).header("content-type", "text/plain; version=0.0.4")
    /// }
    /// ```
    pub fn to_prometheus(&self) -> String {
        let mut lines = Vec::new();
        let gauges = [
            ("http_connections", self.connections),
            ("http_open_requests", self.open_requests),
        ];
        for (name, value) in gauges {
            lines.push(format!("# TYPE {name} gauge"));
            lines.push(format!("{name} {value}"));
        }
        lines.push("# TYPE http_requests_total counter".to_owned());
        for (class, count) in self.answers.iter().enumerate() {
            let class = match class {
                0 => "none".to_owned(),
                class => format!("{class}xx"),
            };
            lines.push(format!("http_requests_total{{status=\"{class}\"}} {count}"));
        }
        let name = "http_request_duration_seconds";
        lines.push(format!("# TYPE {name} histogram"));
        let mut seen = 0;
        for (power, count) in self.times.iter().enumerate() {
            seen += count;
            // The buckets go from 16 us to two minutes. Longer times are in the last bucket.
            if (4..=27).contains(&power) {
                let bound = Duration::from_micros(1 << power).as_secs_f64();
                lines.push(format!("{name}_bucket{{le=\"{bound}\"}} {seen}"));
            }
        }
        let sum = self.total_time.as_secs_f64();
        lines.push(format!("{name}_bucket{{le=\"+Inf\"}} {seen}"));
        lines.push(format!("{name}_sum {sum}"));
        lines.push(format!("{name}_count {seen}"));
        lines.join("\n") + "\n"
    }
}

/// The counters behind [`Metrics`].
#[derive(Debug)]
pub(crate) struct Counts {
    open: AtomicUsize,
    answers: [AtomicU64; 6],
    times: [AtomicU64; POWERS],
    micros: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            answers: [const { AtomicU64::new(0) }; 6],
            times: [const { AtomicU64::new(0) }; POWERS],
            micros: AtomicU64::new(0),
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
            total_time: Duration::from_micros(load(&self.micros)),
        }
    }
}

/// One request, from its head to its answer's end.
#[derive(Debug)]
pub(crate) struct Record {
    begun: Instant,
    /// 0 before there is an answer.
    pub(crate) status: u16,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    /// The client and the request line; only if somebody reads the access log.
    line: Option<String>,
}

impl Record {
    pub(crate) fn begin(
        counts: &Counts,
        has_log: bool,
        peer: Option<SocketAddr>,
        head: &Parts,
    ) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        let is_read = has_log && log::log_enabled!(target: TARGET, log::Level::Info);
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
        counts.micros.fetch_add(micros, Ordering::Relaxed);
        counts.answers[class].fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(line) = &self.line {
            let (status, sent) = (self.status, self.sent);
            log::info!(target: TARGET, "{line} {status} {sent} {time:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Ordering};

    #[test]
    fn a_page_of_metrics_has_each_request_once() {
        let counts = Counts::default();
        counts.answers[2].store(3, Ordering::Relaxed);
        counts.answers[5].store(1, Ordering::Relaxed);
        // 0, under 16 us, under 1024 us, and one of six days.
        for power in [0, 4, 10, 39] {
            counts.times[power].store(1, Ordering::Relaxed);
        }
        counts.micros.store(1_500_000, Ordering::Relaxed);
        let page = counts.metrics(7).to_prometheus();
        let lines: Vec<_> = page.lines().collect();
        for line in [
            "http_connections 7",
            "http_requests_total{status=\"2xx\"} 3",
            "http_requests_total{status=\"5xx\"} 1",
            "http_request_duration_seconds_bucket{le=\"0.000016\"} 2",
            "http_request_duration_seconds_bucket{le=\"0.001024\"} 3",
            "http_request_duration_seconds_bucket{le=\"134.217728\"} 3",
            "http_request_duration_seconds_bucket{le=\"+Inf\"} 4",
            "http_request_duration_seconds_sum 1.5",
            "http_request_duration_seconds_count 4",
        ] {
            assert!(lines.contains(&line), "{line}: {page}");
        }
        assert!(page.ends_with('\n'));
    }
}
