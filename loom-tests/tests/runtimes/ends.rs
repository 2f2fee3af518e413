//! The end of a runtime, and what comes at the same time.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Flag, Model, check, explored, thread, unexplored, witness};
use weald_scheduler::{park, spawn};

use super::{is_killed, resting, runtime};
use crate::message::Message;

/// Something on a stack.
struct Frame<'a>(&'a Message);

impl<'a> Frame<'a> {
    fn new(frames: &'a Message) -> Self {
        frames.add(1);
        Self(frames)
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.0.add(usize::MAX);
    }
}

/// From just before the spawn until the spawner has its result, or unwinds.
pub(crate) fn meets_a_spawn(name: &'static str, floor: u64) {
    let witnesses = &["it ran", "it was refused", "it unwound"];
    check(Model::new(name, floor, witnesses), || {
        unexplored(|| {
            let runtime = resting(1);
            let frames = Arc::new(Message::new(0));
            let begins = Arc::new(Flag::new());
            let other = runtime.spawn({
                let (frames, begins) = (frames.clone(), begins.clone());
                move || {
                    let _frame = Frame::new(&frames);
                    let joined = explored(|| {
                        begins.set();
                        let child = spawn(|| ());
                        catch_unwind(AssertUnwindSafe(|| child.join()))
                    });
                    witness!("it unwound", joined.is_err());
                    let result = joined.unwrap_or_else(|payload| resume_unwind(payload));
                    witness!("it ran", result.is_ok());
                    witness!("it was refused", is_killed(result));
                }
            });
            begins.wait();
            runtime.shutdown(Duration::ZERO);
            assert_eq!(frames.look(), 0, "it has not unwound");
            drop(other.join());
        });
    });
}

/// An unpark comes while the runtime kills the thread that is parked.
pub(crate) fn meets_an_unpark(name: &'static str, floor: u64) {
    let witnesses = &["it was unparked", "it was killed"];
    check(Model::new(name, floor, witnesses).bounded(1), || {
        let (runtime, parked) = unexplored(|| {
            let runtime = runtime(1);
            let parked = runtime.spawn(park);
            thread::yield_now();
            (runtime, parked)
        });
        let other = thread::spawn({
            let parked = parked.thread().clone();
            move || parked.unpark()
        });
        let clean = runtime.shutdown(Duration::ZERO);
        let killed = is_killed(parked.join());
        witness!("it was unparked", !killed);
        witness!("it was killed", killed);
        assert!(!clean || !killed, "who was killed was told of");
        other.join().unwrap();
    });
}
