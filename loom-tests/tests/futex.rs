//! Models of `patch/src/futex.rs`: green threads that wait for a futex against those who wake.
//!
//! Invariant 1: a change of the word that comes with a wake-up is not slept through.
//! Invariant 2: a list is touched by one thread at a time.
//! Invariant 3: as many waits end by a wake-up as were told to who woke.
#![allow(
    unsafe_code,
    reason = "what waits lies on the stacks of those who wait"
)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../patch/src/futex.rs"]
mod futex;

/// What the table takes from the scheduler: a wait is a flag and a condition variable, and a limit
/// passes before anything else happens.
mod shim {
    use std::time::Instant;

    #[cfg(loom)]
    use loom::sync as real;
    #[cfg(not(loom))]
    use std::sync as real;

    use real::{Arc, Condvar, Mutex};

    pub(crate) mod atomic {
        #[cfg(loom)]
        pub(crate) use loom::sync::atomic::AtomicU32;
        #[cfg(not(loom))]
        pub(crate) use std::sync::atomic::AtomicU32;
        pub(crate) use weald_loom_tests::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    }

    pub(crate) mod cell {
        #[cfg(loom)]
        pub(crate) use loom::cell::UnsafeCell;

        #[cfg(not(loom))]
        #[derive(Debug)]
        pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

        #[cfg(not(loom))]
        impl<T> UnsafeCell<T> {
            pub(crate) const fn new(value: T) -> Self {
                Self(std::cell::UnsafeCell::new(value))
            }

            pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
                f(self.0.get())
            }
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Parked {
        Woken,
        TimedOut,
    }

    #[derive(Debug)]
    pub(crate) struct Wakeup(Arc<(Mutex<bool>, Condvar)>);

    impl Wakeup {
        pub(crate) fn wake(self) {
            let (woken, changed) = &*self.0;
            *woken.lock().expect("nobody panics under the lock") = true;
            changed.notify_one();
        }
    }

    pub(crate) fn wait_for_wakeup<W>(
        _word: *const W,
        until: Option<Instant>,
        publish: impl FnOnce(Wakeup) -> bool,
    ) -> Parked {
        let place = Arc::new((Mutex::new(false), Condvar::new()));
        if !publish(Wakeup(Arc::clone(&place))) {
            return Parked::Woken;
        }
        let (woken, changed) = &*place;
        let mut woken = woken.lock().expect("nobody panics under the lock");
        while !*woken {
            if until.is_some() {
                return Parked::TimedOut;
            }
            woken = changed.wait(woken).expect("nobody panics under the lock");
        }
        Parked::Woken
    }

    pub(crate) fn spin(_turn: u32) {
        weald_loom_tests::thread::yield_now();
    }
}

use std::time::Instant;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::Ordering;
use weald_loom_tests::{Model, check, thread, witness};

use self::futex::{Bucket, Waited};
use self::shim::atomic::AtomicU32;

/// A word and the list of those who wait for it.
#[derive(Debug)]
struct Futex {
    word: AtomicU32,
    list: Bucket,
}

impl Futex {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU32::new(0),
            list: Bucket::new(),
        })
    }

    fn wait(&self, until: Option<Instant>) -> Waited {
        // SAFETY: the word lives as long as the caller's reference.
        unsafe { self.list.wait(&raw const self.word, 0, u32::MAX, until) }
    }

    fn set(&self) {
        self.word.store(1, Ordering::Relaxed);
    }

    fn wake(&self, limit: usize) -> usize {
        self.list.wake(&raw const self.word, limit, u32::MAX)
    }
}

