//! `call_after`, `call_after_local`, and the truth table of `Timer::cancel`.
//!
//! | the timer | first `cancel` | a second |
//! |---|---|---|
//! | is pending | true, it never fires | false |
//! | has fired | false | false |
//! | is cancelled by two at once | true for one of them | false |

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weald::Timer;

use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, Mark, caught, each_mode, each_mode_on, everywhere,
    in_each_mode, mark_in, runtime, settle, spin, wait_until, with_deadline,
};

/// One of the two ways to ask for a call.
type Call = fn(Duration, Box<dyn FnOnce() + Send>) -> Timer;

const BOTH: [(&str, Call); 2] = [
    ("call_after", |time, f| weald::call_after(time, f)),
    ("call_after_local", |time, f| {
        weald::call_after_local(time, f)
    }),
];

/// Sets timers of one instant, and cancels them, the last one first, when the first one has fired. Returns how many
/// could be cancelled; all others have fired.
fn cancelled_of_many_that_are_due(timers: usize) -> usize {
    // On a slow machine it takes long to set them, and none must be due before all are set.
    let set_within = |millis| {
        let (ran, first) = (Count::default(), Flag::default());
        let (start, limit) = (Instant::now(), Duration::from_millis(millis));
        let timers: Vec<_> = (0..timers)
            .map(|_| {
                let (ran, first) = (ran.clone(), first.clone());
                weald::call_after(limit.saturating_sub(start.elapsed()), move || {
                    ran.add();
                    first.set();
                })
            })
            .collect();
        (start.elapsed() < limit).then_some((timers, ran, first))
    };
    let limits = [300, 1_000, 3_000, 10_000];
    let (set, ran, first) = limits.into_iter().find_map(set_within).unwrap();
    while !first.is_set() {
        weald::yield_now();
    }
    let cancelled = set.iter().rev().filter(|timer| timer.cancel()).count();
    wait_until(|| ran.get() + cancelled == timers);
    cancelled
}

#[test]
fn of_many_that_are_due_at_once_those_that_have_not_fired_can_be_cancelled() {
    const TIMERS: usize = 20_000;
    each_mode_on(1, |rt| {
        // If the machine takes the CPU from the cancelling thread for long, the monitor gives the worker to another
        // OS thread, which goes on firing meanwhile.
        let tries: Vec<_> = (0..10)
            .map(|_| rt.run(|| cancelled_of_many_that_are_due(TIMERS)))
            .take_while(|&cancelled| cancelled <= TIMERS / 2)
            .collect();
        assert!(tries.len() < 10, "all but {tries:?} were fired in one go");
    });
    // The other worker may fire them all while this one is about to cancel them.
    each_mode_on(2, |rt| {
        rt.run(|| cancelled_of_many_that_are_due(TIMERS));
    });
}

#[test]
fn each_of_many_that_an_os_thread_sets_fires_or_is_cancelled() {
    const TIMERS: usize = 5000;
    with_deadline(LIMIT, || {
        let ran = Count::default();
        let timers: Vec<_> = (0..TIMERS)
            .map(|_| {
                let ran = ran.clone();
                weald::call_after(MS, move || {
                    ran.add();
                })
            })
            .collect();
        let some = timers.iter().rev().step_by(3);
        let cancelled = some.filter(|timer| timer.cancel()).count();
        wait_until(|| ran.get() + cancelled == TIMERS);
    });
}

#[test]
fn the_closure_runs_in_a_green_thread_of_its_own_after_the_delay() {
    everywhere(|| {
        for (name, call) in BOTH {
            let note = Arc::new(Mutex::new(None));
            let writes = Arc::clone(&note);
            let start = Instant::now();
            call(
                5 * MS,
                Box::new(move || {
                    *writes.lock().unwrap() =
                        Some((weald::is_green(), weald::current().id(), Instant::now()));
                }),
            );
            wait_until(|| note.lock().unwrap().is_some());
            let (green, id, at) = note.lock().unwrap().take().unwrap();
            assert!(green, "{name}");
            assert_ne!(id, weald::current().id());
            assert!(at - start >= 5 * MS, "{name} was early");
        }
    });
}

#[test]
fn the_closure_may_block() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            for (_, call) in BOTH {
                let done = Flag::default();
                let tells = done.clone();
                call(
                    MS,
                    Box::new(move || {
                        weald::sleep(5 * MS);
                        weald::spawn(weald::yield_now).join().unwrap();
                        weald::blocking(|| std::thread::sleep(MS));
                        tells.set();
                    }),
                );
                done.wait();
            }
        });
    });
}

