//! `scope`: children may borrow, all have ended when it returns, also under a panic and under `kill`.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use weald::Builder;

use crate::support::{
    Count, Flag, HOUR, MS, Mark, OnDrop, caught, each_mode, everywhere, in_each_mode, mark_in,
    panic_text, settle, was_killed,
};

#[test]
fn children_borrow_from_the_parent_and_their_writes_are_seen() {
    everywhere(|| {
        let mut cells = vec![0; 100];
        let shared = AtomicUsize::new(0);
        weald::scope(|s| {
            for (i, cell) in cells.iter_mut().enumerate() {
                let shared = &shared;
                s.spawn(move || {
                    weald::yield_now();
                    *cell = i;
                    shared.fetch_add(i, SeqCst);
                });
            }
        });
        assert_eq!(cells, (0..100).collect::<Vec<_>>());
        assert_eq!(shared.into_inner(), 4950);
    });
}

#[test]
fn scope_returns_the_closures_value_once_all_children_have_ended() {
    everywhere(|| {
        let ended = Count::default();
        let value = weald::scope(|s| {
            for _ in 0..10 {
                s.spawn(|| {
                    weald::sleep(10 * MS);
                    ended.add();
                });
            }
            "value"
        });
        assert_eq!((value, ended.get()), ("value", 10));
    });
}

#[test]
fn a_scoped_handle_joins_is_finished_and_names_its_thread() {
    everywhere(|| {
        weald::scope(|s| {
            let go = Flag::default();
            let waits = go.clone();
            let handle = s.spawn(move || {
                waits.wait();
                weald::current().id()
            });
            assert!(!handle.is_finished());
            let id = handle.thread().id();
            go.set();
            assert_eq!(handle.join().unwrap(), id);
        });
    });
}

#[test]
fn a_child_may_spawn_into_its_scope() {
    everywhere(|| {
        let ended = AtomicUsize::new(0);
        weald::scope(|s| {
            s.spawn(|| {
                for _ in 0..5 {
                    s.spawn(|| {
                        weald::sleep(5 * MS);
                        ended.fetch_add(1, SeqCst);
                    });
                }
            });
        });
        assert_eq!(ended.into_inner(), 5);
    });
}

#[test]
fn the_builder_spawns_into_a_scope() {
    everywhere(|| {
        let text = String::from("borrowed");
        weald::scope(|s| {
            let builder = Builder::new()
                .name("rowan".to_owned())
                .stack_size(128 * 1024);
            let handle = builder
                .spawn_scoped(s, || {
                    (text.len(), weald::current().name().map(str::to_owned))
                })
                .unwrap();
            assert_eq!(handle.thread().name(), Some("rowan"));
            assert_eq!(handle.join().unwrap(), (8, Some("rowan".to_owned())));
            let refused = Builder::new()
                .stack_size(1)
                .spawn_scoped(s, || ())
                .map(drop)
                .unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
        });
    });
}

#[test]
fn a_panic_that_was_joined_stays_with_its_joiner() {
    everywhere(|| {
        let joined = weald::scope(|s| s.spawn(|| -> u8 { panic!("of a scoped thread") }).join());
        assert_eq!(panic_text(&*joined.unwrap_err()), "of a scoped thread");
    });
}

#[test]
fn a_panic_that_was_not_joined_makes_scope_panic_after_all_have_ended() {
    everywhere(|| {
        let ended = Count::default();
        let outcome = caught(|| {
            weald::scope(|s| {
                s.spawn(|| panic!("nobody joins it"));
                s.spawn(|| {
                    weald::sleep(10 * MS);
                    ended.add();
                });
            });
        });
        assert!(outcome.is_err());
        assert_eq!(ended.get(), 1);
    });
}

#[test]
fn a_child_that_was_killed_and_not_joined_makes_scope_panic() {
    everywhere(|| {
        let outcome = caught(|| weald::scope(|s| s.spawn(|| weald::sleep(HOUR)).thread().kill()));
        assert!(outcome.is_err());
        let joined = weald::scope(|s| {
            let child = s.spawn(|| weald::sleep(HOUR));
            child.thread().kill();
            child.join()
        });
        assert!(was_killed(&joined));
    });
}

#[test]
fn when_the_closure_panics_the_children_still_end_first_and_the_panic_goes_on() {
    everywhere(|| {
        let ended = Count::default();
        let outcome = caught(|| {
            weald::scope(|s| {
                s.spawn(|| {
                    weald::sleep(10 * MS);
                    ended.add();
                });
                panic!("in the closure");
            });
        });
        assert_eq!(panic_text(&*outcome.unwrap_err()), "in the closure");
        assert_eq!(ended.get(), 1);
    });
}

