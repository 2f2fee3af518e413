//! Models of `scheduler/src/wait/wait_queue.rs`, with what stands behind it: the state word, the parker of
//! an OS thread, exceptions. The threads are OS threads, which wait in place; `whole.rs` has green
//! ones.
//!
//! Invariant 1: a waiter is woken, or sees what it waits for.
//! Invariant 2: a wake-up goes to one waiter, and none is lost with a waiter that leaves early.
//! Invariant 3: an exception and a wake-up may both come; neither takes the other along.

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicUsize, Ordering};
use weald_loom_tests::{Model, check, thread, witness};
use weald_scheduler::io::{WaitQueue, Woken};

/// Permits, and threads that wait for one.
struct Permits {
    free: AtomicUsize,
    queue: WaitQueue,
}

impl Permits {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            free: AtomicUsize::new(0),
            queue: WaitQueue::new(),
        })
    }

    fn try_take(&self) -> bool {
        self.free
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |free| {
                free.checked_sub(1)
            })
            .is_ok()
    }

    /// False: an exception came first.
    fn take(&self) -> bool {
        while !self.try_take() {
            let woken = self
                .queue
                .wait(|| self.free.load(Ordering::Relaxed) > 0, None, true);
            match woken {
                Woken::Notified => witness!("woken"),
                Woken::Ready => witness!("saw it"),
                // It has taken no wake-up along: there is nothing to pass on.
                Woken::Interrupted(_) => return false,
                Woken::TimedOut | Woken::Again => {}
            }
        }
        true
    }

    fn give(&self) {
        self.free.fetch_add(1, Ordering::AcqRel);
        self.queue.wake_one();
    }
}

#[test]
fn a_waiter_is_woken_or_sees_the_permit() {
    let witnesses = &["woken", "saw it"];
    check(
        Model::new("a_waiter_is_woken_or_sees_the_permit", 20, witnesses),
        || {
            let permits = Permits::new();
            let waiter = thread::spawn({
                let permits = Arc::clone(&permits);
                move || assert!(permits.take())
            });
            permits.give();
            waiter.join().unwrap();
            assert!(permits.queue.is_empty(), "a node is left");
        },
    );
}

#[test]
fn two_permits_wake_two_waiters() {
    let witnesses = &["woken", "saw it"];
    check(
        Model::new("two_permits_wake_two_waiters", 4000, witnesses),
        || {
            let permits = Permits::new();
            let waiters = [0, 1].map(|_| {
                let permits = Arc::clone(&permits);
                thread::spawn(move || assert!(permits.take()))
            });
            permits.give();
            permits.give();
            for waiter in waiters {
                waiter.join().unwrap();
            }
            assert!(permits.queue.is_empty(), "a node is left");
            assert_eq!(permits.free.load(Ordering::Relaxed), 0);
        },
    );
}

#[test]
fn an_exception_takes_no_wake_up_along() {
    let witnesses = &["interrupted", "took it", "woken"];
    check(
        Model::new("an_exception_takes_no_wake_up_along", 14000, witnesses),
        || {
            let permits = Permits::new();
            let me = weald_scheduler::current();
            let other = thread::spawn({
                let permits = Arc::clone(&permits);
                move || assert!(permits.take(), "nobody throws at it")
            });
            let giver = thread::spawn({
                let permits = Arc::clone(&permits);
                move || {
                    me.throw("enough");
                    permits.give();
                }
            });
            if permits.take() {
                witness!("took it");
                permits.give();
            } else {
                witness!("interrupted");
            }
            giver.join().unwrap();
            other.join().unwrap();
            assert!(permits.queue.is_empty(), "a node is left");
            assert_eq!(permits.free.load(Ordering::Relaxed), 0);
        },
    );
}
