//! One model: its settings, its search, and what it must have seen at the end.
//!
//! Settings of the environment: `LOOM_MAX_PREEMPTIONS` (2 if unset), `WEALD_LOOM_CAP_S`, the
//! seconds after which a search is TRUNCATED (600 if unset), and loom's own for checkpoints, logs
//! and locations. Those that would make loom stop early and say nothing have no effect.

use std::fmt::Debug;

/// As a bound ([`Model::bounded`]): no bound. Every order is explored. For the smallest models only.
pub const EXHAUSTIVE: usize = usize::MAX;

/// What a model promises about its own search.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(loom),
    allow(dead_code, reason = "a referee run has neither a bound nor a floor")
)]
pub struct Model {
    /// The name of the test.
    name: &'static str,
    /// The fewest permutations a search at bound 2 or above has; about half of what was measured,
    /// so that the model fails when a change has made the interesting orders unreachable.
    floor: u64,
    /// How many preemptions a permutation may have, if the model has a bound of its own.
    bound: Option<usize>,
    /// Names that [`witness!`](crate::witness) must have counted at least once in the whole search.
    witnesses: &'static [&'static str],
}

impl Model {
    /// A model that is searched at the run's bound.
    #[must_use]
    pub const fn new(name: &'static str, floor: u64, witnesses: &'static [&'static str]) -> Self {
        Self {
            name,
            floor,
            bound: None,
            witnesses,
        }
    }

    /// Gives the model a bound of its own, instead of the run's.
    #[must_use]
    pub const fn bounded(self, bound: usize) -> Self {
        Self {
            bound: Some(bound),
            ..self
        }
    }
}

/// Runs the scenario in every order that loom explores, and ends the process if one fails.
///
/// # Panics
///
/// Does not: a failed or truncated model prints its verdict and exits the process.
#[cfg(loom)]
pub fn check(model: Model, scenario: impl Fn() + Send + Sync + 'static) {
    checked::search(model, scenario);
}

/// Runs the scenario in every order that loom explores, and compares what it returned with the
/// expected outcomes: each must appear, and no other.
///
/// # Panics
///
/// Does not: a failed or truncated model prints its verdict and exits the process.
#[cfg(loom)]
pub fn check_outcomes<O: Clone + Debug + Ord + Send + 'static>(
    model: Model,
    expected: &[O],
    scenario: impl Fn() -> O + Send + Sync + 'static,
) {
    checked::search_outcomes(model, expected, scenario);
}

/// Runs the scenario some thousand times on OS threads.
///
/// # Panics
///
/// Panics if the scenario does.
#[cfg(not(loom))]
pub fn check(model: Model, scenario: impl Fn() + Send + Sync + 'static) {
    let _ = model;
    referee(scenario, |()| ());
}

/// Runs the scenario some thousand times on OS threads: no run may return what is not expected.
///
/// # Panics
///
/// Panics if the scenario does, or returns what is not expected.
#[cfg(not(loom))]
pub fn check_outcomes<O: Clone + Debug + Ord + Send + 'static>(
    model: Model,
    expected: &[O],
    scenario: impl Fn() -> O + Send + Sync + 'static,
) {
    referee(scenario, |outcome| {
        assert!(
            expected.contains(&outcome),
            "{}: {outcome:?} is forbidden",
            model.name
        );
    });
}

/// Runs the scenario on a fresh OS thread each time, as loom does. It runs so often that a missing fence was found in
/// trials, and not for much longer than a second.
#[cfg(not(loom))]
fn referee<O: Send>(scenario: impl Fn() -> O + Send + Sync, judge: impl Fn(O)) {
    const ENOUGH: std::time::Duration = std::time::Duration::from_secs(1);

    let runs: u32 =
        std::env::var("WEALD_REFEREE_RUNS").map_or(10_000, |runs| runs.parse().expect("a number"));
    let start = std::time::Instant::now();
    for _ in 0..runs {
        let outcome = std::thread::scope(|scope| scope.spawn(&scenario).join());
        judge(outcome.unwrap_or_else(|payload| std::panic::resume_unwind(payload)));
        if start.elapsed() > ENOUGH {
            return;
        }
    }
}

/// Reports a search that `weald::model` has made.
///
/// # Panics
///
/// Does not: with fewer permutations than its floor the model prints its verdict and exits the process.
#[cfg(loom)]
pub fn tell(model: Model, start: std::time::Instant, permutations: u64, bound: Option<usize>) {
    checked::tell(model, start, permutations, bound);
}

/// Ends the process with TRUNCATED if a search that `weald::model` makes has reached the cap; for each
/// permutation, with its number.
#[cfg(loom)]
pub fn keep_to_cap(model: Model, start: std::time::Instant, permutation: u64) {
    checked::keep_to_cap(&model, start, permutation);
}

#[cfg(loom)]
mod checked {
    use std::collections::BTreeSet;
    use std::fmt::Debug;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use super::{EXHAUSTIVE, Model};
    use crate::report::{self, Progress, Reason, Verdict};
    use crate::witness;

    /// The bound of the gate, and the one that floors are written for.
    const GATE_BOUND: usize = 2;

    /// Branches in one permutation, above which loom calls it a livelock. loom's own 1000 is too
    /// few for a scheduler; tokio has this number too.
    const MAX_BRANCHES: usize = 10_000;

