//! `group`: like `scope`, but its children are killed when it ends early.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use weald::Group;

use crate::support::{
    Count, Flag, HOUR, MS, OnDrop, caught, each_mode, everywhere, in_each_mode, panic_text,
    was_killed,
};

/// A child that waits for ever. `ends` counts its end.
fn wait_for_ever<'scope>(group: &'scope Group<'scope, '_>, begun: &Count, ends: &Count) {
    let (begun, ended) = (begun.clone(), ends.on_drop());
    group.spawn(move || {
        let _ended = ended;
        begun.add();
        weald::sleep(HOUR);
    });
}

#[test]
fn a_group_whose_body_returns_waits_for_its_children_who_may_borrow() {
    everywhere(|| {
        let sum = AtomicUsize::new(0);
        let value = weald::group(|g| {
            for number in 1..=10 {
                let sum = &sum;
                g.spawn(move || {
                    weald::sleep(MS);
                    sum.fetch_add(number, SeqCst);
                });
            }
            "value"
        });
        assert_eq!((value, sum.into_inner()), ("value", 55));
    });
}

#[test]
fn a_limit_around_a_group_ends_its_children_too() {
    in_each_mode(|| {
        let (begun, ends, made) = (Count::default(), Count::default(), Count::default());
        let late = weald::timeout(20 * MS, || {
            weald::group(|g| {
                for _ in 0..10 {
                    made.add();
                    wait_for_ever(g, &begun, &ends);
                }
            });
        });
        assert!(late.is_err());
        // On a slow machine the limit may pass before all have begun.
        assert_eq!(made.get(), ends.get());
    });
}

#[test]
fn children_may_wait_in_their_destructors_and_are_waited_for() {
    in_each_mode(|| {
        let mut limit = 20 * MS;
        let mut ends_of_a_child_that_begins = || loop {
            let (begun, ended) = (Count::default(), Count::default());
            let late = weald::timeout(limit, || {
                weald::group(|g| {
                    let (begun, ended) = (begun.clone(), ended.clone());
                    g.spawn(move || {
                        begun.add();
                        let _slow = OnDrop(|| {
                            weald::sleep(20 * MS);
                            ended.add();
                        });
                        weald::sleep(HOUR);
                    });
                });
            });
            assert!(late.is_err());
            if begun.get() == 1 {
                return ended.get();
            }
            // The limit has passed before the child began.
            limit *= 2;
        };
        assert_eq!(ends_of_a_child_that_begins(), 1);
    });
}

#[test]
fn a_body_that_panics_ends_the_children_and_its_panic_goes_on() {
    everywhere(|| {
        let (begun, ends) = (Count::default(), Count::default());
        let outcome = caught(|| {
            weald::group(|g| {
                wait_for_ever(g, &begun, &ends);
                while begun.get() == 0 {
                    weald::sleep(MS);
                }
                panic!("the body's");
            });
        });
        assert_eq!(panic_text(&*outcome.unwrap_err()), "the body's");
        assert_eq!(ends.get(), 1);
    });
}

#[test]
fn an_exception_that_comes_when_the_body_has_unwound_is_raised_later() {
    each_mode(|rt| {
        let parent = rt.spawn(|| {
            let outcome = caught(|| {
                let (begun, parent) = (Count::default(), weald::current());
                weald::group(|g| {
                    g.spawn(|| {
                        let _late = OnDrop(|| {
                            parent.throw("late");
                            weald::sleep(MS);
                        });
                        begun.add();
                        weald::sleep(HOUR);
                    });
                    while begun.get() == 0 {
                        weald::sleep(MS);
                    }
                    panic!("the body's");
                });
            });
            assert_eq!(panic_text(&*outcome.unwrap_err()), "the body's");
            weald::sleep(HOUR);
        });
        let payload = parent.join().unwrap_err();
        let exception = payload.downcast::<weald::Exception>().unwrap();
        assert_eq!(exception.to_string(), "late");
    });
}

#[test]
fn who_is_killed_while_the_group_ends_ends_its_children_first() {
    each_mode(|rt| {
        let (begun, ends) = (Count::default(), Count::default());
        let parent = rt.spawn({
            let (begun, ends) = (begun.clone(), ends.clone());
            move || weald::group(|g| wait_for_ever(g, &begun, &ends))
        });
        rt.run(|| {
            while begun.get() == 0 {
                weald::sleep(MS);
            }
            parent.thread().kill();
            assert!(was_killed(&parent.join()));
        });
        assert_eq!(ends.get(), 1);
    });
}

