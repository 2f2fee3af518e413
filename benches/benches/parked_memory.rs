//! What does a parked green thread cost in memory, with 100,000 of them at once? Units: bytes of
//! resident memory and of page tables each; ns each to spawn and park them, and to wake and join.
//!
//! `cargo bench -p weald-benches --bench parked_memory`
//!
//! may cannot hold 100,000, so there is a row of 30,000 for it too.

mod rivals;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use weald_benches::{
    Case, Contestant, Lifetime, Memory, Metric, Role, answer, compare, memory, nanos_each,
    repetitions, unless_quick, weald_runtime,
};

/// The last thread that was counted may still be on its way into `park`.
const SETTLE: Duration = Duration::from_millis(50);

/// How often the root looks whether all have arrived. It sleeps in between: may runs nothing new
/// while a coroutine yields in a loop.
const STEP: Duration = Duration::from_millis(1);

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let case = |count: u64| Case {
        name: format!("{count} parked"),
        workers: 1,
        amount: count,
        metrics: vec![
            Metric::less("resident memory (bytes each)"),
            Metric::less("page tables (bytes each)"),
            Metric::less("spawn and park (ns each)"),
            Metric::less("wake and join (ns each)"),
        ],
        contestants: Contestant::ALL,
        lifetime: Lifetime::Repetition,
    };
    let million = unless_quick(Some(case(1_000_000)), None);
    let cases: Vec<Case> = [Some(case(100_000)), Some(case(30_000)), million]
        .into_iter()
        .flatten()
        .collect();
    compare(&cases, repetitions(3));
}

fn serve(role: &Role) -> ! {
    match role.contestant {
        Contestant::May => {
            rivals::may_start(role.workers);
            answer(|count| rivals::may_run(move || may_parked(count)))
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            rivals::tokio_run(&runtime, async {});
            answer(|count| rivals::tokio_run(&runtime, tokio_parked(count)))
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            runtime.run(|| ());
            answer(|count| runtime.run(|| weald_parked(count)))
        }
    }
}

/// Returns a table for the handles. All its pages are touched, so that it does not count.
fn touched<T>(count: u64) -> Vec<Option<T>> {
    (0..count).map(|_| None).collect()
}

/// The values of the case's metrics.
fn each(
    count: u64,
    (before, parked): (Memory, Memory),
    (spawn, wake): (Duration, Duration),
) -> Vec<f64> {
    // A nanosecond stands for a byte: the division is the same.
    let bytes = |before: u64, parked: u64| {
        nanos_each(Duration::from_nanos(parked.saturating_sub(before)), count)
    };
    vec![
        bytes(before.resident_bytes, parked.resident_bytes),
        bytes(before.page_table_bytes, parked.page_table_bytes),
        nanos_each(spawn, count),
        nanos_each(wake, count),
    ]
}

fn weald_parked(count: u64) -> Vec<f64> {
    let arrived = Arc::new(AtomicU64::new(0));
    let mut handles = touched(count);
    let before = memory();
    let start = Instant::now();
    for slot in &mut handles {
        let arrived = Arc::clone(&arrived);
        *slot = Some(weald::spawn(move || {
            arrived.fetch_add(1, Ordering::Relaxed);
            weald::park();
        }));
    }
    while arrived.load(Ordering::Relaxed) < count {
        weald::sleep(STEP);
    }
    let spawn = start.elapsed();
    weald::sleep(SETTLE);
    let parked = memory();
    let start = Instant::now();
    for handle in handles.iter().flatten() {
        handle.thread().unpark();
    }
    for handle in handles.into_iter().flatten() {
        handle.join().expect("a woken green thread ends well");
    }
    each(count, (before, parked), (spawn, start.elapsed()))
}

fn may_parked(count: u64) -> Vec<f64> {
    let arrived = Arc::new(AtomicU64::new(0));
    let mut handles = touched(count);
    let before = memory();
    let start = Instant::now();
    for slot in &mut handles {
        let arrived = Arc::clone(&arrived);
        *slot = Some(may::go!(move || {
            arrived.fetch_add(1, Ordering::Relaxed);
            may::coroutine::park();
        }));
    }
    while arrived.load(Ordering::Relaxed) < count {
        may::coroutine::sleep(STEP);
    }
    let spawn = start.elapsed();
    may::coroutine::sleep(SETTLE);
    let parked = memory();
    let start = Instant::now();
    for handle in handles.iter().flatten() {
        handle.coroutine().unpark();
    }
    for handle in handles.into_iter().flatten() {
        handle.join().expect("a woken coroutine ends well");
    }
    each(count, (before, parked), (spawn, start.elapsed()))
}

async fn tokio_parked(count: u64) -> Vec<f64> {
    let arrived = Arc::new(AtomicU64::new(0));
    let wake = Arc::new(Notify::new());
    let mut handles = touched(count);
    let before = memory();
    let start = Instant::now();
    for slot in &mut handles {
        let (arrived, wake) = (Arc::clone(&arrived), Arc::clone(&wake));
        *slot = Some(tokio::spawn(async move {
            // It hears `notify_waiters` from its creation on, so counting before the wait is safe.
            let woken = wake.notified();
            arrived.fetch_add(1, Ordering::Relaxed);
            woken.await;
        }));
    }
    while arrived.load(Ordering::Relaxed) < count {
        tokio::time::sleep(STEP).await;
    }
    let spawn = start.elapsed();
    tokio::time::sleep(SETTLE).await;
    let parked = memory();
    let start = Instant::now();
    wake.notify_waiters();
    for handle in handles.into_iter().flatten() {
        handle.await.expect("a woken task ends well");
    }
    each(count, (before, parked), (spawn, start.elapsed()))
}
