//! A case, its interleaved repetitions, its rows of the table, and its way to Criterion.

use std::fs;
use std::time::Duration;

use criterion::{Criterion, SamplingMode};

use crate::statistics::figure;
use crate::{Contestant, Process, Role, median, unless_quick};

/// How long a child may take for one answer. The slowest takes a few seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// One value that a case measures: a row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// What it is and its unit, such as `insert (ns)`.
    pub label: &'static str,
    /// Whether more is better, as for a rate.
    pub more_is_better: bool,
}

impl Metric {
    /// One of which less is better: a time, a size.
    pub const fn less(label: &'static str) -> Self {
        Self {
            label,
            more_is_better: false,
        }
    }

    /// One of which more is better: a rate.
    pub const fn more(label: &'static str) -> Self {
        Self {
            label,
            more_is_better: true,
        }
    }
}

/// Whether a contestant's process serves all repetitions of a case, or one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lifetime {
    /// All of them: the first question, a tenth of the amount, warms it up and is not counted.
    Case,
    /// One: for memory, for CPU time, for whatever a first run leaves behind.
    Repetition,
}

/// A question to all contestants.
#[derive(Clone, Debug)]
pub struct Case {
    /// Handed to the child, so that it knows what to measure.
    pub name: String,
    /// Workers of each contestant.
    pub workers: usize,
    /// How much one repetition measures: operations, green threads, milliseconds.
    pub amount: u64,
    /// The numbers that the child prints, in this order.
    pub metrics: Vec<Metric>,
    /// The contestants that take part. All others have an empty cell.
    pub contestants: &'static [Contestant],
    /// How long a process serves.
    pub lifetime: Lifetime,
}

impl Case {
    fn role(&self, contestant: Contestant) -> Role {
        Role {
            contestant,
            case: self.name.clone(),
            workers: self.workers,
        }
    }

    fn title(&self) -> String {
        let plural = if self.workers == 1 { "" } else { "s" };
        format!("{}, {} worker{plural}", self.name, self.workers)
    }
}

/// How often each contestant measures each case: `full`, or once in a smoke run.
pub fn repetitions(full: usize) -> usize {
    unless_quick(full, 1)
}

/// What a contestant said in all its repetitions, or why it failed.
type Outcome = Result<Vec<Vec<f64>>, String>;

/// Measures all cases, `repetitions` times interleaved, and prints the table.
pub fn compare(cases: &[Case], repetitions: usize) {
    let mut running: Vec<(Contestant, Process)> = Vec::new();
    let mut previous = None;
    compare_by(cases, repetitions, |case, contestant| {
        if case.lifetime == Lifetime::Repetition {
            return Process::start(&case.role(contestant), ANSWER_LIMIT)?.ask(case.amount);
        }
        let title = case.title();
        if previous.as_ref() != Some(&title) {
            running.clear();
            previous = Some(title);
        }
        if let Some((_, process)) = running.iter_mut().find(|(other, _)| *other == contestant) {
            return process.ask(case.amount);
        }
        let mut process = Process::start(&case.role(contestant), ANSWER_LIMIT)?;
        process.ask((case.amount / 10).max(1))?;
        let values = process.ask(case.amount);
        running.push((contestant, process));
        values
    });
}

/// As [`compare`], with a way of its own to take a sample.
pub fn compare_by(
    cases: &[Case],
    repetitions: usize,
    mut sample: impl FnMut(&Case, Contestant) -> Result<Vec<f64>, String>,
) {
    print_machine(repetitions);
    let mut results = Vec::new();
    for case in cases {
        eprintln!("measuring: {}", case.title());
        let mut outcomes: Vec<(Contestant, Outcome)> = case
            .contestants
            .iter()
            .map(|&contestant| (contestant, Ok(Vec::new())))
            .collect();
        for _ in 0..repetitions {
            for (contestant, outcome) in &mut outcomes {
                let Ok(samples) = outcome else {
                    continue;
                };
                match sample(case, *contestant) {
                    Ok(values) if values.len() == case.metrics.len() => samples.push(values),
                    Ok(values) => *outcome = Err(format!("{} values", values.len())),
                    Err(reason) => {
                        eprintln!("{}: {} fails: {reason}", case.title(), contestant.name());
                        *outcome = Err(reason);
                    }
                }
            }
        }
        results.push((case, outcomes));
    }
    print_table(&results);
    print_ratios(&results);
}

