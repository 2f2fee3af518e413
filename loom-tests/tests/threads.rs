//! Models of `scheduler/src/parts/threads.rs`: OS threads that start others and retire, against who waits for all.
//!
//! Invariant: when `join_all` returns, all have ended; nobody's handle is lost.
#![cfg(loom)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/shim/loom.rs"]
#[allow(dead_code, unused_imports, reason = "only a part is used")]
mod shim;
#[path = "../../scheduler/src/parts/threads.rs"]
#[allow(dead_code, reason = "no green thread has an OS thread for itself")]
mod threads;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicUsize, Ordering};
use weald_loom_tests::{Model, check, thread, witness};

use self::threads::{Threads, Which};

#[derive(Default)]
struct Runtime {
    threads: Threads,
    ended: AtomicUsize,
}

/// A spare carrier that retires.
fn retires(runtime: &Arc<Runtime>, which: Which) {
    let (shared, name) = (Arc::clone(runtime), String::new());
    let started = runtime.threads.start(which, name, move || {
        let before = shared.threads.retire(which);
        thread::yield_now();
        shared.ended.fetch_add(1, Ordering::Relaxed);
        before.join();
    });
    started.expect("a model starts any thread");
}

#[test]
fn all_are_joined_whoever_starts_and_retires() {
    let witnesses = &["one was started meanwhile"];
    check(
        Model::new("all_are_joined_whoever_starts_and_retires", 20, witnesses),
        || {
            let runtime = Arc::new(Runtime::default());
            retires(&runtime, Which::Carrier(0));
            let shared = Arc::clone(&runtime);
            let starts = move || {
                retires(&shared, Which::Spare(1));
                let ended = shared.ended.fetch_add(1, Ordering::Relaxed);
                witness!("one was started meanwhile", ended == 0);
            };
            let started = runtime.threads.start(Which::Monitor, String::new(), starts);
            started.expect("a model starts any thread");
            runtime.threads.join_all();
            assert_eq!(runtime.ended.load(Ordering::Relaxed), 3, "all have ended");
        },
    );
}
