//! Rules 5, 6 and 10 of DESIGN 4.3: what happens while a green thread unwinds, and that an interrupted call has done nothing.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, Mark, Mode, OnDrop, caught, each_mode, each_mode_on,
    everywhere, green_pair, in_each_mode, mark_in, panic_text, runtime, settle, v4, wait_until,
    was_killed, with_deadline,
};

// Rule 5.

/// Everything that a destructor may wait with; a raise in here would end the process.
fn wait_in_every_way() {
    weald::sleep(MS);
    weald::yield_now();
    weald::checkpoint();
    weald::park_timeout(MS);
    weald::sleep_until(Instant::now() + MS);
    weald::spawn(|| weald::sleep(MS)).join().unwrap();
    weald::blocking(|| std::thread::sleep(MS));
    weald::scope(|s| drop(s.spawn(|| weald::sleep(MS))));
    let (mut near, mut far) = green_pair(v4());
    let writer = weald::spawn(move || {
        weald::sleep(MS);
        far.write_all(b"z").unwrap();
    });
    near.read_exact(&mut [0]).unwrap();
    writer.join().unwrap();
}

#[test]
fn rule_5_nothing_is_raised_in_a_drop_that_runs_because_of_a_kill() {
    in_each_mode(|| {
        let (cleaned, started) = (Count::default(), Flag::default());
        let (counts, tells) = (cleaned.clone(), started.clone());
        let target = weald::spawn(move || {
            let _guard = OnDrop(|| {
                wait_in_every_way();
                counts.add();
            });
            tells.set();
            weald::sleep(HOUR);
        });
        started.wait();
        target.thread().kill();
        assert!(was_killed(&target.join()));
        assert_eq!(cleaned.get(), 1);
    });
}

#[test]
fn rule_5_nothing_is_raised_in_a_drop_that_runs_because_of_a_panic() {
    everywhere(|| {
        let cleaned = Count::default();
        let outcome = caught(|| {
            let _guard = OnDrop(|| {
                wait_in_every_way();
                cleaned.add();
            });
            weald::current().throw(Mark(1));
            weald::current().throw(Mark(2));
            panic!("with two exceptions pending");
        });
        assert_eq!(
            panic_text(&*outcome.unwrap_err()),
            "with two exceptions pending"
        );
        assert_eq!(cleaned.get(), 1);
        // The exceptions were not lost: they come after the unwinding.
        assert_eq!(mark_in(&caught(weald::checkpoint)), Some(1));
        assert_eq!(mark_in(&caught(weald::checkpoint)), Some(2));
    });
}

#[test]
fn rule_5_what_is_thrown_at_one_that_waits_while_unwinding_waits_too() {
    in_each_mode(|| {
        let (unwinding, go, cleaned) = (Flag::default(), Flag::default(), Flag::default());
        let (tells, waits, notes) = (unwinding.clone(), go.clone(), cleaned.clone());
        let target = weald::spawn(move || {
            let outcome = caught(|| {
                let _guard = OnDrop(|| {
                    tells.set();
                    waits.wait();
                    notes.set();
                });
                panic!("first");
            });
            assert_eq!(panic_text(&*outcome.unwrap_err()), "first");
            mark_in(&caught(weald::checkpoint))
        });
        // In `Pinned` the waiting thread keeps its OS thread, so a thread that has not started must throw at it.
        let thread = target.thread().clone();
        let thrower = weald::spawn(move || {
            unwinding.wait();
            thread.throw(Mark(3));
            settle();
            go.set();
        });
        assert_eq!(target.join().unwrap(), Some(3));
        assert!(cleaned.is_set());
        thrower.join().unwrap();
    });
}

#[test]
fn rule_5_a_limit_that_passes_while_unwinding_is_not_raised_there() {
    everywhere(|| {
        let cleaned = Flag::default();
        let outcome = caught(|| {
            weald::timeout(5 * MS, || {
                let _guard = OnDrop(|| {
                    weald::sleep(30 * MS);
                    cleaned.set();
                });
                panic!("the panic goes on");
            })
        });
        assert_eq!(panic_text(&*outcome.unwrap_err()), "the panic goes on");
        assert!(cleaned.is_set());
        weald::checkpoint();
    });
}

