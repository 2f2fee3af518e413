//! A process that holds two versions of weald: neither disturbs the other. They share what belongs to the process:
//! ids of threads, handlers of signals, the panic hook, OS threads. `tests/again` is the second copy. Each case has a
//! process of its own.

#![cfg(target_os = "linux")]
#![allow(
    unsafe_code,
    reason = "signals and locks of the C library, and the support module asks the kernel"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[path = "two_copies/debugger.rs"]
mod debugger;
#[path = "it/support.rs"]
mod support;

use std::cell::{Cell, UnsafeCell};
use std::io::Read as _;
use std::sync::Arc;
use std::thread;

use support::{Count, Flag, MODES, MS, Mode, in_child, own_runtime, runtime, settle, wait_until};
use weald_scheduler_again as again;

/// Does for the second copy what `support::runtime` does for the first.
fn runtime_again(workers: usize, mode: Mode) -> again::Runtime {
    let builder = again::Runtime::builder().workers(workers);
    let builder = match mode {
        Mode::Pinned => builder.thread_locals(again::ThreadLocals::Pinned),
        // SAFETY: the tests that use this helper hold nothing thread-local over a blocking call.
        Mode::Shared => unsafe { builder.share_thread_locals() },
        Mode::Own => builder.thread_locals(again::ThreadLocals::Own),
    };
    builder.build().unwrap()
}

/// Runs the body in a child process, which must succeed.
#[track_caller]
fn check_in_child(test: &str, body: impl FnOnce() + Send) {
    let child = in_child(test, &[], body);
    assert!(child.success, "{}{}", child.stdout, child.stderr);
}

