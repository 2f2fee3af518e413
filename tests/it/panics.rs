//! A panic ends its green thread and nothing else; `join` gets the payload. `tests/messages.rs` checks the message.

use std::panic::{panic_any, resume_unwind};

use crate::support::{
    Count, Flag, MODES, MS, Mark, Mode, OnDrop, caught, each_mode, each_mode_on, everywhere,
    in_child, in_each_mode, panic_text, runtime, wait_until,
};

#[test]
fn join_gives_the_payload_of_any_type() {
    everywhere(|| {
        let text = weald::spawn(|| -> u8 { panic!("plain") })
            .join()
            .unwrap_err();
        assert_eq!(text.downcast_ref::<&str>(), Some(&"plain"));
        let formatted = weald::spawn(|| -> u8 { panic!("number {}", 5) })
            .join()
            .unwrap_err();
        assert_eq!(panic_text(&*formatted), "number 5");
        let value = weald::spawn(|| -> u8 { panic_any(Mark(3)) })
            .join()
            .unwrap_err();
        assert_eq!(value.downcast_ref::<Mark>(), Some(&Mark(3)));
        let resumed = weald::spawn(|| -> u8 { resume_unwind(Box::new(17_u64)) })
            .join()
            .unwrap_err();
        assert_eq!(resumed.downcast_ref::<u64>(), Some(&17));
    });
}

#[test]
fn the_worker_lives_on_after_a_thousand_panics() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            for i in 0..1000 {
                let outcome = weald::spawn(move || resume_unwind(Box::new(i))).join();
                let payload = outcome.map(|(): ()| ()).unwrap_err();
                assert_eq!(payload.downcast_ref::<i32>(), Some(&i));
            }
            assert_eq!(weald::spawn(|| 1).join().unwrap(), 1);
        });
        assert_eq!(rt.metrics().workers, 1);
    });
}

#[test]
fn a_panic_in_a_detached_thread_harms_nobody() {
    each_mode(|rt| {
        let unwound = Count::default();
        for _ in 0..20 {
            let guard = unwound.on_drop();
            drop(rt.spawn(move || {
                let _guard = guard;
                panic!("nobody joins");
            }));
        }
        rt.run(|| crate::support::wait_until(|| unwound.get() == 20));
        assert_eq!(rt.run(|| 2), 2);
    });
}

#[test]
fn destructors_of_a_panicking_thread_run_before_join_returns() {
    everywhere(|| {
        let drops = Count::default();
        let guards = [drops.on_drop(), drops.on_drop()];
        let outcome = weald::spawn(move || {
            let [_first, _second] = guards;
            weald::yield_now();
            panic!("with destructors");
        });
        assert!(outcome.join().is_err());
        assert_eq!(drops.get(), 2);
    });
}

#[test]
fn catch_unwind_works_inside_a_green_thread_over_waits() {
    in_each_mode(|| {
        let threads: Vec<_> = (0..20)
            .map(|i| {
                weald::spawn(move || {
                    for round in 0..20 {
                        let outcome = caught(|| {
                            weald::yield_now();
                            weald::sleep(std::time::Duration::from_micros(10 * i));
                            resume_unwind(Box::new((i, round)));
                        });
                        let payload = outcome.map(|(): ()| ()).unwrap_err();
                        assert_eq!(payload.downcast_ref::<(u64, i32)>(), Some(&(i, round)));
                        assert!(!std::thread::panicking());
                        weald::yield_now();
                    }
                })
            })
            .collect();
        for h in threads {
            h.join().unwrap();
        }
    });
}

#[test]
fn panics_of_neighbours_that_wait_while_they_unwind_do_not_mix() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let crowd: Vec<_> = (0..10)
                .map(|i| {
                    weald::spawn(move || {
                        let _guard = OnDrop(|| weald::sleep(MS));
                        panic!("number {i}");
                    })
                })
                .collect();
            for (i, handle) in crowd.into_iter().enumerate() {
                assert_eq!(
                    panic_text(&*handle.join().unwrap_err()),
                    format!("number {i}")
                );
            }
            assert!(!std::thread::panicking());
        });
    });
}

