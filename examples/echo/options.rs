//! What the command line says, and what the system allows.
#![allow(
    unsafe_code,
    reason = "getrlimit and setrlimit have no safe form in std"
)]

use std::fmt::Display;
use std::io;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub(crate) const USAGE: &str = "\
usage: echo [--connections N] [--seconds S] [--workers N] [--port P] [--size BYTES] [--server KIND] [--serve-only]

  --connections N   connections of the load, 1 to 1000000 (default 10000)
  --seconds S       how long each half runs, 1 to 86400 (default 5)
  --workers N       workers of the runtime, 1 to 1024 (default: one for each CPU)
  --port P          port on 127.0.0.1, 0 to 65535 (default 0: any that is free)
  --size BYTES      length of a message, 1 to 65536 (default 64)
  --server KIND     green, threads, or both, one after the other (default)
  --serve-only      no load: serve until Ctrl-C
  --help            this text";

/// Descriptors that are not connections: standard streams, listener, and per worker a poller, its
/// wake-up and its timer.
const DESCRIPTORS_BESIDE: u64 = 32;
const DESCRIPTORS_PER_WORKER: u64 = 8;

/// The kind of threads that the server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Green,
    Threads,
    Both,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Threads => "threads",
            Self::Both => "both",
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Threads => "the same on OS threads",
            Self::Green | Self::Both => "server on green threads",
        }
    }
}

pub(crate) struct Options {
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
    pub(crate) workers: usize,
    pub(crate) port: u16,
    pub(crate) size_bytes: usize,
    pub(crate) server: Kind,
    pub(crate) serve_only: bool,
}

impl Options {
    /// `None` if only the usage is asked for.
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Option<Self>, String> {
        let mut options = Self {
            connections: 10_000,
            seconds: 5,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            port: 0,
            size_bytes: 64,
            server: Kind::Both,
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
                "--server" => {
                    let value = value()?;
                    let kinds = [Kind::Green, Kind::Threads, Kind::Both];
                    let kind = kinds.into_iter().find(|kind| kind.name() == value);
                    options.server = kind.ok_or_else(|| {
                        format!("--server is `{value}`, but must be green, threads or both")
                    })?;
                }
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

    /// Returns the same options for a process that runs one half.
    pub(crate) fn arguments(&self) -> [String; 5] {
        [
            format!("--connections={}", self.connections),
            format!("--seconds={}", self.seconds),
            format!("--workers={}", self.workers),
            format!("--port={}", self.port),
            format!("--size={}", self.size_bytes),
        ]
    }

    /// The kind of a server that has no other beside it.
    pub(crate) fn kind_alone(&self) -> Kind {
        match self.server {
            Kind::Both => Kind::Green,
            kind => kind,
        }
    }

    /// Gives up connections for which there are no descriptors, and says so.
    pub(crate) fn fit_descriptors(&mut self) -> io::Result<()> {
        let limit = match raise_descriptor_limit() {
            Ok(limit) => limit,
            Err(error) => {
                println!("descriptors: the limit is unknown ({error})");
                return Ok(());
            }
        };
        let beside = DESCRIPTORS_BESIDE + DESCRIPTORS_PER_WORKER * self.workers as u64;
        let wanted = self.connections as u64 * 2 + beside;
        if self.serve_only || wanted <= limit {
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
            "The system allows {limit} descriptors, and {} connections need {wanted} (two each, both ends are here): \
             {fitting} connections then. `ulimit -Hn` says how many it allows.",
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
