//! Rules 1, 2 and 3 of DESIGN 4.3: when an exception is raised, as what, and how often.
//! Rule 4 is in `timeout`, rules 5, 6 and 10 are in `exceptions_wait`, rules 7, 8 and 9 in `exceptions_order`. What
//! sockets do is in `net_interrupt`.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

use weald::{Elapsed, Exception, Killed};

use crate::support::{
    Count, Flag, HOUR, MS, Mark, caught, each_mode_on, everywhere, exception_in, green_pair,
    in_each_mode, mark_in, panic_text, settle, source_of, v4, wait_until, was_killed,
};

/// Every call that may wait for ever and returns no `io::Result`.
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

/// Every blocking call that returns no `io::Result`, used so that it would not have waited.
pub(super) const CALLS: [(&str, fn()); 10] = [
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