/// Starts a green thread that unwinds and waits in a destructor until `go`. It says so by `waits`.
fn unwinder(waits: &Flag, go: &Flag, payload: u32) -> weald::JoinHandle<()> {
    let (waits, go) = (waits.clone(), go.clone());
    weald::spawn(move || {
        let _guard = OnDrop(move || {
            assert!(std::thread::panicking());
            waits.set();
            go.wait();
            assert!(std::thread::panicking());
        });
        // This calls no hook, and the rules must hold without one.
        resume_unwind(Box::new(payload));
    })
}

fn check_unwound(thread: weald::JoinHandle<()>, payload: u32) {
    let unwound = thread.join().unwrap_err();
    assert_eq!(unwound.downcast_ref::<u32>(), Some(&payload));
    assert!(!std::thread::panicking());
}

#[test]
fn nothing_is_raised_in_a_drop_that_unwinds_beside_another_one() {
    in_each_mode(|| {
        let flags: [Flag; 4] = Default::default();
        let go = Flag::default();
        let threads: Vec<_> = (0..4)
            .map(|i| unwinder(&flags[i], &go, u32::try_from(i).unwrap()))
            .collect();
        flags.iter().for_each(Flag::wait);
        threads[0].thread().throw(Mark(1));
        threads[1].thread().kill();
        threads[3].thread().kill();
        crate::support::settle();
        go.set();
        for (i, thread) in (0..).zip(threads) {
            check_unwound(thread, i);
        }
    });
}

#[test]
fn while_one_waits_in_the_middle_of_unwinding_the_others_do_not_unwind() {
    in_each_mode(|| {
        let shared = std::sync::Arc::new(std::sync::Mutex::new(0));
        let (waits, go) = (Flag::default(), Flag::default());
        let neighbour = || {
            let (shared, go) = (std::sync::Arc::clone(&shared), go.clone());
            weald::spawn(move || {
                while !go.is_set() {
                    assert!(!std::thread::panicking());
                    *shared.lock().expect("nobody has poisoned it") += 1;
                    weald::sleep(MS);
                }
                assert!(caught(|| resume_unwind(Box::new(()))).is_err());
                assert!(!std::thread::panicking());
            })
        };
        let sleeper = || weald::spawn(|| weald::sleep(crate::support::HOUR));
        let mut neighbours: Vec<_> = (0..4).map(|_| neighbour()).collect();
        let mut sleepers: Vec<_> = (0..4).map(|_| sleeper()).collect();
        crate::support::settle();
        let unwinders = [
            unwinder(&waits, &go, 5),
            unwinder(&Flag::default(), &go, 5),
            unwinder(&Flag::default(), &go, 5),
        ];
        waits.wait();
        neighbours.extend((0..4).map(|_| neighbour()));
        sleepers.extend((0..4).map(|_| sleeper()));
        crate::support::settle();
        for thread in sleepers {
            thread.thread().kill();
            assert!(crate::support::was_killed(&thread.join()));
        }
        assert!(weald::timeout(MS, weald::park).is_err());
        go.set();
        for thread in neighbours {
            thread.join().unwrap();
        }
        for thread in unwinders {
            check_unwound(thread, 5);
        }
        assert!(!shared.is_poisoned());
    });
}

#[test]
fn a_panic_inside_a_drop_that_unwinds_may_wait_as_well() {
    in_each_mode(|| {
        let (waits, go) = (Flag::default(), Flag::default());
        let (tells, until) = (waits.clone(), go.clone());
        let outer = weald::spawn(move || {
            let _outer = OnDrop(move || {
                let (tells, until) = (tells.clone(), until.clone());
                let inner = caught(|| {
                    let _inner = OnDrop(move || {
                        tells.set();
                        until.wait();
                        weald::yield_now();
                    });
                    resume_unwind(Box::new(6));
                });
                assert_eq!(inner.unwrap_err().downcast_ref::<i32>(), Some(&6));
                assert!(std::thread::panicking());
                weald::sleep(MS);
                assert!(std::thread::panicking());
            });
            resume_unwind(Box::new(7_u32));
        });
        waits.wait();
        assert!(!std::thread::panicking());
        let other = weald::spawn(|| assert!(!std::thread::panicking()));
        other.join().unwrap();
        outer.thread().kill();
        go.set();
        check_unwound(outer, 7);
    });
}

