//! Bugs that other runtimes had, as models of the part of weald that would have them. Most are in the
//! models of those parts; `README.md` has the table. Here are the others. Each test is named
//! for project and issue; the fault that is the original bug is in `faults.txt`.
#![cfg(loom)]
#![allow(unsafe_code, reason = "slots are found by their address")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/poller/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the worker's sleep has a model of its own; outside it is public"
)]
mod poller;
#[path = "../../scheduler/src/shim/loom.rs"]
#[allow(dead_code, unused_imports, reason = "only a part is used")]
mod shim;

use std::sync::atomic::{AtomicBool as PlainBool, Ordering as PlainOrdering};

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};
use weald_scheduler::Runtime;

use self::poller::{EventSlot, Poller, Readiness};
use self::shim::sync::{Condvar, Mutex, wait};

/// Somebody waits for the events of a descriptor.
#[repr(C)]
struct Slot {
    event: EventSlot,
    told: Mutex<bool>,
    changed: Condvar,
}

fn on_event(event: &'static EventSlot, _: u16, _: Readiness) {
    // SAFETY: only slots carry this function, and `event` is the first field of a `repr(C)` slot.
    let slot: &'static Slot = unsafe { &*std::ptr::from_ref(event).cast::<Slot>() };
    *slot.told.lock() = true;
    slot.changed.notify_one();
}

/// A descriptor is registered while its poller closes. Its waiter gets an event, or the registration fails at once.
#[test]
fn tokio_2924_a_source_is_added_while_the_driver_ends() {
    let witnesses = &["was refused", "was told"];
    check(
        Model::new(
            "tokio_2924_a_source_is_added_while_the_driver_ends",
            2,
            witnesses,
        ),
        || {
            let poller = Arc::new(Poller::new().expect("a double cannot fail"));
            let slot: &'static Slot = Box::leak(Box::new(Slot {
                event: EventSlot { on_event },
                told: Mutex::new(false),
                changed: Condvar::new(),
            }));
            let user = thread::spawn({
                let poller = Arc::clone(&poller);
                move || {
                    if poller.register(3, &slot.event, 1).is_err() {
                        witness!("was refused");
                        return;
                    }
                    let mut told = slot.told.lock();
                    while !*told {
                        told = wait(&slot.changed, told);
                    }
                    witness!("was told");
                }
            });
            poller.close();
            user.join().unwrap();
        },
    );
}

/// A thread that is killed before it has started: its body does not run, and its joiner learns that.
#[test]
fn gevent_330_a_kill_before_the_start() {
    let model = Model::new("gevent_330_a_kill_before_the_start", 2, &[]);
    check(model, || {
        let runtime = Runtime::builder()
            .workers(1)
            .spare_threads(1)
            .build()
            .expect("a model starts");
        runtime.run(|| {
            let ran = std::sync::Arc::new(PlainBool::new(false));
            let child = weald_scheduler::spawn({
                let ran = std::sync::Arc::clone(&ran);
                move || ran.store(true, PlainOrdering::Relaxed)
            });
            child.thread().kill();
            assert!(child.join().is_err(), "it was killed");
            assert!(!ran.load(PlainOrdering::Relaxed), "its body has run");
        });
    });
}
