//! Rules 1, 2, 3, 7, 8 and 9 of DESIGN 4.3: when an exception is raised, as what, how often, and in which order.
//! Rule 4 is in `timeout`, rules 5, 6 and 10 in `exceptions_wait`, what sockets do in `net_interrupt`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

use weald::{Elapsed, Exception, Killed};

use crate::support::{
    Count, Flag, HOUR, MS, Mark, caught, each_mode_on, everywhere, exception_in, green_pair,
    in_each_mode, mark_in, panic_text, settle, source_of, spin, v4, wait_until, was_killed,
};

/// Every call of this issue that may wait for ever and returns no `io::Result`.
const WAITS: [(&str, fn()); 7] = [
    ("sleep", || weald::sleep(Duration::MAX)),
    ("sleep_until", || weald::sleep_until(Instant::now() + HOUR)),
    ("park", weald::park),
    ("park_timeout", || weald::park_timeout(Duration::MAX)),
    ("join", || {
        weald::spawn(|| weald::sleep(HOUR)).join().unwrap();
    }),
    ("yield_now", || {
        loop {
            weald::yield_now();
        }
    }),
    ("checkpoint", || {
        loop {
            weald::checkpoint();
        }
    }),
];

/// Every blocking call of this issue that returns no `io::Result`, so that it would not have waited.
const CALLS: [(&str, fn()); 10] = [
    ("sleep", || weald::sleep(Duration::ZERO)),
    ("sleep of a while", || weald::sleep(MS)),
    ("sleep_until", || weald::sleep_until(Instant::now())),
    ("park_timeout", || weald::park_timeout(Duration::ZERO)),
    ("park with a token", || {
        weald::current().unpark();
        weald::park();
    }),
    ("join", || drop(weald::spawn(|| ()).join())),
    ("join of a scoped thread", || {
        drop(weald::scope(|s| s.spawn(|| ()).join()));
    }),
    ("yield_now", weald::yield_now),
    ("checkpoint", weald::checkpoint),
    ("blocking", || weald::blocking(|| ())),
];

// Rule 1.

#[test]
fn rule_1_an_exception_is_raised_at_once_where_the_target_waits() {
    in_each_mode(|| {
        for (name, wait) in WAITS {
            let about_to_wait = Flag::default();
            let tells = about_to_wait.clone();
            let target = weald::spawn(move || {
                tells.set();
                wait();
            });
            about_to_wait.wait();
            settle();
            assert!(!target.is_finished(), "{name} did not wait");
            target.thread().throw(Mark(1));
            assert_eq!(mark_in(&target.join()), Some(1), "{name}");
        }
    });
}

#[test]
fn rule_1_a_pending_exception_is_raised_by_the_next_blocking_call_even_if_it_would_not_have_waited()
{
    everywhere(|| {
        for (name, call) in CALLS {
            weald::current().throw(Mark(2));
            assert_eq!(mark_in(&caught(call)), Some(2), "{name}");
            call();
        }
    });
}

#[test]
fn rule_1_a_pending_exception_is_raised_by_the_join_of_one_that_has_ended() {
    everywhere(|| {
        let ended = weald::spawn(|| ());
        wait_until(|| ended.is_finished());
        weald::current().throw(Mark(3));
        assert_eq!(mark_in(&caught(move || ended.join())), Some(3));
    });
}

#[test]
fn rule_1_calls_that_never_wait_raise_nothing() {
    everywhere(|| {
        weald::current().throw(Mark(4));
        let handle = weald::spawn(|| ());
        handle.thread().unpark();
        let _ = handle.is_finished();
        drop(handle);
        let (near, id) = (weald::current(), weald::current().id());
        assert_eq!(near.id(), id);
        near.unpark();
        let _ = (weald::is_green(), near.name());
        let named = weald::Builder::new()
            .name("in passing".to_owned())
            .spawn(|| ())
            .unwrap();
        named.thread().kill();
        drop(named);
        assert!(weald::call_after(HOUR, || ()).cancel());
        assert!(weald::call_after_local(HOUR, || ()).cancel());
        assert!(weald::exc_after(HOUR, Mark(5)).cancel());
        assert_eq!(weald::timeout(HOUR, || 6).unwrap(), 6);
        assert_eq!(weald::catch::<Mark, _>(|| 7).unwrap(), 7);
        assert_eq!(
            mark_in(&caught(weald::checkpoint)),
            Some(4),
            "raised or lost on the way"
        );
    });
}