/// Starts a parent whose scope waits for a child that `go` releases. `hit` is done to the parent while it waits.
fn check_the_join_is_not_interrupted(hit: fn(&weald::GreenThread)) -> std::thread::Result<()> {
    let (go, spawned) = (Flag::default(), Flag::default());
    let (child_ended, after_scope, after_next) =
        (Flag::default(), Flag::default(), Flag::default());
    let parent = {
        let (go, spawned, child_ended) = (go.clone(), spawned.clone(), child_ended.clone());
        let (after_scope, after_next) = (after_scope.clone(), after_next.clone());
        weald::spawn(move || {
            let frame = AtomicUsize::new(1);
            weald::scope(|s| {
                s.spawn(|| {
                    go.wait();
                    frame.fetch_add(1, SeqCst);
                    child_ended.set();
                });
                spawned.set();
            });
            assert_eq!(frame.into_inner(), 2);
            after_scope.set();
            weald::checkpoint();
            after_next.set();
        })
    };
    spawned.wait();
    settle();
    hit(parent.thread());
    settle();
    assert!(
        !parent.is_finished() && !after_scope.is_set(),
        "the scope was left while its child ran"
    );
    assert!(!child_ended.is_set(), "the child shares its parent's fate");
    go.set();
    let outcome = parent.join();
    assert!(child_ended.is_set() && after_scope.is_set());
    assert!(!after_next.is_set(), "the exception was lost");
    outcome
}

#[test]
fn a_kill_is_held_until_all_children_have_ended_and_is_raised_at_the_next_blocking_call() {
    in_each_mode(|| {
        assert!(was_killed(&check_the_join_is_not_interrupted(
            weald::GreenThread::kill
        )));
    });
}

#[test]
fn a_throw_is_held_until_all_children_have_ended_and_is_raised_at_the_next_blocking_call() {
    in_each_mode(|| {
        let outcome = check_the_join_is_not_interrupted(|parent| parent.throw(Mark(6)));
        assert_eq!(mark_in(&outcome), Some(6));
    });
}

#[test]
fn a_timeout_around_a_scope_waits_for_its_children() {
    everywhere(|| {
        let ended = Count::default();
        let outcome = weald::timeout(5 * MS, || {
            weald::scope(|s| {
                s.spawn(|| {
                    weald::sleep(50 * MS);
                    ended.add();
                });
            });
            weald::checkpoint();
        });
        assert!(outcome.is_err());
        assert_eq!(ended.get(), 1);
    });
}

#[test]
fn an_exception_inside_the_closure_waits_for_the_children_too() {
    in_each_mode(|| {
        let ended = Flag::default();
        let inside = Flag::default();
        let (tells, says) = (ended.clone(), inside.clone());
        let parent = weald::spawn(move || {
            let frame = AtomicUsize::new(0);
            weald::scope(|s| {
                s.spawn(|| {
                    weald::sleep(30 * MS);
                    frame.fetch_add(1, SeqCst);
                    tells.set();
                });
                says.set();
                weald::sleep(HOUR);
            });
        });
        inside.wait();
        settle();
        parent.thread().kill();
        assert!(was_killed(&parent.join()));
        assert!(ended.is_set(), "the frame that the child borrows was left");
    });
}

#[test]
fn an_interrupted_join_of_a_scoped_child_leaves_it_to_the_scope() {
    in_each_mode(|| {
        let ended = Flag::default();
        let tells = ended.clone();
        let parent = weald::spawn(move || {
            weald::scope(|s| {
                let child = s.spawn(|| {
                    weald::sleep(40 * MS);
                    tells.set();
                });
                let joined = weald::timeout(5 * MS, || child.join());
                assert!(joined.is_err());
                assert!(!tells.is_set());
            });
            assert!(tells.is_set());
        });
        parent.join().unwrap();
        assert!(ended.is_set());
    });
}

#[test]
fn a_scope_that_a_drop_opens_while_unwinding_still_waits() {
    in_each_mode(|| {
        let ended = Count::default();
        let counts = ended.clone();
        let thread = weald::spawn(move || {
            let _guard = OnDrop(|| {
                weald::scope(|s| {
                    s.spawn(|| {
                        weald::sleep(5 * MS);
                        counts.add();
                    });
                });
            });
            weald::sleep(HOUR);
        });
        settle();
        thread.thread().kill();
        assert!(was_killed(&thread.join()));
        // If it was killed before it started, it never made the guard.
        assert!(ended.get() <= 1);
    });
}

#[test]
fn scopes_nest_and_children_of_both_borrow() {
    each_mode(|rt| {
        let total = AtomicUsize::new(0);
        rt.run(|| {
            weald::scope(|outer| {
                for i in 0..10 {
                    let total = &total;
                    outer.spawn(move || {
                        let own = AtomicUsize::new(0);
                        weald::scope(|inner| {
                            for _ in 0..10 {
                                inner.spawn(|| own.fetch_add(i, SeqCst));
                            }
                        });
                        total.fetch_add(own.into_inner(), SeqCst);
                    });
                }
            });
        });
        assert_eq!(total.into_inner(), 450);
    });
}
