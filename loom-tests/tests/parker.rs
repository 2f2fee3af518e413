//! Models of `scheduler/src/parts/poller/mod.rs`, with a double of the system: of the wake word, a worker that
//! sleeps in its poller against those who wake it, and one that drains it; and of a poller that moves its descriptors out.
//!
//! Invariant 1: a thread that is woken sees what was written before the wake-up, and no wake-up is lost.
//! Invariant 2: the poller is used by one thread at a time.
//! Invariant 3: an adopter that meets the wake-up passes it on.
//! Invariant 4: who has registered a descriptor is told to do so again, or hears of it from here.
#![cfg(loom)]
#![allow(unsafe_code, reason = "slots are found by their address")]

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

use self::poller::{EventSlot, Poller, Readiness};

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

/// A socket's place: its first field, and whether it was told to register again.
#[repr(C)]
struct Slot {
    event: EventSlot,
    told: AtomicUsize,
}

impl Slot {
    fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            event: EventSlot { on_event },
            told: AtomicUsize::new(0),
        }))
    }
}

fn on_event(event: &'static EventSlot, _: u16, _: Readiness) {
    // SAFETY: only slots carry this function, and `event` is the first field of a `repr(C)` slot.
    let slot: &'static Slot = unsafe { &*std::ptr::from_ref(event).cast::<Slot>() };
    slot.told.fetch_add(1, Ordering::Relaxed);
}

/// A socket is closed while its poller moves out, and the next one gets its number and is registered there.
#[test]
fn a_poller_that_moves_out_takes_no_later_socket_along() {
    let witnesses = &["moved", "stayed"];
    check(
        Model::new(
            "a_poller_that_moves_out_takes_no_later_socket_along",
            4,
            witnesses,
        ),
        || {
            const FD: i32 = 3;
            let poller = Arc::new(Poller::new().expect("a double cannot fail"));
            let (old, new) = (Slot::new(), Slot::new());
            poller.register(FD, &old.event, 1).unwrap();
            let mover = thread::spawn({
                let poller = Arc::clone(&poller);
                move || poller.move_out()
            });
            poller.deregister(FD, &old.event, 1).unwrap();
            poller.register(FD, &new.event, 1).unwrap();
            mover.join().unwrap();
            let told = new.told.load(Ordering::Relaxed) > 0;
            assert!(told || poller.has(FD), "it hears nothing any more");
            witness!("moved", told);
            witness!("stayed", !told);
        },
    );
}
