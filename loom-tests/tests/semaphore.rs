//! Models of `sync/src/semaphore.rs`: permits, threads that wait for them, and the end of a semaphore. The threads
//! are OS threads, which wait in place.
//!
//! Invariant 1: no waiter sleeps while a permit is free.
//! Invariant 2: closing ends every wait.
//! Invariant 3: a permit that is handed over reaches a waiter or is free again. No permit is lost or doubled, also if
//! waiters leave early.
//! Invariant 4: threads that only try do not pass over a waiter for ever.

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../sync/src/raw_mutex.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "`mutex.rs` has its models; outside it is public"
)]
mod raw_mutex;
#[path = "../../sync/src/semaphore.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "much has no model; outside it is public"
)]
mod semaphore;
mod shim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, unexplored, witness};

use self::semaphore::{Permit, Semaphore};

/// A semaphore whose waiters lose patience when they were passed over for the second time.
fn impatient(permits: usize) -> Arc<Semaphore> {
    shim::clock::PASSES.store(1, Ordering::Relaxed);
    shim::clock::LOOKS.store(0, Ordering::Relaxed);
    Arc::new(Semaphore::new(permits))
}

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

/// Takes the only permit and gives it back, again and again, until somebody else has it, at most so often;
/// each time others may run while it is taken. How often it got it.
fn take_until_passed_by(semaphore: &Semaphore, most: usize) -> usize {
    let mut times = 0;
    while times < most
        && let Some(permit) = semaphore.try_acquire()
    {
        times += 1;
        thread::yield_now();
        drop(permit);
    }
    times
}

#[test]
fn who_was_passed_over_for_long_is_handed_a_permit() {
    const MOST: usize = 8;
    check(
        Model::new("who_was_passed_over_for_long_is_handed_a_permit", 8000, &[]),
        || {
            let semaphore = impatient(1);
            let other = thread::spawn({
                let semaphore = Arc::clone(&semaphore);
                // It stays taken.
                move || semaphore.acquire().forget()
            });
            let times = take_until_passed_by(&semaphore, MOST);
            // On OS threads the other may not have begun.
            assert!(times < MOST || cfg!(not(loom)), "it starves");
            other.join().unwrap();
            assert_eq!(semaphore.available_permits(), 0);
        },
    );
}

#[test]
fn two_that_were_passed_over_get_a_permit_each() {
    check(
        Model::new("two_that_were_passed_over_get_a_permit_each", 4000, &[]),
        || {
            let semaphore = impatient(1);
            let others = unexplored(|| {
                let others = [0, 1].map(|_| {
                    let semaphore = Arc::clone(&semaphore);
                    thread::spawn(move || semaphore.acquire().forget())
                });
                take_until_passed_by(&semaphore, 3);
                others
            });
            // The first is about to be passed over for the second time, if this is quicker.
            let permit = semaphore.try_acquire();
            semaphore.add_permits(1);
            drop(permit);
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(semaphore.available_permits(), 0);
        },
    );
}

#[test]
fn who_was_passed_over_and_is_interrupted_leaves_every_permit() {
    let witnesses = &["took it", "interrupted"];
    check(
        Model::new(
            "who_was_passed_over_and_is_interrupted_leaves_every_permit",
            1500,
            witnesses,
        ),
        || {
            let semaphore = impatient(1);
            let me = weald_scheduler::current();
            let other = thread::spawn({
                let semaphore = Arc::clone(&semaphore);
                move || {
                    take_until_passed_by(&semaphore, 3);
                    me.throw("enough");
                    take_until_passed_by(&semaphore, 1);
                }
            });
            let took = catch_unwind(AssertUnwindSafe(|| drop(semaphore.acquire()))).is_ok();
            witness!("took it", took);
            witness!("interrupted", !took);
            other.join().unwrap();
            assert_eq!(semaphore.available_permits(), 1);
        },
    );
}
