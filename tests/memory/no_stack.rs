//! What becomes of threads for which there is no stack.

use std::time::Duration;

use weald::{Builder, Runtime};

use super::{each_mode_in_child, end, unpark};
use crate::support::{Count, Flag, HOUR, MODES, MS, in_child, panic_text, runtime, wait_until};

/// Few stacks may have guards.
const FEW: &[(&str, &str)] = &[("WEALD_STACK_GUARD", "mprotect:64")];

#[test]
fn more_threads_than_stacks_are_spawned_and_all_run() {
    let test = "no_stack::more_threads_than_stacks_are_spawned_and_all_run";
    each_mode_in_child(test, FEW, |mode, workers| {
        let rt = runtime(workers, mode);
        let ran = rt.run(|| {
            let short: Vec<_> = (0..20_000).map(|_| weald::spawn(|| ())).collect();
            // These hold their stacks for a while.
            let long: Vec<_> = (0..2000)
                .map(|_| weald::spawn(|| weald::sleep(MS)))
                .collect();
            weald::scope(|s| {
                for _ in 0..1000 {
                    s.spawn(weald::yield_now);
                }
            });
            let all = short.into_iter().chain(long);
            all.filter_map(|thread| thread.join().ok()).count()
        });
        assert_eq!(ran, 22_000);
        // Threads are also spawned from outside, and with stacks of another size, which need the guards of the
        // others.
        let large = |n| {
            Builder::new()
                .stack_size(1 << 20)
                .spawn(move || (weald::sleep(MS), n).1)
        };
        let all = rt.run(|| (0..500).map(|n| large(n).unwrap()).collect::<Vec<_>>());
        let sum: usize = all.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 124_750);
    });
}

