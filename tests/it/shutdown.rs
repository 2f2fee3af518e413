//! `Runtime::shutdown` step by step: no new bodies, no timers, a grace, then the kill; no stack and no OS thread is left.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weald::{Runtime, ThreadLocals};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, Mode, OnDrop, caught, os_thread_names, runtime, settle,
    spin, wait_until, was_killed, with_deadline,
};

/// Runs the check with a runtime of its own to shut down, in each mode, with 1 and with 2 workers.
fn each_own(check: impl Fn(Runtime) + Sync) {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || check(runtime(workers, mode)));
        }
    }
}

#[test]
fn an_idle_runtime_shuts_down_with_nothing_to_kill() {
    each_own(|rt| {
        rt.run(|| ());
        assert!(rt.shutdown(Duration::ZERO));
    });
}

#[test]
fn what_was_spawned_before_ends_within_the_grace() {
    each_own(|rt| {
        let ended = Count::default();
        for i in 0..20 {
            let ended = ended.clone();
            rt.spawn(move || {
                for _ in 0..i {
                    weald::yield_now();
                }
                weald::sleep(20 * MS);
                ended.add();
            });
        }
        let start = Instant::now();
        assert!(rt.shutdown(HOUR));
        assert_eq!(ended.get(), 20);
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the grace is a bound and not a wait"
        );
    });
}

#[test]
fn what_is_left_after_the_grace_is_killed_and_has_unwound_when_shutdown_returns() {
    each_own(|rt| {
        let unwound = Count::default();
        let started = Count::default();
        let handles: Vec<_> = (0..50)
            .map(|i| {
                let (guard, started) = (unwound.on_drop(), started.clone());
                rt.spawn(move || {
                    let _guard = guard;
                    started.add();
                    if i % 2 == 0 {
                        weald::park();
                    } else {
                        weald::sleep(HOUR);
                    }
                })
            })
            .collect();
        wait_until(|| started.get() == 50);
        assert!(!rt.shutdown(10 * MS));
        assert_eq!(unwound.get(), 50);
        for h in handles {
            assert!(was_killed(&h.join()));
        }
    });
}

#[test]
fn a_killed_one_may_clean_up_with_blocking_calls() {
    each_own(|rt| {
        let cleaned = Count::default();
        let started = Flag::default();
        let (counts, tells) = (cleaned.clone(), started.clone());
        rt.spawn(move || {
            let _guard = OnDrop(|| {
                weald::sleep(5 * MS);
                counts.add();
            });
            tells.set();
            weald::sleep(HOUR);
        });
        started.wait();
        assert!(!rt.shutdown(Duration::ZERO));
        assert_eq!(cleaned.get(), 1);
    });
}

#[test]
fn a_spawn_during_shutdown_gives_a_handle_whose_body_never_runs() {
    each_own(|rt| {
        let refused = Flag::default();
        let tells = refused.clone();
        let ran = Flag::default();
        let prober = rt.spawn(move || {
            loop {
                let began = ran.clone();
                let outcome = weald::spawn(move || began.set()).join();
                if outcome.is_ok() {
                    weald::yield_now();
                    continue;
                }
                assert!(was_killed(&outcome));
                break;
            }
            // From now on no body runs.
            let late = Flag::default();
            for _ in 0..100 {
                let began = late.clone();
                assert!(was_killed(&weald::spawn(move || began.set()).join()));
            }
            assert!(!late.is_set());
            tells.set();
        });
        settle();
        assert!(
            rt.shutdown(HOUR),
            "nothing had to be killed: what never ran does not count"
        );
        prober.join().unwrap();
        assert!(refused.is_set());
    });
}

#[test]
fn no_timer_fires_once_shutdown_has_begun() {
    each_own(|rt| {
        let fired = Count::default();
        let drops = Count::default();
        let (counts, dropped) = (fired.clone(), drops.clone());
        let set = Instant::now();
        rt.run(move || {
            for _ in 0..100 {
                let (counts, owned) = (counts.clone(), dropped.on_drop());
                weald::call_after(500 * MS, move || {
                    let _owned = &owned;
                    counts.add();
                });
            }
        });
        // Runs on through the grace, past the timers' deadline.
        rt.spawn(|| spin(700 * MS));
        let in_time = set.elapsed() < 400 * MS;
        rt.shutdown(HOUR);
        // On a machine so slow that they were due before, this tells nothing.
        assert!(
            fired.get() == 0 || !in_time,
            "{} timers fired after shutdown had begun",
            fired.get()
        );
        wait_until(|| drops.get() == 100);
    });
}

#[test]
fn handles_outlive_their_runtime() {
    each_own(|rt| {
        let done = rt.spawn(|| 7);
        wait_until(|| done.is_finished());
        let never = rt.spawn(weald::park);
        let thread = never.thread().clone();
        rt.shutdown(Duration::ZERO);
        assert_eq!(done.join().unwrap(), 7);
        assert!(never.is_finished());
        assert!(was_killed(&never.join()));
        thread.unpark();
        thread.kill();
        thread.throw("to nobody");
        assert_eq!(thread.name(), None);
    });
}

