//! An idle process gives the memory of stacks and of ended threads back.

use weald::{Builder, JoinHandle, Runtime};

use super::{each_mode_in_child, end, resident, unpark, wait_for_rest, wait_until_below};
use crate::support::{Count, Flag, MODES, MS, Mode, in_child, runtime, wait_until};

/// Touches 32 KiB of the stack.
#[inline(never)]
fn touch() {
    let mut part = [0_u8; 32 << 10];
    for at in (0..part.len()).step_by(4096) {
        part[at] = 1;
        std::hint::black_box(&part);
    }
}

#[test]
fn an_idle_process_gives_its_stacks_back_and_comes_to_rest() {
    let test = "stacks::an_idle_process_gives_its_stacks_back_and_comes_to_rest";
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
        // Memory that was given back is available again.
        let again: Vec<_> = (0..100).map(|n| rt.spawn(move || (touch(), n).1)).collect();
        let sum: usize = again.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(sum, 4950);
    });
}

#[test]
fn what_parked_threads_had_comes_back_and_is_made_anew() {
    let test = "stacks::what_parked_threads_had_comes_back_and_is_made_anew";
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
    let test = "stacks::a_process_with_little_to_do_gives_memory_back_too";
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

/// Returns threads that have touched their stacks and are parked.
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
    let test = "stacks::when_the_last_runtime_is_gone_nothing_of_its_memory_is_left";
    each_mode_in_child(test, &[], |mode, workers| {
        let before = resident();
        let rt = runtime(workers, mode);
        // Little of each stack is used, so that the thread-locals of all threads are much beside it.
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
    let test = "stacks::what_a_runtime_leaves_is_given_back_by_another_one_that_sleeps";
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
    let test = "stacks::what_threads_leave_that_end_beside_sleeping_workers_is_given_back";
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
                        // The thread blocks its OS thread without saying so, until all have lost their workers.
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
        // It looks at each handle, as a join might wake a worker.
        while !all.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(MS);
        }
        wait_until_below(before + 30);
    });
}

/// Allocates as a request may, and frees it all.
#[inline(never)]
fn request() {
    let text = |n: usize| format!("header-{n}: {}", "x".repeat(10 + n * 7));
    let headers: Vec<String> = (0..50).map(text).collect();
    std::hint::black_box((&headers, vec![7_u8; 16 << 10]));
}

/// Returns the resident bytes of each of 2,000 parked threads. `allocate`: they have made the allocations of a
/// request.
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
    let test = "stacks::parked_threads_keep_no_memory_in_reserve_for_malloc";
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
        // The request may touch two more pages of the stack. A reserve of its own would be 30 KiB.
        assert!(
            request <= nothing + 10_000,
            "{mode:?}: {nothing}, with a request {request}"
        );
    }
}
