//! An echo server and its load in one program: how many requests a second, how late, how much memory.
//!
//! ```text
//! cargo run --release --example echo                                  # 1000 connections, 5 s
//! cargo run --release --example echo -- --connections 10000 --seconds 5
//! cargo run --release --example echo -- --serve-only --port 7000      # until Ctrl-C
//! ```
//!
//! Each connection has two green threads here: the server's handler and a client, both plain blocking
//! code. A client sends, waits for the echo, notes how long that took, and sends again. Server and
//! load share the workers, so this shows the runtime under load; `benches/` is where servers are
//! compared. Loopback only. Ctrl-C ends it early and prints what there is so far.
#![allow(
    unsafe_code,
    reason = "getrlimit and setrlimit have no safe form in std"
)]

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use weald::net::TcpStream;
use weald::{JoinHandle, Runtime};

const USAGE: &str = "\
usage: echo [--connections N] [--seconds S] [--workers N] [--port P] [--size BYTES] [--serve-only]

  --connections N   connections of the load, 1 to 1000000 (default 1000)
  --seconds S       how long the load runs, 1 to 86400 (default 5)
  --workers N       workers of the runtime, 1 to 1024 (default: one for each CPU)
  --port P          port on 127.0.0.1, 0 to 65535 (default 0: any that is free)
  --size BYTES      length of a message, 1 to 65536 (default 64)
  --serve-only      no load: serve until Ctrl-C
  --help            this text";

/// Descriptors that are not connections: standard streams, listener, and per worker a poller, its
/// wake-up and its timer.
const DESCRIPTORS_BESIDE: u64 = 32;
const DESCRIPTORS_PER_WORKER: u64 = 8;

/// Connections that wait to be accepted. The load connects one after the other, so few ever do.
const BACKLOG: u32 = 1024;

/// How long the server may take to end its handlers.
const GRACE: Duration = Duration::from_secs(2);

/// A request that takes longer has failed.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How often the progress bar moves.
const REFRESH: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(mut options: Options) -> io::Result<()> {
    options.fit_descriptors(raise_descriptor_limit())?;
    let runtime = Runtime::builder().workers(options.workers).build()?;
    let result = runtime.run(|| {
        if options.serve_only {
            serve_only(&options)
        } else {
            load(&options)
        }
    });
    runtime.shutdown(GRACE);
    result
}

// The server.

/// Sends back what comes, until the connection ends.
fn echo(mut stream: &TcpStream, size_bytes: usize) {
    let mut buffer = vec![0; size_bytes];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn serve_only(options: &Options) -> io::Result<()> {
    let interrupted = on_interrupt()?;
    let listener = weald::tcp_listener_with((Ipv4Addr::LOCALHOST, options.port), BACKLOG)?;
    let size_bytes = options.size_bytes;
    let server = weald::tcp_server(listener, move |stream, _peer| echo(&stream, size_bytes));
    println!(
        "echo on {} with {} workers, Ctrl-C ends it",
        server.local_addr(),
        options.workers
    );
    while !interrupted.load(Ordering::Relaxed) {
        weald::park();
    }
    report_drain(server.shutdown(GRACE));
    Ok(())
}

fn report_drain(clean: bool) {
    println!(
        "\nserver ended{}",
        if clean {
            ""
        } else {
            ", connections that were still open were cut"
        }
    );
}

/// Sets the flag at Ctrl-C and unparks the green thread that asked.
fn on_interrupt() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let waiting = weald::current();
    ctrlc::set_handler(move || {
        flag.store(true, Ordering::Relaxed);
        waiting.unpark();
    })
    .map_err(io::Error::other)?;
    Ok(interrupted)
}

// The load.

/// What the clients share.
struct Load {
    stop: AtomicBool,
    requests: AtomicU64,
    failed: AtomicUsize,
    /// Latencies in nanoseconds. Several, so that the workers seldom meet at one; each lock is held
    /// for a moment and never over a blocking call, so std's does.
    latencies: Vec<Mutex<Histogram<u64>>>,
}

impl Load {
    fn new(shards: usize) -> io::Result<Self> {
        let longest_ns = u64::try_from(REQUEST_LIMIT.as_nanos()).unwrap_or(u64::MAX);
        let latencies = (0..shards)
            .map(|_| Histogram::new_with_max(longest_ns, 3).map(Mutex::new))
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        Ok(Self {
            stop: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            failed: AtomicUsize::new(0),
            latencies,
        })
    }

