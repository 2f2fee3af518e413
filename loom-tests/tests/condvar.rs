//! Models of `sync/src/condvar.rs`, with the mutex, the wait queue and all that stands behind them. The
//! threads are OS threads, which wait in place.
//!
//! Invariant 1: a notification that comes once the lock was let go ends the wait.
//! Invariant 2: `notify_one` wakes a waiter that still waits. A waiter whose exception or limit came first takes no
//! notification along.
//! Invariant 3: a wait ends with the lock, but an exception without it.
#![allow(unsafe_code, reason = "what the lock guards has no lock of its own")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use weald::sync::{Condvar, Mutex, MutexGuard};
use weald_loom_tests::cell::Cell;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

/// Tokens under a lock, and threads that wait for one. The cell is loom's: two users are a race.
struct Tokens {
    free: Mutex<Cell<usize>>,
    more: Condvar,
}

// SAFETY: that the cell has one user at a time is what the models check.
unsafe impl Sync for Tokens {}
// SAFETY: a number.
unsafe impl Send for Tokens {}

impl Tokens {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(Cell::new(0)),
            more: Condvar::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Cell<usize>> {
        self.free.lock().expect("nobody poisons it")
    }

    fn add(&self, more: usize) {
        let free = self.lock();
        free.set(free.get() + more);
    }

    fn give(&self) {
        self.add(1);
        self.more.notify_one();
    }

    /// As `give`, with the lock held all the time.
    fn give_under_the_lock(&self) {
        let free = self.lock();
        free.set(free.get() + 1);
        self.more.notify_one();
    }

    fn take(&self) {
        let mut free = self.lock();
        while free.get() == 0 {
            witness!("waited");
            free = self.more.wait(free).expect("nobody poisons it");
        }
        free.set(free.get() - 1);
    }

    /// False: the limit was first.
    fn take_in_time(&self) -> bool {
        let limit = Duration::from_millis(1);
        let mut free = self.lock();
        while free.get() == 0 {
            let (guard, result) = self.more.wait_timeout(free, limit).expect("not poisoned");
            free = guard;
            if result.timed_out() {
                return false;
            }
        }
        free.set(free.get() - 1);
        true
    }

    fn check_none_left(&self) {
        let free = self.free.try_lock().expect("nobody has the lock");
        assert_eq!(free.get(), 0);
    }
}

#[test]
fn a_waiter_is_notified_or_sees_the_token() {
    check(
        Model::new("a_waiter_is_notified_or_sees_the_token", 50, &["waited"]),
        || {
            let tokens = Tokens::new();
            let other = thread::spawn({
                let tokens = Arc::clone(&tokens);
                move || tokens.give()
            });
            tokens.take();
            other.join().unwrap();
            tokens.check_none_left();
        },
    );
}

#[test]
fn a_notification_under_the_lock_wakes_too() {
    check(
        Model::new("a_notification_under_the_lock_wakes_too", 118, &["waited"]),
        || {
            let tokens = Tokens::new();
            let other = thread::spawn({
                let tokens = Arc::clone(&tokens);
                move || tokens.give_under_the_lock()
            });
            tokens.take();
            other.join().unwrap();
            tokens.check_none_left();
        },
    );
}

#[test]
fn all_are_notified() {
    check(Model::new("all_are_notified", 420, &["waited"]), || {
        let tokens = Tokens::new();
        let others = [0, 1].map(|_| {
            let tokens = Arc::clone(&tokens);
            thread::spawn(move || tokens.take())
        });
        tokens.add(2);
        tokens.more.notify_all();
        for other in others {
            other.join().unwrap();
        }
        tokens.check_none_left();
    });
}

#[test]
fn an_exception_takes_no_notification_along() {
    let witnesses = &["interrupted", "took it", "waited"];
    check(
        Model::new("an_exception_takes_no_notification_along", 20000, witnesses),
        || {
            let tokens = Tokens::new();
            let me = weald_scheduler::current();
            let other = thread::spawn({
                let tokens = Arc::clone(&tokens);
                move || tokens.take()
            });
            let giver = thread::spawn({
                let tokens = Arc::clone(&tokens);
                move || {
                    me.throw("enough");
                    tokens.give();
                }
            });
            if catch_unwind(AssertUnwindSafe(|| tokens.take())).is_ok() {
                witness!("took it");
                let raised = catch_unwind(weald_scheduler::checkpoint).is_err();
                assert!(raised, "it comes with the next call");
                tokens.give();
            } else {
                witness!("interrupted");
            }
            other.join().unwrap();
            giver.join().unwrap();
            tokens.check_none_left();
        },
    );
}

#[test]
fn who_leaves_by_its_limit_takes_no_notification_along() {
    let witnesses = &["left", "took it"];
    check(
        Model::new(
            "who_leaves_by_its_limit_takes_no_notification_along",
            8000,
            witnesses,
        ),
        || {
            let tokens = Tokens::new();
            let other = thread::spawn({
                let tokens = Arc::clone(&tokens);
                move || tokens.take()
            });
            let giver = thread::spawn({
                let tokens = Arc::clone(&tokens);
                move || tokens.give()
            });
            if tokens.take_in_time() {
                witness!("took it");
                tokens.give();
            } else {
                witness!("left");
            }
            other.join().unwrap();
            giver.join().unwrap();
            tokens.check_none_left();
        },
    );
}