#[test]
fn timers_outlive_their_runtime() {
    each_own(|rt| {
        let fired = Flag::default();
        let tells = fired.clone();
        let timer = rt.run(move || weald::call_after(HOUR, move || tells.set()));
        rt.shutdown(Duration::ZERO);
        // The timer will never fire. Whether the shutdown or this call has cancelled it, a second call finds it
        // cancelled.
        timer.cancel();
        assert!(!timer.cancel());
        assert!(!fired.is_set());
    });
}

#[test]
fn an_os_thread_that_joins_is_woken_by_the_shutdown() {
    each_own(|rt| {
        let parked = rt.spawn(weald::park);
        let joiner = std::thread::spawn(move || was_killed(&parked.join()));
        settle();
        rt.shutdown(Duration::ZERO);
        assert!(joiner.join().unwrap());
    });
}

#[test]
fn a_green_thread_of_another_runtime_that_joins_is_woken_by_the_shutdown() {
    each_own(|rt| {
        let other = runtime(1, Mode::Pinned);
        let parked = rt.spawn(weald::park);
        let joiner = other.spawn(move || was_killed(&parked.join()));
        settle();
        rt.shutdown(Duration::ZERO);
        assert!(joiner.join().unwrap());
    });
}

#[test]
fn drop_is_a_shutdown_without_grace() {
    each_own(|rt| {
        let unwound = Count::default();
        let (guard, started) = (unwound.on_drop(), Flag::default());
        let tells = started.clone();
        let handle = rt.spawn(move || {
            let _guard = guard;
            tells.set();
            weald::park();
        });
        started.wait();
        drop(rt);
        assert_eq!(unwound.get(), 1);
        assert!(was_killed(&handle.join()));
    });
}

#[test]
fn a_crowd_that_never_started_is_dropped_with_its_closures() {
    each_own(|rt| {
        let (drops, ran) = (Count::default(), Count::default());
        let handles: Vec<_> = rt.run(|| {
            (0..1000)
                .map(|_| {
                    let (owned, ran) = (drops.on_drop(), ran.clone());
                    weald::spawn(move || {
                        let _owned = owned;
                        ran.add();
                        weald::park();
                    })
                })
                .collect()
        });
        assert!(!rt.shutdown(Duration::ZERO));
        assert_eq!(drops.get(), 1000, "{} of them ran", ran.get());
        for h in handles {
            assert!(was_killed(&h.join()));
        }
    });
}

#[test]
fn no_os_thread_is_left() {
    with_deadline(LIMIT, || {
        for locals in [true, false] {
            let builder = Runtime::builder().workers(3).thread_name("larch");
            let builder = if locals {
                builder.thread_locals(ThreadLocals::Pinned)
            } else {
                // SAFETY: the green threads below use no thread-local.
                unsafe { builder.share_thread_locals() }
            };
            let rt = builder.build().unwrap();
            // Spare carriers must end as well.
            let handles: Vec<_> = (0..5)
                .map(|_| rt.spawn(|| weald::blocking(|| std::thread::sleep(5 * MS))))
                .collect();
            for h in handles {
                h.join().unwrap();
            }
            assert!(
                os_thread_names()
                    .iter()
                    .any(|name| name.starts_with("larch"))
            );
            rt.shutdown(Duration::ZERO);
            // Joined threads may be listed for a moment more.
            wait_until(|| {
                !os_thread_names()
                    .iter()
                    .any(|name| name.starts_with("larch"))
            });
        }
    });
}

#[test]
fn shutdown_waits_a_bounded_time_for_one_that_only_computes() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(1, mode);
            let (started, stop) = (Flag::default(), Flag::default());
            let (tells, until) = (started.clone(), stop.clone());
            rt.spawn(move || {
                tells.set();
                until.spin();
            });
            started.spin();
            let start = Instant::now();
            assert!(!rt.shutdown(Duration::ZERO));
            assert!(
                start.elapsed() >= Duration::from_secs(4),
                "gave up after {:?}",
                start.elapsed()
            );
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "waited {:?}",
                start.elapsed()
            );
            stop.set();
        });
    }
}

#[test]
fn shutdown_from_one_of_its_own_green_threads_panics_and_the_process_goes_on() {
    each_own(|rt| {
        let seat = Arc::new(Mutex::new(None::<Runtime>));
        let takes = Arc::clone(&seat);
        let handle = rt.spawn(move || {
            let rt = loop {
                let there = takes.lock().unwrap().take();
                match there {
                    Some(rt) => break rt,
                    None => weald::sleep(MS),
                }
            };
            caught(move || rt.shutdown(Duration::ZERO)).is_err()
        });
        *seat.lock().unwrap() = Some(rt);
        assert!(handle.join().unwrap());
    });
}

#[test]
fn a_hundred_runtimes_come_and_go() {
    with_deadline(LIMIT, || {
        for i in 0..100 {
            let rt = runtime(1 + i % 2, MODES[i % 2]);
            let handle = rt.spawn(|| weald::sleep(HOUR));
            let value = rt.spawn(move || i);
            assert_eq!(value.join().unwrap(), i);
            assert!(!rt.shutdown(Duration::ZERO));
            assert!(was_killed(&handle.join()));
        }
    });
}