#[test]
fn a_change_is_seen_or_the_waiter_is_woken() {
    let model = Model::new(
        "a_change_is_seen_or_the_waiter_is_woken",
        10,
        &["woken", "saw it"],
    );
    check(model, || {
        let futex = Futex::new();
        let waiter = thread::spawn({
            let futex = Arc::clone(&futex);
            move || {
                let waited = futex.wait(None);
                assert_ne!(waited, Waited::TimedOut);
                witness!("woken", waited == Waited::Woken);
                witness!("saw it", waited == Waited::NotAsExpected);
                waited == Waited::Woken
            }
        });
        futex.set();
        let woken = futex.wake(1);
        assert_eq!(waiter.join().unwrap(), woken == 1);
    });
}

#[test]
fn a_lock_that_is_let_go_is_got_or_its_waiter_is_woken() {
    let model = Model::new(
        "a_lock_that_is_let_go_is_got_or_its_waiter_is_woken",
        10,
        &["woken", "got it"],
    );
    check(model, || {
        // The word is 1 when the lock is free.
        let lock = Futex::new();
        let waiter = thread::spawn({
            let lock = Arc::clone(&lock);
            move || {
                let is_free = || lock.word.load(Ordering::Relaxed) == 1;
                let waited = lock.list.wait_unless(&raw const lock.word, None, is_free);
                witness!("woken", waited == Waited::Woken);
                witness!("got it", waited == Waited::NotAsExpected);
            }
        });
        lock.set();
        if lock.list.has_waiters() {
            lock.wake(1);
        }
        waiter.join().unwrap();
    });
}

#[test]
fn who_is_woken_by_its_word_is_woken_once_that_has_changed() {
    let model = Model::new(
        "who_is_woken_by_its_word_is_woken_once_that_has_changed",
        10,
        &["woken", "got it"],
    );
    check(model, || {
        let semaphore = Futex::new();
        let waiter = thread::spawn({
            let semaphore = Arc::clone(&semaphore);
            move || {
                let is_up = || semaphore.word.load(Ordering::Relaxed) == 1;
                let word = &raw const semaphore.word;
                let waited = semaphore.list.wait_unless(word, None, is_up);
                witness!("woken", waited == Waited::Woken);
                witness!("got it", waited == Waited::NotAsExpected);
            }
        });
        semaphore.set();
        semaphore
            .list
            // SAFETY: who waits keeps the word.
            .wake_if(|word| unsafe { (*word).load(Ordering::Relaxed) == 1 });
        waiter.join().unwrap();
    });
}

#[test]
fn a_wake_up_and_a_limit_end_a_wait_once() {
    let model = Model::new(
        "a_wake_up_and_a_limit_end_a_wait_once",
        10,
        &["woken", "timed out", "saw it"],
    );
    check(model, || {
        let futex = Futex::new();
        let waiter = thread::spawn({
            let futex = Arc::clone(&futex);
            move || futex.wait(Some(Instant::now()))
        });
        futex.set();
        let woken = futex.wake(1);
        let waited = waiter.join().unwrap();
        witness!("woken", waited == Waited::Woken);
        witness!("timed out", waited == Waited::TimedOut);
        witness!("saw it", waited == Waited::NotAsExpected);
        assert_eq!(waited == Waited::Woken, woken == 1);
    });
}

#[test]
fn one_that_gives_up_takes_no_wake_up_along() {
    let witnesses = &["both", "the patient one"];
    // At 3 two who spin for the lock take more steps than loom counts.
    let model = Model::new("one_that_gives_up_takes_no_wake_up_along", 100, witnesses).bounded(2);
    check(model, || {
        let futex = Futex::new();
        let waiters = [None, Some(Instant::now())].map(|until| {
            let futex = Arc::clone(&futex);
            thread::spawn(move || futex.wait(until))
        });
        futex.set();
        let woken = futex.wake(usize::MAX);
        let ends = waiters.map(|waiter| waiter.join().unwrap());
        let told = ends.iter().filter(|&&end| end == Waited::Woken).count();
        assert_eq!(told, woken);
        witness!("both", woken == 2);
        witness!("the patient one", ends == [Waited::Woken, Waited::TimedOut]);
    });
}
