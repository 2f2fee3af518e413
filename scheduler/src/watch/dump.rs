//! `dump`: the green threads of a runtime and what each one does, for a person who asks why nothing goes on.
//!
//! `snapshot.rs` takes what is known without stacks, this file adds traces and conclusions, `text.rs` makes text of it.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::metrics::Metrics;
use super::references::References;
use super::snapshot::{Holder, Seen, Snapshot};
use crate::engine::inner::Inner;
use crate::engine::worker::millis_since;
use crate::green::awaited::Awaited;
use crate::green::id::GreenThreadId;
use crate::green::trace::{Trace, Tracer};
use crate::shim::atomic::Ordering;
use crate::shim::clock;

/// What a green thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doing {
    /// It runs on an OS thread.
    Runs,
    /// It waits for an OS thread to run on.
    Ready,
    /// It waits in [`park`](crate::park) or [`park_timeout`](crate::park_timeout).
    Parks,
    /// It waits for something else: a time, a descriptor, a lock, a channel, another thread's end.
    Waits,
    /// It blocks its OS thread: it waits inside of [`blocking`](crate::blocking()), or in a call of the system's.
    Blocks,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Runs => "runs",
            Self::Ready => "ready",
            Self::Parks => "parks",
            Self::Waits => "waits",
            Self::Blocks => "blocks",
        })
    }
}

/// What a green thread waits for; see [`DumpedThread::waits_for`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitsFor {
    /// Of which kind that is.
    pub what: Awaited,
    /// Where it lies: threads with the same kind and address wait for the same lock, channel and so on. A lock's
    /// address is in the lock's own memory. 0: it has none, or none is known.
    pub address: usize,
    /// The green thread that has the lock, runs the closure of the `Once`, or is to end; of an `RwLock` without a writer one that
    /// reads it. `None`: it is an OS thread, or has taken the
    /// lock by a `try_` method, or is gone ([`holder_is_gone`](Self::holder_is_gone)), or nothing is known.
    pub holder: Option<GreenThreadId>,
    /// A green thread has the lock that has ended, so it never let go of it; or one of another runtime.
    pub holder_is_gone: bool,
    /// How many green and OS threads read the `RwLock` that it waits for.
    pub readers: usize,
    /// How many senders there are of the channel that it waits for a message of; or how many receivers of the channel that it waits
    /// for room in; or how many members of the `WaitGroup`.
    pub others: usize,
    /// The wait ends by itself at some time: it has a time-out; or the thread is inside of [`timeout`](crate::timeout()), or a child of a
    /// [`group`](crate::group()) that is.
    pub is_limited: bool,
}

/// One green thread, as [`dump`](crate::dump()) saw it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DumpedThread {
    /// Its number.
    pub id: GreenThreadId,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// What it did.
    pub doing: Doing,
    /// For how long it has waited, if it waits; exact to the time that its worker takes for some 60
    /// other threads, since it asks for the time only so often.
    pub waited: Option<Duration>,
    /// What it waits for, if it waits.
    pub waits_for: Option<WaitsFor>,
    /// The calls that it is in, if it waits: the first ones say what for.
    pub trace: Trace,
    /// The number of its wait.
    pub(super) epoch: Option<u32>,
}

/// Green threads that wait for each other for ever; from [`Dump::deadlocks`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadlock {
    /// If it is certain each waits for the next, the last one for the first; else each waits for some of the others.
    pub threads: Vec<GreenThreadId>,
    /// True: each waits, without a limit, for a lock of [`weald::sync`](https://docs.rs/weald/latest/weald/sync) that the next one
    /// has, or for its end. Only an exception can still end that, a kill for instance.
    ///
    /// False: it looks so. A channel or a `WaitGroup` is among what they wait for, and it has no more senders, receivers or members than there are other green
    /// threads that wait with a reference to it on their stacks: these are stuck as well. Or a reader of an `RwLock` waits for it behind a
    /// writer that waits for that reader.
    pub is_certain: bool,
}

/// The green threads of a runtime; from [`dump`](crate::dump()).
///
/// Its `Display` begins with a line on the runtime and with [deadlocks](Self::deadlocks), thread by thread. Then come the others by groups:
/// those that wait for the same kind of thing in the same place, with their number, the longest and the shortest wait, some names,
/// and the calls that led there; locks first, then the largest. However many threads there are, the text has 200 lines at most;
/// `{:#}` writes all of it.
///
/// # As data
/// The fields, [`groups`](Self::groups) and [`Trace::frames`] have all of it. With the feature `serde` a dump can be serialized:
/// ```json
/// {
///   "runtime": "weald", "taken": "2026-12-01T00:13:10.216Z", "uptime_seconds": 1.2, "stalled": null,
///   "metrics": { "workers": 2, "live": 4, "parked": 3 },
///   "deadlocks": [{ "is_certain": true, "threads": [2, 3] }],
///   "groups": [{
///     "doing": "waits", "what": "mutex", "count": 2, "longest_seconds": 1.104, "shortest_seconds": 1.1, "threads": [2, 3],
///     "trace": [{ "address": "0x55d0", "function": "server::rebalance", "file": "src/main.rs", "line": 41 }]
///   }],
///   "threads": [{
///     "id": 2, "name": "lease", "doing": "waits", "waited_seconds": 1.104, "group": 0,
///     "waits_for": {
///       "what": "mutex", "address": "0x7f2c08000d40", "holder": 3, "holder_is_gone": false,
///       "readers": 0, "others": 0, "is_limited": false
///     }
///   }]
/// }
/// ```
/// `metrics` has all fields of [`Metrics`] by their names. `what` is an [`Awaited::name`], `doing` the [`Doing`] in lower case, `group` an
/// index into `groups`. What is not known is `null`. Later versions may add fields; they rename none.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Dump {
    /// The runtime's name.
    pub runtime: String,
    /// When it was taken.
    pub taken: Option<SystemTime>,
    /// For how long the runtime had run then.
    pub uptime: Duration,
    /// The runtime's counters then.
    pub metrics: Metrics,
    /// In no order.
    pub threads: Vec<DumpedThread>,
    /// Those that wait for each other.
    pub deadlocks: Vec<Deadlock>,
    /// If workers stand still, as there is no OS thread to take them over from green threads that block
    /// or compute: how many, and why. If green threads wait to enter [`blocking`](crate::blocking()), as the bound of such calls is
    /// reached: how many, and the bound.
    pub stalled: Option<String>,
}

