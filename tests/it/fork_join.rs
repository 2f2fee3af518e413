//! `join`: both halves run once, depth first, and at the same time if a worker has nothing to do. What they raise
//! reaches the caller. Either half may wait for the other.

use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use weald::Runtime;
use weald::sync::Barrier;
use weald::sync::channel::bounded;

use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, Mark, Mode, caught, each_mode, everywhere, runtime, settle,
    wait_until, was_killed, with_deadline,
};

/// The mark that a panic carries.
fn mark_of<T>(outcome: &std::thread::Result<T>) -> Option<u32> {
    let payload = outcome.as_ref().err()?;
    payload.downcast_ref::<Mark>().map(|mark| mark.0)
}

/// Spins without any call of weald's.
fn spin_until(happened: &AtomicBool) {
    while !happened.load(SeqCst) {
        std::hint::spin_loop();
    }
}

/// Makes a fork in the first thread that it starts, and checks the outcome. If the machine was busy while the first
/// half ran, the monitor may have taken the thread for one that computes, and another OS thread has taken the second
/// half. Then it tries again.
fn untaken<C: FnOnce()>(rt: &Runtime, mut fork: impl FnMut() -> C) {
    loop {
        let before = rt.metrics().spawned;
        let check = fork();
        if rt.metrics().spawned == before + 1 {
            return check();
        }
    }
}

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = weald::join(|| fib(n - 1), || fib(n - 2));
    a + b
}

#[test]
fn join_returns_both_values() {
    everywhere(|| {
        let text = String::from("both");
        let (a, b) = weald::join(|| text.len(), || text.to_uppercase());
        assert_eq!((a, b.as_str()), (4, "BOTH"));
    });
}

#[test]
fn a_tree_of_joins_is_the_sum_of_its_leaves() {
    everywhere(|| assert_eq!(fib(20), 6765));
}

#[test]
fn with_one_worker_no_green_thread_is_made_for_halves_that_do_not_wait() {
    for mode in MODES {
        let rt = runtime(1, mode);
        let before = rt.metrics().spawned;
        assert_eq!(rt.run(|| fib(20)), 6765);
        // One of them is that of `run`. The monitor may share a fork if the machine stood still for 10 ms meanwhile.
        let made = rt.metrics().spawned - before;
        assert!(made < 20, "{made} threads for 10945 forks");
    }
}

#[test]
fn the_first_half_runs_before_the_second_where_nobody_takes_it() {
    with_deadline(LIMIT, || {
        let rt = runtime(1, Mode::Shared);
        untaken(&rt, || {
            let order = rt.run(|| {
                let next = AtomicUsize::new(0);
                weald::join(|| next.fetch_add(1, SeqCst), || next.fetch_add(1, SeqCst))
            });
            move || assert_eq!(order, (0, 1))
        });
    });
}

#[test]
fn the_second_half_begins_when_the_first_gives_way_again_and_again() {
    with_deadline(LIMIT, || {
        // As often as in hundreds of its turns.
        let calls: [(fn(), usize); 2] = [
            (weald::checkpoint, 100_000),
            (|| _ = weald::join(|| (), || ()), 10_000_000),
        ];
        for (mode, (call, most)) in MODES
            .iter()
            .flat_map(|mode| calls.map(|call| (*mode, call)))
        {
            runtime(1, mode).run(|| {
                let begun = AtomicBool::new(false);
                let looks = || {
                    (0..most).any(|_| {
                        call();
                        begun.load(SeqCst)
                    })
                };
                let (has_seen, ()) = weald::join(looks, || begun.store(true, SeqCst));
                assert!(has_seen, "{mode:?}");
            });
        }
    });
}

#[test]
fn an_idle_worker_takes_the_second_half_of_one_that_computes() {
    with_deadline(LIMIT, || {
        for mode in MODES {
            runtime(2, mode).run(|| {
                let begun = AtomicBool::new(false);
                weald::join(|| spin_until(&begun), || begun.store(true, SeqCst));
            });
        }
    });
}

#[test]
fn a_worker_that_becomes_idle_later_takes_the_second_half_too() {
    with_deadline(LIMIT, || {
        for mode in MODES {
            let rt = runtime(2, mode);
            rt.run(|| {
                let (forked, begun) = (AtomicBool::new(false), AtomicBool::new(false));
                let started = AtomicBool::new(false);
                weald::scope(|s| {
                    // Keeps the other worker busy until the fork is there.
                    s.spawn(|| {
                        started.store(true, SeqCst);
                        spin_until(&forked);
                    });
                    // Without a wait: a thread that stays on its carrier would wait behind that one.
                    spin_until(&started);
                    weald::join(
                        || {
                            forked.store(true, SeqCst);
                            spin_until(&begun);
                        },
                        || begun.store(true, SeqCst),
                    );
                });
            });
        }
    });
}

