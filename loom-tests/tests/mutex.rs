//! Models of `sync/src/raw_mutex.rs`: the lock of one word and a queue, with the queue and all that
//! stands behind it. The threads are OS threads, which wait in place.
//!
//! Invariant 1: the lock has one owner at a time, and each sees what the one before did.
//! Invariant 2: nobody waits for a lock that is free.
//! Invariant 3: a lock that is handed over reaches a waiter, or goes back.
#![allow(unsafe_code, reason = "what the lock guards has no lock of its own")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../sync/src/raw_mutex.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "limits have no model; outside it is public"
)]
mod raw_mutex;
mod shim;

use std::sync::atomic::Ordering;

use weald_loom_tests::cell::UnsafeCell;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::raw_mutex::RawMutex;

/// Something that a lock guards; loom reports two users as a race.
struct Guarded {
    lock: RawMutex,
    touches: UnsafeCell<usize>,
}

// SAFETY: that it is used by one thread at a time is what the models check.
unsafe impl Sync for Guarded {}
// SAFETY: a number.
unsafe impl Send for Guarded {}

impl Guarded {
    fn new() -> Arc<Self> {
        shim::clock::LOOKS.store(0, Ordering::Relaxed);
        Arc::new(Self {
            lock: RawMutex::new(),
            touches: UnsafeCell::new(0),
        })
    }

    /// With the lock: how often this was done.
    fn touch(&self) -> usize {
        // SAFETY: what is checked: the caller has the lock.
        self.touches.with_mut(|touches| unsafe {
            *touches += 1;
            *touches
        })
    }

    fn visit(&self) {
        self.lock.take();
        self.touch();
        self.lock.release();
    }

    fn check_free(&self, touches: usize) {
        assert!(self.lock.try_take(), "somebody has it still");
        assert_eq!(self.touch(), touches + 1, "a visit is not seen");
    }
}

#[test]
fn two_visit_one_after_the_other() {
    check(Model::new("two_visit_one_after_the_other", 13, &[]), || {
        let guarded = Guarded::new();
        let other = thread::spawn({
            let guarded = Arc::clone(&guarded);
            move || guarded.visit()
        });
        guarded.visit();
        other.join().unwrap();
        guarded.check_free(2);
    });
}

#[test]
fn two_wait_for_a_third() {
    check(Model::new("two_wait_for_a_third", 250, &[]), || {
        let guarded = Guarded::new();
        guarded.lock.take();
        let others = [0, 1].map(|_| {
            let guarded = Arc::clone(&guarded);
            thread::spawn(move || guarded.visit())
        });
        guarded.touch();
        guarded.lock.release();
        for other in others {
            other.join().unwrap();
        }
        guarded.check_free(3);
    });
}

#[test]
fn who_has_waited_for_long_is_handed_the_lock() {
    shim::clock::PASSES.store(1, Ordering::Relaxed);
    check(
        Model::new("who_has_waited_for_long_is_handed_the_lock", 55, &[]),
        || {
            let guarded = Guarded::new();
            let other = thread::spawn({
                let guarded = Arc::clone(&guarded);
                move || {
                    guarded.visit();
                    guarded.visit();
                }
            });
            guarded.visit();
            guarded.lock.take();
            guarded.touch();
            guarded.lock.release_to_next();
            other.join().unwrap();
            guarded.check_free(4);
        },
    );
}

#[test]
fn an_exception_leaves_the_lock_to_the_others() {
    let witnesses = &["took it", "interrupted"];
    check(
        Model::new(
            "an_exception_leaves_the_lock_to_the_others",
            10000,
            witnesses,
        ),
        || {
            let guarded = Guarded::new();
            guarded.lock.take();
            let me = weald_scheduler::current();
            let owner = thread::spawn({
                let guarded = Arc::clone(&guarded);
                move || {
                    me.throw("enough");
                    guarded.touch();
                    guarded.lock.release();
                }
            });
            let other = thread::spawn({
                let guarded = Arc::clone(&guarded);
                move || guarded.visit()
            });
            let took = guarded.lock.take_io().is_ok();
            if took {
                witness!("took it");
                guarded.touch();
                guarded.lock.release();
            } else {
                witness!("interrupted");
            }
            owner.join().unwrap();
            other.join().unwrap();
            guarded.check_free(2 + usize::from(took));
        },
    );
}
