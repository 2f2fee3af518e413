//! OS threads that take over from those that green threads block: as many as are needed, none when none are needed,
//! and a message when there are no more. Each case runs in a process of its own, whose OS threads and mappings are
//! counted.

#![cfg(target_os = "linux")]
#![allow(
    unsafe_code,
    reason = "limits are set by hand, and the support module asks the kernel"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "it/support.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::yield_now;
use std::time::Instant;

use support::{
    Count, Flag, MODES, MS, Mode, each_mode, green_pair, in_child, os_thread_names, own_runtime,
    runtime, v4, wait_until,
};
use weald::Runtime;

/// Lets the child judge itself.
macro_rules! in_own_process {
    ($test:expr, $body:expr) => {
        let child = in_child($test, &[], $body);
        print!("{}", child.stdout);
        assert!(child.success, "{}{}", child.stdout, child.stderr);
    };
}

/// Green threads that block their OS threads as long as the guard lives, in a call that weald does not know. Each of
/// them first counts itself.
fn block(
    rt: &Runtime,
    many: usize,
    gate: &Arc<RwLock<()>>,
    begun: &Count,
) -> Vec<weald::JoinHandle<()>> {
    let block = || {
        let (gate, begun) = (Arc::clone(gate), begun.clone());
        rt.spawn(move || {
            begun.add();
            drop(gate.read().unwrap());
        })
    };
    (0..many).map(|_| block()).collect()
}

fn join_all(threads: Vec<weald::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_thousand_that_block_their_os_threads_are_nothing_to_those_that_compute_sleep_and_serve() {
    let test =
        "a_thousand_that_block_their_os_threads_are_nothing_to_those_that_compute_sleep_and_serve";
    in_own_process!(test, || each_mode(|rt| {
        let (gate, begun, stop) = (Arc::new(RwLock::new(())), Count::default(), Flag::default());
        let (turns, naps) = (Count::default(), Count::default());
        let shut = gate.write().unwrap();
        let block = || block(rt, 1000, &gate, &begun);
        // Pinned threads that have started wait while their own OS thread is blocked.
        let is_pinned = rt.thread_locals() == Some(weald::ThreadLocals::Pinned);
        let mut blocked = Vec::new();
        let start = Instant::now();
        if is_pinned {
            blocked = block();
            begun.spin(1000);
        }
        let (until, turn) = (stop.clone(), turns.clone());
        let computes = rt.spawn(move || {
            while !until.is_set() {
                for n in 0..10_000 {
                    std::hint::black_box(n);
                }
                turn.add();
                weald::yield_now();
            }
        });
        let (until, nap) = (stop.clone(), naps.clone());
        let sleeps = rt.spawn(move || {
            while !until.is_set() {
                weald::sleep(MS);
                nap.add();
            }
        });
        let (mut near, mut far) = rt.run(|| green_pair(v4()));
        let serves = rt.spawn(move || {
            let mut byte = [0];
            while far.read(&mut byte).unwrap() == 1 {
                far.write_all(&byte).unwrap();
            }
        });
        if !is_pinned {
            blocked = block();
            begun.spin(1000);
        }
        println!("relieved within {:?}", start.elapsed());
        for i in 0..20 {
            near.write_all(&[i]).unwrap();
            let mut back = [0];
            near.read_exact(&mut back).unwrap();
            assert_eq!(back[0], i);
        }
        let before = (turns.get(), naps.get());
        wait_until(|| turns.get() > before.0 + 20 && naps.get() > before.1 + 20);
        let metrics = rt.metrics();
        assert!(metrics.carriers >= 1000, "{metrics:?}");
        assert_eq!((metrics.stalled, metrics.unrelieved), (0, 0), "{metrics:?}");
        drop(shut);
        stop.set();
        drop(near);
        for thread in blocked.into_iter().chain([computes, sleeps, serves]) {
            thread.join().unwrap();
        }
    }));
}

#[test]
fn a_std_lock_that_is_held_over_a_sleep_passes_to_all_who_wait_for_it() {
    let test = "a_std_lock_that_is_held_over_a_sleep_passes_to_all_who_wait_for_it";
    in_own_process!(test, || {
        // In the other modes a guard of std may not leave its OS thread. In `Pinned` the holder waits for its OS
        // thread if that has started a thread that waits for the lock.
        for rt in [1, 2].into_iter().filter_map(own_runtime) {
            let lock = Arc::new(Mutex::new(0));
            let add = || {
                let lock = Arc::clone(&lock);
                rt.spawn(move || {
                    let mut held = lock.lock().unwrap();
                    weald::sleep(MS);
                    *held += 1;
                })
            };
            let all: Vec<_> = (0..300).map(|_| add()).collect();
            join_all(all);
            assert_eq!(*lock.lock().unwrap(), 300);
        }
    });
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().count()
}

/// The first spare OS threads of a process, and what is left when they are gone.
fn check_that_nothing_is_left(rt: &Runtime) {
    rt.run(|| ());
    let before = mappings();
    let (gate, begun) = (Arc::new(RwLock::new(())), Count::default());
    let shut = gate.write().unwrap();
    // Half of them block in a call that weald does not know; the other half say that they block.
    let mut blocked = block(rt, 25, &gate, &begun);
    blocked.extend((0..25).map(|_| {
        let (gate, begun) = (Arc::clone(&gate), begun.clone());
        rt.spawn(move || {
            weald::blocking(|| {
                begun.add();
                drop(gate.read().unwrap());
            });
        })
    }));
    begun.spin(50);
    let metrics = rt.metrics();
    assert!(metrics.carriers >= 50, "{metrics:?}");
    drop(shut);
    join_all(blocked);
    let names = || {
        let names = os_thread_names();
        names
            .iter()
            .filter(|name| name.starts_with("weald-"))
            .count()
    };
    wait_until(|| rt.metrics().carriers <= 3 && names() <= 4);
    let after = mappings();
    // Spare OS threads share the C library's arenas. There are as many arenas as cores, with two mappings each.
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(
        after <= before + 16 + 2 * cores,
        "mappings: {before} before, {after} after"
    );
}

#[test]
fn os_threads_that_retire_leave_nothing_where_thread_locals_are_own() {
    let test = "os_threads_that_retire_leave_nothing_where_thread_locals_are_own";
    in_own_process!(test, || {
        own_runtime(2).iter().for_each(check_that_nothing_is_left);
    });
}

#[test]
fn os_threads_that_retire_leave_nothing_where_threads_are_pinned() {
    let test = "os_threads_that_retire_leave_nothing_where_threads_are_pinned";
    in_own_process!(test, || check_that_nothing_is_left(&runtime(
        2,
        Mode::Pinned
    )));
}

#[test]
fn os_threads_that_retire_leave_nothing_where_thread_locals_are_shared() {
    let test = "os_threads_that_retire_leave_nothing_where_thread_locals_are_shared";
    in_own_process!(test, || check_that_nothing_is_left(&runtime(
        2,
        Mode::Shared
    )));
}

/// Passes log lines on.
struct Lines(std::sync::mpsc::Sender<String>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = self.0.send(record.args().to_string());
    }

    fn flush(&self) {}
}

