//! What does one `yield_now` cost among 1000 green threads on one worker? Unit: ns a yield.
//!
//! `cargo bench -p weald-benches --bench yield_now`

mod rivals;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, criterion, nanos_each, repetitions,
    unless_quick, weald_runtime,
};

const GREEN_THREADS: u64 = 1000;

/// Fewer rounds would measure the start and the end, not the yield.
const ROUNDS_AT_LEAST: u64 = 20;

/// How often the root looks whether all have arrived.
const STEP: Duration = Duration::from_millis(1);

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let cases = [Case {
        name: "yield among 1000".into(),
        workers: 1,
        amount: unless_quick(3_000_000, 100_000),
        metrics: vec![Metric::less("yield (ns)")],
        contestants: Contestant::ALL,
        lifetime: Lifetime::Case,
    }];
    criterion(&cases);
    compare(&cases, repetitions(9));
}

fn serve(role: &Role) -> ! {
    match role.contestant {
        Contestant::May => {
            rivals::may_start(role.workers);
            answer(|amount| vec![rivals::may_run(move || may_yields(amount))])
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            answer(|amount| vec![rivals::tokio_run(&runtime, tokio_yields(amount))])
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            answer(|amount| vec![runtime.run(|| weald_yields(amount))])
        }
    }
}

fn rounds(amount: u64) -> u64 {
    (amount / GREEN_THREADS).max(ROUNDS_AT_LEAST)
}

// All park at the start, and the clock runs from before the first is woken. The root sleeps until the
// last one is there: may runs nothing new while a coroutine yields in a loop.

fn weald_yields(amount: u64) -> f64 {
    let rounds = rounds(amount);
    let arrived = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..GREEN_THREADS)
        .map(|_| {
            let arrived = Arc::clone(&arrived);
            weald::spawn(move || {
                arrived.fetch_add(1, Ordering::Relaxed);
                weald::park();
                for _ in 0..rounds {
                    weald::yield_now();
                }
            })
        })
        .collect();
    while arrived.load(Ordering::Relaxed) < GREEN_THREADS {
        weald::sleep(STEP);
    }
    let start = Instant::now();
    for thread in &threads {
        thread.thread().unpark();
    }
    for thread in threads {
        thread.join().expect("a yielding green thread ends well");
    }
    nanos_each(start.elapsed(), rounds * GREEN_THREADS)
}

fn may_yields(amount: u64) -> f64 {
    let rounds = rounds(amount);
    let arrived = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..GREEN_THREADS)
        .map(|_| {
            let arrived = Arc::clone(&arrived);
            may::go!(move || {
                arrived.fetch_add(1, Ordering::Relaxed);
                may::coroutine::park();
                for _ in 0..rounds {
                    may::coroutine::yield_now();
                }
            })
        })
        .collect();
    while arrived.load(Ordering::Relaxed) < GREEN_THREADS {
        may::coroutine::sleep(STEP);
    }
    let start = Instant::now();
    for thread in &threads {
        thread.coroutine().unpark();
    }
    for thread in threads {
        thread.join().expect("a yielding coroutine ends well");
    }
    nanos_each(start.elapsed(), rounds * GREEN_THREADS)
}

async fn tokio_yields(amount: u64) -> f64 {
    let rounds = rounds(amount);
    let arrived = Arc::new(AtomicU64::new(0));
    let wake = Arc::new(Notify::new());
    let tasks: Vec<_> = (0..GREEN_THREADS)
        .map(|_| {
            let (arrived, wake) = (Arc::clone(&arrived), Arc::clone(&wake));
            tokio::spawn(async move {
                // It hears `notify_waiters` from its creation on.
                let woken = wake.notified();
                arrived.fetch_add(1, Ordering::Relaxed);
                woken.await;
                for _ in 0..rounds {
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    while arrived.load(Ordering::Relaxed) < GREEN_THREADS {
        tokio::time::sleep(STEP).await;
    }
    let start = Instant::now();
    wake.notify_waiters();
    for task in tasks {
        task.await.expect("a yielding task ends well");
    }
    nanos_each(start.elapsed(), rounds * GREEN_THREADS)
}