#[test]
fn rule_1_a_green_thread_that_only_computes_is_not_interrupted() {
    each_mode_on(2, |rt| {
        let (computes, go, passed) = (Flag::default(), Flag::default(), Flag::default());
        let (tells, until, notes) = (computes.clone(), go.clone(), passed.clone());
        let target = rt.spawn(move || {
            tells.set();
            until.spin();
            notes.set();
            weald::checkpoint();
        });
        computes.spin();
        target.thread().throw(Mark(5));
        std::thread::sleep(10 * MS);
        assert!(!target.is_finished());
        go.set();
        assert_eq!(mark_in(&target.join()), Some(5));
        assert!(passed.is_set());
    });
}

#[test]
fn rule_1_a_target_that_has_ended_drops_it() {
    everywhere(|| {
        let drops = Count::default();
        let handle = weald::spawn(|| ());
        let thread = handle.thread().clone();
        handle.join().unwrap();
        thread.throw(drops.on_drop());
        wait_until(|| drops.get() == 1);
        thread.kill();
    });
}

#[test]
fn rule_1_an_exception_that_nobody_entered_a_call_for_is_dropped_at_the_end() {
    everywhere(|| {
        let drops = Count::default();
        let error = drops.on_drop();
        let handle = weald::spawn(move || {
            weald::current().throw(error);
            8
        });
        assert_eq!(handle.join().unwrap(), 8);
        wait_until(|| drops.get() == 1);
    });
}

#[test]
fn rule_1_each_of_a_thousand_exceptions_is_delivered_exactly_once() {
    each_mode_on(2, |rt| {
        let (ready, sent) = (Flag::default(), Flag::default());
        let (tells, all_sent) = (ready.clone(), sent.clone());
        let target = rt.spawn(move || {
            let mut seen = Vec::new();
            tells.set();
            loop {
                let last = all_sent.is_set();
                match weald::catch::<Mark, _>(|| weald::sleep(Duration::from_micros(20))) {
                    Err(mark) => seen.push(mark.0),
                    Ok(()) if last => break seen,
                    Ok(()) => {}
                }
            }
        });
        ready.spin();
        std::thread::scope(|s| {
            for sender in 0..4 {
                let thread = target.thread();
                s.spawn(move || (0..250).for_each(|i| thread.throw(Mark(sender * 250 + i))));
            }
        });
        sent.set();
        let mut seen = target.join().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    });
}

// Rule 2.

#[test]
fn rule_2_an_io_call_returns_the_exception_as_its_error() {
    everywhere(|| {
        let (mut near, _far) = green_pair(v4());
        weald::current().throw(Mark(6));
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Other);
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(6)));
        weald::checkpoint();
    });
}

#[test]
fn rule_2_an_io_call_returns_elapsed_as_timed_out() {
    everywhere(|| {
        let (mut near, _far) = green_pair(v4());
        let outcome = weald::timeout(5 * MS, || {
            let error = near.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(source_of::<Elapsed>(&error).is_some());
        });
        assert!(outcome.is_err());
    });
}

#[test]
fn rule_2_an_io_call_returns_killed_as_other() {
    in_each_mode(|| {
        let (mut near, _far) = green_pair(v4());
        let started = Flag::default();
        let tells = started.clone();
        let target = weald::spawn(move || {
            tells.set();
            let error = near.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Other);
            assert!(source_of::<Killed>(&error).is_some());
            "went on to its end"
        });
        started.wait();
        target.thread().kill();
        assert_eq!(target.join().unwrap(), "went on to its end");
    });
}

#[test]
fn rule_2_any_other_call_unwinds_with_an_exception_that_hands_out_its_error() {
    everywhere(|| {
        weald::current().throw(Mark(7));
        let payload = caught(weald::checkpoint).unwrap_err();
        let exception = payload
            .downcast::<Exception>()
            .expect("the payload is an Exception");
        assert_eq!(exception.downcast_ref::<Mark>(), Some(&Mark(7)));
        assert!(exception.downcast_ref::<Killed>().is_none());
        assert!(exception.to_string().contains("mark 7"), "{exception}");
        assert!(!format!("{exception:?}").is_empty());
        let error = exception.into_inner();
        assert_eq!(*error.downcast::<Mark>().unwrap(), Mark(7));
    });
}

#[test]
fn rule_2_text_makes_an_exception_too() {
    everywhere(|| {
        weald::current().throw("plain text");
        let payload = caught(weald::checkpoint).unwrap_err();
        assert_eq!(
            payload
                .downcast::<Exception>()
                .unwrap()
                .into_inner()
                .to_string(),
            "plain text"
        );
        weald::current().throw(String::from("owned text"));
        let payload = caught(weald::checkpoint).unwrap_err();
        assert_eq!(
            payload
                .downcast::<Exception>()
                .unwrap()
                .into_inner()
                .to_string(),
            "owned text"
        );
    });
}