#[test]
fn rule_5_a_drop_may_wait_for_a_neighbour_that_had_started_on_the_only_worker() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (started, answered) = (Flag::default(), Flag::default());
            let (tells, answers) = (started.clone(), answered.clone());
            let neighbour = weald::spawn(move || {
                tells.set();
                weald::park();
                weald::sleep(MS);
                answers.set();
            });
            started.wait();
            let asks = neighbour.thread().clone();
            let victim = weald::spawn(move || {
                let _guard = OnDrop(|| {
                    asks.unpark();
                    answered.wait();
                });
                panic!("its drop waits");
            });
            assert_eq!(panic_text(&*victim.join().unwrap_err()), "its drop waits");
            neighbour.join().unwrap();
        });
    });
}

#[test]
fn rule_5_a_drop_may_wait_for_one_that_had_not_started() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let victim = weald::spawn(|| {
                let _guard = OnDrop(|| {
                    let child = weald::spawn(|| {
                        weald::sleep(MS);
                        5
                    });
                    assert_eq!(child.join().unwrap(), 5);
                });
                panic!("its drop spawns");
            });
            assert_eq!(panic_text(&*victim.join().unwrap_err()), "its drop spawns");
        });
    });
}

#[test]
fn rule_5_the_others_go_on_while_one_waits_in_a_drop() {
    each_mode_on(1, |rt| {
        let (unwinding, go) = (Flag::default(), Flag::default());
        let (tells, waits) = (unwinding.clone(), go.clone());
        let victim = rt.spawn(move || {
            let _guard = OnDrop(|| {
                tells.set();
                waits.wait();
            });
            panic!("waits in its drop");
        });
        unwinding.spin();
        rt.run(|| (0..10).for_each(|_| weald::sleep(MS)));
        rt.spawn(move || go.set()).join().unwrap();
        assert!(victim.join().is_err());
    });
}

#[test]
fn rule_5_many_unwind_and_wait_at_once() {
    in_each_mode(|| {
        let (cleaned, started) = (Count::default(), Count::default());
        let victims: Vec<_> = (0..20)
            .map(|i| {
                let (cleaned, started) = (cleaned.clone(), started.clone());
                weald::spawn(move || {
                    let _guard = OnDrop(|| {
                        weald::sleep(Duration::from_millis(i % 5));
                        weald::yield_now();
                        cleaned.add();
                    });
                    started.add();
                    weald::sleep(Duration::from_millis(i % 3));
                    assert!(i % 2 == 0, "every other one panics");
                    weald::sleep(HOUR);
                })
            })
            .collect();
        wait_until(|| started.get() == 20);
        for victim in victims {
            victim.thread().kill();
            assert!(victim.join().is_err());
        }
        assert_eq!(cleaned.get(), 20);
    });
}

#[test]
fn rule_5_a_drop_may_catch_panics_and_join_panicking_children() {
    in_each_mode(|| {
        let checked = Flag::default();
        let notes = checked.clone();
        let victim = weald::spawn(move || {
            let _guard = OnDrop(|| {
                assert!(caught(|| panic!("inside the drop")).is_err());
                assert!(weald::spawn(|| panic!("of a child")).join().is_err());
                notes.set();
            });
            panic!("outside");
        });
        assert_eq!(panic_text(&*victim.join().unwrap_err()), "outside");
        assert!(checked.is_set());
    });
}

#[test]
fn rule_5_after_the_unwinding_was_caught_exceptions_are_raised_again() {
    everywhere(|| {
        for round in 0..20 {
            let outcome = caught(|| {
                let _guard = OnDrop(|| weald::sleep(Duration::from_micros(100)));
                panic!("round {round}");
            });
            assert!(outcome.is_err());
            assert!(!std::thread::panicking());
            weald::current().throw(Mark(round));
            assert_eq!(mark_in(&caught(|| weald::sleep(HOUR))), Some(round));
        }
    });
}

// Rule 6.

