//! Rules 7, 8 and 9 of DESIGN 4.3: exceptions before the start of a thread, the order of several exceptions, and
//! cancelling. Also what `catch` takes and what it lets go on.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::exceptions::CALLS;
use crate::support::{
    Count, Flag, HOUR, MS, Mark, caught, each_mode_on, everywhere, exception_in, green_pair,
    in_each_mode, mark_in, panic_text, source_of, spin, v4, wait_until, was_killed,
};

#[test]
fn rule_7_one_killed_before_it_started_never_runs_its_body() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            for _ in 0..100 {
                let (ran, drops) = (Flag::default(), Count::default());
                let (tells, owned) = (ran.clone(), drops.on_drop());
                // On the only worker it cannot start before this green thread waits.
                let target = weald::spawn(move || {
                    let _owned = owned;
                    tells.set();
                });
                target.thread().kill();
                assert!(was_killed(&target.join()));
                assert!(!ran.is_set());
                wait_until(|| drops.get() == 1);
            }
        });
    });
}

#[test]
fn rule_7_a_throw_before_the_start_waits_for_the_first_blocking_call() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (ran, passed) = (Flag::default(), Flag::default());
            let (tells, notes) = (ran.clone(), passed.clone());
            let target = weald::spawn(move || {
                tells.set();
                weald::yield_now();
                notes.set();
            });
            target.thread().throw(Mark(12));
            assert_eq!(mark_in(&target.join()), Some(12));
            assert!(ran.is_set() && !passed.is_set());
        });
    });
}

#[test]
fn rule_7_a_kill_that_races_the_start_runs_the_body_wholly_up_to_a_blocking_call_or_not_at_all() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            for _ in 0..500 {
                let steps = Count::default();
                let counts = steps.clone();
                let target = weald::spawn(move || {
                    counts.add();
                    counts.add();
                    weald::sleep(HOUR);
                    counts.add();
                });
                target.thread().kill();
                assert!(was_killed(&target.join()));
                assert!(steps.get() == 0 || steps.get() == 2);
            }
        });
    });
}

#[test]
fn rule_8_one_shot_exceptions_come_in_the_order_of_their_deadlines() {
    everywhere(|| {
        loop {
            let start = Instant::now();
            let timers = [3, 1, 2].map(|n| weald::exc_after(n * MS, Mark(n)));
            if start.elapsed() < MS {
                break;
            }
            // The machine was busy, so the deadlines are in another order.
            assert!(timers.iter().all(weald::Timer::cancel));
        }
        spin(30 * MS);
        weald::current().throw(Mark(4));
        let order: Vec<_> = (0..4)
            .map(|_| mark_in(&caught(weald::checkpoint)))
            .collect();
        assert_eq!(order, [Some(1), Some(2), Some(3), Some(4)]);
        weald::checkpoint();
    });
}

#[test]
fn rule_8_a_kill_comes_before_all_else() {
    in_each_mode(|| {
        let target = weald::spawn(|| {
            weald::exc_after(Duration::ZERO, Mark(1));
            weald::current().throw(Mark(2));
            let outcome = caught(|| {
                weald::timeout(Duration::ZERO, || {
                    weald::current().kill();
                    spin(5 * MS);
                    weald::checkpoint();
                })
            });
            assert!(was_killed(&outcome));
        });
        target.join().unwrap();
    });
}

#[test]
fn rule_8_an_expired_limit_comes_before_a_one_shot_exception() {
    everywhere(|| {
        let outcome = weald::timeout(MS, || {
            weald::current().throw(Mark(1));
            spin(20 * MS);
            weald::checkpoint();
        });
        assert!(outcome.is_err());
        assert_eq!(
            mark_in(&caught(weald::checkpoint)),
            Some(1),
            "it waits for its turn"
        );
    });
}