/// Returns the next log line that has these words.
fn lines(words: &str) -> impl Fn() -> Vec<String> {
    let (lines, logged) = std::sync::mpsc::channel();
    log::set_logger(Box::leak(Box::new(Lines(lines)))).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    move || {
        let lines = logged.try_iter();
        lines.filter(|line| line.contains(words)).collect()
    }
}

/// A runtime with few spare OS threads.
fn with_spares(workers: usize, spares: usize, mode: Mode) -> Runtime {
    let builder = Runtime::builder().workers(workers).spare_threads(spares);
    let builder = match mode {
        Mode::Pinned => builder.thread_locals(weald::ThreadLocals::Pinned),
        // SAFETY: the threads hold nothing of their OS threads.
        Mode::Shared => unsafe { builder.share_thread_locals() },
        Mode::Own => builder.thread_locals(weald::ThreadLocals::Own),
    };
    builder.build().unwrap()
}

/// As many calls of `blocking` as the bound allows, three. Each waits for a green thread that enters `blocking` too,
/// or until the gate is opened. Without the gate they would wait for ever, so weald must report them.
fn check_that_waiting_calls_are_told(rt: &Runtime, lines: impl Fn() -> Vec<String>) {
    let (gate, begun) = (Arc::new(RwLock::new(())), Count::default());
    let shut = gate.write().unwrap();
    let call = || {
        let (gate, begun) = (Arc::clone(&gate), begun.clone());
        rt.spawn(move || {
            let inner = weald::blocking(|| {
                begun.add();
                begun.spin(3);
                let inner = weald::spawn(|| weald::blocking(|| ()));
                drop(gate.read().unwrap());
                inner
            });
            inner.join().unwrap();
        })
    };
    let calls: Vec<_> = (0..3).map(|_| call()).collect();
    begun.spin(3);
    while rt.metrics().waiting_to_block != 3 {
        yield_now();
    }
    let told = rt.dump().stalled.unwrap();
    assert!(
        told.contains("3 green threads wait to enter `blocking`: 3 such calls run"),
        "{told}"
    );
    let mut logged = Vec::new();
    while logged.is_empty() {
        logged = lines();
        yield_now();
    }
    assert!(logged[0].contains("3 such calls run"), "{logged:?}");
    drop(shut);
    join_all(calls);
    assert_eq!(rt.metrics().waiting_to_block, 0);
    assert!(rt.dump().stalled.is_none());
    let again = lines();
    assert!(
        logged.len() == 1 && again.is_empty(),
        "{logged:?}, {again:?}"
    );
}