    /// One client: asks and waits until all shall stop.
    fn client(&self, number: usize, mut stream: &TcpStream, size_bytes: usize) -> io::Result<()> {
        let latencies = &self.latencies[number % self.latencies.len()];
        let mut message = vec![b'w'; size_bytes];
        stream.set_read_timeout(Some(REQUEST_LIMIT))?;
        while !self.stop.load(Ordering::Relaxed) {
            let sent = Instant::now();
            stream.write_all(&message)?;
            stream.read_exact(&mut message)?;
            let nanos = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
            latencies
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .saturating_record(nanos);
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn merged(&self) -> io::Result<Histogram<u64>> {
        let mut merged = Histogram::new(3).map_err(io::Error::other)?;
        for shard in &self.latencies {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            merged.add(&*shard).map_err(io::Error::other)?;
        }
        Ok(merged)
    }
}

fn load(options: &Options) -> io::Result<()> {
    let interrupted = on_interrupt()?;
    let shared = Arc::new(Load::new(options.workers * 4)?);
    let resident_before = resident_bytes();
    let listener = weald::tcp_listener_with((Ipv4Addr::LOCALHOST, options.port), BACKLOG)?;
    let size_bytes = options.size_bytes;
    let server = weald::tcp_server(listener, move |stream, _peer| echo(&stream, size_bytes));
    println!(
        "{} connections to {}, {} bytes a message, {} workers",
        options.connections,
        server.local_addr(),
        size_bytes,
        options.workers
    );
    let streams = connect(server.local_addr(), options.connections, &interrupted)?;
    let connections = streams.len();

    let start = Instant::now();
    let clients: Vec<JoinHandle<()>> = streams
        .into_iter()
        .enumerate()
        .map(|(number, stream)| {
            let shared = Arc::clone(&shared);
            weald::spawn(move || {
                if shared.client(number, &stream, size_bytes).is_err() {
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    watch(options, &shared, &interrupted, start);
    let resident_after = resident_bytes();
    shared.stop.store(true, Ordering::Relaxed);
    for client in clients {
        // A panic there has been printed; the results of the others count.
        if client.join().is_err() {
            shared.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
    let elapsed = start.elapsed();
    report_drain(server.shutdown(GRACE));

    print_results(&shared, elapsed)?;
    print_memory(resident_before, resident_after, connections);
    Ok(())
}

/// Opens the connections one after the other; fewer at Ctrl-C.
fn connect(
    address: SocketAddr,
    connections: usize,
    interrupted: &AtomicBool,
) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(connections);
    while streams.len() < connections && !interrupted.load(Ordering::Relaxed) {
        let stream = weald::connect_tcp(address).map_err(|error| {
            let number = streams.len() + 1;
            io::Error::new(
                error.kind(),
                format!("connection {number} of {connections} to {address}: {error}"),
            )
        })?;
        streams.push(stream);
    }
    Ok(streams)
}

/// Moves the progress bar until the time is over, or Ctrl-C.
fn watch(options: &Options, shared: &Load, interrupted: &AtomicBool, start: Instant) {
    let length = Duration::from_secs(options.seconds);
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::new(milliseconds(length));
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
        bar.set_style(style);
    }
    let (mut seen, mut seen_at) = (0, start);
    while start.elapsed() < length && !interrupted.load(Ordering::Relaxed) {
        weald::park_timeout(REFRESH.min(length.saturating_sub(start.elapsed())));
        let requests = shared.requests.load(Ordering::Relaxed);
        let since = seen_at.elapsed();
        if since >= REFRESH / 2 {
            bar.set_message(format!(
                "{:.0} requests/s",
                per_second(requests - seen, since)
            ));
            (seen, seen_at) = (requests, Instant::now());
        }
        bar.set_position(milliseconds(start.elapsed().min(length)));
    }
    bar.finish_and_clear();
}

// The results.

fn print_results(shared: &Load, elapsed: Duration) -> io::Result<()> {
    let latencies = shared.merged()?;
    let requests = latencies.len();
    println!(
        "{requests} requests in {:.2} s: {:.0} requests per second",
        elapsed.as_secs_f64(),
        per_second(requests, elapsed)
    );
    let failed = shared.failed.load(Ordering::Relaxed);
    if failed > 0 {
        println!("{failed} connections failed");
    }
    if requests == 0 {
        return Ok(());
    }
    let at = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
    println!(
        "latency: p50 {:.1?}, p90 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, max {:.1?}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        Duration::from_nanos(latencies.max())
    );
    Ok(())
}

fn print_memory(before: Option<u64>, after: Option<u64>, connections: usize) {
    match (before, after, connections) {
        (Some(before), Some(after), 1..) => println!(
            "memory: {} bytes per connection, both ends and a green thread for each of them (resident \
             {:.1} MB before, {:.1} MB under load)",
            after.saturating_sub(before) / connections as u64,
            megabytes(before),
            megabytes(after)
        ),
        (None, ..) | (_, None, _) => {
            println!("memory: unknown, there is no /proc/self/status here");
        }
        (.., 0) => {}
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes of memory stay far below 2^52"
)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
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

// The settings.

struct Options {
    connections: usize,
    seconds: u64,
    workers: usize,
    port: u16,
    size_bytes: usize,
    serve_only: bool,
}

impl Options {
    /// `None` if only the usage is asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            connections: 1000,
            seconds: 5,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            port: 0,
            size_bytes: 64,
            serve_only: false,
        };
        while let Some(argument) = arguments.next() {
            // Both `--seconds 5` and `--seconds=5`.
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| arguments.next())
                    .ok_or_else(|| format!("{name} needs a value"))
            };
            match name.as_str() {
                "--connections" => {
                    options.connections = within(&name, &value()?, 1..=1_000_000)?;
                }
                "--seconds" => options.seconds = within(&name, &value()?, 1..=86_400)?,
                "--workers" => options.workers = within(&name, &value()?, 1..=1024)?,
                "--port" => options.port = within(&name, &value()?, 0..=u16::MAX)?,
                "--size" => options.size_bytes = within(&name, &value()?, 1..=65_536)?,
                "--serve-only" | "--help" | "-h" if inline.is_some() => {
                    return Err(format!("{name} takes no value"));
                }
                "--serve-only" => options.serve_only = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown argument `{name}`")),
            }
        }
        Ok(Some(options))
    }

    /// Says how many descriptors there are, and takes back connections that have none.
    fn fit_descriptors(&mut self, limit: io::Result<u64>) -> io::Result<()> {
        let limit = match limit {
            Ok(limit) => limit,
            Err(error) => {
                println!("descriptors: the limit is unknown ({error})");
                return Ok(());
            }
        };
        if self.serve_only {
            println!("descriptors: {limit}");
            return Ok(());
        }
        let beside = DESCRIPTORS_BESIDE + DESCRIPTORS_PER_WORKER * self.workers as u64;
        let wanted = self.connections as u64 * 2 + beside;
        if wanted <= limit {
            println!("descriptors: {limit}, of which {wanted} are needed");
            return Ok(());
        }
        let fitting = limit.saturating_sub(beside) / 2;
        if fitting == 0 {
            return Err(io::Error::other(format!(
                "{limit} descriptors do not suffice for one connection, {} are needed",
                beside + 2
            )));
        }
        println!(
            "descriptors: {limit}, but {} connections need {wanted} (two each, both ends are here): \
             using {fitting} connections",
            self.connections
        );
        self.connections = usize::try_from(fitting).unwrap_or(self.connections);
        Ok(())
    }
}

/// The number in `text`, or a message that names the value and the bounds.
fn within<T>(name: &str, text: &str, bounds: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    match text.parse() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        _ => Err(format!(
            "{name} is `{text}`, but must be a number from {} to {}",
            bounds.start(),
            bounds.end()
        )),
    }
}

/// Raises the soft limit of open descriptors to the hard one and returns what holds then.
fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live `rlimit` that the kernel may fill.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: `raised` is a live `rlimit` that the kernel only reads. Where it refuses (macOS caps
    // it below a hard limit of "none"), the old limit holds.
    let refused = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } != 0;
    Ok(if refused { limit } else { raised }.rlim_cur)
}