#[test]
fn rule_6_the_value_of_a_closure_that_timed_out_is_dropped() {
    everywhere(|| {
        let drops = Count::default();
        let outcome = weald::timeout(MS, || {
            let _ = caught(|| weald::sleep(HOUR));
            drops.on_drop()
        });
        assert!(outcome.is_err());
        assert_eq!(drops.get(), 1);
    });
}

#[test]
fn rule_6_an_interrupted_park_leaves_the_token() {
    everywhere(|| {
        weald::current().unpark();
        weald::current().throw(Mark(4));
        assert_eq!(mark_in(&caught(weald::park)), Some(4));
        weald::park();
    });
}

#[test]
fn rule_6_a_token_is_never_lost_to_an_exception_that_races_it() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            for round in 0..1000_u32 {
                let me = weald::current();
                let racer = weald::spawn(move || {
                    me.throw(Mark(round));
                    me.unpark();
                });
                // Both come, in some order; the unpark must still be there once the exception is through.
                let woken = match caught(weald::park) {
                    Ok(()) => {
                        assert_eq!(mark_in(&caught(|| weald::sleep(HOUR))), Some(round));
                        true
                    }
                    Err(_) => false,
                };
                racer.join().unwrap();
                if !woken {
                    weald::park();
                }
            }
        });
    });
}

#[test]
fn rule_6_an_interrupted_sleep_leaves_no_timer() {
    each_mode(|rt| {
        rt.run(|| {
            let before = rt.metrics().timers;
            for i in 0..200 {
                weald::current().throw(Mark(i));
                assert_eq!(mark_in(&caught(|| weald::sleep(HOUR))), Some(i));
                assert_eq!(weald::timeout(HOUR, || i).unwrap(), i);
            }
            let sleepers: Vec<_> = (0..50)
                .map(|_| weald::spawn(|| weald::sleep(HOUR)))
                .collect();
            settle();
            for s in &sleepers {
                s.thread().kill();
            }
            for s in sleepers {
                assert!(was_killed(&s.join()));
            }
            wait_until(|| rt.metrics().timers == before);
        });
    });
}

#[test]
fn rule_6_the_join_of_another_is_not_disturbed_by_an_interrupted_one() {
    in_each_mode(|| {
        let go = Flag::default();
        let child = |i: u32| {
            let go = go.clone();
            weald::spawn(move || {
                go.wait();
                i
            })
        };
        let (first, second) = (child(1), child(2));
        let joins_first = weald::spawn(move || first.join().unwrap());
        let joins_second = weald::spawn(move || second.join().unwrap());
        settle();
        joins_first.thread().throw(Mark(5));
        assert_eq!(mark_in(&joins_first.join()), Some(5));
        go.set();
        assert_eq!(joins_second.join().unwrap(), 2);
    });
}

// Rule 10, as far as there are locks: std's own, held over a call that is interrupted.

#[test]
fn rule_10_an_exception_unwinds_like_a_panic() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(1, mode);
            rt.run(|| {
                let seen = Flag::default();
                let outcome = caught(|| {
                    let _guard = OnDrop(|| {
                        if std::thread::panicking() {
                            seen.set();
                        }
                    });
                    weald::current().throw(Mark(6));
                    weald::checkpoint();
                });
                assert_eq!(mark_in(&outcome), Some(6));
                assert!(seen.is_set());
                assert!(!std::thread::panicking());
            });
        });
    }
}

#[test]
fn rule_10_an_exception_poisons_the_lock_that_it_unwinds_through() {
    with_deadline(LIMIT, || {
        // std's guard belongs to its OS thread, so this holds only in `Pinned`.
        let rt = runtime(1, Mode::Pinned);
        let lock = Arc::new(Mutex::new(0));
        let holds = Arc::clone(&lock);
        let target = rt.spawn(move || {
            let mut value = holds.lock().unwrap();
            *value = 1;
            weald::current().throw(Mark(7));
            weald::checkpoint();
        });
        assert_eq!(mark_in(&target.join()), Some(7));
        assert!(lock.is_poisoned());
    });
}
