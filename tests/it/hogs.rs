//! A green thread that computes, or blocks its OS thread, without saying so delays nobody: its worker continues on
//! another OS thread.
//!
//! How fast that happens is measured elsewhere (`benches/benches/hogs.rs`). Here the hog holds on until the other
//! threads have finished, so each test hangs if they do not.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

use weald::{GreenThread, Runtime};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MODES, MS, Mode, each_mode_on, green_pair, os_thread, runtime, spin,
    v4, wait_until, with_deadline,
};

/// Starts a green thread on the only worker that computes until the flag is set. Returns once the thread computes.
fn hog(rt: &Runtime, until: &Flag) -> weald::JoinHandle<()> {
    let (runs, until) = (Flag::default(), until.clone());
    let tells = runs.clone();
    let hog = rt.spawn(move || {
        tells.set();
        until.spin();
    });
    runs.spin();
    hog
}

#[test]
fn what_has_not_started_runs_beside_one_that_computes() {
    each_mode_on(1, |rt| {
        let stop = Flag::default();
        let hog = hog(rt, &stop);
        for i in 0..10 {
            assert_eq!(rt.spawn(move || i).join().unwrap(), i);
        }
        stop.set();
        hog.join().unwrap();
    });
}

#[test]
fn what_a_hog_itself_spawned_runs_beside_it() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (before, after) = (Flag::default(), Flag::default());
            for flag in [&before, &after] {
                let flag = flag.clone();
                weald::spawn(move || flag.set());
                // The second thread is spawned when the seat is gone.
                before.spin();
            }
            after.spin();
        });
    });
}

#[test]
fn a_call_that_blocks_the_os_thread_without_saying_so_stalls_nobody() {
    each_mode_on(1, |rt| {
        let (send, receive) = mpsc::channel();
        let blocked = rt.spawn(move || receive.recv().unwrap());
        let sent = rt.spawn(move || send.send(7).unwrap());
        sent.join().unwrap();
        assert_eq!(blocked.join().unwrap(), 7);
    });
}

#[test]
fn timers_fire_beside_one_that_computes() {
    each_mode_on(1, |rt| {
        let stop = Flag::default();
        let ends = stop.clone();
        rt.run(move || {
            weald::call_after(20 * MS, move || ends.set());
            stop.spin();
        });
    });
}

#[test]
fn sleepers_that_may_migrate_wake_beside_one_that_computes() {
    with_deadline(LIMIT, || {
        let rt = runtime(1, Mode::Shared);
        let slept = Flag::default();
        let tells = slept.clone();
        let sleeper = rt.spawn(move || {
            for _ in 0..20 {
                weald::sleep(MS);
            }
            tells.set();
        });
        let hog = hog(&rt, &slept);
        sleeper.join().unwrap();
        hog.join().unwrap();
    });
}

#[test]
fn sockets_are_served_beside_one_that_computes() {
    with_deadline(LIMIT, || {
        let rt = runtime(1, Mode::Shared);
        let stop = Flag::default();
        let (mut near, mut far) = rt.run(|| green_pair(v4()));
        let echo = rt.spawn(move || {
            let mut byte = [0];
            while far.read(&mut byte).unwrap() == 1 {
                far.write_all(&byte).unwrap();
            }
        });
        let hog = hog(&rt, &stop);
        for i in 0..20 {
            near.write_all(&[i]).unwrap();
            let mut back = [0];
            near.read_exact(&mut back).unwrap();
            assert_eq!(back[0], i);
        }
        drop(near);
        stop.set();
        echo.join().unwrap();
        hog.join().unwrap();
    });
}

#[test]
fn more_hogs_than_workers_leave_room_for_others() {
    for workers in [1, 2] {
        each_mode_on(workers, |rt| {
            let stop = Flag::default();
            let hogs: Vec<_> = (0..8).map(|_| hog(rt, &stop)).collect();
            assert_eq!(rt.spawn(|| weald::sleep(MS)).join().unwrap(), ());
            stop.set();
            for hog in hogs {
                hog.join().unwrap();
            }
        });
    }
}

