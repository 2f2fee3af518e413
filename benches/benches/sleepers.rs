//! What do 100,000 green threads cost that each sleep once for 1 to 1000 ms, and how late do they
//! wake? Units: seconds of CPU for all (spawn to last join), ms of lateness.
//!
//! `cargo bench -p weald-benches --bench sleepers`
//!
//! may cannot hold 100,000, so there is a row of 30,000 for it too.

mod rivals;

use std::time::{Duration, Instant};

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, cpu_time, percentile, repetitions,
    weald_runtime,
};

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let case = |count: u64, workers| Case {
        name: format!("{count} sleeps of 1 to 1000 ms"),
        workers,
        amount: count,
        metrics: vec![
            Metric::less("CPU (s)"),
            Metric::less("lateness p50 (ms)"),
            Metric::less("lateness p99 (ms)"),
            Metric::less("lateness max (ms)"),
        ],
        contestants: Contestant::ALL,
        lifetime: Lifetime::Repetition,
    };
    compare(
        &[case(100_000, 2), case(100_000, 1), case(30_000, 2)],
        repetitions(5),
    );
}

fn serve(role: &Role) -> ! {
    match role.contestant {
        Contestant::May => {
            rivals::may_start(role.workers);
            answer(|count| counted(|| rivals::may_run(move || may_sleepers(count))))
        }
        Contestant::Tokio => {
            let runtime = rivals::tokio_runtime(role.workers);
            answer(|count| counted(|| rivals::tokio_run(&runtime, tokio_sleepers(count))))
        }
        weald => {
            let runtime = weald_runtime(weald, role.workers);
            runtime.run(|| ());
            answer(|count| counted(|| runtime.run(|| weald_sleepers(count))))
        }
    }
}

/// Counts the CPU time of `sleepers`, which returns each one's lateness in microseconds.
fn counted(sleepers: impl FnOnce() -> Vec<u32>) -> Vec<f64> {
    let before = cpu_time().total_s();
    let mut lateness = sleepers();
    let cpu_s = cpu_time().total_s() - before;
    let mut late_ms = |per_mille| f64::from(percentile(&mut lateness, per_mille)) / 1e3;
    vec![cpu_s, late_ms(500), late_ms(990), late_ms(1000)]
}

/// How long the `index`th sleeps: 1 to 1000 ms to the microsecond, the same in every run.
fn nap(index: u64) -> Duration {
    let scattered = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    Duration::from_micros(1000 + scattered % 999_001)
}

fn late_us(start: Instant, nap: Duration) -> u32 {
    let slept = start.elapsed();
    let Some(late) = slept.checked_sub(nap) else {
        panic!("woken early: after {slept:?} instead of {nap:?}");
    };
    u32::try_from(late.as_micros()).unwrap_or(u32::MAX)
}

fn weald_sleepers(count: u64) -> Vec<u32> {
    let sleepers: Vec<_> = (0..count)
        .map(|index| {
            weald::spawn(move || {
                let (start, nap) = (Instant::now(), nap(index));
                weald::sleep(nap);
                late_us(start, nap)
            })
        })
        .collect();
    sleepers
        .into_iter()
        .map(|sleeper| sleeper.join().expect("a sleeper wakes"))
        .collect()
}

fn may_sleepers(count: u64) -> Vec<u32> {
    let sleepers: Vec<_> = (0..count)
        .map(|index| {
            may::go!(move || {
                let (start, nap) = (Instant::now(), nap(index));
                may::coroutine::sleep(nap);
                late_us(start, nap)
            })
        })
        .collect();
    sleepers
        .into_iter()
        .map(|sleeper| sleeper.join().expect("a sleeper wakes"))
        .collect()
}

async fn tokio_sleepers(count: u64) -> Vec<u32> {
    let sleepers: Vec<_> = (0..count)
        .map(|index| {
            tokio::spawn(async move {
                let (start, nap) = (Instant::now(), nap(index));
                tokio::time::sleep(nap).await;
                late_us(start, nap)
            })
        })
        .collect();
    let mut late_us = Vec::with_capacity(sleepers.len());
    for sleeper in sleepers {
        late_us.push(sleeper.await.expect("a sleeper wakes"));
    }
    late_us
}
