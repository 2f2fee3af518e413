//! `Runtime` and its builder: bounds that are named, `run`, several runtimes side by side, metrics. `shutdown` has its own file.

use std::io;
use std::time::Duration;

use weald::{Metrics, Runtime, RuntimeBuilder, ThreadLocals};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, Mark, Mode, caught, check_names, each_mode, each_mode_on,
    in_child, mark_in, os_thread_names, panic_text, runtime, settle, wait_until, was_killed,
    with_deadline,
};

#[track_caller]
fn check_refused(builder: RuntimeBuilder, value: usize, bounds: &[&str]) {
    let error = builder.build().map(drop).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    check_names(&error.to_string(), &value.to_string(), bounds);
}

#[test]
fn a_worker_count_out_of_bounds_is_refused_with_value_and_bound() {
    check_refused(Runtime::builder().workers(0), 0, &["1"]);
    for absurd in [1025, 1_000_000, usize::MAX] {
        check_refused(Runtime::builder().workers(absurd), absurd, &["1024"]);
    }
}

#[test]
fn a_stack_size_out_of_bounds_is_refused_with_value_and_bound() {
    for small in [0, 1, 16 * 1024 - 1] {
        check_refused(
            Runtime::builder().stack_size(small),
            small,
            &["16 KiB", "16KiB", "16384"],
        );
    }
    for big in [(1 << 30) + 1, usize::MAX] {
        check_refused(
            Runtime::builder().stack_size(big),
            big,
            &["1 GiB", "1GiB", "1073741824"],
        );
    }
}

#[test]
fn values_at_the_bounds_are_taken() {
    with_deadline(LIMIT, || {
        for (workers, stack) in [(1, 16 * 1024), (64, 1 << 20), (2, 100_001)] {
            let rt = Runtime::builder()
                .workers(workers)
                .stack_size(stack)
                .build()
                .unwrap();
            assert_eq!(rt.metrics().workers, workers);
            assert_eq!(rt.spawn(|| 3).join().unwrap(), 3);
        }
        // A stack of the largest size costs only address space.
        let rt = Runtime::builder()
            .workers(1)
            .stack_size(1 << 30)
            .build()
            .unwrap();
        assert_eq!(rt.run(|| 4), 4);
    });
}

#[test]
fn the_runtimes_stack_size_is_that_of_its_green_threads() {
    with_deadline(LIMIT, || {
        let rt = Runtime::builder()
            .workers(1)
            .stack_size(8 << 20)
            .build()
            .unwrap();
        let filled = || {
            std::hint::black_box([1_u8; 1 << 20])
                .iter()
                .map(|&b| usize::from(b))
                .sum::<usize>()
        };
        assert_eq!(rt.spawn(filled).join().unwrap(), 1 << 20);
        assert_eq!(rt.run(filled), 1 << 20);
    });
}

#[test]
fn the_os_threads_carry_the_name_that_was_given() {
    with_deadline(LIMIT, || {
        let rt = Runtime::builder()
            .workers(2)
            .thread_name("hazel")
            .build()
            .unwrap();
        rt.run(|| ());
        let named = || {
            os_thread_names()
                .iter()
                .filter(|name| name.starts_with("hazel"))
                .count()
        };
        wait_until(|| named() >= 2);
    });
}

/// In a thread's name a zero makes std panic.
#[test]
fn a_zero_in_the_name_of_the_os_threads_becomes_a_space() {
    with_deadline(LIMIT, || {
        let rt = Runtime::builder()
            .workers(2)
            .thread_name("ha\0zel")
            .build()
            .unwrap();
        assert_eq!(rt.name(), "ha\0zel");
        rt.run(|| {
            let own = weald::Builder::new().own_thread(true);
            own.spawn(|| ()).unwrap().join().unwrap();
        });
        let is_named = || {
            os_thread_names()
                .iter()
                .any(|name| name.starts_with("ha zel"))
        };
        wait_until(is_named);
    });
}

