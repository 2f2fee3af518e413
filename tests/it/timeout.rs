//! Rule 4 of DESIGN 4.3, `timeout`: which limit has passed, what is reported, and what goes on.

use std::time::{Duration, Instant};

use weald::Elapsed;

use crate::support::{
    Count, Flag, HOUR, MS, Mark, OnDrop, caught, each_mode, everywhere, exception_in, in_each_mode,
    mark_in, panic_text, settle, spin, was_killed,
};

#[test]
fn a_closure_that_ends_in_time_gives_its_value() {
    everywhere(|| {
        let text = String::from("borrowed");
        let length = weald::timeout(HOUR, || {
            weald::sleep(MS);
            text.len()
        });
        assert_eq!(length.unwrap(), 8);
    });
}

#[test]
fn a_limit_that_passes_is_elapsed_and_not_before_its_time() {
    everywhere(|| {
        for micros in [100, 500, 1000, 1500, 20_000] {
            let limit = Duration::from_micros(micros);
            let start = Instant::now();
            let outcome = weald::timeout(limit, || weald::sleep(HOUR));
            let elapsed: Elapsed = outcome.unwrap_err();
            assert!(start.elapsed() >= limit);
            assert!(!elapsed.to_string().is_empty());
            let _: &dyn std::error::Error = &elapsed;
        }
    });
}

#[test]
fn the_time_after_a_timeout_is_free_of_it() {
    everywhere(|| {
        for _ in 0..20 {
            assert!(weald::timeout(MS, || weald::sleep(HOUR)).is_err());
            weald::checkpoint();
            assert!(weald::timeout(5 * MS, || ()).is_ok());
        }
        weald::sleep(20 * MS);
    });
}

#[test]
fn a_limit_that_passes_while_the_closure_makes_no_blocking_call_is_not_reported() {
    everywhere(|| {
        let outcome = weald::timeout(MS, || {
            spin(20 * MS);
            "the value"
        });
        assert_eq!(outcome.unwrap(), "the value");
        weald::checkpoint();
        assert_eq!(weald::timeout(Duration::ZERO, || 1).unwrap(), 1);
    });
}

#[test]
fn no_time_at_all_passes_at_the_first_blocking_call() {
    everywhere(|| {
        let passed = Flag::default();
        let outcome = weald::timeout(Duration::ZERO, || {
            weald::checkpoint();
            passed.set();
        });
        assert!(outcome.is_err());
        assert!(!passed.is_set());
    });
}

#[test]
fn the_longest_limit_never_passes() {
    everywhere(|| {
        let outcome = weald::timeout(Duration::MAX, || {
            weald::sleep(5 * MS);
            2
        });
        assert_eq!(outcome.unwrap(), 2);
    });
}

#[test]
fn a_closure_that_swallows_the_exception_and_returns_is_elapsed_all_the_same() {
    everywhere(|| {
        let after = Flag::default();
        let outcome = weald::timeout(MS, || {
            assert!(caught(|| weald::sleep(HOUR)).is_err());
            after.set();
            "a value that nobody gets"
        });
        assert!(outcome.is_err());
        assert!(after.is_set());
    });
}

#[test]
fn another_panic_goes_on_before_and_after_the_limit() {
    everywhere(|| {
        let outcome = caught(|| weald::timeout(HOUR, || panic!("before the limit")));
        assert_eq!(panic_text(&*outcome.unwrap_err()), "before the limit");
        let outcome = caught(|| {
            weald::timeout(MS, || {
                assert!(caught(|| weald::sleep(HOUR)).is_err());
                panic!("after the limit");
            })
        });
        assert_eq!(panic_text(&*outcome.unwrap_err()), "after the limit");
        weald::checkpoint();
    });
}

#[test]
fn another_exception_goes_on() {
    everywhere(|| {
        let outcome = caught(|| {
            weald::timeout(HOUR, || {
                weald::current().throw(Mark(1));
                weald::sleep(HOUR);
            })
        });
        assert_eq!(mark_in(&outcome), Some(1));
        let caught_outside = weald::catch::<Mark, _>(|| {
            weald::timeout(HOUR, || {
                weald::exc_after(MS, Mark(2));
                weald::sleep(HOUR);
            })
        });
        assert!(matches!(caught_outside, Err(Mark(2))));
    });
}

#[test]
fn a_kill_goes_on_through_every_limit() {
    in_each_mode(|| {
        let started = Flag::default();
        let tells = started.clone();
        let target = weald::spawn(move || {
            let _ = weald::timeout(HOUR, || {
                weald::timeout(HOUR, || {
                    tells.set();
                    weald::sleep(HOUR);
                })
            });
            unreachable!("a limit swallowed the kill");
        });
        started.wait();
        settle();
        target.thread().kill();
        assert!(was_killed(&target.join()));
    });
}