#[test]
fn rule_2_join_hands_the_payload_on() {
    in_each_mode(|| {
        let thrown = weald::spawn(|| {
            weald::current().throw(Mark(8));
            weald::checkpoint();
        });
        assert_eq!(mark_in(&thrown.join()), Some(8));
        let raised_later = weald::spawn(|| {
            weald::exc_after(MS, Mark(9));
            weald::sleep(HOUR);
        });
        assert_eq!(mark_in(&raised_later.join()), Some(9));
        let panicked = weald::spawn(|| panic!("no exception"));
        let outcome = panicked.join();
        assert!(exception_in::<Mark, _>(&outcome).is_none());
        assert_eq!(panic_text(&*outcome.unwrap_err()), "no exception");
    });
}

#[test]
fn rule_2_the_join_of_a_killed_one_is_an_exception_that_holds_killed() {
    in_each_mode(|| {
        for (name, wait) in WAITS {
            let started = Flag::default();
            let tells = started.clone();
            let target = weald::spawn(move || {
                tells.set();
                wait();
            });
            started.wait();
            target.thread().kill();
            assert!(was_killed(&target.join()), "{name}");
        }
    });
}

// Rule 3.

#[test]
fn rule_3_a_loop_that_ignores_io_errors_ends_under_kill() {
    in_each_mode(|| {
        let (mut near, _far) = green_pair(v4());
        let errors = Count::default();
        let counts = errors.clone();
        let started = Flag::default();
        let tells = started.clone();
        let target = weald::spawn(move || {
            tells.set();
            loop {
                if near.read(&mut [0]).is_err() {
                    counts.add();
                }
            }
        });
        started.wait();
        target.thread().kill();
        assert!(was_killed(&target.join()));
        assert_eq!(
            errors.get(),
            1,
            "the first blocking call reports, the next one unwinds"
        );
    });
}

#[test]
fn rule_3_a_loop_that_ignores_io_errors_ends_under_timeout() {
    everywhere(|| {
        let (mut near, _far) = green_pair(v4());
        let errors = Count::default();
        let outcome = weald::timeout::<()>(5 * MS, || {
            loop {
                if near.read(&mut [0]).is_err() {
                    errors.add();
                }
            }
        });
        assert!(outcome.is_err());
        assert_eq!(errors.get(), 1);
        weald::checkpoint();
    });
}

#[test]
fn rule_3_a_kill_lasts_however_often_its_unwinding_is_caught() {
    in_each_mode(|| {
        let caughts = Count::default();
        let counts = caughts.clone();
        let started = Flag::default();
        let tells = started.clone();
        let target = weald::spawn(move || {
            tells.set();
            for _ in 0..5 {
                assert!(was_killed(&caught(|| weald::sleep(HOUR))));
                counts.add();
            }
            for (name, call) in CALLS {
                assert!(was_killed(&caught(call)), "{name} let a killed one through");
            }
            assert!(weald::catch::<Killed, _>(weald::checkpoint).is_err());
            weald::yield_now();
            unreachable!("a killed green thread went on");
        });
        started.wait();
        settle();
        target.thread().kill();
        assert!(was_killed(&target.join()));
        assert_eq!(caughts.get(), 5);
    });
}

#[test]
fn rule_3_a_limit_lasts_inside_its_closure_and_not_beyond() {
    everywhere(|| {
        let outcome = weald::timeout(2 * MS, || {
            for _ in 0..5 {
                assert!(exception_in::<Elapsed, _>(&caught(|| weald::sleep(HOUR))).is_some());
            }
            assert!(weald::catch::<Elapsed, _>(weald::checkpoint).is_err());
        });
        assert!(outcome.is_err());
        for (_, call) in CALLS {
            call();
        }
    });
}

#[test]
fn rule_3_throw_and_exc_after_are_raised_once() {
    everywhere(|| {
        weald::current().throw(Mark(10));
        let timer = weald::exc_after(MS, Mark(11));
        assert_eq!(mark_in(&caught(weald::checkpoint)), Some(10));
        assert_eq!(mark_in(&caught(|| weald::sleep(HOUR))), Some(11));
        for (_, call) in CALLS {
            call();
        }
        weald::sleep(5 * MS);
        assert!(!timer.cancel());
    });
}

// Rule 7.

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

// Rule 8.

#[test]
fn rule_8_one_shot_exceptions_come_in_the_order_of_their_deadlines() {
    everywhere(|| {
        loop {
            let start = Instant::now();
            let timers = [3, 1, 2].map(|n| weald::exc_after(n * MS, Mark(n)));
            if start.elapsed() < MS {
                break;
            }
            // A busy machine has come between: their deadlines are in another order.
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

// Rule 9.

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

// `catch`.

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
