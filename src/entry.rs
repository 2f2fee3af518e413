//! What `#[weald::main]` and `#[weald::test]` call. Programs do not use it.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    reason = "hidden from users; the attributes say what they do"
)]

use std::panic::resume_unwind;
use std::process::{ExitCode, Termination};
use std::time::{Duration, Instant};

use crate::{JoinHandle, Runtime, RuntimeBuilder};

/// The number of workers of a test. With two of them races can show; there are no more because many tests run at a
/// time.
const WORKERS_OF_A_TEST: usize = 2;

/// How long the green threads of a test may take to end after the test. It is long, for busy machines.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// The settings of an attribute.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Settings {
    workers: Option<usize>,
    stack_size: Option<usize>,
    limit: Option<Duration>,
    no_leftovers: bool,
}

impl Settings {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    pub fn no_leftovers(mut self) -> Self {
        self.no_leftovers = true;
        self
    }

    fn builder(self, workers: Option<usize>) -> RuntimeBuilder {
        let mut builder = Runtime::builder();
        if let Some(workers) = workers {
            builder = builder.workers(workers);
        }
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        builder
    }
}

/// Runs the body of `main` as a green thread of the default runtime.
pub fn main<R: Termination + 'static>(settings: Settings, body: fn() -> R) -> ExitCode {
    if (settings.workers, settings.stack_size) != (None, None)
        && let Err(error) = settings.builder(settings.workers).install()
    {
        panic!("#[weald::main]: {error}");
    }
    let thread = crate::spawn(move || body().report());
    end_of(thread, settings.limit).unwrap_or_else(|| {
        eprintln!("{}", crate::dump());
        let limit = settings.limit.unwrap_or_default();
        eprintln!("main took longer than its limit of {limit:?}");
        // The process exits here and does not return from `main`: the end of `main` may be what hangs.
        std::process::exit(1)
    })
}

/// Runs the body of a test on a runtime of its own.
pub fn test<R: Termination + 'static>(settings: Settings, body: fn() -> R) -> ExitCode {
    let workers = settings.workers.unwrap_or(WORKERS_OF_A_TEST);
    let runtime = match settings.builder(Some(workers)).build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("#[weald::test]: {error}"),
    };
    let thread = runtime.spawn(move || body().report());
    let Some(code) = end_of(thread, settings.limit) else {
        eprintln!("{}", runtime.dump());
        let limit = settings.limit.unwrap_or_default();
        panic!("the test took longer than its limit of {limit:?}");
    };
    if settings.no_leftovers {
        let end = Instant::now() + LEFTOVERS;
        while runtime.metrics().live > 0 {
            if Instant::now() >= end {
                eprintln!("{}", runtime.dump());
                panic!("{} green threads are left behind", runtime.metrics().live);
            }
            crate::sleep(Duration::from_millis(1));
        }
    }
    code
}

/// The end of a test that returns nothing. Its code is always that of success.
pub fn passed(_: ExitCode) {}

/// Waits for the end of the body. Returns `None` if the limit has passed.
fn end_of(thread: JoinHandle<ExitCode>, limit: Option<Duration>) -> Option<ExitCode> {
    let ended = match limit {
        Some(limit) => crate::timeout(limit, || thread.join()).ok()?,
        None => thread.join(),
    };
    Some(ended.unwrap_or_else(|payload| {
        // The message of a panic was printed already.
        if let Some(exception) = payload.downcast_ref::<crate::Exception>() {
            eprintln!("ended by an exception that nobody has caught: {exception}");
        }
        resume_unwind(payload)
    }))
}