#[test]
fn with_one_worker_the_second_half_begins_when_the_first_waits_or_gives_way() {
    with_deadline(LIMIT, || {
        for mode in MODES {
            let rt = runtime(1, mode);
            rt.run(|| {
                let (sender, receiver) = bounded(0);
                let (got, ()) =
                    weald::join(|| receiver.recv().unwrap(), || sender.send(3).unwrap());
                assert_eq!(got, 3);
                let done = AtomicBool::new(false);
                weald::join(
                    || {
                        while !done.load(SeqCst) {
                            weald::yield_now();
                        }
                    },
                    || done.store(true, SeqCst),
                );
                let done = AtomicBool::new(false);
                weald::join(
                    || weald::blocking(|| spin_until(&done)),
                    || done.store(true, SeqCst),
                );
            });
        }
    });
}

#[test]
fn with_one_worker_the_second_half_begins_although_the_first_never_comes_back() {
    with_deadline(LIMIT, || {
        for mode in MODES {
            runtime(1, mode).run(|| {
                let done = AtomicBool::new(false);
                weald::join(|| spin_until(&done), || done.store(true, SeqCst));
            });
        }
    });
}

/// The first half of all has two forks. With the first of them there is a thread that waits for the worker, which the
/// monitor then gives to another OS thread.
#[test]
fn halves_that_block_their_os_threads_until_all_have_begun_all_begin() {
    with_deadline(LIMIT, || {
        for mode in MODES {
            for workers in [1, 2] {
                let all = std::sync::Barrier::new(5);
                let wait = || {
                    all.wait();
                };
                runtime(workers, mode).run(|| {
                    weald::join(
                        || weald::join(|| weald::join(wait, wait), wait),
                        || weald::join(wait, wait),
                    );
                });
            }
        }
    });
}

/// It has lost its worker before it makes a fork.
#[test]
fn the_second_half_begins_although_the_first_blocks_its_os_thread_without_a_worker() {
    with_deadline(LIMIT, || {
        // A thread that has given way since it lost its worker goes on without one, too.
        for (mode, yields) in MODES
            .into_iter()
            .flat_map(|mode| [(mode, false), (mode, true)])
        {
            let rt = runtime(1, mode);
            let (others, begun) = (AtomicBool::new(true), AtomicBool::new(false));
            rt.run(|| {
                weald::scope(|scope| {
                    scope.spawn(|| {
                        begun.store(true, SeqCst);
                        while others.load(SeqCst) {
                            weald::yield_now();
                        }
                    });
                    spin_until(&begun);
                    if yields {
                        weald::yield_now();
                    }
                    let (sender, receiver) = std::sync::mpsc::channel();
                    let receive = move || receiver.recv().unwrap();
                    let (got, ()) = weald::join(receive, move || sender.send(4).unwrap());
                    assert_eq!(got, 4);
                    others.store(false, SeqCst);
                });
            });
        }
    });
}

#[test]
fn halves_that_wait_do_so_at_the_same_time() {
    everywhere(|| {
        let all = Barrier::new(3);
        let wait = || all.wait().is_leader();
        let (a, (b, c)) = weald::join(wait, || weald::join(wait, wait));
        assert_eq!([a, b, c].iter().filter(|&&leads| leads).count(), 1);
    });
}

#[test]
fn a_panic_goes_on_in_the_caller_when_the_other_half_has_ended() {
    everywhere(|| {
        let ran = AtomicBool::new(false);
        let outcome = caught(|| weald::join(|| panic_any(Mark(1)), || ran.store(true, SeqCst)));
        assert_eq!(mark_of(&outcome), Some(1));
        assert!(ran.load(SeqCst), "the second is run all the same");
        let outcome = caught(|| weald::join(|| (), || panic_any(Mark(2))));
        assert_eq!(mark_of(&outcome), Some(2));
        let outcome = caught(|| weald::join(|| panic_any(Mark(1)), || panic_any(Mark(2))));
        assert_eq!(mark_of(&outcome), Some(1));
    });
}

#[test]
fn a_panic_waits_for_a_half_that_was_taken() {
    everywhere(|| {
        let ended = AtomicBool::new(false);
        let (begun, may_end) = (Flag::default(), Flag::default());
        let outcome = caught(|| {
            weald::join(
                || {
                    begun.wait();
                    may_end.set();
                    panic_any(Mark(1))
                },
                || {
                    begun.set();
                    may_end.wait();
                    ended.store(true, SeqCst);
                },
            )
        });
        assert_eq!(mark_of(&outcome), Some(1));
        assert!(ended.load(SeqCst));
    });
}

