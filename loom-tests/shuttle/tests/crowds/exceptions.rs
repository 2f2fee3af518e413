//! Kills, thrown errors, limits within limits, and alarms.

use std::sync::PoisonError;

use shuttle::sync::Arc;
use weald::JoinHandle;
use weald::sync::channel::bounded;
use weald::sync::{Mutex, Semaphore};
use weald_shuttle_tests::check;
use weald_shuttle_tests::random::{below, one_in};

use crate::support::{Count, Inside, MS, Mark, crowd, pause, runtime, was_killed};

/// Threads hold permits, locks and messages while exceptions come from everywhere.
#[test]
fn cancels() {
    check("cancels", || {
        let rt = runtime();
        let permits = Arc::new(Semaphore::new(2));
        let lock = Arc::new(Mutex::new(()));
        let (inside, holders) = (Count::default(), Count::default());
        let (send, receive) = bounded::<()>(2);
        let (sent, received, marks) = (Count::default(), Count::default(), Count::default());
        let own = (
            permits.clone(),
            lock.clone(),
            inside.clone(),
            holders.clone(),
        );
        let counts = (sent.clone(), received.clone(), marks.clone());
        let ends = (send, receive.clone());
        let body = move |_: usize| {
            let (permits, lock, inside, holders) = &own;
            let (sent, received, marks) = &counts;
            let work = || {
                loop {
                    pause();
                    match below(5) {
                        0 => {
                            let _permit = permits.acquire();
                            let _held = Inside::enter(holders, 2);
                            pause();
                        }
                        1 => {
                            let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
                            let _alone = Inside::enter(inside, 1);
                            pause();
                        }
                        // Nothing is raised between a call that has done something and the count of it.
                        2 => {
                            ends.0.send(()).unwrap();
                            sent.add();
                        }
                        3 => {
                            ends.1.recv().unwrap();
                            received.add();
                        }
                        _ => weald::park(),
                    }
                }
            };
            loop {
                let interrupted: Result<(), Mark> = weald::catch(work);
                assert!(interrupted.is_err());
                marks.add();
            }
        };
        let mut threads = crowd(&rt, 10 + below(10), body);
        let mut thrown = 0;
        while !threads.is_empty() {
            let at = below(threads.len());
            if one_in(2) {
                let thread: JoinHandle<()> = threads.swap_remove(at);
                thread.thread().kill();
                assert!(was_killed(&thread.join()));
            } else {
                threads[at].thread().throw(Mark(1));
                thrown += 1;
            }
        }
        assert!(marks.get() <= thrown, "one was delivered twice");
        assert_eq!(permits.available_permits(), 2);
        assert!(lock.try_lock().is_ok() || lock.is_poisoned());
        assert_eq!((inside.get(), holders.get()), (0, 0));
        assert_eq!(sent.get(), received.get() + receive.try_iter().count());
    });
}

/// Limits within limits, around whatever waits.
fn limited(depth: usize, permits: &Semaphore) -> usize {
    let mut elapsed = 0;
    for _ in 0..below(3) {
        let outcome = weald::timeout(MS * 2, || {
            match below(5) {
                0 if depth > 0 => return limited(depth - 1, permits),
                1 => drop(permits.acquire()),
                2 => weald::park(),
                3 => weald::sleep(MS),
                _ => pause(),
            }
            0
        });
        elapsed += outcome.unwrap_or(1);
    }
    elapsed
}

#[test]
fn limits_and_alarms() {
    check("limits_and_alarms", || {
        let rt = runtime();
        let permits = Arc::new(Semaphore::new(1));
        let (fired, cancelled, set) = (Count::default(), Count::default(), Count::default());
        let dropped = Count::default();
        let own = (
            permits.clone(),
            fired.clone(),
            cancelled.clone(),
            set.clone(),
        );
        let held = dropped.clone();
        let body = move |_: usize| {
            let (permits, fired, cancelled, set) = &own;
            for _ in 0..2 {
                limited(2, permits);
                let (fires, held) = (fired.clone(), held.on_drop());
                set.add();
                let call = weald::call_after(MS, move || {
                    fires.add();
                    drop(held);
                });
                // An alarm is raised where the caller waits, or cancelled, and never both.
                let raised = weald::catch::<Mark, _>(|| {
                    let alarm = weald::exc_after(MS, Mark(7));
                    pause();
                    pause();
                    // Nothing is raised after this, whatever it says.
                    alarm.cancel()
                });
                assert_ne!(raised, Ok(false), "neither raised nor cancelled");
                weald::checkpoint();
                if one_in(2) && call.cancel() {
                    cancelled.add();
                    assert!(!call.cancel(), "cancelled twice");
                }
            }
        };
        for thread in crowd(&rt, 10 + below(6), body) {
            thread.join().unwrap();
        }
        // A wait until a limit moves the clock.
        rt.run(|| {
            while fired.get() + cancelled.get() < set.get() {
                weald::sleep(MS);
            }
        });
        drop(rt);
        assert_eq!(fired.get() + cancelled.get(), set.get());
        assert_eq!(dropped.get(), set.get());
        assert_eq!(permits.available_permits(), 1);
    });
}