#[test]
fn own_thread_locals_either_work_or_are_refused_as_unsupported_and_the_last_setting_wins() {
    with_deadline(LIMIT, || {
        match Runtime::builder()
            .workers(1)
            .thread_locals(ThreadLocals::Own)
            .build()
        {
            Ok(rt) => assert_eq!(rt.run(|| 1), 1),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::Unsupported);
                // SAFETY: nothing thread-local is held here; the setting is overruled at once.
                let shared = unsafe { Runtime::builder().workers(1).share_thread_locals() };
                let error = shared
                    .thread_locals(ThreadLocals::Own)
                    .build()
                    .map(drop)
                    .unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            }
        }
        let own = || {
            Runtime::builder()
                .workers(1)
                .thread_locals(ThreadLocals::Own)
        };
        assert_eq!(
            own()
                .thread_locals(ThreadLocals::Pinned)
                .build()
                .unwrap()
                .run(|| 2),
            2
        );
        // SAFETY: the one green thread of this runtime uses no thread-local.
        let shared = unsafe { own().share_thread_locals() };
        assert_eq!(shared.build().unwrap().run(|| 3), 3);
    });
}

#[test]
fn run_gives_back_the_value_and_the_closure_may_borrow() {
    each_mode(|rt| {
        let mut words = vec!["a"];
        let length = rt.run(|| {
            assert!(weald::is_green());
            weald::sleep(MS);
            words.push("b");
            words.len()
        });
        assert_eq!((length, words), (2, vec!["a", "b"]));
    });
}

#[test]
fn a_panic_of_run_goes_on_in_the_caller() {
    each_mode(|rt| {
        let outcome = caught(|| rt.run(|| panic!("inside run")));
        assert_eq!(panic_text(&*outcome.unwrap_err()), "inside run");
        assert_eq!(rt.run(|| 1), 1, "the runtime lives on");
    });
}

#[test]
fn a_green_thread_that_calls_run_parks_and_its_worker_goes_on() {
    each_mode_on(1, |rt| {
        let value = rt.run(|| {
            // On one worker the inner closure can run only if the outer one has released the worker.
            rt.run(|| {
                weald::sleep(MS);
                rt.run(|| 42)
            })
        });
        assert_eq!(value, 42);
    });
}

#[test]
fn run_works_between_runtimes_in_both_directions() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let (here, there) = (runtime(1, mode), runtime(1, mode));
            for i in 0..100 {
                assert_eq!(here.run(|| there.run(|| here.run(|| i + 1) + 1)), i + 2);
            }
        });
    }
}

#[test]
fn an_exception_is_held_until_what_run_waits_for_has_ended() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let (here, there) = (runtime(1, mode), runtime(1, mode));
            let there = &there;
            for kill in [true, false] {
                let (inside, go) = (Flag::default(), Flag::default());
                let (borrowed, after) = (Flag::default(), Flag::default());
                let outcome = here.run(|| {
                    weald::scope(|s| {
                        let caller = s.spawn(|| {
                            there.run(|| {
                                inside.set();
                                go.wait();
                                borrowed.set();
                            });
                            weald::checkpoint();
                            after.set();
                        });
                        inside.wait();
                        settle();
                        if kill {
                            caller.thread().kill();
                        } else {
                            caller.thread().throw(Mark(9));
                        }
                        settle();
                        assert!(!caller.is_finished());
                        go.set();
                        caller.join()
                    })
                });
                assert!(if kill {
                    was_killed(&outcome)
                } else {
                    mark_in(&outcome) == Some(9)
                });
                assert!(borrowed.is_set() && !after.is_set());
            }
        });
    }
}

#[test]
fn run_raises_nothing_that_was_pending_when_it_was_called() {
    each_mode(|rt| {
        rt.run(|| {
            weald::current().throw(Mark(1));
            assert_eq!(rt.run(|| 5), 5);
            assert_eq!(mark_in(&caught(weald::checkpoint)), Some(1));
        });
    });
}

#[test]
fn free_functions_use_the_runtime_of_the_running_green_thread() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let (one, two) = (runtime(1, mode), runtime(1, mode));
            let (before_one, before_two) = (one.metrics().spawned, two.metrics().spawned);
            one.run(|| (0..100).for_each(|_| weald::spawn(|| ()).join().unwrap()));
            assert!(one.metrics().spawned >= before_one + 100);
            assert_eq!(two.metrics().spawned, before_two);
            two.run(|| weald::scope(|s| (0..50).for_each(|_| s.spawn(|| ()).join().unwrap())));
            assert!(two.metrics().spawned >= before_two + 50);
            two.run(|| {
                let timer = weald::call_after(HOUR, || ());
                assert_eq!((one.metrics().timers, two.metrics().timers), (0, 1));
                assert!(timer.cancel());
            });
        });
    }
}