    /// The exit status of a search that ran out of time.
    const EXIT_TRUNCATED: i32 = 102;

    /// Permutations between two looks at the clock; a power of two, some milliseconds of search.
    const CLOCK_INTERVAL: u64 = 256;

    pub(super) fn search(model: Model, scenario: impl Fn() + Send + Sync + 'static) {
        let progress = run(model, scenario);
        conclude(model, progress);
    }

    pub(super) fn search_outcomes<O: Clone + Debug + Ord + Send + 'static>(
        model: Model,
        expected: &[O],
        scenario: impl Fn() -> O + Send + Sync + 'static,
    ) {
        let expected: BTreeSet<O> = expected.iter().cloned().collect();
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let progress = run(model, {
            let seen = Arc::clone(&seen);
            move || {
                let outcome = scenario();
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(outcome);
            }
        });
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let missed: Vec<_> = expected.difference(&seen).collect();
        let forbidden: Vec<_> = seen.difference(&expected).collect();
        if !missed.is_empty() || !forbidden.is_empty() {
            let why = format!("outcomes missed: {missed:?}, forbidden ones seen: {forbidden:?}");
            report::failed(&progress, &[], &why);
        }
        conclude(model, progress);
    }

    pub(super) fn tell(model: Model, start: Instant, permutations: u64, bound: Option<usize>) {
        let progress = Progress {
            name: model.name,
            bound,
            start,
            permutation: permutations,
        };
        conclude(model, progress);
    }

    /// Searches to the end, and returns the number of permutations.
    fn run(model: Model, scenario: impl Fn() + Send + Sync + 'static) -> Progress {
        report::set_hook();
        witness::forget();

        let mut builder = loom::model::Builder::new();
        // With either of these loom returns early as if it had explored everything.
        builder.max_permutations = None;
        builder.max_duration = None;
        if std::env::var_os("LOOM_MAX_BRANCHES").is_none() {
            builder.max_branches = MAX_BRANCHES;
        }
        builder.preemption_bound = match model.bound {
            Some(EXHAUSTIVE) => None,
            Some(bound) => Some(bound),
            None => builder.preemption_bound.or(Some(GATE_BOUND)),
        };

        let mut progress = Progress {
            name: model.name,
            bound: builder.preemption_bound,
            start: Instant::now(),
            permutation: 0,
        };
        let cap = cap();
        let permutations = Arc::new(AtomicU64::new(0));
        let counted_scenario = {
            let permutations = Arc::clone(&permutations);
            move || {
                let permutation = permutations.fetch_add(1, Ordering::Relaxed) + 1;
                let now = Progress {
                    permutation,
                    ..progress
                };
                report::begin(now);
                end_at_cap(&now, cap);
                scenario();
            }
        };
        with_log(|| builder.check(counted_scenario));
        progress.permutation = permutations.load(Ordering::Relaxed);
        progress
    }

    pub(super) fn keep_to_cap(model: &Model, start: Instant, permutation: u64) {
        let now = Progress {
            name: model.name,
            bound: loom::model::Builder::new()
                .preemption_bound
                .or(Some(GATE_BOUND)),
            start,
            permutation,
        };
        end_at_cap(&now, cap());
    }

    fn end_at_cap(now: &Progress, cap: Duration) {
        if now.permutation.is_multiple_of(CLOCK_INTERVAL) && now.start.elapsed() >= cap {
            let why = format!("the cap of {} s", cap.as_secs());
            report::report(now, Verdict::Truncated, &[], Reason::Search(&why));
            std::process::exit(EXIT_TRUNCATED);
        }
    }

    /// Runs a search with loom's log, if `LOOM_LOG` asks for one.
    fn with_log(search: impl FnOnce()) {
        if std::env::var_os("LOOM_LOG").is_none() {
            return search();
        }
        let log = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_env("LOOM_LOG"))
            .without_time()
            .with_ansi(false)
            .finish();
        let _log = tracing_subscriber::util::SubscriberInitExt::set_default(log);
        search();
    }

    /// Checks a complete search: it must have seen enough.
    fn conclude(model: Model, progress: Progress) {
        let witnesses: Vec<(&str, u64)> = model
            .witnesses
            .iter()
            .map(|name| (*name, witness::sightings(name)))
            .collect();
        if let Some((name, _)) = witnesses.iter().find(|(_, count)| *count == 0) {
            report::failed(
                &progress,
                &witnesses,
                &format!("never saw the witness `{name}`"),
            );
        }
        // A floor is written for the gate. A replay begins in the middle, so it has none.
        let replay = std::env::var_os("LOOM_CHECKPOINT_FILE").is_some();
        let below_gate = progress.bound.is_some_and(|bound| bound < GATE_BOUND);
        if !replay && !below_gate && progress.permutation < model.floor {
            let why = format!("fewer permutations than the floor of {}", model.floor);
            report::failed(&progress, &witnesses, &why);
        }
        report::report(&progress, Verdict::Complete, &witnesses, Reason::None);
    }

    fn cap() -> Duration {
        let seconds = std::env::var("WEALD_LOOM_CAP_S").map_or(600, |cap| {
            cap.parse()
                .expect("WEALD_LOOM_CAP_S is a number of seconds")
        });
        Duration::from_secs(seconds)
    }
}