#[test]
fn calls_that_wait_for_others_beyond_the_bound_are_told_once_in_log_metrics_and_dump() {
    let test = "calls_that_wait_for_others_beyond_the_bound_are_told_once_in_log_metrics_and_dump";
    in_own_process!(test, || {
        let lines = lines("wait to enter `blocking`");
        for mode in MODES {
            for workers in [1, 2] {
                check_that_waiting_calls_are_told(&with_spares(workers, 3, mode), &lines);
            }
        }
    });
}

#[test]
fn the_bound_is_told_once_and_what_waits_goes_on_when_one_comes_back() {
    let test = "the_bound_is_told_once_and_what_waits_goes_on_when_one_comes_back";
    in_own_process!(test, || {
        let lines = lines("stands still");
        for mode in MODES {
            let rt = with_spares(1, 4, mode);
            let gate = Arc::new(RwLock::new(()));
            let shut = gate.write().unwrap();
            let blocked = block(&rt, 8, &gate, &Count::default());
            let waits = rt.spawn(|| ());
            while rt.metrics().stalled != 1 {
                yield_now();
            }
            let metrics = rt.metrics();
            assert_eq!(
                (metrics.carriers, metrics.spare_threads),
                (5, 4),
                "{metrics:?}"
            );
            assert_eq!(
                (metrics.unrelieved, metrics.refused_threads),
                (1, 0),
                "{metrics:?}"
            );
            let told = lines();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains("all 5 OS threads are in use"), "{told:?}");
            assert!(!waits.is_finished());
            drop(shut);
            join_all(blocked);
            waits.join().unwrap();
            while rt.metrics().stalled != 0 {
                yield_now();
            }
        }
    });
}

/// Sets how many bytes of address space the process may have beyond what it has now; `None` for no limit.
fn limit_address_space(more: Option<u64>) {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives over both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &raw mut limit), 0);
        limit.rlim_cur = more.map_or(limit.rlim_max, |more| pages * 4096 + more);
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const limit), 0);
    }
}

#[test]
fn an_os_thread_that_the_system_refuses_is_told_and_tried_again() {
    let test = "an_os_thread_that_the_system_refuses_is_told_and_tried_again";
    in_own_process!(test, || {
        let lines = lines("stands still");
        for mode in MODES {
            let rt = runtime(1, mode);
            rt.run(|| ());
            let gate = Arc::new(RwLock::new(()));
            let shut = gate.write().unwrap();
            // There is room for three stacks, and for what is allocated meanwhile.
            limit_address_space(Some(8 << 20));
            let blocked = block(&rt, 60, &gate, &Count::default());
            let waits = rt.spawn(|| ());
            while rt.metrics().stalled != 1 {
                yield_now();
            }
            let metrics = rt.metrics();
            assert!(metrics.refused_threads >= 1, "{metrics:?}");
            assert!(!waits.is_finished());
            limit_address_space(None);
            // All of them are still blocked, so only an OS thread that is started now can run it.
            waits.join().unwrap();
            while rt.metrics().stalled != 0 {
                yield_now();
            }
            drop(shut);
            join_all(blocked);
        }
        let told = lines();
        assert_eq!(told.len(), MODES.len(), "one of each runtime: {told:?}");
        assert!(told[0].contains("the system refuses"), "{told:?}");
    });
}
