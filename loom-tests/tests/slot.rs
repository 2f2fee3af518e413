//! Models of `scheduler/src/queue/slot.rs`: the owner of a run-next slot against a thief.
//!
//! Invariant 1: what was put in comes out once: to the owner by `put` or `take`, or to the thief.
//! Invariant 2: whoever takes a thread sees what its owner did before it was put in.
#![allow(
    unsafe_code,
    reason = "threads as counted pointers are what is checked"
)]

#[cfg_attr(loom, path = "../../scheduler/src/shim/loom.rs")]
#[cfg_attr(not(loom), path = "../../scheduler/src/shim/std.rs")]
#[allow(dead_code, unused_imports, reason = "only the atomics are used")]
mod shim;
#[path = "../../scheduler/src/queue/slot.rs"]
#[allow(dead_code, reason = "the hint has no model")]
mod slot;

/// What the slot takes from the scheduler's `green_thread`.
mod green_thread {
    use super::shim::cell::UnsafeCell;

    #[derive(Debug)]
    pub(crate) struct Header {
        pub(crate) runs: UnsafeCell<usize>,
    }

    /// A thread; whoever has it may touch it.
    #[derive(Debug)]
    pub(crate) struct Task(Box<Header>);

    // SAFETY: that it has one owner at a time is what the models check.
    unsafe impl Send for Task {}

    impl Task {
        pub(crate) fn new() -> Self {
            Self(Box::new(Header {
                runs: UnsafeCell::new(0),
            }))
        }

        /// Touches it; how often that was.
        pub(crate) fn run(&self) -> usize {
            // SAFETY: what is checked: who has the thread owns it.
            self.0.runs.with_mut(|runs| unsafe {
                *runs += 1;
                *runs
            })
        }

        pub(crate) fn into_raw(self) -> *mut Header {
            Box::into_raw(self.0)
        }

        /// # Safety
        /// Once for each `into_raw`.
        pub(crate) unsafe fn from_raw(header: *const Header) -> Self {
            // SAFETY: by contract.
            Self(unsafe { Box::from_raw(header.cast_mut()) })
        }
    }
}

/// What the shim of a build takes from the scheduler.
#[cfg(not(loom))]
mod patch {
    pub(crate) struct Bypass;

    impl Bypass {
        pub(crate) fn enter() -> Self {
            Self
        }
    }
}

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::green_thread::Task;
use self::slot::Slot;

fn model(name: &'static str, floor: u64, witnesses: &'static [&'static str]) -> Model {
    Model {
        name,
        floor,
        bound: None,
        witnesses,
    }
}

#[test]
fn a_slot_gives_each_thread_once() {
    let witnesses = &["stole the first", "stole the second", "was replaced"];
    check(
        model("a_slot_gives_each_thread_once", 29, witnesses),
        || {
            let slot = Arc::new(Slot::new());
            let thief = thread::spawn({
                let slot = Arc::clone(&slot);
                move || {
                    let stolen = slot.take();
                    stolen.map(|task| task.run())
                }
            });
            // The second thread was run once more than the first.
            let (first, second) = (Task::new(), Task::new());
            second.run();
            let nobody = slot.put(first);
            assert!(nobody.is_none());
            let replaced = slot.put(second).map(|task| task.run());
            let taken = slot.take().map(|task| task.run());
            let stolen = thief.join().unwrap();
            witness!("stole the first", stolen == Some(1));
            witness!("stole the second", stolen == Some(2));
            witness!("was replaced", replaced.is_some());
            let mut all: Vec<usize> = [replaced, taken, stolen].into_iter().flatten().collect();
            all.sort_unstable();
            assert_eq!(all, [1, 2], "each once");
        },
    );
}