/// A recursive lock of the C library. The lock knows its owner by the id of the thread.
struct Recursive(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a lock is made for use by several threads.
unsafe impl Send for Recursive {}
// SAFETY: as above.
unsafe impl Sync for Recursive {}

impl Recursive {
    fn new() -> Self {
        let lock = Self(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        // SAFETY: both are new, and nobody uses the lock yet.
        unsafe {
            let mut kind = std::mem::zeroed();
            assert_eq!(libc::pthread_mutexattr_init(&raw mut kind), 0);
            libc::pthread_mutexattr_settype(&raw mut kind, libc::PTHREAD_MUTEX_RECURSIVE);
            assert_eq!(libc::pthread_mutex_init(lock.0.get(), &raw const kind), 0);
        }
        lock
    }

    fn try_lock(&self) -> bool {
        // SAFETY: the lock was made above.
        unsafe { libc::pthread_mutex_trylock(self.0.get()) == 0 }
    }
}

#[test]
fn a_lock_knows_the_green_threads_of_both_apart() {
    check_in_child("a_lock_knows_the_green_threads_of_both_apart", || {
        let Some(rt) = own_runtime(2) else { return };
        let again = runtime_again(2, Mode::Own);
        let (held, tried, stop) = (Count::default(), Count::default(), Flag::default());
        // There are more locks than ids that are reserved together.
        let locks: Arc<Vec<_>> = Arc::new((0..100).map(|_| Recursive::new()).collect());
        let keep = |number: usize| {
            let (locks, held, stop) = (Arc::clone(&locks), held.clone(), stop.clone());
            move || {
                // One thread takes the lock, as often as it asks.
                assert!(locks[number].try_lock() && locks[number].try_lock());
                held.add();
                stop.spin();
            }
        };
        let ours = (0..50).map(|number| {
            let body = keep(number);
            rt.spawn(move || weald::blocking(body))
        });
        let theirs = (50..100).map(|number| {
            let body = keep(number);
            again.spawn(move || again::blocking(body))
        });
        let (ours, theirs): (Vec<_>, Vec<_>) = (ours.collect(), theirs.collect());
        wait_until(|| held.get() == 100);
        let try_all = || {
            let (locks, tried) = (Arc::clone(&locks), tried.clone());
            move || {
                let taken: Vec<_> = (0..100).filter(|&n| locks[n].try_lock()).collect();
                assert!(taken.is_empty(), "taken from their owners: {taken:?}");
                tried.add();
            }
        };
        let (others, strangers): (Vec<_>, Vec<_>) = (0..50)
            .map(|_| (rt.spawn(try_all()), again.spawn(try_all())))
            .unzip();
        for thread in others {
            thread.join().unwrap();
        }
        for thread in strangers {
            thread.join().unwrap();
        }
        assert_eq!(tried.get(), 100);
        stop.set();
        for thread in ours {
            thread.join().unwrap();
        }
        for thread in theirs {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_green_thread_of_one_starts_the_first_runtime_of_the_other() {
    let test = "a_green_thread_of_one_starts_the_first_runtime_of_the_other";
    for first in ["weald", "again"] {
        let child = in_child(test, &[("FIRST_OF_THE_TEST", first)], || {
            let is_weald = std::env::var("FIRST_OF_THE_TEST").unwrap() == "weald";
            for mode in MODES {
                if is_weald {
                    let rt = runtime(2, mode);
                    rt.run(|| {
                        let inner = runtime_again(2, mode);
                        assert_eq!(inner.run(|| again::spawn(|| 7).join().unwrap()), 7);
                        assert!(weald::is_green() && !again::is_green());
                    });
                } else {
                    let rt = runtime_again(2, mode);
                    rt.run(|| {
                        let inner = runtime(2, mode);
                        assert_eq!(inner.run(|| weald::spawn(|| 7).join().unwrap()), 7);
                        assert!(again::is_green() && !weald::is_green());
                    });
                }
            }
        });
        assert!(child.success, "{first}: {}{}", child.stdout, child.stderr);
    }
}

thread_local! {
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

weald::green_local! {
    static OURS: Cell<u32> = Cell::new(0);
}

again::green_local! {
    static THEIRS: Cell<u32> = Cell::new(0);
}

/// Runs one thread of a crowd. It calls the other copy, and the other copy calls it.
fn call_back_and_forth(rt: &weald::Runtime, again: &again::Runtime, number: u32, own: bool) {
    let check = |expected| {
        assert_eq!(OURS.with(Cell::get), expected);
        let found = NUMBER.get();
        assert!(!own || found == expected, "{found} is not {expected}");
    };
    check(0);
    OURS.with(|ours| ours.set(number));
    NUMBER.set(number);
    for _ in 0..5 {
        weald::yield_now();
        check(number);
        // A green thread of the other copy has values of its own, of either kind.
        let sum = again.run(|| {
            assert!(again::is_green() && !weald::is_green());
            let theirs = THEIRS.with(|theirs| theirs.replace(number));
            again::yield_now();
            again::sleep(MS);
            let back = rt.run(|| {
                weald::sleep(MS);
                OURS.with(Cell::get)
            });
            assert_eq!(THEIRS.with(Cell::get), number);
            theirs + back
        });
        assert_eq!(sum, 0);
        check(number);
    }
}

#[test]
fn green_threads_of_both_call_each_other_and_keep_what_is_theirs() {
    let test = "green_threads_of_both_call_each_other_and_keep_what_is_theirs";
    check_in_child(test, || {
        for mode in MODES {
            for workers in [1, 2] {
                let rt = Arc::new(runtime(workers, mode));
                let again = Arc::new(runtime_again(workers, mode));
                let crowd: Vec<_> = (1..=20)
                    .map(|number| {
                        let (ours, theirs) = (Arc::clone(&rt), Arc::clone(&again));
                        let body = move || {
                            call_back_and_forth(&ours, &theirs, number, mode == Mode::Own);
                        };
                        // The call blocks its OS thread, as a call of any foreign code does.
                        rt.spawn(body)
                    })
                    .collect();
                for thread in crowd {
                    thread.join().unwrap();
                }
                let here = (OURS.with(Cell::get), THEIRS.with(Cell::get));
                assert_eq!((here, NUMBER.get()), ((0, 0), 0));
                wait_until(|| rt.metrics().live + again.metrics().live == 0);
            }
        }
    });
}

#[test]
fn a_panic_says_which_green_thread_it_was_of_either() {
    let child = in_child(
        "a_panic_says_which_green_thread_it_was_of_either",
        &[],
        || {
            let (rt, again) = (runtime(1, MODES[0]), runtime_again(1, MODES[0]));
            rt.run(|| {
                let alder = weald::Builder::new().name("alder".to_owned());
                let alder = alder.spawn(|| panic!("in ours")).unwrap();
                assert!(alder.join().is_err());
            });
            again.run(|| {
                let birch = again::Builder::new().name("birch".to_owned());
                let birch = birch.spawn(|| panic!("in theirs")).unwrap();
                assert!(birch.join().is_err());
            });
            assert!(thread::spawn(|| panic!("elsewhere")).join().is_err());
        },
    );
    assert!(child.success, "{}", child.stderr);
    let often = |text: &str| child.stderr.matches(text).count();
    let said = [
        "'alder'",
        "'birch'",
        "in green thread",
        "in ours",
        "in theirs",
        "elsewhere",
    ];
    assert_eq!(said.map(often), [1, 1, 2, 1, 1, 1], "{}", child.stderr);
}

/// Goes deeper until the stack has ended. The block makes each step touch its page.
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    let block = std::hint::black_box([depth; 32]);
    if depth == u64::MAX {
        0
    } else {
        deeper(depth + 1) + block[7]
    }
}

#[test]
fn a_stack_overflow_of_either_is_told_by_its_name() {
    let test = "a_stack_overflow_of_either_is_told_by_its_name";
    for (number, name) in ["alder", "birch"].into_iter().enumerate() {
        for mode in 0..MODES.len() {
            let setting = format!("{number} {mode}");
            let child = in_child(test, &[("CASE_OF_THE_TEST", &setting)], || {
                let setting = std::env::var("CASE_OF_THE_TEST").unwrap();
                let (number, mode) = setting.split_once(' ').unwrap();
                let mode = MODES[mode.parse::<usize>().unwrap()];
                let (rt, again) = (runtime(1, mode), runtime_again(1, mode));
                if number == "0" {
                    rt.run(|| {
                        let alder = weald::Builder::new().name("alder".to_owned());
                        let _ = alder.spawn(|| deeper(0)).unwrap().join();
                    });
                } else {
                    again.run(|| {
                        let birch = again::Builder::new().name("birch".to_owned());
                        let _ = birch.spawn(|| deeper(0)).unwrap().join();
                    });
                }
            });
            assert_eq!(child.signal, Some(libc::SIGABRT), "{child:?}");
            let told = format!("stack overflow in green thread '{name}'");
            assert!(child.stderr.contains(&told), "{}", child.stderr);
        }
    }
}

/// Waits until the text names green threads of both copies.
fn told_of(told: &mut std::io::PipeReader, names: [&str; 2]) {
    let mut text = String::new();
    while !names.iter().all(|name| text.contains(name)) {
        let mut some = [0; 4096];
        let got = told.read(&mut some).unwrap();
        text.push_str(&String::from_utf8_lossy(&some[..got]));
    }
}

#[test]
fn sigquit_dumps_the_runtimes_of_both() {
    check_in_child("sigquit_dumps_the_runtimes_of_both", || {
        let (mut told, error) = std::io::pipe().unwrap();
        // SAFETY: both are open descriptors; the replaced one is closed.
        unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&error), 2) };
        let rt = weald::Runtime::builder().workers(1).dump_on_sigquit(true);
        let again = again::Runtime::builder().workers(1).dump_on_sigquit(true);
        let (rt, again) = (rt.build().unwrap(), again.build().unwrap());
        let alder = rt.run(|| {
            let alder = weald::Builder::new().name("alder".to_owned());
            alder.spawn(weald::park).unwrap()
        });
        let birch = again.run(|| {
            let birch = again::Builder::new().name("birch".to_owned());
            birch.spawn(again::park).unwrap()
        });
        settle();
        for _ in 0..2 {
            // SAFETY: the signal has a handler.
            assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGQUIT) }, 0);
            told_of(&mut told, ["alder", "birch"]);
        }
        alder.thread().unpark();
        birch.thread().unpark();
        alder.join().unwrap();
        birch.join().unwrap();
    });
}

#[test]
fn setgid_returns_while_green_threads_of_both_run() {
    check_in_child("setgid_returns_while_green_threads_of_both_run", || {
        let Some(rt) = own_runtime(2) else { return };
        let again = runtime_again(2, Mode::Own);
        let stop = Flag::default();
        let turn = || {
            let stop = stop.clone();
            move || {
                while !stop.is_set() {
                    std::hint::spin_loop();
                }
            }
        };
        let (ours, theirs) = (rt.spawn(turn()), again.spawn(turn()));
        let set = || {
            for _ in 0..20 {
                // SAFETY: the group does not change.
                assert_eq!(unsafe { libc::setgid(libc::getgid()) }, 0);
            }
        };
        set();
        rt.run(set);
        again.run(set);
        stop.set();
        ours.join().unwrap();
        theirs.join().unwrap();
    });
}