/// What there is to say of workers that stand still, and of green threads that wait for others to come back from
/// `blocking`.
fn stalled(inner: &Inner) -> Option<String> {
    let stalled = inner.monitor.stalled.load(Ordering::Relaxed);
    let workers = (stalled > 0).then(|| {
        let why = inner.seats.shortage().map_or_else(
            || String::from("an OS thread is there now"),
            |why| why.to_string(),
        );
        format!(
            "{stalled} of {} workers stand still: {why}",
            inner.idle.workers()
        )
    });
    let waiting = inner.blocking.waiting();
    let calls = (waiting > 0).then(|| {
        let spares = inner.settings.spares;
        format!(
            "{waiting} green threads wait to enter `blocking`: {spares} such calls run (RuntimeBuilder::spare_threads)"
        )
    });
    match (workers, calls) {
        (Some(workers), Some(calls)) => Some(format!("{workers}\n{calls}")),
        (workers, calls) => workers.or(calls),
    }
}

pub(crate) fn of(inner: &Inner) -> Dump {
    let mut tracer = Tracer::new();
    let snapshot = Snapshot::take(inner, &tracer);
    let now = millis_since(inner.start, clock::now());
    let mut references = References::new(&snapshot);
    let threads: Vec<DumpedThread> = snapshot
        .threads
        .iter()
        .enumerate()
        .map(|(index, seen)| dumped(&snapshot, index, seen, now, &mut tracer, &mut references))
        .collect();
    let mut deadlocks: Vec<Deadlock> = Vec::new();
    let mut known = vec![false; threads.len()];
    let kinds = [
        (true, snapshot.certain_circles()),
        (false, references.likely_circles(&snapshot)),
    ];
    for (is_certain, circles) in kinds {
        for circle in circles {
            if circle.iter().any(|&thread| known[thread]) {
                continue;
            }
            for &thread in &circle {
                known[thread] = true;
            }
            deadlocks.push(Deadlock {
                threads: circle.iter().map(|&thread| threads[thread].id).collect(),
                is_certain,
            });
        }
    }
    Dump {
        runtime: inner.settings.name.clone(),
        taken: Some(SystemTime::now()),
        uptime: clock::now().saturating_duration_since(inner.start),
        metrics: Metrics::of(inner),
        threads,
        deadlocks,
        stalled: stalled(inner),
    }
}

fn dumped(
    snapshot: &Snapshot,
    index: usize,
    seen: &Seen,
    now: usize,
    tracer: &mut Tracer,
    references: &mut References,
) -> DumpedThread {
    let header = &seen.task;
    let mut trace = Trace::default();
    let mut doing = match (&seen.wait, seen.runs_on) {
        (Some(wait), _) if wait.kind.in_place && header.runs_on_carriers() => Doing::Blocks,
        (Some(wait), _) if wait.kind.by_token => Doing::Parks,
        (Some(_), _) => Doing::Waits,
        (None, Some(_)) => Doing::Runs,
        (None, None) => Doing::Ready,
    };
    if seen.wait.is_some() {
        trace = tracer.take(header);
        if snapshot.still_waits(index) {
            references.note(index, tracer.words());
        } else {
            // It has gone on meanwhile, and may wait somewhere else.
            trace = Trace::default();
        }
    } else if let Some(os_thread) = seen.runs_on.filter(|&os_thread| os_thread != 0)
        && let Some(blocked) = tracer.take_blocked(os_thread, header)
        && header.state.parked().is_none()
        && !blocked.is_empty()
    {
        (doing, trace) = (Doing::Blocks, blocked);
    }
    let id_of = |thread: usize| snapshot.threads[thread].task.id;
    let is_lock = seen
        .wait
        .as_ref()
        .is_some_and(|wait| matches!(wait.on.what(), Awaited::ReadLock | Awaited::WriteLock));
    let waits_for = seen.wait.as_ref().map(|wait| WaitsFor {
        what: wait.on.what(),
        address: wait.on.address(),
        holder: match wait.holder {
            Holder::Thread(holder) => Some(id_of(holder)),
            Holder::Unknown | Holder::Gone => None,
        },
        holder_is_gone: wait.holder == Holder::Gone,
        readers: if is_lock { wait.count } else { 0 },
        others: if is_lock { 0 } else { wait.count },
        is_limited: wait.on.is_limited(),
    });
    let waited = |header: &crate::green::green_thread::Header| {
        let millis = now.saturating_sub(header.left_at.time());
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    };
    DumpedThread {
        id: header.id,
        name: header.name().map(str::to_string),
        doing,
        waited: seen.wait.as_ref().map(|_| waited(header)),
        waits_for,
        trace,
        epoch: seen.wait.as_ref().map(|wait| wait.epoch),
    }
}
