//! What belongs to a thread, or to a timer, that never runs is dropped where waiting works.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::lives::{Drops, joins_a_sleeper};
use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, OnDrop, each_mode, in_each_mode, runtime, settle,
    wait_until, was_killed, with_deadline,
};

#[test]
fn what_a_thread_owns_that_was_killed_before_it_started_may_wait() {
    in_each_mode(|| {
        let guard = joins_a_sleeper();
        let killed = weald::spawn(move || {
            let _guard = guard;
            weald::park();
        });
        killed.thread().kill();
        assert!(was_killed(&killed.join()));
    });
}

#[test]
fn what_a_thread_owns_that_a_shutdown_keeps_from_starting_may_wait() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let drops = Drops::default();
                let (hog, hogs) = (Flag::default(), Count::default());
                for _ in 0..workers {
                    let (until, hogs) = (hog.clone(), hogs.clone());
                    // The thread has not started before all carriers, except spare ones, are busy.
                    rt.spawn(move || {
                        hogs.add();
                        while !until.is_set() {
                            std::hint::spin_loop();
                        }
                    });
                }
                wait_until(|| hogs.get() == workers);
                for _ in 0..100 {
                    let waits = drops.sleeps();
                    rt.spawn(move || {
                        let _waits = waits;
                        weald::sleep(HOUR);
                    });
                }
                let ends = thread::spawn(move || rt.shutdown(Duration::ZERO));
                thread::sleep(20 * MS);
                hog.set();
                assert!(!ends.join().unwrap());
                assert!(drops.all(100), "{} of 100", drops.ended.get());
            });
        }
    }
}

#[test]
fn what_a_refused_thread_owns_may_wait_and_the_spawner_does_not() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let drops = Drops::default();
                let refused = Count::default();
                let (counts, all) = (refused.clone(), drops.clone());
                let spawner = rt.spawn(move || {
                    loop {
                        let waits = all.waits(|| weald::sleep(20 * MS));
                        let outcome = weald::spawn(move || drop(waits)).join();
                        if was_killed(&outcome) {
                            break;
                        }
                    }
                    let gate = Arc::new(weald::sync::Mutex::new(()));
                    let held = gate.lock().unwrap();
                    let locks = OnDrop({
                        let gate = gate.clone();
                        move || drop(gate.lock())
                    });
                    // The closure's destructor needs what the spawner has.
                    let handle = weald::spawn(move || drop(locks));
                    counts.add();
                    drop(held);
                    assert!(was_killed(&handle.join()));
                    counts.add();
                });
                settle();
                assert!(rt.shutdown(HOUR));
                spawner.join().unwrap();
                assert_eq!(refused.get(), 2);
                assert_eq!(drops.began.get(), drops.ended.get());
            });
        }
    }
}

#[test]
fn the_closure_of_a_timer_that_is_not_to_fire_may_wait_when_it_is_dropped() {
    each_mode(|rt| {
        let drops = Drops::default();
        let fired = Flag::default();
        let asker = rt.spawn({
            let (waits, fired) = (drops.sleeps(), fired.clone());
            move || {
                let guard = joins_a_sleeper();
                weald::call_after_local(200 * MS, move || {
                    drop((waits, guard));
                    fired.set();
                });
            }
        });
        asker.join().unwrap();
        wait_until(|| drops.all(1));
        assert!(!fired.is_set());
        assert_eq!(rt.run(|| 7), 7);
    });
}

#[test]
fn the_closure_of_a_timer_that_a_shutdown_leaves_may_wait_when_it_is_dropped() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let drops = Drops::default();
                let runs = rt.run(|| {
                    for delay in [MS, 30 * MS, HOUR] {
                        let waits = drops.sleeps();
                        weald::call_after(delay, move || {
                            drop(waits);
                        });
                    }
                    // The thread waits while timers come due that must not fire.
                    weald::spawn(|| weald::sleep(60 * MS))
                });
                assert!(rt.shutdown(HOUR));
                runs.join().unwrap();
                wait_until(|| drops.all(3));
            });
        }
    }
}
