//! Models of `sync/src/semaphore.rs`: permits, those who wait for them, and the end of all that.
//!
//! Invariant 1: a permit that is free and a waiter that sleeps are not left together.
//! Invariant 2: closing ends every wait.

use weald::sync::{Permit, Semaphore};
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

#[test]
fn two_share_one_permit() {
    check(Model::new("two_share_one_permit", 120, &[]), || {
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
        Model::new("permits_that_are_added_reach_all_who_wait", 1400, &[]),
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
    check(
        Model::new("closing_ends_every_wait", 5000, witnesses),
        || {
            let semaphore = Arc::new(Semaphore::new(0));
            let others = [0, 1].map(|_| {
                let semaphore = Arc::clone(&semaphore);
                thread::spawn(move || {
                    let permit = semaphore.acquire_timeout(std::time::Duration::MAX);
                    permit.map(Permit::forget).is_some()
                })
            });
            semaphore.add_permits(1);
            semaphore.close();
            let got = others.map(|other| other.join().unwrap());
            let got = got.iter().filter(|&&got| got).count();
            witness!("one got it", got == 1);
            witness!("none got it", got == 0);
            assert_eq!(semaphore.available_permits() + got, 1);
        },
    );
}