#[test]
fn eight_runtimes_live_side_by_side() {
    with_deadline(LIMIT, || {
        let all: Vec<_> = (0..8).map(|i| runtime(1 + i % 2, MODES[i % 2])).collect();
        let runs = Count::default();
        let handles: Vec<_> = (0..800)
            .map(|i| {
                let runs = runs.clone();
                all[i % 8].spawn(move || {
                    weald::yield_now();
                    runs.add();
                })
            })
            .collect();
        for h in handles {
            h.join().unwrap();
        }
        assert_eq!(runs.get(), 800);
    });
}

#[test]
fn metrics_count_what_lives_parks_and_was_spawned() {
    each_mode(|rt| {
        let at_first = rt.metrics();
        let parked: Vec<_> = (0..100).map(|_| rt.spawn(weald::park)).collect();
        wait_until(|| rt.metrics().parked >= 100);
        let now = rt.metrics();
        assert_eq!(now.spawned - at_first.spawned, 100);
        assert_eq!(now.live - at_first.live, 100);
        assert!(now.parks - at_first.parks >= 100, "{now:?}");
        assert!(now.stack_bytes > 0, "{now:?}");
        for h in &parked {
            h.thread().unpark();
        }
        for h in parked {
            h.join().unwrap();
        }
        wait_until(|| rt.metrics().live == at_first.live && rt.metrics().parked == at_first.parked);
        assert_eq!(rt.metrics().run_queue_len + rt.metrics().injector_len, 0);
    });
}

#[test]
fn metrics_count_what_waits_in_the_queues() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let handles: Vec<_> = (0..500).map(|_| weald::spawn(|| ())).collect();
            let now = rt.metrics();
            // One thread may sit in the run-next slot, which counts as a place of its own.
            assert!(now.run_queue_len + now.injector_len >= 499, "{now:?}");
            for h in handles {
                h.join().unwrap();
            }
        });
    });
}

#[test]
fn metrics_count_what_was_woken_and_has_not_run_yet() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let others: Vec<_> = (0..100).map(|_| weald::spawn(weald::park)).collect();
            wait_until(|| rt.metrics().parked >= 100);
            for other in &others {
                other.thread().unpark();
            }
            let now = rt.metrics();
            assert!(now.run_queue_len + now.injector_len >= 99, "{now:?}");
            for other in others {
                other.join().unwrap();
            }
        });
    });
}

#[test]
fn metrics_count_live_timers_and_a_cancel_counts_down_at_once() {
    each_mode(|rt| {
        rt.run(|| {
            let before = rt.metrics().timers;
            let timers: Vec<_> = (0..1000).map(|_| weald::call_after(HOUR, || ())).collect();
            assert_eq!(rt.metrics().timers, before + 1000);
            for (i, timer) in timers.iter().enumerate() {
                assert!(timer.cancel());
                assert_eq!(rt.metrics().timers, before + 999 - i);
            }
        });
    });
}

#[test]
fn metrics_count_polls_while_sockets_and_timers_are_waited_for() {
    each_mode(|rt| {
        let before = rt.metrics().polls;
        rt.run(|| (0..5).for_each(|_| weald::sleep(2 * MS)));
        assert!(rt.metrics().polls > before);
    });
}

#[test]
fn metrics_are_a_plain_copyable_report_with_the_promised_types() {
    with_deadline(LIMIT, || {
        let rt = runtime(2, Mode::Pinned);
        let Metrics {
            workers,
            live,
            parked,
            injector_len,
            run_queue_len,
            timers,
            spawned,
            steals,
            parks,
            polls,
            stack_bytes,
            ..
        } = rt.metrics();
        let _: [usize; 6] = [workers, live, parked, injector_len, run_queue_len, timers];
        let _: [u64; 5] = [spawned, steals, parks, polls, stack_bytes];
        assert_eq!(workers, 2);
        assert!(format!("{:?}", rt.metrics().clone()).contains("workers: 2"));
    });
}

/// The test runs in a process of its own, because an idle worker also gives back the memory that other tests have
/// left.
#[test]
fn an_idle_runtime_spends_no_time() {
    let child = in_child("runtime::an_idle_runtime_spends_no_time", &[], || {
        let rt = Runtime::builder()
            .workers(2)
            .thread_name("idle-elm")
            .build()
            .unwrap();
        rt.run(|| weald::sleep(5 * MS));
        let polls = rt.metrics().polls;
        std::thread::sleep(Duration::from_millis(500));
        let turns = rt.metrics().polls - polls;
        assert!(
            turns < 100,
            "{turns} turns of the poller in half an idle second"
        );
    });
    assert!(child.success, "{child:?}");
}