#[test]
fn a_hog_that_comes_back_goes_on_as_if_nothing_had_been() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(1, mode);
            let stop = Flag::default();
            let until = stop.clone();
            let neighbour = rt.spawn(move || {
                while !until.is_set() {
                    weald::sleep(MS);
                }
            });
            rt.run(|| {
                let thread = os_thread();
                for _ in 0..5 {
                    spin(30 * MS);
                    // Each of these is a way back into the scheduler.
                    weald::sleep(MS);
                    spin(30 * MS);
                    weald::yield_now();
                    spin(30 * MS);
                    assert_eq!(weald::spawn(|| 1).join().unwrap(), 1);
                    spin(30 * MS);
                    assert!(weald::timeout(MS, weald::park).is_err());
                    spin(30 * MS);
                    weald::blocking(|| ());
                    assert_eq!(weald::timeout(HOUR, || spin(30 * MS)), Ok(()));
                    weald::current().unpark();
                    weald::park();
                }
                if mode == Mode::Pinned {
                    assert_eq!(os_thread(), thread);
                }
            });
            stop.set();
            neighbour.join().unwrap();
            assert_eq!(rt.metrics().live, 0);
            assert_eq!(rt.metrics().parked, 0);
        });
    }
}

#[test]
fn started_neighbours_that_are_pinned_go_on_when_the_hog_is_back() {
    with_deadline(LIMIT, || {
        let rt = runtime(1, Mode::Pinned);
        let stop = Flag::default();
        let turns = Count::default();
        let others: Vec<_> = (0..20)
            .map(|_| {
                let (stop, turns) = (stop.clone(), turns.clone());
                rt.spawn(move || {
                    while !stop.is_set() {
                        turns.add();
                        weald::yield_now();
                    }
                })
            })
            .collect();
        let hogs: Vec<_> = (0..4)
            .map(|_| {
                rt.spawn(|| {
                    for _ in 0..4 {
                        spin(30 * MS);
                        weald::yield_now();
                    }
                })
            })
            .collect();
        for hog in hogs {
            hog.join().unwrap();
        }
        let before = turns.get();
        wait_until(|| turns.get() > before + 100);
        stop.set();
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn a_hog_keeps_its_worker_if_no_thread_is_left_and_that_is_counted() {
    with_deadline(LIMIT, || {
        let rt = Runtime::builder()
            .workers(1)
            .spare_threads(1)
            .build()
            .unwrap();
        let stop = Flag::default();
        let first = hog(&rt, &stop);
        let second = hog(&rt, &stop);
        let waits = Arc::new(AtomicUsize::new(0));
        let ran = Arc::clone(&waits);
        let third = rt.spawn(move || ran.fetch_add(1, SeqCst));
        wait_until(|| rt.metrics().unrelieved > 0);
        assert_eq!(waits.load(SeqCst), 0);
        stop.set();
        for hog in [first, second] {
            hog.join().unwrap();
        }
        third.join().unwrap();
        let metrics = rt.metrics();
        assert!(metrics.handovers >= 1, "{metrics:?}");
        assert_eq!(metrics.carriers, 2, "{metrics:?}");
    });
}

#[test]
fn a_hog_that_gives_way_goes_on_without_another_hand_over() {
    each_mode_on(1, |rt| {
        let before = rt.metrics().handovers;
        let (tell, seen) = mpsc::channel();
        let relieved = Flag::default();
        let first = relieved.clone();
        let hog = rt.spawn(move || {
            first.spin();
            for _ in 0..5 {
                weald::yield_now();
                tell.send(os_thread()).unwrap();
                spin(5 * MS);
            }
        });
        // It waits behind the hog, so the monitor takes the seat.
        rt.spawn(|| ()).join().unwrap();
        wait_until(|| rt.metrics().handovers > before);
        let taken = rt.metrics().handovers;
        relieved.set();
        hog.join().unwrap();
        let seen: Vec<_> = seen.iter().collect();
        assert!(seen.iter().all(|thread| *thread == seen[0]), "{seen:?}");
        assert_eq!(rt.metrics().handovers, taken);
    });
}

/// A hog that gives way again and again, and a thread that started before it on the same OS thread, beside others that keep
/// their worker busy. Whenever the thread is unparked, it calls `each` with the number of turns that the hog has had.
fn check_beside_a_hog<T: Send + 'static>(
    rt: &Runtime,
    each: impl Fn(usize) -> T + Send + 'static,
    check: impl Fn(&GreenThread, &mpsc::Receiver<T>, &Count, i32),
) {
    let (stop, turns) = (Flag::default(), Count::default());
    let (tell, seen) = mpsc::channel();
    let (ends, had) = (stop.clone(), turns.clone());
    let sleeper = rt.spawn(move || {
        loop {
            weald::park();
            if ends.is_set() {
                return;
            }
            tell.send(each(had.get())).unwrap();
        }
    });
    // From now on it stays on its OS thread, in `Pinned`.
    wait_until(|| rt.metrics().parked == 1);
    let before = rt.metrics().handovers;
    let (ends, counts) = (stop.clone(), turns.clone());
    let (tell_thread, thread) = mpsc::channel();
    let relieved = Flag::default();
    let first = relieved.clone();
    let hog = rt.spawn(move || {
        tell_thread.send(os_thread()).unwrap();
        first.spin();
        while !ends.is_set() {
            spin(10 * MS);
            counts.add();
            weald::yield_now();
        }
    });
    // It waits behind the hog, so the monitor takes the seat.
    rt.spawn(|| ()).join().unwrap();
    wait_until(|| rt.metrics().handovers > before);
    relieved.set();
    let busy = [(); 2].map(|()| {
        let ends = stop.clone();
        rt.spawn(move || {
            while !ends.is_set() {
                weald::yield_now();
            }
        })
    });
    turns.spin(turns.get() + 2);
    check(sleeper.thread(), &seen, &turns, thread.recv().unwrap());
    stop.set();
    sleeper.thread().unpark();
    sleeper.join().unwrap();
    hog.join().unwrap();
    for thread in busy {
        thread.join().unwrap();
    }
}

#[test]
fn a_woken_thread_waits_for_few_turns_of_a_hog_on_its_os_thread() {
    with_deadline(LIMIT, || {
        // Elsewhere the hog goes on on another OS thread, and its turns take no notice of the worker's.
        let rt = runtime(1, Mode::Pinned);
        check_beside_a_hog(
            &rt,
            |turns| turns,
            |sleeper, seen, turns, _| {
                for _ in 0..10 {
                    sleeper.unpark();
                    let before = turns.get();
                    let after = seen.recv().unwrap();
                    assert!(after <= before + 5, "{} turns", after - before);
                }
            },
        );
    });
}

#[test]
fn what_has_not_started_does_not_start_on_the_os_thread_of_a_hog() {
    with_deadline(LIMIT, || {
        let rt = runtime(1, Mode::Pinned);
        check_beside_a_hog(
            &rt,
            |_| weald::spawn(os_thread),
            |sleeper, seen, _, hogs| {
                for _ in 0..10 {
                    sleeper.unpark();
                    let child = seen.recv().unwrap().join().unwrap();
                    assert_ne!(child, hogs);
                }
            },
        );
    });
}

#[test]
fn hogs_are_counted_once_each_also_when_nobody_waits() {
    each_mode_on(2, |rt| {
        let before = rt.metrics().hogs;
        let stop = Flag::default();
        let hog = hog(rt, &stop);
        wait_until(|| rt.metrics().hogs > before);
        stop.set();
        hog.join().unwrap();
    });
}

#[test]
fn a_kill_of_a_hog_without_a_seat_is_raised_at_its_next_blocking_call() {
    each_mode_on(1, |rt| {
        let stop = Flag::default();
        let until = stop.clone();
        let runs = Flag::default();
        let tells = runs.clone();
        let hog = rt.spawn(move || {
            tells.set();
            until.spin();
            weald::park();
        });
        runs.spin();
        rt.spawn(|| ()).join().unwrap();
        hog.thread().kill();
        stop.set();
        assert!(hog.join().is_err());
    });
}

#[test]
fn a_runtime_shuts_down_beside_a_hog() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(1, mode);
            let stop = Flag::default();
            let hog = hog(&rt, &stop);
            rt.spawn(|| ()).join().unwrap();
            let ends = std::thread::spawn(move || rt.shutdown(HOUR));
            stop.set();
            assert!(ends.join().unwrap());
            hog.join().unwrap();
        });
    }
}

#[test]
fn a_hog_that_is_back_gives_way_though_its_calls_never_wait() {
    with_deadline(LIMIT, || {
        let rt = runtime(1, Mode::Pinned);
        rt.run(|| {
            let (started, goes_on, relieved) = (Flag::default(), Flag::default(), Flag::default());
            // This thread may not leave the OS thread either.
            let neighbour = weald::spawn({
                let (started, goes_on) = (started.clone(), goes_on.clone());
                move || {
                    started.set();
                    weald::park();
                    goes_on.set();
                }
            });
            started.wait();
            neighbour.thread().unpark();
            // When this thread runs, the worker belongs to another OS thread.
            let taker = weald::spawn({
                let relieved = relieved.clone();
                move || relieved.set()
            });
            relieved.spin();
            let mut calls = 0;
            while !goes_on.is_set() {
                spin(MS);
                weald::checkpoint();
                calls += 1;
            }
            assert!(calls < 64, "after {calls} calls, 1 ms after each other");
            neighbour.join().unwrap();
            taker.join().unwrap();
        });
    });
}