#[test]
fn no_delay_fires_soon_and_the_longest_never() {
    everywhere(|| {
        for (_, call) in BOTH {
            let (soon, never) = (Flag::default(), Flag::default());
            let (tells, fires) = (soon.clone(), never.clone());
            let far = call(Duration::MAX, Box::new(move || fires.set()));
            call(Duration::ZERO, Box::new(move || tells.set()));
            soon.wait();
            assert!(!never.is_set());
            assert!(far.cancel());
        }
    });
}

#[test]
fn dropping_the_timer_does_not_cancel() {
    everywhere(|| {
        for (_, call) in BOTH {
            let fired = Flag::default();
            let tells = fired.clone();
            drop(call(5 * MS, Box::new(move || tells.set())));
            fired.wait();
        }
        drop(weald::exc_after(MS, Mark(1)));
        assert_eq!(mark_in(&caught(|| weald::sleep(HOUR))), Some(1));
    });
}

#[test]
fn a_cancelled_call_never_runs_and_a_second_cancel_is_false() {
    everywhere(|| {
        for (name, call) in BOTH {
            let fired = Flag::default();
            let tells = fired.clone();
            let timer = call(20 * MS, Box::new(move || tells.set()));
            assert!(timer.cancel(), "{name}");
            assert!(!timer.cancel(), "{name}");
            weald::sleep(40 * MS);
            assert!(!fired.is_set(), "{name}");
            assert!(!timer.cancel(), "{name}");
        }
    });
}

#[test]
fn one_that_has_fired_cannot_be_cancelled() {
    everywhere(|| {
        for (name, call) in BOTH {
            let fired = Flag::default();
            let tells = fired.clone();
            let timer = call(MS, Box::new(move || tells.set()));
            fired.wait();
            assert!(!timer.cancel(), "{name}");
            assert!(!timer.cancel(), "{name}");
        }
    });
}

#[test]
fn an_exception_that_was_raised_cannot_be_cancelled_and_a_pending_one_can() {
    everywhere(|| {
        let timer = weald::exc_after(HOUR, Mark(2));
        assert!(timer.cancel());
        assert!(!timer.cancel());
        let timer = weald::exc_after(Duration::MAX, Mark(3));
        weald::checkpoint();
        assert!(timer.cancel());
        let timer = weald::exc_after(Duration::ZERO, Mark(4));
        assert_eq!(mark_in(&caught(|| weald::sleep(HOUR))), Some(4));
        assert!(!timer.cancel());
    });
}

#[test]
fn of_two_that_cancel_at_once_one_hears_true() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            for _ in 0..500 {
                let timer = weald::call_after(HOUR, || ());
                let heard = weald::scope(|s| {
                    let other = s.spawn(|| timer.cancel());
                    [timer.cancel(), other.join().unwrap()]
                });
                assert_eq!(heard.iter().filter(|&&won| won).count(), 1);
            }
        });
    });
}

#[test]
fn a_cancel_that_races_the_deadline_tells_the_truth() {
    each_mode(|rt| {
        rt.run(|| {
            for (_, call) in BOTH {
                let mut told = Vec::new();
                for i in 0..1000_u64 {
                    let fired = Flag::default();
                    let tells = fired.clone();
                    let timer = call(Duration::from_micros(i % 90), Box::new(move || tells.set()));
                    if i % 3 == 0 {
                        weald::yield_now();
                    } else if i % 3 == 1 {
                        weald::sleep(Duration::from_micros(i % 80));
                    } else {
                        spin(Duration::from_micros(i % 70));
                    }
                    told.push((timer.cancel(), fired));
                }
                for (cancelled, fired) in told {
                    if cancelled {
                        assert!(!fired.is_set());
                    } else {
                        fired.wait();
                    }
                }
            }
            settle();
        });
    });
}

#[test]
fn a_timer_may_be_cancelled_from_an_os_thread_and_from_another_runtime() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let (here, there) = (runtime(1, mode), runtime(1, mode));
            let fired = Count::default();
            let set = || {
                let fired = fired.clone();
                here.run(|| {
                    weald::call_after(50 * MS, move || {
                        fired.add();
                    })
                })
            };
            let (first, second) = (set(), set());
            // Either may come too late on a slow machine; it must then say so.
            let cancelled = [first.cancel(), there.run(|| second.cancel())];
            let expected = cancelled.iter().filter(|&&c| !c).count();
            here.run(|| weald::sleep(100 * MS));
            wait_until(|| fired.get() == expected);
        });
    }
}

