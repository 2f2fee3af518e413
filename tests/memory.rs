//! What a process keeps when it has become idle, what lies below a stack, and what becomes of threads for which there is no stack.
//! Each case in a process of its own.

#![allow(unsafe_code, reason = "limits and frames are not Rust's")]
#![allow(
    clippy::large_stack_arrays,
    reason = "to use the stack is what they are for"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![cfg(target_os = "linux")]

#[path = "it/support.rs"]
mod support;

use std::time::{Duration, Instant};

use support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, Mode, in_child, is_child, panic_text, runtime, wait_until,
};
use weald::{Builder, JoinHandle, Runtime};

/// Calls the check in a child process for each mode and number of workers. Those of all modes run at the same time, as they wait most
/// of theirs.
fn each_mode_in_child(test: &str, env: &[(&str, &str)], body: impl Fn(Mode, usize) + Sync) {
    let run = |env: &[(&str, &str)]| {
        in_child(test, env, || {
            let said = |name| std::env::var(name).unwrap().parse::<usize>().unwrap();
            body(MODES[said("MODE_OF_THE_TEST")], said("WORKERS_OF_THE_TEST"));
        })
    };
    if is_child() {
        run(&[]);
    }
    for workers in ["1", "2"] {
        let run = |index: usize| {
            let number = index.to_string();
            let mut env = env.to_vec();
            env.extend([
                ("MODE_OF_THE_TEST", &*number),
                ("WORKERS_OF_THE_TEST", workers),
            ]);
            let child = run(&env);
            assert!(
                child.success,
                "{:?}, {workers} workers: {child:?}",
                MODES[index]
            );
        };
        std::thread::scope(|scope| {
            for index in 0..MODES.len() {
                scope.spawn(move || run(index));
            }
        });
    }
}

/// Resident memory in MiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib >> 10
}

fn unpark<T>(threads: &[JoinHandle<T>]) {
    for thread in threads {
        thread.thread().unpark();
    }
}

/// Ends threads that are parked.
fn end(threads: Vec<JoinHandle<()>>) {
    unpark(&threads);
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Touches 32 KiB of the stack.
#[inline(never)]
fn touch() {
    let mut part = [0_u8; 32 << 10];
    for at in (0..part.len()).step_by(4096) {
        part[at] = 1;
        std::hint::black_box(&part);
    }
}

/// Waits, as an OS thread, until little memory is left.
fn wait_until_below(most: usize) {
    let begun = Instant::now();
    while resident() >= most {
        let seconds = begun.elapsed().as_secs();
        assert!(seconds < LIMIT / 4, "{} MiB after {seconds} s", resident());
        std::thread::sleep(10 * MS);
    }
}

/// Waits until the workers have slept through some time, so that nothing wakes them any more.
fn wait_for_rest(rt: &Runtime) {
    let begun = Instant::now();
    loop {
        let before = rt.metrics().polls;
        std::thread::sleep(Duration::from_millis(1200));
        if rt.metrics().polls == before {
            return;
        }
        assert!(
            begun.elapsed().as_secs() < LIMIT / 4,
            "something wakes them"
        );
    }
}

#[test]
fn an_idle_process_gives_its_stacks_back_and_comes_to_rest() {
    let test = "an_idle_process_gives_its_stacks_back_and_comes_to_rest";
    each_mode_in_child(test, &[], |mode, workers| {
        let rt = runtime(workers, mode);
        let before = resident();
        let spawn = |_| {
            rt.spawn(|| {
                touch();
                weald::park();
            })
        };
        let all: Vec<_> = (0..4000).map(spawn).collect();
        wait_until(|| rt.metrics().parked == 4000);
        assert!(resident() > before + 100);
        end(all);
        wait_until_below(before + 20);
        wait_for_rest(&rt);
        // And what was given back can be had again.
        let again: Vec<_> = (0..100).map(|n| rt.spawn(move || (touch(), n).1)).collect();
        let sum: usize = again.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 4950);
    });
}

