//! Crowds: the whole scheduler in shuttle's tasks, 10 to 50 green threads on three workers, in random
//! orders. loom tries *all* orders of a few steps; this tries some orders of many.
//!
//! What runs is what loom looks at: production code under `--cfg loom`, with the shim's and the deque's
//! doubles, but the crate named `loom` (`loom/`) is a thin layer over shuttle. Green threads are real
//! coroutines inside of shuttle's tasks. All is sequentially consistent here: a missing fence is not
//! seen. The clock stands still unless somebody waits until a limit, so a limit may pass at any time.
//!
//! | variable | meaning |
//! |---|---|
//! | `WEALD_SHUTTLE_ROUNDS` | schedules of each crowd by each of the two schedulers (50) |
//! | `WEALD_SHUTTLE_SEED` | the seed of the first; the n-th has n more (0) |
//!
//! A crowd that fails says its seed; with that and one round it does the same again.
#![cfg(loom)]

use std::cell::Cell;
use std::sync::Once;
use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// The exit status of a crowd that failed, as of any panicking Rust program.
const EXIT_FAILED: i32 = 101;

/// Steps of a schedule, above which nobody seems to come to an end.
const MAX_STEPS: usize = 3_000_000;

/// Points of a schedule at which the priorities change. The bug depth that is sought, by K. Burckhardt
/// et al., "A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010.
const DEPTH: usize = 5;

/// The scheduler of a schedule.
#[derive(Clone, Copy, Debug)]
enum By {
    Random,
    Pct,
}

std::thread_local! {
    static NOW: Cell<Option<(&'static str, By, u64)>> = const { Cell::new(None) };
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|error| panic!("{variable} {value}: {error}"))
    })
}

/// Runs the crowd in as many orders as are asked for. A failure ends the process.
///
/// # Panics
/// If a variable is no number.
pub fn check(name: &'static str, crowd: fn()) {
    tell_seeds();
    let first = number("WEALD_SHUTTLE_SEED", 0);
    let rounds = number("WEALD_SHUTTLE_ROUNDS", 50);
    let start = Instant::now();
    for seed in first..first + rounds {
        for by in [By::Random, By::Pct] {
            NOW.set(Some((name, by, seed)));
            match by {
                By::Random => run(RandomScheduler::new_from_seed(seed, 1), crowd),
                By::Pct => run(PctScheduler::new_from_seed(seed, DEPTH, 1), crowd),
            }
        }
    }
    NOW.set(None);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "@crowd {name} schedules={} seconds={seconds:.2}",
        2 * rounds
    );
}

/// Lets a task that unwinds go on alone, as std's count of panics is one for all tasks: others would
/// believe that it is they who unwind. If it waits for a lock, who has that comes next.
#[derive(Debug)]
struct UnwindAlone<S> {
    inner: S,
    unwinds: Option<TaskId>,
}

impl<S: Scheduler> Scheduler for UnwindAlone<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.inner.new_execution()
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        yields: bool,
    ) -> Option<TaskId> {
        if std::thread::panicking() {
            self.unwinds = self.unwinds.or(current);
            let can_run = |id: &TaskId| runnable.iter().any(|task| task.id() == *id);
            let next = self.unwinds.filter(can_run);
            if let Some(next) = next.or_else(|| loom::sync::awaited().filter(can_run)) {
                return Some(next);
            }
        } else {
            self.unwinds = None;
        }
        self.inner.next_task(runnable, current, yields)
    }

    fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }
}

fn run(scheduler: impl Scheduler + 'static, crowd: fn()) {
    let mut config = Config::new();
    config.stack_size = 1 << 19;
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    let scheduler = UnwindAlone {
        inner: scheduler,
        unwinds: None,
    };
    Runner::new(scheduler, config).run(crowd);
}

/// What a thread of a crowd unwinds with where that is to be caught. By `resume_unwind`, as a panic would
/// be told by shuttle.
#[derive(Debug)]
pub struct Deliberate;

/// Makes a panic tell the seed and end the process: to unwind through shuttle's tasks would run
/// destructors that need others, which cannot go on.
fn tell_seeds() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let harness = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // What a scope does whose thread has unwound.
            let said = info.payload().downcast_ref::<&str>();
            if said == Some(&"a scoped green thread panicked") {
                return;
            }
            harness(info);
            if let Some((name, by, seed)) = NOW.get() {
                println!(
                    "\n@crowd {name} FAILED by={by:?}: WEALD_SHUTTLE_SEED={seed} WEALD_SHUTTLE_ROUNDS=1"
                );
                std::process::exit(EXIT_FAILED);
            }
        }));
    });
}

/// Random choices, which are part of the schedule.
pub mod random {
    use shuttle::rand::{Rng, thread_rng};

    /// Less than the bound.
    #[must_use]
    pub fn below(bound: usize) -> usize {
        thread_rng().gen_range(0..bound)
    }

    /// True in one case of so many.
    #[must_use]
    pub fn one_in(chances: usize) -> bool {
        below(chances) == 0
    }
}
