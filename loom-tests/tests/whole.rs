//! Models of the whole scheduler.
#![cfg(loom)]

use weald_loom_tests::{Model, check};
use weald_scheduler::Runtime;

fn model(name: &'static str, floor: u64, witnesses: &'static [&'static str]) -> Model {
    Model {
        name,
        floor,
        bound: None,
        witnesses,
    }
}

fn runtime(workers: usize) -> Runtime {
    Runtime::builder()
        .workers(workers)
        .spare_threads(1)
        .build()
        .expect("a model starts")
}

#[test]
fn one_worker_runs_and_joins() {
    check(model("one_worker_runs_and_joins", 1500, &[]), || {
        let runtime = runtime(1);
        assert_eq!(runtime.run(|| 7), 7);
    });
}