#[test]
fn a_cancel_drops_the_closure_promptly() {
    everywhere(|| {
        for (_, call) in BOTH {
            let drops = Count::default();
            let owned = drops.on_drop();
            let timer = call(HOUR, Box::new(move || drop(owned)));
            assert!(timer.cancel());
            wait_until(|| drops.get() == 1);
        }
        let drops = Count::default();
        let timer = weald::exc_after(HOUR, drops.on_drop());
        assert!(timer.cancel());
        wait_until(|| drops.get() == 1);
    });
}

#[test]
fn ten_thousand_cancels_from_another_core_leave_nothing_behind() {
    each_mode(|rt| {
        let drops = Count::default();
        let timers: Vec<Timer> = rt.run(|| {
            let set = |_| {
                let owned = drops.on_drop();
                weald::call_after(Duration::from_secs(60), move || drop(owned))
            };
            (0..10_000).map(set).collect()
        });
        // If the worker was handed over meanwhile, some timers are still on their way to the wheel, which counts them
        // itself.
        wait_until(|| rt.metrics().timers == 10_000);
        assert!(timers.iter().all(Timer::cancel));
        wait_until(|| rt.metrics().timers == 0);
        let start = Instant::now();
        wait_until(|| drops.get() == 10_000);
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "they waited for their deadline"
        );
    });
}

#[test]
fn calls_fire_in_the_order_of_their_deadlines() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let order = Arc::new(Mutex::new(Vec::new()));
            for i in [4, 2, 5, 1, 3] {
                let order = Arc::clone(&order);
                weald::call_after(i * 20 * MS, move || order.lock().unwrap().push(i));
            }
            wait_until(|| order.lock().unwrap().len() == 5);
            assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4, 5]);
        });
    });
}

#[test]
fn a_local_call_does_not_run_if_its_green_thread_has_ended() {
    in_each_mode(|| {
        let (local, plain, drops) = (Flag::default(), Flag::default(), Count::default());
        let (tells_local, tells_plain, owned) = (local.clone(), plain.clone(), drops.on_drop());
        weald::spawn(move || {
            weald::call_after_local(10 * MS, move || {
                let _owned = owned;
                tells_local.set();
            });
            weald::call_after(20 * MS, move || tells_plain.set());
        })
        .join()
        .unwrap();
        plain.wait();
        weald::sleep(10 * MS);
        assert!(!local.is_set());
        wait_until(|| drops.get() == 1);
    });
}

#[test]
fn a_local_call_does_not_run_if_its_os_thread_has_ended() {
    with_deadline(LIMIT, || {
        let (local, plain) = (Flag::default(), Flag::default());
        let (tells_local, tells_plain) = (local.clone(), plain.clone());
        let asks = std::thread::spawn(move || {
            weald::call_after_local(20 * MS, move || tells_local.set());
            weald::call_after(30 * MS, move || tells_plain.set());
        });
        asks.join().unwrap();
        plain.wait();
        weald::sleep(20 * MS);
        assert!(!local.is_set());
    });
}

#[test]
fn a_local_call_does_not_run_if_its_green_thread_panicked_or_was_killed() {
    in_each_mode(|| {
        for kill in [true, false] {
            let mut delay = 30 * MS;
            while !ends_before_its_call(delay, kill) {
                delay *= 2;
            }
        }
    });
}

/// Returns false if the machine was too slow to tell.
fn ends_before_its_call(delay: Duration, kill: bool) -> bool {
    let (local, started) = (Flag::default(), Flag::default());
    let (tells_local, tells) = (local.clone(), started.clone());
    let start = Instant::now();
    let asks = weald::spawn(move || {
        weald::call_after_local(delay, move || tells_local.set());
        tells.set();
        if kill {
            weald::sleep(HOUR);
        }
        panic!("before its call");
    });
    started.wait();
    asks.thread().kill();
    assert!(asks.join().is_err());
    if start.elapsed() >= delay {
        return false;
    }
    weald::sleep(2 * delay);
    assert!(!local.is_set());
    true
}

#[test]
fn a_panic_in_a_call_harms_nobody() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let after = Flag::default();
            let tells = after.clone();
            weald::call_after(MS, || panic!("in a call"));
            weald::call_after(5 * MS, move || tells.set());
            after.wait();
        });
    });
}