#[test]
fn an_inner_limit_that_passes_leaves_the_outer_one_alone() {
    everywhere(|| {
        let outcome = weald::timeout(HOUR, || {
            let inner = weald::timeout(MS, || weald::sleep(HOUR));
            assert!(inner.is_err());
            weald::sleep(2 * MS);
            "went on"
        });
        assert_eq!(outcome.unwrap(), "went on");
    });
}

#[test]
fn an_outer_limit_that_passes_is_not_the_inner_ones() {
    everywhere(|| {
        let inner_returned = Flag::default();
        let outcome = weald::timeout(2 * MS, || {
            let inner = weald::timeout(HOUR, || weald::sleep(HOUR));
            inner_returned.set();
            inner
        });
        assert!(outcome.is_err());
        assert!(
            !inner_returned.is_set(),
            "the inner timeout swallowed the outer one's exception"
        );
    });
}

#[test]
fn an_outer_limit_inside_an_inner_closure_that_swallows_is_still_reported_outside() {
    everywhere(|| {
        let outcome = weald::timeout(2 * MS, || {
            weald::timeout(HOUR, || {
                // This is the outer exception. The inner closure swallows it and returns, in time for the inner
                // limit.
                assert!(exception_in::<Elapsed, _>(&caught(|| weald::sleep(HOUR))).is_some());
                3
            })
            .expect("the inner limit has not passed")
        });
        assert!(outcome.is_err());
        weald::checkpoint();
    });
}

#[test]
fn catch_takes_the_exception_and_the_timeout_still_tells() {
    everywhere(|| {
        let seen = Flag::default();
        let outcome = weald::timeout(MS, || {
            if weald::catch::<Elapsed, _>(|| weald::sleep(HOUR)).is_err() {
                seen.set();
            }
        });
        assert!(seen.is_set());
        assert!(outcome.is_err());
    });
}

#[test]
fn limits_nest_as_deep_as_one_likes_and_the_right_one_answers() {
    fn nest(depth: u32, short: u32, path: &Count) -> Result<u32, Elapsed> {
        let limit = if depth == short { 2 * MS } else { HOUR };
        let inner = weald::timeout(limit, || {
            if depth == 0 {
                weald::sleep(HOUR);
                return 0;
            }
            let answer = nest(depth - 1, short, path);
            path.add();
            answer.map_or(depth - 1, |below| below)
        })?;
        Ok(inner)
    }
    everywhere(|| {
        for short in 0..8 {
            let path = Count::default();
            let answer = nest(8, short, &path).unwrap();
            assert_eq!(answer, short);
            assert_eq!(
                path.get(),
                8 - usize::try_from(short).unwrap(),
                "limits above the short one return"
            );
        }
    });
}

#[test]
fn destructors_run_and_may_wait_when_a_limit_passes() {
    everywhere(|| {
        let cleaned = Flag::default();
        let outcome = weald::timeout(MS, || {
            let _guard = OnDrop(|| {
                weald::sleep(2 * MS);
                cleaned.set();
            });
            weald::sleep(HOUR);
        });
        assert!(outcome.is_err());
        assert!(cleaned.is_set());
    });
}

#[test]
fn a_limit_holds_for_the_caller_and_not_for_what_it_spawns() {
    everywhere(|| {
        let (child, outcome) = {
            let mut child = None;
            let outcome = weald::timeout(2 * MS, || {
                child = Some(weald::spawn(|| {
                    weald::sleep(30 * MS);
                    4
                }));
                weald::sleep(HOUR);
            });
            (child.unwrap(), outcome)
        };
        assert!(outcome.is_err());
        assert_eq!(child.join().unwrap(), 4);
    });
}

#[test]
fn a_thousand_green_threads_have_limits_of_their_own() {
    in_each_mode(|| {
        let own = |i: u64| {
            weald::spawn(move || {
                if i.is_multiple_of(2) {
                    weald::timeout(Duration::from_micros(i % 997), || weald::sleep(HOUR)).is_err()
                } else {
                    weald::timeout(HOUR, || weald::sleep(Duration::from_micros(i % 997))).is_ok()
                }
            })
        };
        let handles: Vec<_> = (0..1000).map(own).collect();
        assert!(handles.into_iter().all(|h| h.join().unwrap()));
    });
}

#[test]
fn a_limit_that_races_the_end_is_one_or_the_other() {
    in_each_mode(|| {
        for i in 0..300_u64 {
            let time = Duration::from_micros(200 + i % 7);
            let done = Flag::default();
            let outcome = weald::timeout(Duration::from_micros(200 + i % 11), || {
                weald::sleep(time);
                done.set();
            });
            assert_eq!(outcome.is_ok(), done.is_set());
            weald::checkpoint();
        }
    });
}

#[test]
fn limits_that_never_pass_leave_no_timer_behind() {
    each_mode(|rt| {
        rt.run(|| {
            let before = rt.metrics().timers;
            for i in 0..10_000 {
                assert_eq!(weald::timeout(HOUR, || i).unwrap(), i);
            }
            assert_eq!(rt.metrics().timers, before);
        });
    });
}