#[test]
fn cancel_ends_children_that_run_and_later_ones_never_begin() {
    everywhere(|| {
        let (begun, ends) = (Count::default(), Count::default());
        let value = weald::group(|g| {
            wait_for_ever(g, &begun, &ends);
            while begun.get() == 0 {
                weald::sleep(MS);
            }
            g.cancel();
            wait_for_ever(g, &begun, &ends);
            let late = g.spawn(|| 1);
            assert!(was_killed(&late.join()));
            "value"
        });
        assert_eq!((value, begun.get(), ends.get()), ("value", 1, 2));
    });
}

#[test]
fn no_child_of_a_cancelled_group_begins_however_many_workers_look_for_work() {
    everywhere(|| {
        let begun = Count::default();
        weald::group(|g| {
            g.cancel();
            for _ in 0..2000 {
                g.spawn(|| begun.add());
            }
        });
        assert_eq!(begun.get(), 0);
    });
}

#[test]
fn a_child_may_cancel_its_group() {
    everywhere(|| {
        let (begun, ends) = (Count::default(), Count::default());
        weald::group(|g| {
            wait_for_ever(g, &begun, &ends);
            g.spawn(|| g.cancel());
        });
        assert_eq!(ends.get(), 1);
    });
}

#[test]
fn an_error_of_a_child_ends_the_others_if_that_was_asked_for() {
    everywhere(|| {
        let (begun, ends) = (Count::default(), Count::default());
        weald::group(|g| {
            g.cancel_on_error();
            wait_for_ever(g, &begun, &ends);
            g.spawn(|| Ok::<_, ()>(1));
            let fails = g.spawn(|| Err::<(), _>("no"));
            assert_eq!(fails.join().unwrap(), Err("no"));
        });
        assert_eq!(ends.get(), 1);
    });
}

#[test]
fn a_panic_of_a_child_ends_the_others_and_is_the_groups_if_nobody_has_joined() {
    everywhere(|| {
        let (begun, ends) = (Count::default(), Count::default());
        let outcome = caught(|| {
            weald::group(|g| {
                g.cancel_on_error();
                wait_for_ever(g, &begun, &ends);
                g.spawn(|| panic!("the child's"));
            });
        });
        assert_eq!(
            panic_text(&*outcome.unwrap_err()),
            "a green thread of a group panicked"
        );
        assert_eq!(ends.get(), 1);
    });
}

#[test]
fn a_type_of_the_programs_own_says_what_a_failure_is() {
    struct Answer(bool);

    impl weald::Outcome for Answer {
        fn is_failure(&self) -> bool {
            !self.0
        }
    }

    everywhere(|| {
        let (begun, ends) = (Count::default(), Count::default());
        weald::group(|g| {
            g.cancel_on_error();
            wait_for_ever(g, &begun, &ends);
            assert!(g.spawn(|| Answer(true)).join().is_ok_and(|it| it.0));
            g.spawn(|| Answer(false));
        });
        assert_eq!(ends.get(), 1);
    });
}

#[test]
fn an_error_that_came_before_it_was_asked_for_counts() {
    everywhere(|| {
        let (begun, ends) = (Count::default(), Count::default());
        weald::group(|g| {
            assert!(g.spawn(|| Err::<(), _>(1)).join().unwrap().is_err());
            wait_for_ever(g, &begun, &ends);
            g.cancel_on_error();
        });
        assert_eq!(ends.get(), 1);
    });
}

#[test]
fn without_being_asked_for_an_error_ends_nobody() {
    everywhere(|| {
        let failed = Flag::default();
        weald::group(|g| {
            let other = g.spawn(|| {
                failed.wait();
                7
            });
            assert!(g.spawn(|| Err::<(), _>(1)).join().unwrap().is_err());
            failed.set();
            assert_eq!(other.join().unwrap(), 7);
        });
    });
}

#[test]
fn a_kill_that_is_not_the_groups_is_as_in_a_scope() {
    everywhere(|| {
        let outcome = caught(|| {
            weald::group(|g| g.spawn(|| weald::sleep(HOUR)).thread().kill());
        });
        assert_eq!(
            panic_text(&*outcome.unwrap_err()),
            "a green thread of a group panicked"
        );
    });
}

#[test]
fn groups_in_groups_end_from_the_outside() {
    in_each_mode(|| {
        let (begun, ends, made) = (Count::default(), Count::default(), Count::default());
        let late = weald::timeout(20 * MS, || {
            weald::group(|outer| {
                for _ in 0..4 {
                    outer.spawn(|| {
                        weald::group(|inner| {
                            for _ in 0..4 {
                                made.add();
                                wait_for_ever(inner, &begun, &ends);
                            }
                        });
                    });
                }
            });
        });
        assert!(late.is_err());
        assert_eq!(made.get(), ends.get());
    });
}
