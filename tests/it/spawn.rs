//! `spawn` and `Builder`: every green thread runs once, with the name, the stack and the identity that it was given.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};

use weald::{Builder, GreenThread, GreenThreadId};

use crate::support::{
    Count, Flag, LIMIT, Mode, check_names, each_mode, in_each_mode, os_thread, runtime, wait_until,
    with_deadline,
};

#[test]
fn a_green_thread_runs_and_its_value_comes_back() {
    in_each_mode(|| {
        let text = String::from("owned by the closure");
        let handle = weald::spawn(move || text.len());
        assert_eq!(handle.join().unwrap(), 20);
    });
}

#[test]
fn a_green_thread_may_spawn_green_threads() {
    fn tree(depth: u32) -> u32 {
        if depth == 0 {
            return 1;
        }
        let left = weald::spawn(move || tree(depth - 1));
        let right = weald::spawn(move || tree(depth - 1));
        left.join().unwrap() + right.join().unwrap()
    }
    in_each_mode(|| assert_eq!(tree(10), 1024));
}

#[test]
fn ten_thousand_green_threads_run_once_each() {
    in_each_mode(|| {
        let runs = Count::default();
        let spawn = |_| {
            let runs = runs.clone();
            weald::spawn(move || runs.add())
        };
        let handles: Vec<_> = (0..10_000).map(spawn).collect();
        let mut tickets: Vec<usize> = handles.into_iter().map(|h| h.join().unwrap()).collect();
        tickets.sort_unstable();
        assert_eq!(tickets, (0..10_000).collect::<Vec<_>>());
        assert_eq!(runs.get(), 10_000);
    });
}

#[test]
fn green_threads_take_turns_when_they_yield() {
    each_mode(|rt| {
        let turns = Count::default();
        let spawn = |_| {
            let turns = turns.clone();
            rt.spawn(move || {
                for _ in 0..1000 {
                    turns.add();
                    weald::yield_now();
                }
            })
        };
        let handles: Vec<_> = (0..10).map(spawn).collect();
        for h in handles {
            h.join().unwrap();
        }
        assert_eq!(turns.get(), 10_000);
    });
}

#[test]
fn spawn_returns_before_the_green_thread_has_ended() {
    in_each_mode(|| {
        let go = Flag::default();
        let waits = go.clone();
        let handle = weald::spawn(move || waits.wait());
        assert!(!handle.is_finished());
        go.set();
        handle.join().unwrap();
    });
}

#[test]
fn a_dropped_handle_detaches_and_the_green_thread_goes_on() {
    in_each_mode(|| {
        let (go, ended) = (Flag::default(), Flag::default());
        let (waits, tells) = (go.clone(), ended.clone());
        drop(weald::spawn(move || {
            waits.wait();
            tells.set();
        }));
        go.set();
        ended.wait();
    });
}

#[test]
fn what_the_closure_owned_is_dropped_before_join_returns() {
    in_each_mode(|| {
        let drops = Count::default();
        let owned = drops.on_drop();
        weald::spawn(move || drop(owned)).join().unwrap();
        let owned = drops.on_drop();
        let only_captured = weald::spawn(move || {
            let _keeps = &owned;
        });
        only_captured.join().unwrap();
        assert_eq!(drops.get(), 2);
    });
}

#[test]
fn a_result_that_nobody_takes_is_dropped() {
    in_each_mode(|| {
        let drops = Count::default();
        let value = drops.on_drop();
        drop(weald::spawn(move || value));
        wait_until(|| drops.get() == 1);
        let value = drops.on_drop();
        let handle = weald::spawn(move || value);
        wait_until(|| handle.is_finished());
        assert_eq!(drops.get(), 1, "a value that may still be joined is kept");
        drop(handle);
        wait_until(|| drops.get() == 2);
    });
}

#[test]
fn is_green_is_true_in_a_green_thread_only() {
    assert!(!weald::is_green());
    in_each_mode(|| {
        assert!(weald::is_green());
        assert!(weald::spawn(weald::is_green).join().unwrap());
        assert!(!std::thread::spawn(weald::is_green).join().unwrap());
    });
}

#[test]
fn current_is_the_green_thread_that_the_handle_names() {
    in_each_mode(|| {
        let handle = weald::spawn(|| {
            let before = weald::current().id();
            weald::yield_now();
            weald::sleep(std::time::Duration::from_millis(1));
            assert_eq!(weald::current().id(), before);
            before
        });
        let told = handle.thread().id();
        assert_eq!(handle.join().unwrap(), told);
        assert_ne!(weald::current().id(), told);
    });
}

#[test]
fn ids_are_never_given_twice() {
    in_each_mode(|| {
        let ids: HashSet<GreenThreadId> = (0..5000)
            .map(|_| weald::spawn(|| weald::current().id()).join().unwrap())
            .collect();
        assert_eq!(ids.len(), 5000);
    });
}

