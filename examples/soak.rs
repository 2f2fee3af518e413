//! A soak: a crowd of green threads that do everything to each other, and counters that must agree.
//!
//! `cargo run --release -p weald-examples --features traces --bin soak -- --seconds 60`; `--help` has the other options.
//!
//! About once a second no operation may begin. When all operations that were begun have ended, every permit, message,
//! lock, timer, account, destructor and thread is counted. If nothing at all has happened for a minute, the program
//! tells which threads do not end, and the calls that they are in. The seed that is printed makes the same choices
//! again, though not in the same order.

#[path = "soak/actor.rs"]
mod actor;
#[path = "soak/counted.rs"]
mod counted;
#[path = "soak/random.rs"]
mod random;
#[path = "soak/traffic.rs"]
mod traffic;
#[path = "soak/world.rs"]
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weald::{Runtime, ThreadLocals};

use self::world::World;

const HELP: &str = "options: --threads N  --seconds N  --operations N (ends at either)  --rate N (operations a second)
         --seed N  --workers N  --mode own|pinned|shared";

/// The time between two counts.
const PERIOD: Duration = Duration::from_secs(1);

/// The options of a soak.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) threads: usize,
    pub(crate) limit: Duration,
    pub(crate) operations: u64,
    pub(crate) rate: u64,
    pub(crate) seed: u64,
    pub(crate) workers: Option<usize>,
    pub(crate) mode: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            threads: 100_000,
            limit: Duration::from_secs(60),
            operations: u64::MAX,
            rate: 20_000,
            seed: u64::from(now.unwrap_or_default().subsec_nanos()),
            workers: None,
            mode: None,
        }
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(name) = args.next() {
            let Some(value) = args.next() else {
                return Err(HELP.to_owned());
            };
            if name == "--mode" {
                options.mode = Some(value);
                continue;
            }
            let number: u64 = value
                .parse()
                .map_err(|error| format!("{name} {value}: {error}"))?;
            let size = usize::try_from(number).unwrap_or(usize::MAX);
            match &*name {
                "--threads" => options.threads = size.max(16),
                "--seconds" => options.limit = Duration::from_secs(number),
                "--operations" => options.operations = number,
                "--rate" => options.rate = number.max(1),
                "--seed" => options.seed = number,
                "--workers" => options.workers = Some(size),
                _ => return Err(HELP.to_owned()),
            }
        }
        Ok(options)
    }

    fn runtime(&self) -> Result<Runtime, String> {
        let mut builder = Runtime::builder().dump_on_sigquit(true);
        if let Some(workers) = self.workers {
            builder = builder.workers(workers);
        }
        builder = match self.mode.as_deref() {
            None => builder,
            Some("own") => builder.thread_locals(ThreadLocals::Own),
            Some("pinned") => builder.thread_locals(ThreadLocals::Pinned),
            #[allow(unsafe_code, reason = "the mode is unsafe to ask for")]
            // SAFETY: nothing here keeps a thread-local over a blocking call.
            Some("shared") => unsafe { builder.share_thread_locals() },
            Some(other) => return Err(format!("--mode {other}? {HELP}")),
        };
        builder.build().map_err(|error| error.to_string())
    }
}

fn main() -> ExitCode {
    let soaked = Options::parse(std::env::args().skip(1)).and_then(|options| soak(&options));
    match soaked {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the soak. The error tells what did not agree, or what is wrong with the options.
pub(crate) fn soak(options: &Options) -> Result<String, String> {
    let seed = options.seed;
    println!("soak: {} threads, --seed {seed}", options.threads);
    let rt = options.runtime()?;
    let world = rt
        .run(|| World::new(options))
        .map_err(|error| error.to_string())?;
    let failed = |fault: String| format!("--seed {seed}: {fault}");
    let counted = rt
        .run(|| count_each_second(&rt, options, &world))
        .map_err(failed)?;
    world.end();
    // The last count is made when no actor is left.
    rt.run(|| world.count(&rt)).map_err(failed)?;
    rt.run(|| world.close(&rt)).map_err(failed)?;
    if !rt.shutdown(world::PATIENCE) {
        return Err(failed(
            "shutdown had to kill a thread that nobody knows".to_owned(),
        ));
    }
    if world.channels_left() > 0 {
        return Err(failed("messages appeared after the end".to_owned()));
    }
    Ok(format!(
        "soak: {counted} counts agreed; {}",
        world.summary()
    ))
}

fn count_each_second(rt: &Runtime, options: &Options, world: &Arc<World>) -> Result<u64, String> {
    world.populate();
    let begun = Instant::now();
    let mut counts = 0;
    let mut before = 0;
    let is_over = || {
        begun.elapsed() >= options.limit
            || world.counts.operations.load(SeqCst) >= options.operations
    };
    while !is_over() {
        let until = Instant::now() + PERIOD;
        while Instant::now() < until && !is_over() {
            weald::sleep(Duration::from_millis(20));
        }
        world.gate.shut();
        world.count(rt)?;
        let now = world.counts.operations.load(SeqCst);
        let live = rt.metrics().live;
        println!(
            "{:6.1} s: {live} live, {} operations; {}",
            begun.elapsed().as_secs_f64(),
            now - before,
            world.summary()
        );
        before = now;
        counts += 1;
        world.gate.open();
    }
    Ok(counts)
}
