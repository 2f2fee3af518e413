//! What does a timer cost that is set and never fires: hot, one at a time, and with a million of
//! them ahead? Unit: ns for one insertion and its cancellation.
//!
//! `cargo bench -p weald-benches --bench timer`
//!
//! may has no timer apart from a green thread that waits, so its column stays empty. tokio's timer is
//! a `Sleep` that is polled once (which inserts it) and dropped (which cancels it); it stands beside
//! both `call_after` and `exc_after`.

mod rivals;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use weald_benches::{
    Case, Contestant, Lifetime, Metric, Role, answer, compare, criterion, nanos_each, repetitions,
    unless_quick, weald_runtime,
};

const CALL_AFTER: &str = "call_after and cancel";
const EXC_AFTER: &str = "exc_after and cancel";
const MILLION: &str = "a million call_after ahead";

const WITHOUT_MAY: &[Contestant] = &[
    Contestant::WealdShared,
    Contestant::WealdPinned,
    Contestant::Tokio,
];

/// How many hot pairs are timed while the million waits.
const HOT_MEANWHILE: u64 = 100_000;

fn main() {
    if let Some(role) = Role::of_this_process() {
        serve(&role);
    }
    let hot = [CALL_AFTER, EXC_AFTER].map(|name| Case {
        name: name.into(),
        workers: 1,
        amount: unless_quick(1_000_000, 20_000),
        metrics: vec![Metric::less("insert and cancel (ns)")],
        contestants: WITHOUT_MAY,
        lifetime: Lifetime::Case,
    });
    let million = Case {
        name: MILLION.into(),
        workers: 1,
        amount: unless_quick(1_000_000, 20_000),
        metrics: vec![
            Metric::less("insert (ns)"),
            Metric::less("cancel (ns)"),
            Metric::less("insert and cancel (ns)"),
            Metric::less("hot insert and cancel meanwhile (ns)"),
        ],
        contestants: WITHOUT_MAY,
        lifetime: Lifetime::Case,
    };
    criterion(&hot);
    let [call_after, exc_after] = hot;
    compare(&[call_after, exc_after, million], repetitions(7));
}

fn serve(role: &Role) -> ! {
    if role.contestant == Contestant::Tokio {
        let runtime = rivals::tokio_runtime(role.workers);
        match role.case.as_str() {
            MILLION => answer(|amount| rivals::tokio_run(&runtime, tokio_million(amount))),
            _ => answer(|amount| vec![rivals::tokio_run(&runtime, tokio_hot(amount))]),
        }
    }
    let runtime = weald_runtime(role.contestant, role.workers);
    match role.case.as_str() {
        MILLION => answer(|amount| runtime.run(|| weald_million(amount))),
        EXC_AFTER => answer(|amount| vec![runtime.run(|| weald_hot_exception(amount))]),
        _ => answer(|amount| vec![runtime.run(|| weald_hot_call(amount))]),
    }
}

/// The deadline of the `index`th timer: 10 to 11 s ahead, scattered, the same in every run.
fn delay(index: u64) -> Duration {
    let scattered = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    Duration::from_secs(10) + Duration::from_micros(scattered.min(1_000_000))
}

fn weald_hot_call(amount: u64) -> f64 {
    let start = Instant::now();
    for index in 0..amount {
        let timer = weald::call_after(delay(index), || ());
        assert!(timer.cancel(), "10 s have not passed");
    }
    nanos_each(start.elapsed(), amount)
}

fn weald_hot_exception(amount: u64) -> f64 {
    /// Not `Elapsed`, which only weald can make, and without a heap allocation of a text.
    #[derive(Debug)]
    struct Late;

    impl std::fmt::Display for Late {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("late")
        }
    }

    impl std::error::Error for Late {}

    let start = Instant::now();
    for index in 0..amount {
        let timer = weald::exc_after(delay(index), Late);
        assert!(timer.cancel(), "10 s have not passed");
    }
    nanos_each(start.elapsed(), amount)
}

fn weald_million(amount: u64) -> Vec<f64> {
    let start = Instant::now();
    let timers: Vec<_> = (0..amount)
        .map(|index| weald::call_after(delay(index), || ()))
        .collect();
    let insert = nanos_each(start.elapsed(), amount);
    let hot = weald_hot_call(HOT_MEANWHILE);
    let start = Instant::now();
    for timer in timers {
        assert!(timer.cancel(), "10 s have not passed");
    }
    let cancel = nanos_each(start.elapsed(), amount);
    vec![insert, cancel, insert + cancel, hot]
}

/// Polls once, which puts the timer into tokio's wheel.
async fn arm(mut timer: Pin<&mut Sleep>) {
    let fired = poll_fn(|context| Poll::Ready(timer.as_mut().poll(context).is_ready())).await;
    assert!(!fired, "10 s have not passed");
}

async fn tokio_hot(amount: u64) -> f64 {
    let start = Instant::now();
    for index in 0..amount {
        arm(pin!(tokio::time::sleep(delay(index)))).await;
    }
    nanos_each(start.elapsed(), amount)
}

async fn tokio_million(amount: u64) -> Vec<f64> {
    let start = Instant::now();
    let mut timers = Vec::new();
    for index in 0..amount {
        let mut timer = Box::pin(tokio::time::sleep(delay(index)));
        arm(timer.as_mut()).await;
        timers.push(timer);
    }
    let insert = nanos_each(start.elapsed(), amount);
    let hot = tokio_hot(HOT_MEANWHILE).await;
    let start = Instant::now();
    for timer in timers {
        drop(timer);
    }
    let cancel = nanos_each(start.elapsed(), amount);
    vec![insert, cancel, insert + cancel, hot]
}