#[test]
fn what_parked_threads_had_comes_back_and_is_made_anew() {
    let test = "what_parked_threads_had_comes_back_and_is_made_anew";
    each_mode_in_child(test, &[], |mode, workers| {
        thread_local! {
            static NOTE: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
        }
        let rt = runtime(workers, mode);
        let before = resident();
        for round in 0..2 {
            let all: Vec<_> = (0..10_000)
                .map(|n| {
                    rt.spawn(move || {
                        let fresh = NOTE.with_borrow(|note| note.is_empty() || mode != Mode::Own);
                        NOTE.with_borrow_mut(|note| *note = format!("{round} {n}"));
                        weald::park();
                        fresh
                    })
                })
                .collect();
            wait_until(|| rt.metrics().parked == 10_000);
            unpark(&all);
            for thread in all {
                assert!(thread.join().unwrap(), "a thread-local was not new");
            }
            wait_until_below(before + 30);
        }
        wait_for_rest(&rt);
    });
}

#[test]
fn a_process_with_little_to_do_gives_memory_back_too() {
    let test = "a_process_with_little_to_do_gives_memory_back_too";
    each_mode_in_child(test, &[], |mode, workers| {
        let rt = runtime(workers, mode);
        let before = resident();
        let stop = Flag::default();
        let stops = stop.clone();
        let ticks = rt.spawn(move || {
            while !stops.is_set() {
                weald::sleep(3 * MS);
            }
        });
        let all: Vec<_> = (0..3000)
            .map(|_| {
                rt.spawn(|| {
                    touch();
                    weald::park();
                })
            })
            .collect();
        wait_until(|| rt.metrics().parked >= 3000);
        end(all);
        wait_until_below(before + 20);
        stop.set();
        ticks.join().unwrap();
    });
}

/// So many threads that have touched their stacks and are parked.
fn park_many(rt: &Runtime, many: usize) -> Vec<JoinHandle<()>> {
    let spawn = |_| {
        rt.spawn(|| {
            touch();
            weald::park();
        })
    };
    let all: Vec<_> = (0..many).map(spawn).collect();
    wait_until(|| rt.metrics().parked == many);
    all
}

#[test]
fn when_the_last_runtime_is_gone_nothing_of_its_memory_is_left() {
    let test = "when_the_last_runtime_is_gone_nothing_of_its_memory_is_left";
    each_mode_in_child(test, &[], |mode, workers| {
        let before = resident();
        let rt = runtime(workers, mode);
        // Little of each stack, so that the thread-locals of all are much beside it.
        let all: Vec<_> = (0..10_000).map(|_| rt.spawn(weald::park)).collect();
        wait_until(|| rt.metrics().parked == 10_000);
        end(all);
        drop(rt);
        wait_until_below(before + 20);
        let rt = runtime(workers, mode);
        drop(park_many(&rt, 3000));
        // They are killed.
        drop(rt);
        wait_until_below(before + 20);
    });
}

#[test]
fn what_a_runtime_leaves_is_given_back_by_another_one_that_sleeps() {
    let test = "what_a_runtime_leaves_is_given_back_by_another_one_that_sleeps";
    each_mode_in_child(test, &[], |mode, workers| {
        let sleeps = runtime(workers, mode);
        sleeps.run(|| ());
        let before = resident();
        let rt = runtime(workers, mode);
        drop(park_many(&rt, 3000));
        wait_for_rest(&sleeps);
        assert!(resident() > before + 80);
        drop(rt);
        wait_until_below(before + 20);
    });
}

