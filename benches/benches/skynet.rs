//! How long does skynet take: a tree in which each green thread spawns ten, down to a million leaves
//! that return their number, and each joins its ten and returns the sum? Unit: ms for all.
//!
//! `cargo bench -p weald-benches --bench skynet`
//!
//! may cannot hold a million, so there is a row of ten thousand leaves for it too.

mod rivals;

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, repetitions, unless_quick,
    weald_runtime,
};

/// Children of each inner green thread.
const FAN_OUT: u64 = 10;

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let large = unless_quick(1_000_000, 100_000);
    let case = |leaves: u64, workers| Case {
        name: format!("skynet, {leaves} leaves"),
        workers,
        amount: leaves,
        metrics: vec![Metric::less("all (ms)")],
        contestants: Contestant::ALL,
        lifetime: Lifetime::Repetition,
    };
    compare(
        &[
            case(large, 2),
            case(large, 1),
            case(10_000, 2),
            case(10_000, 1),
        ],
        repetitions(5),
    );
}

fn serve(role: &Role) -> ! {
    // The runtime has started and run something before the clock does.
    match role.contestant {
        Contestant::May => {
            rivals::may_start(role.workers);
            answer(|leaves| timed(leaves, || rivals::may_run(move || may_skynet(0, leaves))))
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            rivals::tokio_run(&runtime, async {});
            answer(|leaves| {
                timed(leaves, || {
                    rivals::tokio_run(&runtime, tokio_skynet(0, leaves))
                })
            })
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            runtime.run(|| ());
            answer(|leaves| timed(leaves, || runtime.run(|| weald_skynet(0, leaves))))
        }
    }
}

fn timed(leaves: u64, skynet: impl FnOnce() -> u64) -> Vec<f64> {
    let start = Instant::now();
    let sum = skynet();
    let elapsed = start.elapsed();
    assert_eq!(sum, leaves * (leaves - 1) / 2, "each leaf counts once");
    vec![elapsed.as_secs_f64() * 1e3]
}

fn weald_skynet(first: u64, leaves: u64) -> u64 {
    if leaves == 1 {
        return first;
    }
    let part = leaves / FAN_OUT;
    let children: Vec<_> = (0..FAN_OUT)
        .map(|child| weald::spawn(move || weald_skynet(first + child * part, part)))
        .collect();
    children
        .into_iter()
        .map(|child| child.join().expect("a subtree ends well"))
        .sum()
}

fn may_skynet(first: u64, leaves: u64) -> u64 {
    if leaves == 1 {
        return first;
    }
    let part = leaves / FAN_OUT;
    let children: Vec<_> = (0..FAN_OUT)
        .map(|child| may::go!(move || may_skynet(first + child * part, part)))
        .collect();
    children
        .into_iter()
        .map(|child| child.join().expect("a subtree ends well"))
        .sum()
}

fn tokio_skynet(first: u64, leaves: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        if leaves == 1 {
            return first;
        }
        let part = leaves / FAN_OUT;
        let children: Vec<_> = (0..FAN_OUT)
            .map(|child| tokio::spawn(tokio_skynet(first + child * part, part)))
            .collect();
        let mut sum = 0;
        for child in children {
            sum += child.await.expect("a subtree ends well");
        }
        sum
    })
}
