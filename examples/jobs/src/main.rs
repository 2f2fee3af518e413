//! The program: adds jobs, works, or shows how far the work is. Settings come from the environment: see the README.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::process::{self, ExitCode};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weald_jobs::{Job, Store, Worker, store, watch};

/// How long jobs may go on after SIGTERM or Ctrl-C.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jobs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    // From now on std's sockets suspend green threads instead of OS threads.
    weald_patch::all()?;
    let url: String = setting("REDIS_URL", "redis://127.0.0.1:6379/".to_owned())?;
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["add", count] => {
            let store = Store::new(&url, "add")?;
            let count: u64 = count.parse().map_err(|error| format!("{count}: {error}"))?;
            Ok(store
                .ask(|redis| (0..count).try_for_each(|n| store::add(redis, &job(n)).map(drop)))?)
        }
        ["work"] => work(&url),
        ["watch"] => {
            watch(&Store::new(&url, "watch")?);
            Ok(())
        }
        _ => Err("usage: jobs add COUNT | jobs work | jobs watch".into()),
    }
}

/// Half of the jobs wait, half of them compute.
fn job(n: u64) -> Job {
    if n % 2 == 0 {
        Job::Wait {
            milliseconds: 50 + n * 37 % 200,
        }
    } else {
        Job::Primes {
            most: 20_000 + n * 131 % 20_000,
        }
    }
}

fn work(url: &str) -> Result<(), Box<dyn Error>> {
    let seats: usize = setting("SEATS", 100)?;
    let dead: u64 = setting("DEAD_SECONDS", 10)?;
    if seats == 0 || dead < 2 {
        return Err("SEATS must be 1 at least, DEAD_SECONDS 2".into());
    }
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // Names of dead workers must not come again.
    let name = format!(
        "{}-{}-{}",
        host.trim(),
        process::id(),
        since_1970.as_millis()
    );
    let name = setting("WORKER_NAME", name)?;
    let worker = Worker::new(Store::new(url, &name)?, seats, Duration::from_secs(dead));
    let worker = Arc::new(worker);
    let ends = Arc::clone(&worker);
    let signals = weald::signal::Signals::new([
        weald::signal::Signal::SIGTERM,
        weald::signal::Signal::SIGINT,
    ])?;
    weald::spawn(move || {
        if let Ok(signal) = signals.recv() {
            eprintln!("{name}: {signal}: no more jobs are taken");
            ends.end();
        }
        // A second signal ends the grace.
        let _ = weald::timeout(GRACE, || signals.recv());
        eprintln!("{name}: jobs are left to other workers");
        process::exit(1);
    });
    // In a green thread: a signal breaks off what the main thread waits for.
    let works = weald::spawn(move || worker.work());
    works.join().map_err(|_| "the worker has panicked".into())
}

/// Reads a setting from the environment.
fn setting<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, String> {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|error| format!("{name}={text}: {error}")),
        Err(_) => Ok(default),
    }
}
