//! What does a round trip of two green threads cost that park and unpark each other, on one worker
//! and on two? Unit: ns a round trip, which is two unparks and two parks.
//!
//! `cargo bench -p weald-benches --bench ping_pong`

mod rivals;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, criterion, nanos_each, repetitions,
    unless_quick, weald_runtime,
};

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let cases = [1, 2].map(|workers| Case {
        name: "park and unpark ping-pong".into(),
        workers,
        amount: unless_quick(1_000_000, 20_000),
        metrics: vec![Metric::less("round trip (ns)")],
        contestants: Contestant::ALL,
        lifetime: Lifetime::Case,
    });
    criterion(&cases);
    compare(&cases, repetitions(9));
}

fn serve(role: &Role) -> ! {
    match role.contestant {
        Contestant::May => {
            rivals::may_start(role.workers);
            answer(|amount| vec![rivals::may_run(move || may_ping_pong(amount))])
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            answer(|amount| vec![rivals::tokio_run(&runtime, tokio_ping_pong(amount))])
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            answer(|amount| vec![runtime.run(|| weald_ping_pong(amount))])
        }
    }
}

fn weald_ping_pong(round_trips: u64) -> f64 {
    let first = weald::current();
    let second = weald::spawn(move || {
        for _ in 0..round_trips {
            weald::park();
            first.unpark();
        }
    });
    let start = Instant::now();
    for _ in 0..round_trips {
        second.thread().unpark();
        weald::park();
    }
    let elapsed = start.elapsed();
    second.join().expect("the second ends after its last round");
    nanos_each(elapsed, round_trips)
}

fn may_ping_pong(round_trips: u64) -> f64 {
    let first = may::coroutine::current();
    let second = may::go!(move || {
        for _ in 0..round_trips {
            may::coroutine::park();
            first.unpark();
        }
    });
    let start = Instant::now();
    for _ in 0..round_trips {
        second.coroutine().unpark();
        may::coroutine::park();
    }
    let elapsed = start.elapsed();
    second.join().expect("the second ends after its last round");
    nanos_each(elapsed, round_trips)
}

async fn tokio_ping_pong(round_trips: u64) -> f64 {
    let first = Arc::new(Notify::new());
    let second = Arc::new(Notify::new());
    let task = tokio::spawn({
        let (first, second) = (Arc::clone(&first), Arc::clone(&second));
        async move {
            for _ in 0..round_trips {
                second.notified().await;
                first.notify_one();
            }
        }
    });
    let start = Instant::now();
    for _ in 0..round_trips {
        second.notify_one();
        first.notified().await;
    }
    let elapsed = start.elapsed();
    task.await.expect("the second ends after its last round");
    nanos_each(elapsed, round_trips)
}
