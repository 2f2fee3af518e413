//! `Builder::worker`: a thread that begins on a worker of the program's choice. The tests of the scheduler check that
//! it is this worker, because workers have numbers there.

use std::io::ErrorKind;
use std::time::Duration;

use weald::{Builder, Runtime};

use crate::support::{
    Count, LIMIT, MODES, MS, OnDrop, check_names, each_mode_on, os_thread, runtime, was_killed,
    with_deadline,
};

fn workers() -> usize {
    weald::metrics().workers
}

#[test]
fn a_worker_that_is_not_there_is_an_error_with_its_number_and_the_bound() {
    let check = |rt: &Runtime| {
        rt.run(|| {
            for missing in [workers(), usize::from(u16::MAX) + 1, usize::MAX] {
                let error = Builder::new().worker(missing).spawn(|| ()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                let last = (workers() - 1).to_string();
                check_names(&error.to_string(), &missing.to_string(), &[&last]);
                weald::scope(|scope| {
                    let scoped = Builder::new().worker(missing).spawn_scoped(scope, || ());
                    assert_eq!(scoped.unwrap_err().kind(), ErrorKind::InvalidInput);
                });
            }
        });
    };
    each_mode_on(1, check);
    each_mode_on(3, check);
}

#[test]
fn a_worker_that_sleeps_is_woken_for_a_thread_that_is_to_begin_there() {
    let check = |rt: &Runtime| {
        rt.run(|| {
            for n in 0..100 {
                let builder = Builder::new().worker(n % workers());
                assert_eq!(builder.spawn(move || n).unwrap().join().unwrap(), n);
            }
        });
    };
    each_mode_on(1, check);
    each_mode_on(3, check);
}

#[test]
fn from_an_os_thread_it_is_a_worker_of_the_default_runtime() {
    with_deadline(LIMIT, || {
        for n in 0..workers() {
            let thread = Builder::new().worker(n).spawn(weald::is_green).unwrap();
            assert!(thread.join().unwrap());
        }
    });
}

#[test]
fn children_of_a_scope_that_begin_on_each_worker_borrow_and_wait_as_any_do() {
    let check = |rt: &Runtime| {
        rt.run(|| {
            let ended = Count::default();
            weald::scope(|scope| {
                for n in 0..200 {
                    let ended = &ended;
                    let body = move || {
                        weald::yield_now();
                        weald::sleep(MS);
                        ended.add();
                    };
                    let builder = Builder::new().worker(n % workers());
                    builder.spawn_scoped(scope, body).unwrap();
                }
            });
            assert_eq!(ended.get(), 200);
        });
    };
    each_mode_on(1, check);
    each_mode_on(2, check);
}

#[test]
fn a_pinned_thread_stays_where_it_has_begun() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            for n in 0..2 {
                let stays = || {
                    let before = os_thread();
                    for _ in 0..20 {
                        weald::yield_now();
                        weald::sleep(MS / 10);
                    }
                    before == os_thread()
                };
                let thread = Builder::new().worker(n).pinned(true).spawn(stays);
                assert!(thread.unwrap().join().unwrap());
            }
        });
    });
}

#[test]
fn what_has_not_begun_when_the_runtime_ends_is_dropped_where_waiting_works() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let (dropped, ran) = (Count::default(), Count::default());
                let spawn = |n| {
                    let ran = ran.clone();
                    let dropped = dropped.clone();
                    let waits = OnDrop(move || {
                        weald::spawn(|| ()).join().ok();
                        weald::yield_now();
                        dropped.add();
                    });
                    let body = move || {
                        let _waits = waits;
                        ran.add();
                        weald::park();
                    };
                    Builder::new().worker(n % workers).spawn(body).unwrap()
                };
                let threads: Vec<_> = rt.run(|| (0..100).map(spawn).collect());
                assert!(!rt.shutdown(Duration::ZERO));
                assert!(threads.into_iter().all(|thread| was_killed(&thread.join())));
                assert_eq!(dropped.get(), 100, "{} had begun", ran.get());
            });
        }
    }
}
