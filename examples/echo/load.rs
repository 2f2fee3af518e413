//! The clients, and what they have seen.

use std::io::{self, Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weald::net::TcpStream;

use crate::GRACE;
use crate::options::{Kind, Options};
use crate::server::{self, BUFFER};

/// A request that takes longer has failed.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Latencies are counted in steps of a sixteenth: 16 for each doubling of microseconds.
const STEPS: usize = 16 * 32;

pub(crate) struct Results {
    requests: u64,
    elapsed: Duration,
    half: Duration,
    most: Duration,
    /// The memory that came with the connections, for each of them. `None`: the system does not tell.
    bytes: Option<u64>,
    connections: usize,
    failed: usize,
    refused: usize,
}

/// What the clients share.
struct Load {
    /// From then on answers count: all clients are connected.
    counts: AtomicBool,
    stop: AtomicBool,
    failed: AtomicUsize,
    latencies: Vec<AtomicU64>,
}

impl Load {
    /// One client: asks and waits until all shall stop.
    fn client(&self, mut stream: &TcpStream, size_bytes: usize) -> io::Result<()> {
        let message = vec![b'w'; size_bytes];
        let mut answer = [0; BUFFER];
        stream.set_read_timeout(Some(REQUEST_LIMIT))?;
        while !self.stop.load(Ordering::Relaxed) {
            let sent = Instant::now();
            stream.write_all(&message)?;
            let mut missing = size_bytes;
            while missing > 0 {
                match stream.read(&mut answer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => missing = missing.saturating_sub(count),
                }
            }
            if self.counts.load(Ordering::Relaxed) {
                self.latencies[step(sent.elapsed())].fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn requests(&self) -> u64 {
        let counts = self.latencies.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Returns the time within which this many of a thousand requests were answered.
    fn within(&self, of_a_thousand: u64) -> Duration {
        let wanted = self.requests() * of_a_thousand / 1000;
        let mut seen = 0;
        let place = self.latencies.iter().position(|count| {
            seen += count.load(Ordering::Relaxed);
            seen >= wanted
        });
        time_of(place.unwrap_or(STEPS - 1))
    }
}

/// The step that a latency is counted in.
fn step(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros())
        .unwrap_or(u64::MAX)
        .max(16);
    let doublings = micros.ilog2() - 4;
    // Between 16 and 31: the leading five bits.
    let leading = usize::try_from(micros >> doublings).unwrap_or(0);
    (doublings as usize * 16 + leading - 16).min(STEPS - 1)
}

/// The middle of a step.
fn time_of(step: usize) -> Duration {
    let (doublings, leading) = (step / 16, step % 16 + 16);
    let micros = (leading as u64 * 2 + 1) << doublings;
    Duration::from_nanos(micros * 500)
}

/// Runs the server and its clients for as long as the options say.
pub(crate) fn load(options: &Options, kind: Kind, stop: &AtomicBool) -> io::Result<Results> {
    let before = resident_bytes();
    let server = server::start(options, kind)?;
    let load = Load {
        counts: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        failed: AtomicUsize::new(0),
        latencies: (0..STEPS).map(|_| AtomicU64::new(0)).collect(),
    };
    let mut streams = Vec::with_capacity(options.connections);
    while streams.len() < options.connections && !stop.load(Ordering::Relaxed) {
        streams.push(weald::connect_tcp(server.addr())?);
    }
    let connections = streams.len();
    let (elapsed, after) = weald::scope(|scope| {
        for stream in streams {
            let load = &load;
            scope.spawn(move || {
                if load.client(&stream, options.size_bytes).is_err() {
                    load.failed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // By then all have a thread and have asked once, or nearly all.
        weald::sleep(Duration::from_secs(1));
        load.counts.store(true, Ordering::Relaxed);
        let start = Instant::now();
        let length = Duration::from_secs(options.seconds);
        while start.elapsed() < length && !stop.load(Ordering::Relaxed) {
            weald::sleep(Duration::from_millis(50));
        }
        load.counts.store(false, Ordering::Relaxed);
        let elapsed = start.elapsed();
        let after = resident_bytes();
        load.stop.store(true, Ordering::Relaxed);
        (elapsed, after)
    });
    let refused = server.refused();
    server.stop(GRACE);
    let bytes = before.zip(after).map(|(before, after)| {
        let more = after.saturating_sub(before);
        more / (connections.max(1) as u64)
    });
    Ok(Results {
        requests: load.requests(),
        elapsed,
        half: load.within(500),
        most: load.within(990),
        bytes,
        connections,
        failed: load.failed.load(Ordering::Relaxed),
        refused,
    })
}

impl Results {
    pub(crate) const HEAD: &str = "                            requests a second   half of them within   99 % within   memory a connection";

    pub(crate) fn print(&self, kind: Kind) {
        let rate = per_second(self.requests, self.elapsed);
        let bytes = match self.bytes {
            Some(bytes) => format!("{:.1} kB", kilobytes(bytes)),
            None => String::from("unknown"),
        };
        println!(
            "{:<28}{rate:>17.0}{:>22}{:>14}{bytes:>22}",
            kind.text(),
            millis(self.half),
            millis(self.most)
        );
        if self.refused > 0 {
            println!(
                "  the system gave no OS thread to {} of {} connections, whose clients had no answer",
                self.refused, self.connections
            );
        }
        if self.failed > self.refused {
            println!("  {} connections failed", self.failed - self.refused);
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes of memory stay far below 2^52"
)]
fn kilobytes(bytes: u64) -> f64 {
    bytes as f64 / 1e3
}

/// Resident memory of this process, where the system tells (Linux).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}