#[test]
fn the_builder_names_a_green_thread_and_spawn_does_not() {
    in_each_mode(|| {
        let name_inside = || weald::current().name().map(str::to_owned);
        let named = Builder::new()
            .name("ash".to_owned())
            .spawn(name_inside)
            .unwrap();
        assert_eq!(named.thread().name(), Some("ash"));
        let keeps: GreenThread = named.thread().clone();
        assert_eq!(named.join().unwrap().as_deref(), Some("ash"));
        assert_eq!(
            keeps.name(),
            Some("ash"),
            "the name outlives the green thread"
        );
        let unnamed = weald::spawn(name_inside);
        assert_eq!(unnamed.thread().name(), None);
        assert_eq!(unnamed.join().unwrap(), None);
    });
}

#[test]
fn a_stack_size_out_of_bounds_is_refused_with_value_and_bound() {
    let least: &[&str] = &["16 KiB", "16KiB", "16384", "16 kiB"];
    let most: &[&str] = &["1 GiB", "1GiB", "1073741824"];
    let wrong = [
        (0, least),
        (1, least),
        (16 * 1024 - 1, least),
        ((1 << 30) + 1, most),
        (usize::MAX, most),
    ];
    in_each_mode(|| {
        for (size, bounds) in wrong {
            let error = Builder::new().stack_size(size).spawn(|| ()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{size}");
            check_names(&error.to_string(), &size.to_string(), bounds);
        }
    });
}

#[test]
fn a_green_thread_has_the_stack_that_was_asked_for() {
    /// Uses about `left` bytes of stack, a KiB at a time, and writes to each of them.
    #[inline(never)]
    fn dig(left: usize) -> u64 {
        let mut block = [0_u8; 1024];
        std::hint::black_box(&mut block).fill(1);
        let below = if left > 2048 { dig(left - 1024) } else { 0 };
        below + u64::from(std::hint::black_box(&block)[512])
    }
    in_each_mode(|| {
        for kib in [64, 256, 1024, 8192] {
            let thread = Builder::new().stack_size(kib * 1024);
            // A frame of a debug build takes more than its KiB: half the stack leaves room.
            assert!(
                thread
                    .spawn(move || dig(kib * 1024 / 3))
                    .unwrap()
                    .join()
                    .unwrap()
                    > 0
            );
        }
        assert!(
            weald::spawn(|| dig(256 * 1024 / 3)).join().unwrap() > 0,
            "the default is 256 KiB"
        );
    });
}

#[test]
fn the_smallest_stack_and_an_odd_one_work() {
    in_each_mode(|| {
        for size in [16 * 1024, 16 * 1024 + 1, 20_000] {
            assert_eq!(
                Builder::new()
                    .stack_size(size)
                    .spawn(|| 7)
                    .unwrap()
                    .join()
                    .unwrap(),
                7
            );
        }
    });
}

#[test]
fn a_pinned_green_thread_stays_on_one_os_thread_while_others_migrate() {
    with_deadline(LIMIT, || {
        let rt = runtime(2, Mode::Shared);
        rt.run(|| {
            let seen = Arc::new(Mutex::new(HashSet::new()));
            let busy: Vec<_> = (0..20)
                .map(|_| {
                    weald::spawn(|| {
                        for _ in 0..500 {
                            weald::yield_now();
                        }
                    })
                })
                .collect();
            let notes = Arc::clone(&seen);
            let pinned = Builder::new().pinned(true).spawn(move || {
                for round in 0..500 {
                    notes.lock().unwrap().insert(os_thread());
                    weald::yield_now();
                    if round % 50 == 0 {
                        weald::sleep(std::time::Duration::from_micros(200));
                    }
                }
            });
            pinned.unwrap().join().unwrap();
            for h in busy {
                h.join().unwrap();
            }
            assert_eq!(seen.lock().unwrap().len(), 1);
        });
    });
}

#[test]
fn in_pinned_mode_every_started_green_thread_stays_on_its_os_thread() {
    with_deadline(LIMIT, || {
        let rt = runtime(2, Mode::Pinned);
        let stays = |_| {
            rt.spawn(|| {
                let at_first = os_thread();
                for _ in 0..200 {
                    weald::yield_now();
                    assert_eq!(os_thread(), at_first);
                }
                weald::sleep(std::time::Duration::from_millis(1));
                assert_eq!(os_thread(), at_first);
            })
        };
        let handles: Vec<_> = (0..50).map(stays).collect();
        for h in handles {
            h.join().unwrap();
        }
    });
}

#[test]
fn handles_and_ids_have_the_traits_of_their_std_namesakes() {
    fn send<T: Send>() {}
    fn send_sync<T: Send + Sync + 'static>() {}
    fn id<T: Copy + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync>() {}
    fn handle<T: Clone + Send + Sync + std::fmt::Debug>() {}
    id::<GreenThreadId>();
    handle::<GreenThread>();
    send_sync::<weald::JoinHandle<std::cell::Cell<u8>>>();
    send_sync::<weald::Timer>();
    send_sync::<weald::Runtime>();
    send::<weald::Exception>();
    send::<weald::ScopedJoinHandle<'_, u8>>();
}