#[test]
fn rule_8_the_outermost_of_several_expired_limits_comes_first() {
    everywhere(|| {
        let inner_returned = Flag::default();
        let outcome = weald::timeout(3 * MS, || {
            let inner = weald::timeout(MS, || {
                spin(30 * MS);
                weald::checkpoint();
            });
            inner_returned.set();
            inner
        });
        assert!(outcome.is_err());
        assert!(
            !inner_returned.is_set(),
            "the inner limit was reported though the outer one had passed"
        );
    });
}

#[test]
fn rule_9_one_that_is_overdue_but_not_raised_can_be_cancelled() {
    everywhere(|| {
        let drops = Count::default();
        let timer = weald::exc_after(MS, drops.on_drop());
        spin(30 * MS);
        assert!(timer.cancel());
        wait_until(|| drops.get() == 1);
        for (_, call) in CALLS {
            call();
        }
        assert!(!timer.cancel());
    });
}

#[test]
fn rule_9_one_that_was_raised_cannot_be_cancelled() {
    everywhere(|| {
        let timer = weald::exc_after(MS, Mark(13));
        assert_eq!(mark_in(&caught(|| weald::sleep(HOUR))), Some(13));
        assert!(!timer.cancel());
    });
}

#[test]
fn rule_9_another_thread_may_cancel_and_the_answer_is_the_truth() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            for round in 0..500_u64 {
                let timer = weald::exc_after(Duration::from_micros(round % 100), Mark(14));
                let canceller = weald::spawn(move || {
                    spin(Duration::from_micros(round * 7 % 100));
                    timer.cancel()
                });
                let raised = mark_in(&caught(|| weald::sleep(Duration::from_micros(60)))).is_some();
                let (cancelled, late) =
                    match weald::catch::<Mark, _>(|| wait_until(|| canceller.is_finished())) {
                        Ok(()) => (canceller.join().unwrap(), false),
                        Err(_) => (wait_and_join(canceller), true),
                    };
                assert_ne!(cancelled, raised || late, "round {round}");
            }
        });
    });
}

fn wait_and_join(handle: weald::JoinHandle<bool>) -> bool {
    wait_until(|| handle.is_finished());
    handle.join().unwrap()
}

#[test]
fn rule_9_a_cancel_after_the_target_has_ended_leaves_nothing_behind() {
    everywhere(|| {
        let drops = Count::default();
        let error = drops.on_drop();
        let timer = weald::spawn(move || weald::exc_after(HOUR, error))
            .join()
            .unwrap();
        timer.cancel();
        wait_until(|| drops.get() == 1);
        assert!(!timer.cancel());
    });
}

#[test]
fn catch_takes_its_type_and_lets_all_else_go_on() {
    everywhere(|| {
        weald::current().throw(Mark(15));
        assert_eq!(weald::catch::<Mark, _>(weald::checkpoint), Err(Mark(15)));
        weald::current().throw("some text");
        let outcome = caught(|| weald::catch::<Mark, _>(weald::checkpoint));
        assert!(exception_in::<Mark, _>(&outcome).is_none() && outcome.is_err());
        let outcome = caught(|| weald::catch::<Mark, _>(|| panic!("a panic")));
        assert_eq!(panic_text(&*outcome.unwrap_err()), "a panic");
        let nested = weald::catch::<Mark, _>(|| {
            weald::current().throw(Mark(16));
            weald::catch::<std::io::Error, _>(weald::checkpoint).map_err(drop)
        });
        assert_eq!(nested, Err(Mark(16)));
    });
}

#[test]
fn catch_sees_an_exception_that_an_io_call_returned_and_the_closure_kept() {
    everywhere(|| {
        let (mut near, mut far) = green_pair(v4());
        weald::current().throw(Mark(17));
        let kept = weald::catch::<Mark, _>(|| {
            near.write(b"x").map_err(|e| source_of::<Mark>(&e).copied())
        });
        assert_eq!(
            kept,
            Ok(Err(Some(Mark(17)))),
            "an error that was returned is no unwinding"
        );
        far.write_all(b"y").unwrap();
        near.read_exact(&mut [0]).unwrap();
    });
}
