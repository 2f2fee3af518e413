//! Models of the wake word of `scheduler/src/parts/poller/mod.rs`, with a double of the waiting: a worker that
//! sleeps in its poller against those who wake it, and one that drains it.
//!
//! Invariant 1: a thread that is woken sees what was written before the wake-up, and no wake-up is lost.
//! Invariant 2: the poller is used by one thread at a time.
//! Invariant 3: an adopter that meets the wake-up passes it on.
#![cfg(loom)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/poller/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "descriptors have no model; outside it is public"
)]
mod poller;
#[path = "../../scheduler/src/shim/loom.rs"]
#[allow(dead_code, unused_imports, reason = "only a part is used")]
mod shim;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicUsize, Ordering};
use weald_loom_tests::{Model, check, thread, witness};

use self::poller::Poller;

/// A worker's poller, and what the worker has to do.
struct Worker {
    poller: Poller,
    tasks: AtomicUsize,
}

impl Worker {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            poller: Poller::new().expect("a double cannot fail"),
            tasks: AtomicUsize::new(0),
        })
    }

    /// Until so many tasks have come. Only the wake word orders them.
    fn work(&self, tasks: usize) {
        while self.tasks.load(Ordering::Relaxed) < tasks {
            witness!("slept");
            self.poller.sleep(None);
        }
    }

    fn push(&self) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        self.poller.unpark();
    }
}

#[test]
fn a_wake_up_is_not_lost() {
    check(Model::new("a_wake_up_is_not_lost", 7, &["slept"]), || {
        let worker = Worker::new();
        let sleeper = thread::spawn({
            let worker = Arc::clone(&worker);
            move || worker.work(1)
        });
        worker.push();
        sleeper.join().unwrap();
    });
}

#[test]
fn two_wake_one() {
    check(Model::new("two_wake_one", 180, &["slept"]), || {
        let worker = Worker::new();
        let sleeper = thread::spawn({
            let worker = Arc::clone(&worker);
            move || worker.work(2)
        });
        let pusher = thread::spawn({
            let worker = Arc::clone(&worker);
            move || worker.push()
        });
        worker.push();
        pusher.join().unwrap();
        sleeper.join().unwrap();
    });
}

#[test]
fn an_adopter_passes_the_wake_up_on() {
    check(
        Model::new("an_adopter_passes_the_wake_up_on", 70, &["slept"]),
        || {
            let worker = Worker::new();
            let sleeper = thread::spawn({
                let worker = Arc::clone(&worker);
                move || worker.work(1)
            });
            let adopter = thread::spawn({
                let worker = Arc::clone(&worker);
                move || worker.poller.adopt()
            });
            worker.push();
            adopter.join().unwrap();
            sleeper.join().unwrap();
        },
    );
}
