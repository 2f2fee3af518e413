//! What does a green thread cost from `spawn` to `join`, in batches of 1000 spawned by a green
//! thread, on one worker and on two? Unit: ns for one spawn and its join.
//!
//! `cargo bench -p weald-benches --bench spawn_join`

mod rivals;

use std::hint::black_box;
use std::time::Instant;

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, criterion, nanos_each, repetitions,
    unless_quick, weald_runtime,
};

const BATCH: u64 = 1000;

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let cases = [1, 2].map(|workers| Case {
        name: "spawn and join in batches of 1000".into(),
        workers,
        amount: unless_quick(500_000, 10_000),
        metrics: vec![Metric::less("spawn and join (ns)")],
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
            answer(|amount| vec![rivals::may_run(move || may_batches(amount))])
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            answer(|amount| vec![rivals::tokio_run(&runtime, tokio_batches(amount))])
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            answer(|amount| vec![runtime.run(|| weald_batches(amount))])
        }
    }
}

fn weald_batches(amount: u64) -> f64 {
    let batches = amount.div_ceil(BATCH);
    let mut handles = Vec::with_capacity(1000);
    let start = Instant::now();
    for _ in 0..batches {
        handles.extend((0..BATCH).map(|value| weald::spawn(move || black_box(value))));
        for handle in handles.drain(..) {
            black_box(handle.join().expect("an empty green thread ends well"));
        }
    }
    nanos_each(start.elapsed(), batches * BATCH)
}

fn may_batches(amount: u64) -> f64 {
    let batches = amount.div_ceil(BATCH);
    let mut handles = Vec::with_capacity(1000);
    let start = Instant::now();
    for _ in 0..batches {
        handles.extend((0..BATCH).map(|value| may::go!(move || black_box(value))));
        for handle in handles.drain(..) {
            black_box(handle.join().expect("an empty coroutine ends well"));
        }
    }
    nanos_each(start.elapsed(), batches * BATCH)
}

async fn tokio_batches(amount: u64) -> f64 {
    let batches = amount.div_ceil(BATCH);
    let mut handles = Vec::with_capacity(1000);
    let start = Instant::now();
    for _ in 0..batches {
        handles.extend((0..BATCH).map(|value| tokio::spawn(async move { black_box(value) })));
        for handle in handles.drain(..) {
            black_box(handle.await.expect("an empty task ends well"));
        }
    }
    nanos_each(start.elapsed(), batches * BATCH)
}
