//! Models of `sync/src/semaphore.rs`: permits, those who wait for them, and the end of all that.
//!
//! Invariant 1: a permit that is free and a waiter that sleeps are not left together.
//! Invariant 2: closing ends every wait.
#![cfg(loom)]

/// What the semaphore takes from its crate's shim.
mod shim {
    pub(crate) mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    }
}

#[path = "../../sync/src/semaphore.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "limits have no model; outside it is public"
)]
mod semaphore;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::semaphore::Semaphore;

fn model(name: &'static str, floor: u64, witnesses: &'static [&'static str]) -> Model {
    Model {
        name,
        floor,
        bound: None,
        witnesses,
    }
}

#[test]
fn two_share_one_permit() {
    check(model("two_share_one_permit", 120, &[]), || {
        let semaphore = Arc::new(Semaphore::new(1));
        let others = [0, 1].map(|_| {
            let semaphore = Arc::clone(&semaphore);
            thread::spawn(move || drop(semaphore.acquire()))
        });
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(semaphore.available_permits(), 1);
    });
}

#[test]
fn permits_that_are_added_reach_all_who_wait() {
    check(
        model("permits_that_are_added_reach_all_who_wait", 1400, &[]),
        || {
            let semaphore = Arc::new(Semaphore::new(0));
            let others = [0, 1].map(|_| {
                let semaphore = Arc::clone(&semaphore);
                thread::spawn(move || semaphore.acquire().forget())
            });
            semaphore.add_permits(2);
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(semaphore.available_permits(), 0);
        },
    );
}

#[test]
fn closing_ends_every_wait() {
    let witnesses = &["one got it", "none got it"];
    check(model("closing_ends_every_wait", 5000, witnesses), || {
        let semaphore = Arc::new(Semaphore::new(0));
        let others = [0, 1].map(|_| {
            let semaphore = Arc::clone(&semaphore);
            thread::spawn(move || {
                let permit = semaphore.acquire_timeout(std::time::Duration::MAX);
                permit.map(semaphore::Permit::forget).is_some()
            })
        });
        semaphore.add_permits(1);
        semaphore.close();
        let got = others.map(|other| other.join().unwrap());
        let got = got.iter().filter(|&&got| got).count();
        witness!("one got it", got == 1);
        witness!("none got it", got == 0);
        assert_eq!(semaphore.available_permits() + got, 1);
    });
}
