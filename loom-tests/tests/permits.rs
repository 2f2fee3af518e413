//! Models of `scheduler/src/engine/permits.rs` and `scheduler/src/wait/permits_wait.rs`.
//!
//! Invariant 1: each waiter gets a permit; none is lost, and no two threads have the same one.
//! Invariant 2: a thread that comes while another one waits does not overtake it.
#![cfg(loom)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/engine/permits.rs"]
mod permits;
#[path = "../../scheduler/src/wait/permits_wait.rs"]
mod permits_wait;
mod shim {
    pub(crate) use weald_loom_tests::sync::atomic;
}
mod engine {
    pub(crate) use super::permits;
}
mod green {
    pub(crate) mod wait_list {
        pub(crate) use weald_scheduler::io::WaitQueue;
    }
}
mod wait {
    pub(crate) mod wait_queue {
        pub(crate) use weald_scheduler::io::{Interrupt, Woken};
    }
}

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicUsize, Ordering};
use weald_loom_tests::{Model, check, thread, witness};

use self::permits::Permits;

/// One permit, and how many have it.
struct Room {
    permits: Permits,
    inside: AtomicUsize,
}

impl Room {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            permits: Permits::new(1),
            inside: AtomicUsize::new(0),
        })
    }

    fn visit(&self) {
        assert!(self.permits.take().is_ok(), "nobody throws at it");
        assert_eq!(self.inside.fetch_add(1, Ordering::Relaxed), 0);
        self.inside.fetch_sub(1, Ordering::Relaxed);
        self.permits.give();
    }
}

#[test]
fn a_permit_goes_to_each_who_waits_for_it() {
    let model = Model::new("a_permit_goes_to_each_who_waits_for_it", 20, &[]);
    check(model, || {
        let room = Room::new();
        let other = thread::spawn({
            let room = Arc::clone(&room);
            move || room.visit()
        });
        room.visit();
        other.join().unwrap();
        room.visit();
    });
}

/// Two threads beside this one, so that what happens between them needs one preemption less.
#[test]
fn a_permit_that_is_given_back_meets_who_is_about_to_wait() {
    let name = "a_permit_that_is_given_back_meets_who_is_about_to_wait";
    check(Model::new(name, 20, &[]), || {
        let room = Room::new();
        assert!(room.permits.take().is_ok());
        let beside = |visit: fn(&Room)| {
            let room = Arc::clone(&room);
            thread::spawn(move || visit(&room))
        };
        let threads = [beside(|room| room.permits.give()), beside(Room::visit)];
        for thread in threads {
            thread.join().unwrap();
        }
        room.visit();
    });
}

#[test]
fn an_exception_takes_no_permit_along() {
    let witnesses = &["interrupted", "took it"];
    let model = Model::new("an_exception_takes_no_permit_along", 100, witnesses);
    check(model, || {
        let room = Room::new();
        let me = weald_scheduler::current();
        let other = thread::spawn({
            let room = Arc::clone(&room);
            move || {
                assert!(room.permits.take().is_ok(), "nobody throws at it");
                me.throw("enough");
                room.permits.give();
            }
        });
        match room.permits.take() {
            Ok(()) => {
                witness!("took it");
                room.permits.give();
            }
            Err(_) => witness!("interrupted"),
        }
        other.join().unwrap();
        room.visit();
    });
}

#[test]
fn who_comes_later_does_not_pass_who_waits() {
    let witnesses = &["handed over"];
    let model = Model::new("who_comes_later_does_not_pass_who_waits", 100, witnesses);
    check(model, || {
        let room = Room::new();
        assert!(room.permits.take().is_ok());
        let turn = Arc::new(AtomicUsize::new(0));
        let waiter = thread::spawn({
            let (room, turn) = (Arc::clone(&room), Arc::clone(&turn));
            move || {
                assert!(room.permits.take().is_ok(), "nobody throws at it");
                let came = turn.fetch_add(1, Ordering::Relaxed);
                room.permits.give();
                came
            }
        });
        // If a thread waits by now, it gets the permit before the thread that comes back.
        let waits = room.permits.somebody_sleeps();
        room.permits.give();
        assert!(room.permits.take().is_ok());
        let came = turn.fetch_add(1, Ordering::Relaxed);
        room.permits.give();
        let others = waiter.join().unwrap();
        if waits {
            witness!("handed over");
            assert!(others < came, "it was overtaken");
        }
    });
}