#[test]
fn hundreds_may_wait_in_the_middle_of_unwinding_at_once() {
    in_each_mode(|| {
        let (waiting, go) = (Count::default(), Flag::default());
        let threads: Vec<_> = (0..300)
            .map(|_| {
                let (waiting, go) = (waiting.clone(), go.clone());
                weald::spawn(move || {
                    let _guard = OnDrop(move || {
                        waiting.add();
                        go.wait();
                    });
                    weald::sleep(crate::support::HOUR);
                })
            })
            .collect();
        crate::support::settle();
        for thread in &threads {
            thread.thread().kill();
        }
        crate::support::wait_until(|| {
            waiting.get() == 300 || threads.iter().any(weald::JoinHandle::is_finished)
        });
        assert!(!std::thread::panicking());
        go.set();
        for thread in threads {
            assert!(crate::support::was_killed(&thread.join()));
        }
        assert_eq!(weald::spawn(|| 4).join().unwrap(), 4);
    });
}

#[test]
fn a_parent_that_panics_does_not_take_its_children_along() {
    in_each_mode(|| {
        let (go, ended) = (Flag::default(), Flag::default());
        let (waits, tells) = (go.clone(), ended.clone());
        let parent = weald::spawn(move || {
            weald::spawn(move || {
                waits.wait();
                tells.set();
            });
            panic!("the parent");
        });
        assert!(parent.join().is_err());
        go.set();
        ended.wait();
    });
}

#[test]
fn the_drop_of_a_value_that_panics_ends_in_the_joiner_or_nowhere() {
    in_each_mode(|| {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                assert!(std::thread::panicking(), "in a destructor");
            }
        }
        let outcome = weald::spawn(|| drop(Panics)).join();
        assert_eq!(panic_text(&*outcome.unwrap_err()), "in a destructor");
        assert_eq!(weald::spawn(|| 3).join().unwrap(), 3);
    });
}

#[test]
fn a_hook_that_waits_and_then_panics_ends_the_process_where_thread_locals_are_own() {
    if !MODES.contains(&Mode::Own) {
        return;
    }
    let test =
        "panics::a_hook_that_waits_and_then_panics_ends_the_process_where_thread_locals_are_own";
    let child = in_child(test, &[], || {
        std::panic::set_hook(Box::new(|_| {
            eprintln!("the hook begins");
            weald::sleep(MS);
            panic!("in the hook");
        }));
        let rt = runtime(1, Mode::Own);
        let _ = rt.spawn(|| panic!("the first")).join();
    });
    assert_eq!(child.signal, Some(libc::SIGABRT), "{child:?}");
    let begun = child.stderr.matches("the hook begins").count();
    assert_eq!(begun, 1, "{child:?}");
}

#[test]
fn a_hook_may_wait_for_a_green_thread_that_has_started_on_its_os_thread() {
    let test = "panics::a_hook_may_wait_for_a_green_thread_that_has_started_on_its_os_thread";
    let child = in_child(test, &[], || {
        use weald::sync::channel::bounded;

        let ((ask, asked), (answer, answered)) = (bounded(0), bounded(0));
        std::panic::set_hook(Box::new(move |_| {
            ask.send(()).unwrap();
            answered.recv().unwrap();
        }));
        each_mode_on(1, |rt| {
            let (asked, answer) = (asked.clone(), answer.clone());
            let answers = rt.spawn(move || {
                asked.recv().unwrap();
                answer.send(()).unwrap();
            });
            wait_until(|| rt.metrics().parked == 1);
            assert!(rt.spawn(|| panic!("told to the hook")).join().is_err());
            answers.join().unwrap();
        });
    });
    assert!(child.success, "{child:?}");
}
