//! Models of `scheduler/src/engine/monitor.rs` and `scheduler/src/run/watch.rs`: the monitor's sleep against the first worker that wakes.
//!
//! The monitor, the idle protocol, the seats and the doors are production code; a worker is a thread
//! that sleeps until there is something to do, and then runs a hog: it does not come back until its
//! seat was given to another.
//!
//! Invariant 1: a worker that runs is watched. A hog that nobody watches is a deadlock here.
//! Invariant 2: while all workers sleep the monitor sleeps too, and what wakes it is a worker.
//! Invariant 3: it ends when it is told to, whatever it does just then.
#![cfg(loom)]
#![allow(
    unsafe_code,
    reason = "the doubles have the signatures of what they double"
)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/door.rs"]
#[allow(dead_code, reason = "the carriers here do not go in and out")]
mod door;
#[path = "../../scheduler/src/run/hogs.rs"]
mod hogs;
#[path = "../../scheduler/src/parts/idle.rs"]
#[allow(dead_code, reason = "nobody searches")]
mod idle;
#[path = "../../scheduler/src/engine/monitor.rs"]
#[allow(dead_code, reason = "its counters have no reader here")]
mod monitor;
#[path = "../../scheduler/src/shim/loom.rs"]
#[allow(dead_code, unused_imports, reason = "only a part is used")]
mod plain_shim;
#[path = "../../scheduler/src/engine/seat.rs"]
#[allow(dead_code, reason = "no carrier comes back")]
mod seat;
#[path = "../../scheduler/src/run/seen.rs"]
mod seen;
#[path = "../../scheduler/src/run/watch.rs"]
mod watch;

/// The scheduler's, but for the monitor's waits.
mod shim {
    pub(crate) use super::plain_shim::{atomic, barrier, clock};

    pub(crate) mod sync {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::time::Duration;

        pub(crate) use crate::plain_shim::sync::{Arc, Condvar, Mutex, MutexGuard};

        loom::lazy_static! {
            static ref HAS_TICKED: AtomicBool = AtomicBool::new(false);
        }

        /// loom runs a thread that yields only when no other can go on, so after a tick that
        /// yields all workers have done what they can. The first tick of a permutation does not,
        /// and the monitor's look comes between their steps.
        pub(crate) fn wait_for<'a, T>(
            door: &Condvar,
            guard: MutexGuard<'a, T>,
            limit: Duration,
        ) -> MutexGuard<'a, T> {
            if HAS_TICKED.swap(true, Ordering::Relaxed) {
                return crate::plain_shim::sync::wait_for(door, guard, limit);
            }
            crate::shim::clock::advance(limit);
            guard
        }

        pub(crate) fn wait<'a, T>(door: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            weald_loom_tests::witness!("slept");
            crate::plain_shim::sync::wait(door, guard)
        }
    }
}

/// The floors that these parts are on.
mod parts {
    pub(crate) use super::os_thread;
}
mod green {
    pub(crate) use super::{blocked, trace};
}
mod engine {
    pub(crate) use super::{carrier, inner, record, seat, share_forks, worker};
}

/// Nothing is recorded.
mod record {
    use super::inner::Inner;

    #[derive(Clone, Copy)]
    pub(crate) enum Kind {
        Hog,
    }

    pub(crate) fn is_on() -> bool {
        false
    }

    pub(crate) fn note(_: Kind, _: u64, _: u64) {}

    pub(crate) fn handed_over(_: &Inner, _: usize, _: usize) {}
}

/// Nobody wants to know of deadlocks.
mod silence {
    use std::time::Instant;

    use super::inner::Inner;

    pub(crate) struct Silence;

    impl Silence {
        pub(crate) fn new(_: Instant) -> Self {
            Self
        }

        #[allow(clippy::unused_self, reason = "as the real one")]
        pub(crate) fn look(&self, _: &Inner, _: Instant) -> Option<Instant> {
            None
        }
    }
}

/// Somebody has said how many workers there are.
mod limits {
    use std::time::Instant;

    use super::inner::Inner;
    use super::shim::sync::Arc;

    pub(crate) struct Limits;

    impl Limits {
        pub(crate) fn new(_: Instant) -> Self {
            Self
        }

        #[allow(clippy::unused_self, reason = "as the real one")]
        pub(crate) fn look(&self, _: &Arc<Inner>, _: Instant) {}
    }
}

/// The system does not tell.
mod os_thread {
    pub(crate) fn waits_in_kernel(_: usize) -> Option<bool> {
        None
    }
}

/// Nobody wants to know what blocks.
mod blocked {
    use std::time::Duration;

    use super::trace::Trace;

    pub(crate) fn is_wanted() -> bool {
        false
    }

    pub(crate) fn seen(_: &Trace) {}

    pub(crate) fn over(_: Trace, _: Duration) {}
}

mod trace {
    use super::carrier::Header;

    #[derive(Clone, Debug)]
    pub(crate) struct Trace;

    #[derive(Debug)]
    pub(crate) struct Tracer;

    impl Tracer {
        pub(crate) fn new() -> Self {
            Self
        }

        #[allow(clippy::unused_self, reason = "as the real one")]
        pub(crate) fn take_blocked(&self, _: usize, _: &Header) -> Option<Trace> {
            None
        }
    }
}