/// Gives the first metric of each case, which must be nanoseconds an operation, to Criterion.
///
/// A contestant that fails its trial is left out with a word.
///
/// # Panics
///
/// If a contestant fails after its trial: Criterion has no way to leave it out then.
pub fn criterion(cases: &[Case]) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(unless_quick(500, 50)))
        .measurement_time(Duration::from_millis(unless_quick(2000, 100)))
        .sample_size(unless_quick(20, 10))
        .configure_from_args();
    for case in cases {
        let mut group = criterion.benchmark_group(case.title());
        group.sampling_mode(SamplingMode::Flat);
        for &contestant in case.contestants {
            // A trial outside Criterion: a failure inside would be a panic in the middle of it.
            let trial =
                Process::start(&case.role(contestant), ANSWER_LIMIT).and_then(|mut process| {
                    process.ask(1)?;
                    Ok(process)
                });
            let mut process = match trial {
                Ok(process) => process,
                Err(reason) => {
                    println!("{}: {} skipped: {reason}", case.title(), contestant.name());
                    continue;
                }
            };
            group.bench_function(contestant.name(), |bencher| {
                bencher.iter_custom(|iterations| {
                    let values = process
                        .ask(iterations)
                        .expect("it answered the trial, so it answers here");
                    Duration::from_secs_f64(values[0] * crate::statistics::as_f64(iterations) / 1e9)
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

fn print_machine(repetitions: usize) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cpus} CPUs, Linux {}, load average before {}; medians [min-max] of {repetitions} \
         interleaved repetitions{}",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
        unless_quick(
            "",
            "; A SMOKE RUN (WEALD_BENCH_QUICK): the figures mean nothing"
        ),
    );
}

/// One column a contestant that takes part in any case; the four of every table always.
fn columns(results: &[(&Case, Vec<(Contestant, Outcome)>)]) -> Vec<Contestant> {
    let mut columns = Contestant::ALL.to_vec();
    for (contestant, _) in results.iter().flat_map(|(_, outcomes)| outcomes) {
        if !columns.contains(contestant) {
            columns.push(*contestant);
        }
    }
    columns
}

/// All values of one metric, `None` where the contestant failed or takes no part.
fn values(outcome: Option<&Outcome>, metric: usize) -> Option<Vec<f64>> {
    let samples = outcome?.as_ref().ok()?;
    Some(samples.iter().map(|sample| sample[metric]).collect())
}

fn find(outcomes: &[(Contestant, Outcome)], contestant: Contestant) -> Option<&Outcome> {
    outcomes
        .iter()
        .find(|(other, _)| *other == contestant)
        .map(|(_, outcome)| outcome)
}

fn cell(outcome: Option<&Outcome>, metric: usize) -> String {
    match (outcome, values(outcome, metric)) {
        (None, _) => String::new(),
        (Some(_), None) => "**fails**".into(),
        (Some(_), Some(all)) if all.len() < 2 => figure(median(&all)),
        (Some(_), Some(all)) => format!(
            "{} [{}-{}]",
            figure(median(&all)),
            figure(all.iter().copied().fold(f64::INFINITY, f64::min)),
            figure(all.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        ),
    }
}

fn print_table(results: &[(&Case, Vec<(Contestant, Outcome)>)]) {
    let columns = columns(results);
    let names: Vec<&str> = columns.iter().map(|contestant| contestant.name()).collect();
    println!("\n| question | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(columns.len()));
    for (case, outcomes) in results {
        for (index, metric) in case.metrics.iter().enumerate() {
            let cells: Vec<String> = columns
                .iter()
                .map(|&contestant| cell(find(outcomes, contestant), index))
                .collect();
            println!(
                "| {}: {} | {} |",
                case.title(),
                metric.label,
                cells.join(" | ")
            );
        }
    }
    for (case, outcomes) in results {
        for (contestant, outcome) in outcomes {
            if let Err(reason) = outcome {
                println!("\n{}: {} fails: {reason}", case.title(), contestant.name());
            }
        }
    }
}

/// How many times better `weald shared` is than each other; above 1: weald is ahead.
fn print_ratios(results: &[(&Case, Vec<(Contestant, Outcome)>)]) {
    println!("\nweald shared is so many times better than (from the medians above):");
    for (case, outcomes) in results {
        for (index, metric) in case.metrics.iter().enumerate() {
            let Some(ours) = values(find(outcomes, Contestant::WealdShared), index) else {
                continue;
            };
            let ratios: Vec<String> = outcomes
                .iter()
                .filter(|(contestant, _)| *contestant != Contestant::WealdShared)
                .filter_map(|(contestant, outcome)| {
                    let theirs = median(&values(Some(outcome), index)?);
                    let ratio = if metric.more_is_better {
                        median(&ours) / theirs
                    } else {
                        theirs / median(&ours)
                    };
                    Some(format!("{} x{}", contestant.name(), figure(ratio)))
                })
                .collect();
            if !ratios.is_empty() {
                println!(
                    "  {}: {}: {}",
                    case.title(),
                    metric.label,
                    ratios.join(", ")
                );
            }
        }
    }
}