#[test]
fn what_threads_leave_that_end_beside_sleeping_workers_is_given_back() {
    /// Touches 256 KiB of the stack.
    #[inline(never)]
    fn touch_much() {
        let mut part = [0_u8; 256 << 10];
        for at in (0..part.len()).step_by(4096) {
            part[at] = 1;
            std::hint::black_box(&part);
        }
    }
    let test = "what_threads_leave_that_end_beside_sleeping_workers_is_given_back";
    each_mode_in_child(test, &[], |mode, workers| {
        let rt = runtime(workers, mode);
        rt.run(|| ());
        let before = resident();
        let gate = std::sync::Arc::new(std::sync::RwLock::new(()));
        let shut = gate.write().unwrap();
        let begun = Count::default();
        let all: Vec<_> = (0..300)
            .map(|_| {
                let (gate, begun) = (gate.clone(), begun.clone());
                let spawn = move || {
                    let builder = Builder::new().stack_size(512 << 10);
                    let body = move || {
                        touch_much();
                        begun.add();
                        // It blocks its OS thread and does not say so, until all have lost their workers.
                        drop(gate.read().unwrap());
                    };
                    builder.spawn(body).unwrap()
                };
                rt.run(spawn)
            })
            .collect();
        begun.spin(300);
        wait_for_rest(&rt);
        assert!(resident() > before + 60);
        drop(shut);
        // A look at each, as a join might wake a worker.
        while !all.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(MS);
        }
        wait_until_below(before + 30);
    });
}

#[test]
fn a_channel_that_was_long_gives_its_memory_back() {
    let test = "a_channel_that_was_long_gives_its_memory_back";
    let child = in_child(test, &[], || {
        let (sender, receiver) = weald::sync::channel::unbounded::<[u64; 8]>();
        let before = resident();
        for round in 0..3 {
            for n in 0..1_000_000 {
                sender.send([n; 8]).unwrap();
            }
            assert!(resident() > before + 50);
            for n in 0..1_000_000 {
                assert_eq!(receiver.recv().unwrap(), [n; 8], "round {round}");
            }
            wait_until_below(before + 10);
        }
        // One that is never empty as well.
        for n in 0..1_000_000 {
            sender.send([n; 8]).unwrap();
        }
        for n in 0..999_990 {
            assert_eq!(receiver.recv().unwrap(), [n; 8]);
        }
        wait_until_below(before + 10);
        assert_eq!(receiver.len(), 10);
    });
    assert!(child.success, "{child:?}");
}

#[test]
fn a_million_timers_that_are_over_leave_no_memory_behind() {
    let test = "a_million_timers_that_are_over_leave_no_memory_behind";
    each_mode_in_child(test, &[], |mode, workers| {
        let rt = runtime(workers, mode);
        rt.run(|| ());
        let before = resident();
        // These live on, wherever they are.
        let mut others = Vec::new();
        let mut set = |many: usize| {
            let timers: Vec<_> = (0..many)
                .map(|_| rt.run(|| weald::call_after(HOUR, || ())))
                .collect();
            others.push(rt.run(|| weald::call_after(HOUR, || ())));
            timers
        };
        let cancel = |timers: Vec<weald::Timer>| {
            for timer in timers {
                assert!(timer.cancel());
            }
        };
        let most = set(1000);
        let million: Vec<_> = rt.run(|| {
            (0..1_000_000)
                .map(|_| weald::call_after(HOUR, || ()))
                .collect()
        });
        assert!(resident() > before + 40);
        rt.run(|| cancel(million));
        cancel(most);
        cancel(set(1000));
        // What `malloc` keeps of the closures is another matter.
        wait_until(|| {
            // SAFETY: the call has no conditions.
            unsafe { libc::malloc_trim(0) };
            resident() < before + 20
        });
        // It is used again.
        cancel(set(10_000));
        cancel(others);
    });
}

#[test]
fn timers_that_an_os_thread_cancels_beside_sleeping_workers_leave_no_memory_behind() {
    let test = "timers_that_an_os_thread_cancels_beside_sleeping_workers_leave_no_memory_behind";
    // `malloc_trim` leaves the upper end of every arena but the first one as it is.
    let one_arena = [("MALLOC_ARENA_MAX", "1")];
    each_mode_in_child(test, &one_arena, |mode, workers| {
        let rt = runtime(workers, mode);
        rt.run(|| ());
        let before = resident();
        let timers: Vec<_> = rt.run(|| {
            let set = |_| weald::call_after(HOUR, || ());
            (0..400_000).map(set).collect()
        });
        wait_for_rest(&rt);
        assert!(resident() > before + 40);
        for timer in timers {
            assert!(timer.cancel());
        }
        // What `malloc` keeps of the closures is another matter.
        let begun = Instant::now();
        loop {
            // SAFETY: the call has no conditions.
            unsafe { libc::malloc_trim(0) };
            let left = resident();
            if left < before + 20 {
                break;
            }
            assert!(
                begun.elapsed().as_secs() < LIMIT / 4,
                "{left} MiB are left, {before} before"
            );
            // As an OS thread: nothing wakes the workers.
            std::thread::sleep(10 * MS);
        }
    });
}