mod carrier {
    use std::num::NonZeroU64;

    use super::door::Door;
    use super::inner::Inner;
    use super::shim::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
    use super::shim::sync::Arc;
    use super::worker::Worker;

    /// Nobody who runs is ever asked for.
    pub(crate) struct Header {
        pub(crate) id: NonZeroU64,
    }

    impl Header {
        #[allow(clippy::unused_self, reason = "as the real one")]
        pub(crate) fn name(&self) -> Option<&str> {
            None
        }
    }

    pub(crate) struct Carrier {
        pub(crate) door: Door<Worker>,
        pub(crate) reported: AtomicBool,
        pub(crate) running: AtomicPtr<Header>,
        pub(crate) os_thread: AtomicUsize,
        pub(crate) is_away: bool,
    }

    impl Carrier {
        pub(crate) fn is_away(&self) -> bool {
            self.is_away
        }

        #[allow(clippy::unused_self, reason = "as the real one")]
        pub(crate) fn running_thread(&self) -> Option<&Header> {
            None
        }
    }

    /// The other carrier has nothing to do but to have the seat.
    #[allow(clippy::unnecessary_wraps, reason = "as the real one")]
    pub(crate) fn start(_: &Arc<Inner>, _: usize) -> std::io::Result<()> {
        Ok(())
    }
}

/// Nobody here has forked.
mod share_forks {
    use super::inner::Inner;
    use super::shim::sync::Arc;

    pub(crate) unsafe fn take_from(_: &super::carrier::Header, _: &Arc<Inner>) -> bool {
        false
    }

    pub(crate) unsafe fn take_many_from(
        _: &super::carrier::Header,
        _: &Arc<Inner>,
        _: usize,
    ) -> usize {
        0
    }
}

#[path = "monitor_doubles/worker.rs"]
mod worker;

#[path = "monitor_doubles/inner.rs"]
mod inner;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread};

use self::inner::Inner;
use self::shim::atomic::Ordering;

/// All workers asleep, and a monitor.
fn asleep(workers: usize, is_away: bool) -> (Arc<Inner>, thread::JoinHandle<()>) {
    let inner = Arc::new(Inner::new(workers, is_away));
    inner
        .seats
        .open(&inner)
        .expect("the double starts everybody");
    let monitor = thread::spawn({
        let inner = Arc::clone(&inner);
        move || watch::watch(&inner)
    });
    (inner, monitor)
}

impl Inner {
    /// Worker 0 has woken up, as in `Carrier::idle`.
    fn wake(&self) {
        self.idle.wake(0);
        self.monitor.poke();
        let ticks = &self.workers[0].ticks;
        ticks.store(ticks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Worker 0 runs a thread that comes back only when its seat is gone.
    fn run_hog(&self) {
        let (door, worker) = (&self.carriers[0].door, &self.workers[0]);
        door.leave();
        while worker.seat.holder() == Some(0) {
            thread::yield_now();
        }
        // Who has it now has nothing to do.
        worker.queue.store(0, Ordering::Relaxed);
        worker.has_due_timers.store(false, Ordering::Relaxed);
        self.idle.sleep(0, false);
        assert!(!door.enter(), "the seat was taken");
        door.leave();
    }
}

/// The model's end: the monitor is told.
fn stop(inner: &Inner, monitor: thread::JoinHandle<()>) {
    inner.monitor.stop();
    monitor.join().unwrap();
}

#[test]
fn a_worker_that_wakes_first_is_watched() {
    check(
        Model::new("a_worker_that_wakes_first_is_watched", 300, &["slept"]),
        || {
            let (inner, monitor) = asleep(1, false);
            // Timers that are due wait behind the hog.
            inner.wake();
            inner.workers[0]
                .has_due_timers
                .store(true, Ordering::Relaxed);
            inner.run_hog();
            stop(&inner, monitor);
        },
    );
}

#[test]
fn a_blocking_call_beside_a_sleeper_is_watched() {
    check(
        Model::new(
            "a_blocking_call_beside_a_sleeper_is_watched",
            200,
            &["slept"],
        ),
        || {
            let (inner, monitor) = asleep(2, true);
            inner.wake();
            inner.workers[0].queue.store(1, Ordering::Relaxed);
            inner.run_hog();
            stop(&inner, monitor);
        },
    );
}

#[test]
fn a_worker_that_sleeps_and_wakes_again_is_watched() {
    check(
        Model::new(
            "a_worker_that_sleeps_and_wakes_again_is_watched",
            1700,
            &["slept"],
        ),
        || {
            let (inner, monitor) = asleep(1, false);
            inner.wake();
            inner.idle.sleep(0, false);
            inner.wake();
            inner.workers[0]
                .has_due_timers
                .store(true, Ordering::Relaxed);
            inner.run_hog();
            stop(&inner, monitor);
        },
    );
}

#[test]
fn it_ends_when_it_is_told() {
    check(
        Model::new("it_ends_when_it_is_told", 70, &["slept"]),
        || {
            let (inner, monitor) = asleep(1, false);
            let worker = thread::spawn({
                let inner = Arc::clone(&inner);
                move || {
                    inner.wake();
                    inner.idle.sleep(0, false);
                }
            });
            stop(&inner, monitor);
            worker.join().unwrap();
        },
    );
}