#[test]
fn those_that_wait_for_a_stack_start_when_others_end() {
    let test = "no_stack::those_that_wait_for_a_stack_start_when_others_end";
    each_mode_in_child(test, FEW, |mode, workers| {
        let rt = runtime(workers, mode);
        let holders: Vec<_> = (0..64).map(|_| rt.spawn(weald::park)).collect();
        wait_until(|| rt.metrics().parked == 64);
        let begun = Count::default();
        let spawn = |_| {
            let begun = begun.clone();
            rt.spawn(move || {
                let turn = begun.add();
                weald::park_timeout(HOUR);
                turn
            })
        };
        let late: Vec<_> = (0..10).map(spawn).collect();
        crate::support::settle();
        assert_eq!(begun.get(), 0, "there was no stack");
        end(holders);
        wait_until(|| begun.get() == 10);
        unpark(&late);
        let turns = late.into_iter().map(|thread| thread.join().unwrap());
        let mut turns: Vec<_> = turns.collect();
        turns.sort_unstable();
        assert_eq!(turns, (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn who_waits_for_a_large_stack_holds_up_nobody_who_wants_a_small_one() {
    let test = "no_stack::who_waits_for_a_large_stack_holds_up_nobody_who_wants_a_small_one";
    each_mode_in_child(test, &[], |mode, workers| {
        const LARGE: usize = 256 << 20;
        let rt = runtime(workers, mode);
        let large = |flag: &Flag| {
            let (begun, builder) = (flag.clone(), Builder::new().stack_size(LARGE));
            let body = move || {
                begun.set();
                weald::park();
            };
            rt.run(|| builder.spawn(body).unwrap())
        };
        let (first, second) = (Flag::default(), Flag::default());
        let holder = large(&first);
        wait_until(|| first.is_set());
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: libc::rlim_t = statm.split(' ').next().unwrap().parse().unwrap();
        limit_address_space(Some(pages * 4096 + (128 << 20)));
        let waits = large(&second);
        for size in [16 << 10, 64 << 10, 256 << 10, 1 << 20] {
            for _ in 0..20 {
                let small = Builder::new().stack_size(size);
                let small = rt.run(|| small.spawn(|| 5).unwrap());
                assert_eq!(small.join().unwrap(), 5);
            }
        }
        assert!(!second.is_set(), "it had a stack");
        end(vec![holder]);
        wait_until(|| second.is_set());
        end(vec![waits]);
    });
}

#[test]
fn threads_of_all_sizes_that_want_the_same_guards_take_turns() {
    let test = "no_stack::threads_of_all_sizes_that_want_the_same_guards_take_turns";
    each_mode_in_child(test, FEW, |mode, workers| {
        let rt = runtime(workers, mode);
        let begun = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let spawn = |size: usize| {
            let begun = std::sync::Arc::clone(&begun);
            let body = move || {
                begun.lock().unwrap().push(size);
                weald::park();
            };
            Builder::new().stack_size(size).spawn(body).unwrap()
        };
        let sizes = [16 << 10, 1 << 20];
        // Spawned by a thread that has the last stack.
        let (holders, all) = rt.run(|| {
            let holders: Vec<_> = (0..63).map(|_| weald::spawn(weald::park)).collect();
            while rt.metrics().parked < 63 {
                weald::yield_now();
            }
            let all = sizes.map(|size| (0..40).map(|_| spawn(size)).collect::<Vec<_>>());
            (holders, all)
        });
        crate::support::settle();
        assert!(begun.lock().unwrap().len() <= 1, "there was no stack");
        // Each of them holds the stack that it gets, so as many start as threads end here.
        let mut holders = holders.into_iter();
        for round in 1..=10 {
            end(holders.by_ref().take(4).collect());
            wait_until(|| begun.lock().unwrap().len() >= 4 * round);
        }
        let begun_now = begun.lock().unwrap().clone();
        for size in sizes {
            let of_it = begun_now.iter().filter(|&&begun| begun == size).count();
            assert!(of_it >= 10, "{begun_now:?}");
        }
        end(holders.collect());
        for threads in all {
            let threads: Vec<_> = threads;
            wait_until(|| {
                unpark(&threads);
                threads.iter().all(weald::JoinHandle::is_finished)
            });
        }
    });
}

#[test]
fn threads_that_wait_for_those_that_have_no_stack_are_told_of() {
    let test = "no_stack::threads_that_wait_for_those_that_have_no_stack_are_told_of";
    for index in 0..MODES.len() {
        let mode = index.to_string();
        let env = [FEW[0], ("MODE_OF_THE_TEST", &*mode)];
        let child = in_child(test, &env, || {
            let index: usize = std::env::var("MODE_OF_THE_TEST").unwrap().parse().unwrap();
            let rt = runtime(2, MODES[index]);
            let go = Flag::default();
            let spawn = |_| {
                let go = go.clone();
                rt.spawn(move || go.wait())
            };
            let holders: Vec<_> = (0..64).map(spawn).collect();
            // All 64 stacks are taken.
            wait_until(|| rt.metrics().parked == 64);
            let sets = go.clone();
            let never = rt.spawn(move || sets.set());
            // This is long enough for the message. Then another thread helps, and all goes on.
            std::thread::sleep(Duration::from_secs(4));
            assert!(!go.is_set(), "it had a stack");
            go.set();
            never.join().unwrap();
            for thread in holders {
                thread.join().unwrap();
            }
        });
        assert!(child.success, "{child:?}");
        let said: Vec<_> = child
            .stderr
            .lines()
            .filter(|line| line.contains("weald:"))
            .collect();
        assert_eq!(said.len(), 1, "{child:?}");
        assert!(
            said[0].contains("64") && said[0].contains("vm.max_map_count"),
            "{said:?}"
        );
    }
}

/// Sets the limit of address space; `None` for no limit.
fn limit_address_space(bytes: Option<libc::rlim_t>) {
    let limit = libc::rlimit {
        rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY),
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the pointer is to a live structure.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(set, 0, "the machine has a limit of its own");
}

#[test]
fn a_stack_beyond_the_limit_of_address_space_is_an_error_of_the_builder() {
    let test = "no_stack::a_stack_beyond_the_limit_of_address_space_is_an_error_of_the_builder";
    each_mode_in_child(test, &[], |mode, workers| {
        let rt = runtime(workers, mode);
        rt.run(|| {
            limit_address_space(Some(1 << 30));
            let refused = Builder::new().stack_size(1 << 30).spawn(|| ());
            let error = refused.map(drop).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
            assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            // Other threads are not affected.
            assert_eq!(weald::spawn(|| 5).join().unwrap(), 5);
        });
        let refused = Runtime::builder().workers(1).stack_size(1 << 30).build();
        let error = refused.map(drop).unwrap_err();
        assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
        limit_address_space(None);
        let large = Builder::new().stack_size(1 << 30).spawn(|| 6).unwrap();
        assert_eq!(large.join().unwrap(), 6);
    });
}

#[test]
fn a_thread_that_can_never_have_a_stack_says_why() {
    let test = "no_stack::a_thread_that_can_never_have_a_stack_says_why";
    for index in 0..MODES.len() {
        let mode = index.to_string();
        let child = in_child(test, &[("MODE_OF_THE_TEST", &*mode)], || {
            let index: usize = std::env::var("MODE_OF_THE_TEST").unwrap().parse().unwrap();
            let rt = runtime(1, MODES[index]);
            rt.run(|| {
                let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
                let pages: libc::rlim_t = statm.split(' ').next().unwrap().parse().unwrap();
                // The stack fits into the limit, but not beside what is mapped already.
                limit_address_space(Some((pages * 4096 + (300 << 20)).max(520 << 20)));
                let dropped = Count::default();
                let spawn = |_| {
                    let owned = dropped.on_drop();
                    let builder = Builder::new().stack_size(512 << 20);
                    builder.spawn(move || drop(owned)).unwrap()
                };
                let all: Vec<_> = (0..3).map(spawn).collect();
                for thread in all {
                    let why = panic_text(&*thread.join().unwrap_err());
                    assert!(why.contains("RLIMIT_AS"), "{why}");
                }
                assert_eq!(dropped.get(), 3);
                assert_eq!(weald::spawn(|| 5).join().unwrap(), 5);
            });
        });
        assert!(child.success, "{child:?}");
        let said = child
            .stderr
            .lines()
            .filter(|line| line.contains("RLIMIT_AS"))
            .count();
        assert_eq!(said, 1, "{child:?}");
    }
}
