//! Dumps and counters as JSON, for the page and for programs.
//!
//! However many green threads there are, the answer stays small: threads are told by groups, and of each group some members. Times are in
//! milliseconds. Addresses are texts, as JSON's numbers are not exact there.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use weald::{
    Awaited, Dump, DumpedGroup, DumpedThread, GreenThreadId, Latencies, Metrics, RuntimeHandle,
    WorkerMetrics,
};

use crate::calls::{self, Names};
use crate::process::Process;
use crate::watched::Dumped;

/// Groups of a runtime that are told.
const GROUPS: usize = 300;
/// Members of a group, and threads that wait for a lock, that are told.
const MEMBERS: usize = 25;
/// Workers that are told.
const WORKERS: usize = 128;
/// Locks and deadlocks that are told.
const LOCKS: usize = 100;

/// The same in each dump of this process.
fn key(group: &DumpedGroup<'_>) -> String {
    let mut hasher = DefaultHasher::new();
    (group.doing, group.what, group.trace).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn is_lock(what: Awaited) -> bool {
    matches!(
        what,
        Awaited::Mutex
            | Awaited::ReadLock
            | Awaited::WriteLock
            | Awaited::Semaphore
            | Awaited::Once
            | Awaited::Futex
    )
}

/// The threads of a dump, by their numbers.
struct Threads<'a>(HashMap<GreenThreadId, &'a DumpedThread>);

impl<'a> Threads<'a> {
    fn of(dump: &'a Dump) -> Self {
        let threads = dump.threads.iter();
        Self(threads.map(|thread| (thread.id, thread)).collect())
    }

    fn named(&self, id: GreenThreadId) -> Value {
        let name = self.0.get(&id).and_then(|thread| thread.name.as_deref());
        json!({ "id": id.as_u64(), "name": name })
    }

    /// A thread with what it waits for.
    fn told(&self, thread: &DumpedThread) -> Value {
        let waits = thread.waits_for.as_ref();
        json!({
            "id": thread.id.as_u64(),
            "name": thread.name,
            "doing": thread.doing.to_string(),
            "waited_ms": millis(thread.waited),
            "what": waits.map(|waits| waits.what.to_string()),
            "address": waits.and_then(|waits| address(waits.address)),
            "holder": waits.and_then(|waits| waits.holder).map(|id| self.named(id)),
            "holder_is_gone": waits.is_some_and(|waits| waits.holder_is_gone),
            "is_limited": waits.is_some_and(|waits| waits.is_limited),
            "others": waits.map_or(0, |waits| waits.others),
        })
    }
}

fn address(address: usize) -> Option<String> {
    (address != 0).then(|| format!("{address:#x}"))
}

