//! Models of `scheduler/src/parts/ends.rs`: threads that end, what they leave behind, and a shutdown that asks
//! whether all have ended.
//!
//! Invariant: a shutdown that learns that all threads have ended sees what the last thread has done.
#![allow(
    unsafe_code,
    reason = "what a thread leaves, without a lock, is what is checked"
)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/ends.rs"]
mod ends;
mod shim {
    pub(crate) use weald_loom_tests::sync::atomic;
    pub(crate) use weald_loom_tests::thread;
}

use weald_loom_tests::cell::UnsafeCell;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use weald_loom_tests::{Model, check, thread, witness};

use self::ends::{Ending, all_ended, some_are_left};

/// A runtime with one carrier, on which one thread ends.
struct Runtime {
    carrier: Ending,
    spawned: AtomicU64,
    ended: AtomicU64,
    /// The thread's handle is still there.
    handle: AtomicBool,
    /// What is done for the thread; the thread that shuts the runtime down frees it.
    work: UnsafeCell<u32>,
}

// SAFETY: that the cell is touched by one at a time is what the models check.
unsafe impl Sync for Runtime {}
// SAFETY: a number.
unsafe impl Send for Runtime {}

impl Runtime {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            carrier: Ending::new(),
            spawned: AtomicU64::new(1),
            ended: AtomicU64::new(0),
            handle: AtomicBool::new(true),
            work: UnsafeCell::new(0),
        })
    }

    fn work(&self) {
        // SAFETY: what is checked.
        self.work.with_mut(|work| unsafe { *work += 1 });
    }

    fn count_end(&self) {
        // As the only one who holds the seat.
        let ended = self.ended.load(Ordering::Relaxed);
        self.ended.store(ended + 1, Ordering::Release);
    }

    /// A thread ends, and if its handle went meanwhile, another one drops its result. True: it did.
    fn end(&self) -> bool {
        self.work();
        self.carrier.begin();
        self.count_end();
        let orphan = !self.handle.swap(false, Ordering::AcqRel);
        if orphan {
            self.spawned.fetch_add(1, Ordering::AcqRel);
        }
        self.carrier.end();
        if orphan {
            self.work();
            self.carrier.begin();
            self.count_end();
            self.carrier.end();
        }
        orphan
    }

    fn all_ended(&self) -> bool {
        all_ended(
            || self.ended.load(Ordering::Acquire),
            || self.spawned.load(Ordering::Acquire),
            std::iter::once(&self.carrier),
        )
    }
}

#[test]
fn a_shutdown_waits_for_what_the_last_thread_leaves() {
    let witnesses = &["an orphan", "all had ended", "one had not"];
    let model = Model::new(
        "a_shutdown_waits_for_what_the_last_thread_leaves",
        10,
        witnesses,
    );
    check(model, || {
        let runtime = Runtime::new();
        let carrier = thread::spawn({
            let runtime = Arc::clone(&runtime);
            move || runtime.end()
        });
        let dropper = thread::spawn({
            let runtime = Arc::clone(&runtime);
            move || {
                runtime.handle.swap(false, Ordering::AcqRel);
            }
        });
        let all = runtime.all_ended();
        if all {
            // The memory goes: nobody uses it any more.
            runtime.work();
        }
        dropper.join().unwrap();
        let orphan = carrier.join().unwrap();
        witness!("an orphan", orphan);
        witness!("all had ended", all);
        witness!("one had not", !all);
        assert!(runtime.all_ended());
    });
}

/// A runtime in which a timer falls due while it closes.
struct Closing {
    runtime: Arc<Runtime>,
    closes: AtomicBool,
    stops: AtomicBool,
    /// Calls that were due and did not fire.
    unfired: AtomicU64,
}

impl Closing {
    /// The carrier's loop, once around: the timer is due, and the thread that it starts is run if there is
    /// time. True: a thread has started.
    fn carry(&self) -> bool {
        if self.closes.load(Ordering::Acquire) {
            self.unfired.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.runtime.spawned.fetch_add(1, Ordering::AcqRel);
        if !self.stops.load(Ordering::Acquire) {
            self.runtime.end();
        }
        true
    }

    /// True: all have ended, and the memory goes.
    fn shut_down(&self, carrier: thread::JoinHandle<bool>) -> (bool, bool) {
        self.closes.store(true, Ordering::Release);
        let ended = self.runtime.all_ended();
        self.stops.store(true, Ordering::Release);
        let started = carrier.join().unwrap();
        let live = || {
            let ended = self.runtime.ended.load(Ordering::Acquire);
            self.runtime.spawned.load(Ordering::Acquire) - ended
        };
        (started, !some_are_left(ended, live))
    }
}

#[test]
fn a_timer_that_falls_due_at_the_end_leaves_its_thread_behind() {
    let witnesses = &["it did not fire", "it ran", "it was left"];
    let model = Model::new(
        "a_timer_that_falls_due_at_the_end_leaves_its_thread_behind",
        10,
        witnesses,
    );
    check(model, || {
        let runtime = Runtime::new();
        // The one thread that there was has ended.
        runtime.ended.store(1, Ordering::Release);
        let closing = Arc::new(Closing {
            runtime,
            closes: AtomicBool::new(false),
            stops: AtomicBool::new(false),
            unfired: AtomicU64::new(0),
        });
        let carrier = thread::spawn({
            let closing = Arc::clone(&closing);
            move || closing.carry()
        });
        let (started, gone) = closing.shut_down(carrier);
        let runtime = &closing.runtime;
        let live = runtime.spawned.load(Ordering::Relaxed) - runtime.ended.load(Ordering::Relaxed);
        if gone {
            // The memory goes: nobody uses it any more.
            runtime.work();
            assert_eq!(live, 0, "a thread points to memory that is gone");
        }
        let unfired = closing.unfired.load(Ordering::Relaxed);
        assert_eq!(unfired == 0, started, "the call is somewhere");
        witness!("it did not fire", !started);
        witness!("it ran", started && gone);
        witness!("it was left", started && live > 0);
    });
}