#[test]
fn a_limit_around_join_ends_both_halves() {
    everywhere(|| {
        let limit = Duration::from_millis(5);
        let both = weald::timeout(limit, || {
            weald::join(|| weald::sleep(HOUR), || weald::sleep(HOUR))
        });
        assert!(both.is_err());
        // The first has ended, and the caller waits for the second.
        let second = weald::timeout(limit, || {
            weald::join(
                || weald::sleep(Duration::from_millis(1)),
                || weald::sleep(HOUR),
            )
        });
        assert!(second.is_err());
    });
}

#[test]
fn a_kill_of_a_caller_that_waits_for_a_half_ends_that_first() {
    each_mode(|rt| {
        let (waits, ended) = (Flag::default(), Flag::default());
        let (tells, end) = (waits.clone(), ended.clone());
        let caller = rt.spawn(move || {
            struct Tell(Flag);
            impl Drop for Tell {
                fn drop(&mut self) {
                    self.0.set();
                }
            }
            weald::join(weald::yield_now, move || {
                let _end = Tell(end);
                tells.set();
                weald::park();
            });
        });
        waits.wait();
        settle();
        caller.thread().kill();
        assert!(was_killed(&caller.join()));
        assert!(ended.is_set());
    });
}

#[test]
fn a_first_half_that_is_killed_drops_a_second_that_has_not_begun() {
    with_deadline(LIMIT, || {
        for mode in MODES {
            let rt = runtime(1, mode);
            untaken(&rt, || {
                let (runs, payload) = (Count::default(), Arc::new(()));
                let (ran, holds) = (runs.clone(), Arc::clone(&payload));
                let caller = rt.spawn(move || {
                    let kill = || {
                        weald::current().kill();
                        weald::checkpoint();
                    };
                    weald::join(kill, || {
                        drop(holds);
                        ran.add()
                    })
                });
                assert!(was_killed(&caller.join()));
                move || assert_eq!((runs.get(), Arc::strong_count(&payload)), (0, 1))
            });
        }
    });
}

#[test]
fn a_shutdown_ends_a_tree_of_halves_that_wait() {
    fn tree(depth: usize) {
        if depth == 0 {
            weald::park();
            return;
        }
        weald::join(|| tree(depth - 1), || tree(depth - 1));
    }
    with_deadline(LIMIT, || {
        for mode in MODES {
            for workers in [1, 2] {
                let rt = runtime(workers, mode);
                drop(rt.spawn(|| tree(5)));
                wait_until(|| rt.metrics().parked >= 32);
                assert!(!rt.shutdown(Duration::ZERO));
            }
        }
    });
}

#[test]
fn during_the_grace_of_a_shutdown_both_halves_run() {
    with_deadline(LIMIT, || {
        for mode in MODES {
            let rt = runtime(1, mode);
            let (go, sum) = (Flag::default(), Arc::new(AtomicUsize::new(0)));
            let (waits, adds) = (go.clone(), Arc::clone(&sum));
            drop(rt.spawn(move || {
                waits.wait();
                let add = |n| {
                    weald::sleep(Duration::from_millis(1));
                    adds.fetch_add(n, SeqCst);
                };
                weald::join(|| add(1), || add(2));
            }));
            let shut = std::thread::spawn(move || rt.shutdown(HOUR));
            settle();
            go.set();
            assert!(shut.join().unwrap(), "nothing had to be killed");
            assert_eq!(sum.load(SeqCst), 3);
        }
    });
}

#[test]
fn a_half_that_was_taken_has_the_stack_size_of_its_caller() {
    fn deep(bytes: usize) -> u8 {
        let frame = std::hint::black_box([1_u8; 1024]);
        if bytes < 2048 {
            return frame[0];
        }
        std::hint::black_box(deep(bytes - 1024).wrapping_add(frame[512]))
    }
    each_mode(|rt| {
        rt.run(|| {
            let large = weald::Builder::new().stack_size(8 << 20).spawn(|| {
                weald::join(weald::yield_now, || deep(1 << 20));
            });
            large.unwrap().join().unwrap();
        });
    });
}

#[test]
fn in_a_destructor_that_runs_while_its_thread_unwinds_both_halves_run() {
    struct Joins<'a>(&'a AtomicUsize);
    impl Drop for Joins<'_> {
        fn drop(&mut self) {
            let add = || self.0.fetch_add(1, SeqCst);
            weald::join(add, || weald::join(add, add));
        }
    }
    everywhere(|| {
        let count = AtomicUsize::new(0);
        let outcome = caught(|| {
            let _joins = Joins(&count);
            panic_any(Mark(1));
        });
        assert_eq!(mark_of(&outcome), Some(1));
        assert_eq!(count.load(SeqCst), 3);
    });
}