fn millis(time: Option<Duration>) -> Option<u64> {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn group(group: &DumpedGroup<'_>, threads: &Threads<'_>, names: &Names) -> Value {
    let members = group.threads.iter().take(MEMBERS);
    json!({
        "key": key(group),
        "doing": group.doing.to_string(),
        "what": group.what.map(|what| what.to_string()),
        "is_lock": group.what.is_some_and(is_lock),
        "count": group.threads.len(),
        "longest_ms": millis(group.longest()),
        "shortest_ms": millis(group.shortest()),
        "trace": calls::told(&names.of(group.trace)),
        "threads": members.map(|thread| threads.told(thread)).collect::<Vec<_>>(),
    })
}

/// The locks that are waited for; those with the most waiters come first.
fn locks(dump: &Dump, threads: &Threads<'_>) -> Vec<Value> {
    let mut waiters: HashMap<(Awaited, usize), Vec<&DumpedThread>> = HashMap::new();
    for thread in &dump.threads {
        if let Some(waits) = &thread.waits_for
            && is_lock(waits.what)
            && waits.address != 0
        {
            let key = (waits.what, waits.address);
            waiters.entry(key).or_default().push(thread);
        }
    }
    let mut locks: Vec<_> = waiters.into_iter().collect();
    locks.sort_by_key(|(key, waiters)| (std::cmp::Reverse(waiters.len()), *key));
    let told = locks.iter().take(LOCKS).map(|((what, at), waiters)| {
        let waits = waiters
            .iter()
            .filter_map(|thread| thread.waits_for.as_ref());
        let holder = waits.clone().find_map(|waits| waits.holder);
        let longest = waiters.iter().filter_map(|thread| thread.waited).max();
        let some = waiters.iter().take(MEMBERS);
        json!({
            "what": what.to_string(),
            "address": address(*at),
            "holder": holder.map(|id| threads.named(id)),
            "holder_is_gone": waits.clone().any(|waits| waits.holder_is_gone),
            "readers": waits.clone().map(|waits| waits.readers).max(),
            "count": waiters.len(),
            "longest_ms": millis(longest),
            "threads": some.map(|thread| threads.named(thread.id)).collect::<Vec<_>>(),
        })
    });
    told.collect()
}

fn deadlocks(dump: &Dump, threads: &Threads<'_>, names: &Names) -> Vec<Value> {
    let told = dump.deadlocks.iter().take(LOCKS).map(|deadlock| {
        let known = deadlock.threads.iter().take(MEMBERS);
        let known = known.filter_map(|id| threads.0.get(id));
        let told = known.map(|thread| {
            let mut told = threads.told(thread);
            told["trace"] = calls::told(&names.of(&thread.trace));
            told
        });
        json!({
            "is_certain": deadlock.is_certain,
            "count": deadlock.threads.len(),
            "threads": told.collect::<Vec<_>>(),
        })
    });
    told.collect()
}

/// A runtime with its threads.
pub(crate) fn dump(dumped: &Dumped, names: &Names) -> Value {
    let Dumped { runtime, dump } = dumped;
    let threads = Threads::of(dump);
    let groups = dump.groups();
    let mut states: HashMap<String, usize> = HashMap::new();
    for thread in &dump.threads {
        *states.entry(thread.doing.to_string()).or_default() += 1;
    }
    let told = groups.iter().take(GROUPS);
    let mut all = head(runtime, &dump.metrics);
    all["uptime_ms"] = json!(millis(Some(dump.uptime)));
    all["stalled"] = json!(dump.stalled);
    all["states"] = json!(states);
    all["deadlocks"] = json!(deadlocks(dump, &threads, names));
    all["locks"] = json!(locks(dump, &threads));
    all["group_count"] = json!(groups.len());
    all["groups"] = told.map(|it| group(it, &threads, names)).collect();
    all
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Each worker's figures, in the order of their numbers.
fn workers(workers: &[WorkerMetrics]) -> Vec<Value> {
    let told = workers.iter().take(WORKERS).map(|worker| {
        json!({
            "index": worker.index,
            "busy_us": micros(worker.busy),
            "dispatches": worker.dispatches,
            "queued": worker.queued,
        })
    });
    told.collect()
}

/// How long threads waited for a worker, of all workers together: how many for each bound, in nanoseconds. The last bound is `null`.
fn latency(of: &Latencies) -> Value {
    let bound = |bound: Duration| match bound {
        Duration::MAX => None,
        bound => u64::try_from(bound.as_nanos()).ok(),
    };
    let nanos = |part| of.quantile(part).and_then(bound);
    json!({
        "bounds_ns": of.buckets().map(|(it, _)| bound(it)).collect::<Vec<_>>(),
        "counts": of.buckets().map(|(_, count)| count).collect::<Vec<_>>(),
        "p50_ns": nanos(0.5),
        "p99_ns": nanos(0.99),
    })
}

/// All workers' histograms of one kind.
pub(crate) fn merged(workers: &[WorkerMetrics], of: fn(&WorkerMetrics) -> &Latencies) -> Latencies {
    let mut all = Latencies::default();
    for worker in workers {
        all.merge(of(worker));
    }
    all
}

/// A runtime with its counters.
pub(crate) fn head(runtime: &RuntimeHandle, metrics: &Metrics) -> Value {
    let figures = runtime.worker_metrics().unwrap_or_default();
    json!({
        "workers": workers(&figures),
        "wake_latency": latency(&merged(&figures, |worker| &worker.wake_latency)),
        "start_latency": latency(&merged(&figures, |worker| &worker.start_latency)),
        "number": runtime.number(),
        "name": runtime.name(),
        "is_default": runtime.is_default(),
        "metrics": metrics,
    })
}

/// The answer around runtimes.
pub(crate) fn whole(runtimes: &[Value]) -> Value {
    let process = Process::read();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let program = std::env::args_os().next().unwrap_or_default();
    let program = std::path::Path::new(&program).file_name();
    json!({
        "time_ms": millis(now),
        "process": {
            "id": std::process::id(),
            "program": program.map(|name| name.to_string_lossy()),
            "cpu_seconds": process.cpu_seconds,
            "resident_bytes": process.resident_bytes,
            "virtual_bytes": process.virtual_bytes,
            "os_threads": process.os_threads,
            "open_fds": process.open_fds,
            "max_fds": process.max_fds,
        },
        "is_recording": weald::trace::is_on(),
        "runtimes": runtimes,
    })
}
