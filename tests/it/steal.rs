//! Work spreads over the workers, and a push wakes an idle worker. `tests/latency.rs` measures how fast.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::support::{
    Count, Flag, LIMIT, MODES, MS, each_mode_on, os_thread, runtime, wait_until, with_deadline,
};

/// Two green threads wait for each other without giving way, so they can only both end on two OS threads.
fn meet(arrived: &Count, others: usize) {
    arrived.add();
    while arrived.get() < others {
        std::thread::yield_now();
    }
}

#[test]
fn what_a_busy_worker_has_spawned_runs_on_the_other() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            for _ in 0..50 {
                let done = Flag::default();
                let tells = done.clone();
                weald::spawn(move || tells.set());
                // No blocking call: only another worker can run it.
                done.spin();
            }
        });
    });
}

#[test]
fn two_green_threads_compute_at_the_same_time() {
    each_mode_on(2, |rt| {
        for _ in 0..20 {
            let arrived = Count::default();
            let pair: Vec<_> = (0..2)
                .map(|_| {
                    let arrived = arrived.clone();
                    rt.spawn(move || meet(&arrived, 2))
                })
                .collect();
            for h in pair {
                h.join().unwrap();
            }
        }
    });
}

#[test]
fn as_many_compute_at_once_as_there_are_workers() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(6, mode);
            rt.run(|| {
                let arrived = Count::default();
                let crowd: Vec<_> = (0..5)
                    .map(|_| {
                        let arrived = arrived.clone();
                        weald::spawn(move || meet(&arrived, 6))
                    })
                    .collect();
                meet(&arrived, 6);
                for h in crowd {
                    h.join().unwrap();
                }
            });
        });
    }
}

#[test]
fn a_crowd_spawned_by_one_worker_is_shared_and_the_steals_are_counted() {
    each_mode_on(2, |rt| {
        let threads = Arc::new(Mutex::new(HashSet::new()));
        rt.run(|| {
            let both = Arc::clone(&threads);
            let crowd: Vec<_> = (0..200)
                .map(|_| {
                    let threads = Arc::clone(&threads);
                    weald::spawn(move || {
                        let own = os_thread();
                        threads.lock().unwrap().insert(own);
                    })
                })
                .collect();
            // Holds this worker until the other one has come for some of them.
            while both.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            for h in crowd {
                h.join().unwrap();
            }
        });
        assert!(rt.metrics().steals > 0);
    });
}

#[test]
fn a_wake_up_from_another_core_reaches_a_green_thread_whose_worker_sleeps() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            let (turn, answered) = (Count::default(), Count::default());
            let (turns, answers) = (turn.clone(), answered.clone());
            let other = weald::spawn(move || {
                for i in 0..100 {
                    while turns.get() <= i {
                        weald::park();
                    }
                    answers.add();
                }
            });
            // Keeps this worker until the other one has started the thread and parked it there.
            turn.add();
            other.thread().unpark();
            while answered.get() < 1 {
                std::thread::yield_now();
            }
            for i in 1..100 {
                weald::sleep(MS / 4);
                turn.add();
                other.thread().unpark();
                // The answer needs the other worker: this one is held.
                while answered.get() <= i {
                    std::thread::yield_now();
                }
            }
            other.join().unwrap();
        });
    });
}

#[test]
fn started_threads_are_stolen_too_where_they_may_migrate() {
    with_deadline(LIMIT, || {
        let rt = runtime(2, crate::support::Mode::Shared);
        rt.run(|| {
            let (started, done) = (Flag::default(), Flag::default());
            let (tells, ends) = (started.clone(), done.clone());
            let other = weald::spawn(move || {
                tells.set();
                weald::park();
                ends.set();
            });
            started.wait();
            other.thread().unpark();
            done.spin();
            other.join().unwrap();
        });
    });
}

#[test]
fn pushes_from_outside_wake_workers_that_sleep() {
    each_mode_on(2, |rt| {
        for i in 0..200 {
            let handle = rt.spawn(move || i);
            if i % 10 == 0 {
                std::thread::sleep(MS);
            }
            assert_eq!(handle.join().unwrap(), i);
        }
    });
}

#[test]
fn a_storm_of_spawns_joins_and_wakes_over_two_workers_loses_nothing() {
    each_mode_on(2, |rt| {
        let sum = Count::default();
        rt.run(|| {
            let roots: Vec<_> = (0..8)
                .map(|r| {
                    let sum = sum.clone();
                    weald::spawn(move || {
                        for i in 0..200 {
                            let sum = sum.clone();
                            let child = weald::spawn(move || {
                                if (r + i) % 3 == 0 {
                                    weald::park();
                                }
                                sum.add();
                            });
                            weald::yield_now();
                            child.thread().unpark();
                            child.join().unwrap();
                        }
                    })
                })
                .collect();
            wait_until(|| roots.iter().all(weald::JoinHandle::is_finished));
            for h in roots {
                h.join().unwrap();
            }
        });
        assert_eq!(sum.get(), 1600);
    });
}