/// Uses a frame of so many bytes without touching what lies between its ends, as C compilers make it.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn large_frame(bytes: usize) {
    // SAFETY: none: it writes below the stack, which is what the test is about.
    unsafe {
        std::arch::asm!(
            "mov {old}, rsp",
            "sub rsp, {bytes}",
            "mov byte ptr [rsp], 0x5a",
            "mov rsp, {old}",
            old = out(reg) _,
            bytes = in(reg) bytes,
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_large_frame_without_probes_meets_the_guard() {
    let test = "a_large_frame_without_probes_meets_the_guard";
    for (guard, frame) in [("65536", "60000"), ("1048576", "1000000")] {
        for how in ["", "mprotect"] {
            for index in 0..MODES.len() {
                let mode = index.to_string();
                let mut env = vec![
                    ("GUARD_OF_THE_TEST", guard),
                    ("FRAME_OF_THE_TEST", frame),
                    ("MODE_OF_THE_TEST", &*mode),
                ];
                if !how.is_empty() {
                    env.push(("WEALD_STACK_GUARD", how));
                }
                let child = in_child(test, &env, || {
                    let said = |name| std::env::var(name).unwrap().parse::<usize>().unwrap();
                    let builder = Runtime::builder().workers(1).stack_size(64 << 10);
                    let builder = builder.guard_size(said("GUARD_OF_THE_TEST"));
                    let builder = match MODES[said("MODE_OF_THE_TEST")] {
                        Mode::Pinned => builder.thread_locals(weald::ThreadLocals::Pinned),
                        Mode::Own => builder.thread_locals(weald::ThreadLocals::Own),
                        // SAFETY: the threads hold nothing thread-local.
                        Mode::Shared => unsafe { builder.share_thread_locals() },
                    };
                    let rt = builder.build().unwrap();
                    let frame = said("FRAME_OF_THE_TEST");
                    rt.run(move || {
                        for _ in 0..20 {
                            drop(weald::spawn(weald::park));
                        }
                        weald::sleep(MS);
                        let diver = Builder::new().name("deep-diver".to_owned());
                        let _ = diver
                            .spawn(move || large_frame(frame + (64 << 10)))
                            .unwrap()
                            .join();
                        println!("went on");
                    });
                });
                assert!(!child.success, "{how} {child:?}");
                assert!(child.signal.is_some(), "it went on: {child:?}");
                let said = &child.stderr;
                assert!(
                    said.contains("overflow") && said.contains("deep-diver"),
                    "{child:?}"
                );
            }
        }
    }
}

#[test]
fn a_guard_size_out_of_bounds_is_refused_with_value_and_bound() {
    for bytes in [0, 1, 4095, (1 << 30) + 1, usize::MAX] {
        let refused = Runtime::builder().workers(1).guard_size(bytes).build();
        let error = refused.map(drop).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        let text = error.to_string();
        support::check_names(&text, &bytes.to_string(), &["4096", "1073741824"]);
    }
    for bytes in [4096, 5000, 64 << 10, 1 << 30] {
        let rt = Runtime::builder()
            .workers(1)
            .guard_size(bytes)
            .build()
            .unwrap();
        assert_eq!(rt.spawn(|| 7).join().unwrap(), 7);
    }
}

#[test]
fn a_guard_setting_that_means_nothing_keeps_a_runtime_from_starting() {
    let test = "a_guard_setting_that_means_nothing_keeps_a_runtime_from_starting";
    let child = in_child(test, &[("WEALD_STACK_GUARD", "none")], || {
        let error = Runtime::builder().workers(1).build().map(drop).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("WEALD_STACK_GUARD"), "{error}");
    });
    assert!(child.success, "{child:?}");
}

/// Few stacks may have guards.
const FEW: &[(&str, &str)] = &[("WEALD_STACK_GUARD", "mprotect:64")];

#[test]
fn more_threads_than_stacks_are_spawned_and_all_run() {
    let test = "more_threads_than_stacks_are_spawned_and_all_run";
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
        // From outside as well, and of another size, which wants the guards of the others.
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
    let test = "those_that_wait_for_a_stack_start_when_others_end";
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
        support::settle();
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
    let test = "who_waits_for_a_large_stack_holds_up_nobody_who_wants_a_small_one";
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
    let test = "threads_of_all_sizes_that_want_the_same_guards_take_turns";
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
        support::settle();
        assert!(begun.lock().unwrap().len() <= 1, "there was no stack");
        // As each of them holds the stack that it gets, they start by as many as end here.
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
    let test = "threads_that_wait_for_those_that_have_no_stack_are_told_of";
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
            let parked = || rt.metrics().parked >= 50;
            wait_until(parked);
            let sets = go.clone();
            let never = rt.spawn(move || sets.set());
            // Long enough that it is said; then somebody else helps, and all goes on.
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

/// Sets the limit of address space; `None`: none.
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
    let test = "a_stack_beyond_the_limit_of_address_space_is_an_error_of_the_builder";
    each_mode_in_child(test, &[], |mode, workers| {
        let rt = runtime(workers, mode);
        rt.run(|| {
            limit_address_space(Some(1 << 30));
            let refused = Builder::new().stack_size(1 << 30).spawn(|| ());
            let error = refused.map(drop).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
            assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            // The others are not concerned.
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
    let test = "a_thread_that_can_never_have_a_stack_says_why";
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

/// Allocates as a request may, and frees it all.
#[inline(never)]
fn request() {
    let text = |n: usize| format!("header-{n}: {}", "x".repeat(10 + n * 7));
    let headers: Vec<String> = (0..50).map(text).collect();
    std::hint::black_box((&headers, vec![7_u8; 16 << 10]));
}

/// Resident bytes of each of 2,000 parked threads. `allocate`: they have had a request's worth of memory.
fn bytes_of_parked(mode: Mode, allocate: bool) -> usize {
    const THREADS: usize = 2000;
    let rt = runtime(2, mode);
    rt.run(request);
    let before = resident();
    let body = move || {
        // The same part of the stack is touched.
        if std::hint::black_box(allocate) {
            request();
        }
        weald::park();
    };
    let all: Vec<_> = (0..THREADS).map(|_| rt.spawn(body)).collect();
    wait_until(|| rt.metrics().parked == THREADS);
    let each = ((resident() - before) << 20) / THREADS;
    end(all);
    each
}

#[test]
fn parked_threads_keep_no_memory_in_reserve_for_malloc() {
    let test = "parked_threads_keep_no_memory_in_reserve_for_malloc";
    for mode in MODES {
        let measure = |allocate: &str| {
            let mode = MODES.iter().position(|it| *it == mode).unwrap().to_string();
            let env = [("MODE_OF_THE_TEST", &*mode), ("ALLOCATE", allocate)];
            let child = in_child(test, &env, || {
                let said = |name| std::env::var(name).unwrap().parse::<usize>().unwrap();
                let mode = MODES[said("MODE_OF_THE_TEST")];
                println!("bytes: {}", bytes_of_parked(mode, said("ALLOCATE") == 1));
            });
            assert!(child.success, "{child:?}");
            let said = child
                .stdout
                .lines()
                .find_map(|line| line.strip_prefix("bytes: "));
            said.map_or(0, |bytes| bytes.parse::<usize>().unwrap())
        };
        let (nothing, request) = (measure("0"), measure("1"));
        // Two pages of its stack more, 30 KiB with a reserve of its own.
        assert!(
            request <= nothing + 10_000,
            "{mode:?}: {nothing}, with a request {request}"
        );
    }
}
