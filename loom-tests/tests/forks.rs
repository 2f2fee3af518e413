//! Models of `scheduler/src/parts/forks.rs`: a green thread that forks against the monitor, which holds its
//! carrier out of its door (`scheduler/src/parts/door.rs`) and takes forks.
//!
//! Invariant 1: each fork is run once, by its thread or by the taker.
//! Invariant 2: a thread that finds its fork taken sees what the taker did with it.
//! Invariant 3: a taker gets forks from the oldest on, and none that was popped.
#![allow(
    unsafe_code,
    reason = "forks lie in frames, the right to take is a door's"
)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/door.rs"]
#[allow(dead_code, reason = "the hints have no model")]
mod door;
#[path = "../../scheduler/src/parts/forks.rs"]
#[allow(dead_code, reason = "who only asks has no model")]
mod forks;
mod message;

#[path = "door_shim/mod.rs"]
mod shim;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::door::Door;
use self::forks::{Fork, Forks};
use self::message::Message;

/// A fork and what is run for it. All of a model outlive it, so a wrong link shows as a wrong count.
#[repr(C)]
struct Half {
    fork: Fork,
    runs: Message,
}

/// A green thread, the caller's, that runs on a carrier.
struct Thread {
    forks: Forks,
    /// The seat stands for the worker, of which nothing is used.
    door: Door<usize>,
    seat: usize,
    halves: [Half; 3],
}

// SAFETY: that each part has one user at a time is what is checked.
unsafe impl Sync for Thread {}
// SAFETY: as above.
unsafe impl Send for Thread {}

impl Thread {
    fn new() -> Arc<Self> {
        let half = |_| Half {
            fork: Fork::new(),
            runs: Message::new(0),
        };
        let this = Arc::new(Self {
            forks: Forks::new(),
            door: Door::new(),
            seat: 0,
            halves: [0, 1, 2].map(half),
        });
        this.door.enter();
        this.door.sit(&raw const this.seat);
        this.door.leave();
        this
    }

    fn push(&self, half: usize) -> usize {
        let fork: *const Fork = (&raw const self.halves[half]).cast();
        // SAFETY: the caller is the thread.
        unsafe { self.forks.push(fork) }
    }

    /// The end of a first half. True: the second was taken.
    fn pop(&self, half: usize, number: usize) -> bool {
        let fork: *const Fork = (&raw const self.halves[half]).cast();
        // SAFETY: the caller is the thread, and each test pops what was pushed last.
        let is_mine = unsafe { self.forks.pop(fork, number) };
        if is_mine {
            self.halves[half].runs.add(1);
            return false;
        }
        let taken = {
            let _inside = self.door.section();
            // SAFETY: inside the door, and just popped.
            unsafe { self.forks.settle(fork, number) }
        };
        if !taken {
            self.halves[half].runs.add(1);
        }
        taken
    }

    /// As the monitor: takes the oldest and runs it.
    fn take(&self) -> Option<bool> {
        self.door.hold_out(|| {
            // SAFETY: the carrier is held out.
            let fork = unsafe { self.forks.take() };
            if let Some(fork) = fork {
                // SAFETY: each fork is the first part of a half.
                unsafe { &*fork.cast::<Half>() }.runs.add(1);
            }
            fork.is_some()
        })
    }

    fn each_ran_once(&self, halves: usize) {
        for half in &self.halves[..halves] {
            assert_eq!(half.runs.look(), 1, "a fork is run once");
        }
    }
}

#[test]
fn a_fork_is_run_once() {
    let witnesses = &["first", "second", "neither", "too late"];
    check(Model::new("a_fork_is_run_once", 20, witnesses), || {
        let green = Thread::new();
        let taker = thread::spawn({
            let green = Arc::clone(&green);
            move || green.take()
        });
        let number = green.push(0);
        let first = green.pop(0, number);
        let number = green.push(1);
        let second = green.pop(1, number);
        green.each_ran_once(2);
        let took = taker.join().unwrap();
        witness!("first", first);
        witness!("second", second);
        witness!("neither", !first && !second);
        witness!("too late", took == Some(false));
        assert!(!(first && second), "one was asked for");
        assert_eq!(took == Some(true), first || second);
    });
}

#[test]
fn the_list_is_whole_after_a_fork_was_taken() {
    let witnesses = &["taken", "kept"];
    let model = Model::new("the_list_is_whole_after_a_fork_was_taken", 10, witnesses);
    check(model, || {
        let green = Thread::new();
        let old = green.push(0);
        let young = green.push(1);
        assert_eq!(green.take(), Some(true));
        let taker = thread::spawn({
            let green = Arc::clone(&green);
            move || green.take()
        });
        let second = green.pop(1, young);
        assert!(green.pop(0, old), "the oldest is taken first");
        let number = green.push(2);
        let third = green.pop(2, number);
        green.each_ran_once(3);
        let took = taker.join().unwrap();
        witness!("taken", second || third);
        witness!("kept", !second && !third);
        assert_eq!(took == Some(true), second || third);
    });
}
