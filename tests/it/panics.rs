//! A panic ends its green thread and nothing else; the payload is for who joins. The message is checked in `tests/messages.rs`.

use std::panic::{panic_any, resume_unwind};

use crate::support::{
    Count, Flag, MS, Mark, OnDrop, caught, each_mode, each_mode_on, everywhere, in_each_mode,
    panic_text,
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
