//! Model checks of programs: every interleaving of a small program of green threads.
//!
//! It exists only under `--cfg loom`; `docs/model.md` is the chapter about it. The program runs on a thin runtime.
//! There each green thread is one of loom's threads, and the code that waits is the same that ships.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::panic::{Location, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use weald_scheduler::thin;

/// The preemptions in one interleaving if `LOOM_MAX_PREEMPTIONS` is not set: most bugs need two.
const BOUND: usize = 2;

/// If an interleaving has more steps than this, it counts as endless, if `LOOM_MAX_BRANCHES` is not set.
const MAX_STEPS: usize = 10_000;

/// How long a search may take, if `WEALD_MODEL_SECONDS` is not set.
const SECONDS: u64 = 600;

/// The result of a search that has ended and found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explored {
    /// How many interleavings there are.
    pub interleavings: u64,
    /// The bound on preemptions; `None` if there is none.
    pub bound: Option<usize>,
}

/// A fault in an interleaving. Its `Display` is the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    interleaving: u64,
    report: String,
}

impl Failure {
    /// Returns which interleaving failed. They are counted from 1, and their order is the same each time.
    pub fn interleaving(&self) -> u64 {
        self.interleaving
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in interleaving {}: {}", self.interleaving, self.report)
    }
}

impl Error for Failure {}

/// Runs `program` in every interleaving, and panics if one fails. See [`check`].
///
/// # Panics
/// If an interleaving fails. The message is the report of the first one.
#[track_caller]
pub fn model<F>(program: F)
where
    F: Fn() + Send + Sync + 'static,
{
    if let Err(failure) = check(program) {
        panic!("{failure}");
    }
}

/// Runs `program` in every interleaving of its green threads. Returns how many there are, or the fault of the first
/// one that fails: the first thread panics, another thread panics and is not joined, no thread can go on, a thread
/// goes on without end, or the search takes too long.
///
/// # Errors
/// The first interleaving that fails. The OS thread that ran it is kept for ever.
///
/// # Panics
/// If an OS thread for the search cannot be started.
pub fn check<F>(program: F) -> Result<Explored, Failure>
where
    F: Fn() + Send + Sync + 'static,
{
    set_hook();
    let (tell, told) = mpsc::channel();
    std::thread::Builder::new()
        .name("weald-model".to_string())
        .spawn(move || search(tell, program))
        .expect("an OS thread for the search");
    told.recv().unwrap_or_else(|_| {
        Err(Failure {
            interleaving: 0,
            report: "the search itself has panicked".to_string(),
        })
    })
}

/// Names a value for the reports of a [`model`]. If a thread waits for something that lies inside the value (a mutex,
/// say), the report shows that name. Memory that the value has allocated is not inside.
pub fn name<T: ?Sized>(value: &T, name: impl Into<String>) {
    thin::name(value, name.into());
}

/// What the hook needs on the OS thread of a search.
struct Search {
    tell: Sender<Result<Explored, Failure>>,
    interleaving: Arc<AtomicU64>,
}

thread_local! {
    static SEARCH: RefCell<Option<Search>> = const { RefCell::new(None) };
}

fn search<F>(tell: Sender<Result<Explored, Failure>>, program: F)
where
    F: Fn() + Send + Sync + 'static,
{
    let interleaving = Arc::new(AtomicU64::new(0));
    SEARCH.set(Some(Search {
        tell: tell.clone(),
        interleaving: Arc::clone(&interleaving),
    }));
    let mut builder = loom::model::Builder::new();
    // With either of these loom would end early without saying so.
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.preemption_bound = builder.preemption_bound.or(Some(BOUND));
    if std::env::var_os("LOOM_MAX_BRANCHES").is_none() {
        builder.max_branches = MAX_STEPS;
    }
    let bound = builder.preemption_bound;
    let limit = std::env::var("WEALD_MODEL_SECONDS").map_or(SECONDS, |seconds| {
        seconds
            .parse()
            .expect("WEALD_MODEL_SECONDS is a number of seconds")
    });
    let start = Instant::now();
    let count = Arc::clone(&interleaving);
    let program = Arc::new(program);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        if start.elapsed() > Duration::from_secs(limit) {
            fail(&format!(
                "after {limit} s the search was not done, so nothing is known: make the program \
                 smaller, or allow more by WEALD_MODEL_SECONDS"
            ));
        }
        let program = Arc::clone(&program);
        if let Err(payload) = thin::run(move || program()) {
            let said = thin::panics();
            let text = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "the first thread has unwound".to_string());
            fail(&if said.is_empty() {
                text
            } else {
                said.join("\n  ")
            });
        }
    });
    let interleavings = interleaving.load(Ordering::Relaxed);
    // Nobody may be waiting any more.
    let _ = tell.send(Ok(Explored {
        interleavings,
        bound,
    }));
}

/// Tells the failure of the current interleaving.
fn tell(report: &str) {
    SEARCH.with_borrow(|search| {
        if let Some(search) = search {
            // The first failure counts; nobody waits for another one.
            let _ = search.tell.send(Err(Failure {
                interleaving: search.interleaving.load(Ordering::Relaxed),
                report: report.trim_end().to_string(),
            }));
        }
    });
}

/// Reports as `tell` does, then stops the OS thread where it is. Unwinding through loom's threads would run
/// destructors that need threads which cannot go on.
fn fail(report: &str) -> ! {
    tell(report);
    loop {
        std::thread::park();
    }
}

/// Sets a panic hook that reports panics on the OS thread of a search. All other panics go to the hook that was there
/// before.
fn set_hook() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let in_search = SEARCH
                .try_with(|search| search.try_borrow().is_ok_and(|search| search.is_some()))
                .unwrap_or(false);
            if !in_search {
                others(info);
            } else if info.location().is_some_and(is_looms) {
                tell(&tell_looms(&said(info)));
                // The thread does not stop here: to set a panic hook, another thread waits until this one has
                // returned.
                thin::doom();
            } else {
                let place = info
                    .location()
                    .map_or_else(String::new, |at| format!(", at {at}"));
                let text = format!("{}{place}", said(info));
                if !thin::panicked(&text) {
                    tell(&text);
                }
            }
        }));
    });
}

/// Tells if a panic is loom's own. loom reports its findings by a panic, after which nothing can go on.
fn is_looms(at: &Location<'_>) -> bool {
    at.file().contains("loom") && at.file().contains("src/rt/")
}

fn said(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string())
}

fn tell_looms(said: &str) -> String {
    let threads = thin::report();
    if said.starts_with("deadlock") {
        format!("deadlock: nobody can go on\n{threads}")
    } else if said.contains("maximum number of branches") {
        format!("no end after so many steps: somebody goes on for ever\n{threads}")
    } else {
        format!("{said}\n{threads}")
    }
}
