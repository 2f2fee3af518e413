//! How green threads end. What belongs to them is dropped by a thread that lives and may wait, completely, and before
//! the thread counts as ended.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use weald::{JoinHandle, Runtime};

use crate::support::{
    Count, Counted, Flag, HOUR, LIMIT, MODES, MS, OnDrop, each_mode, each_mode_on, in_each_mode,
    own_runtime, runtime, settle, spin, wait_until, was_killed, with_deadline,
};

/// Runs the check with a runtime of its own to shut down. All modes run at the same time, as it takes seconds.
fn at_once_in_each_mode(workers: usize, check: impl Fn(Runtime) + Sync) {
    with_deadline(LIMIT, || {
        thread::scope(|s| {
            for mode in MODES {
                let check = &check;
                s.spawn(move || check(runtime(workers, mode)));
            }
        });
    });
}

/// Waits when it is dropped, and tells when that has begun and ended.
pub(super) struct Waits {
    began: Count,
    ended: Count,
    wait: fn(),
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.began.add();
        (self.wait)();
        self.ended.add();
    }
}

/// Makes values that wait, and knows how many have been dropped.
#[derive(Clone, Default)]
pub(super) struct Drops {
    pub(super) began: Count,
    pub(super) ended: Count,
}

impl Drops {
    pub(super) fn waits(&self, wait: fn()) -> Waits {
        Waits {
            began: self.began.clone(),
            ended: self.ended.clone(),
            wait,
        }
    }

    /// A value that sleeps when it is dropped.
    pub(super) fn sleeps(&self) -> Waits {
        self.waits(|| weald::sleep(2 * MS))
    }

    pub(super) fn all(&self, expected: usize) -> bool {
        self.ended.get() == expected
    }
}

/// Starts a thread whose handle is gone when its body ends.
pub(super) fn start_detached<T: Send + 'static>(
    rt: &Runtime,
    body: impl FnOnce() -> T + Send + 'static,
) -> weald::GreenThread {
    let go = Flag::default();
    let goes = go.clone();
    let handle = rt.spawn(move || {
        goes.wait();
        body()
    });
    let thread = handle.thread().clone();
    drop(handle);
    go.set();
    thread
}

/// Joins a thread when it is dropped.
pub(super) struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.join().unwrap();
        }
    }
}

/// A guard that waits for a thread that sleeps for a moment.
pub(super) fn joins_a_sleeper() -> JoinOnDrop {
    JoinOnDrop(Some(weald::spawn(|| weald::sleep(2 * MS))))
}

// What outlives its runtime.

#[test]
fn whoever_outlives_its_runtime_can_be_woken_for_ever() {
    at_once_in_each_mode(2, |rt| {
        let drops = Drops::default();
        let (sender, receiver) = weald::sync::channel::unbounded::<u32>();
        let event = Arc::new(weald::sync::Event::new());
        let parks = rt.spawn({
            let waits = drops.waits(weald::park);
            move || {
                let _waits = waits;
                weald::park();
            }
        });
        let receives = rt.spawn({
            let began = drops.began.clone();
            move || {
                let _receives = OnDrop(|| {
                    began.add();
                    let _ = receiver.recv();
                });
                weald::park();
            }
        });
        let waits = rt.spawn({
            let (began, event) = (drops.began.clone(), event.clone());
            move || {
                let _waits = OnDrop(|| {
                    began.add();
                    event.wait();
                });
                weald::park();
            }
        });
        settle();
        let thread = parks.thread().clone();
        assert!(!rt.shutdown(Duration::ZERO));
        assert_eq!(drops.began.get(), 3, "they were killed");
        // Takes the memory that was given back, if any was.
        let taken: Vec<_> = (64..4096)
            .step_by(16)
            .map(|size| vec![0x41_u8; size])
            .collect();
        thread.unpark();
        thread.throw("nobody hears it");
        thread.kill();
        sender.send(1).unwrap();
        event.set();
        drop(sender);
        assert!(taken.iter().flatten().all(|&byte| byte == 0x41));
        drop((parks, receives, waits));
    });
}

#[test]
fn a_shutdown_waits_for_the_destructor_of_a_result() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let drops = Drops::default();
                let waits = drops.waits(|| weald::sleep(50 * MS));
                start_detached(&rt, move || waits);
                wait_until(|| drops.began.get() == 1);
                assert_eq!(rt.metrics().live, 1, "a thread that waits is counted");
                rt.shutdown(Duration::ZERO);
                assert!(drops.all(1));
            });
        }
    }
}

#[test]
fn a_shutdown_that_is_left_by_a_result_that_waits_is_not_clean() {
    at_once_in_each_mode(1, |rt| {
        let drops = Drops::default();
        let waits = drops.waits(weald::park);
        let thread = start_detached(&rt, move || waits);
        wait_until(|| drops.began.get() == 1);
        assert!(!rt.shutdown(Duration::ZERO));
        thread.unpark();
    });
}

// Results, payloads, thread-locals.

thread_local! {
    static LATE: std::cell::RefCell<Vec<Waits>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[test]
fn a_thread_local_that_a_result_first_uses_is_destroyed_by_a_thread_that_may_wait() {
    for workers in [1, 2] {
        with_deadline(LIMIT, || {
            let Some(rt) = own_runtime(workers) else {
                return;
            };
            let drops = Drops::default();
            for _ in 0..10 {
                let drops = drops.clone();
                start_detached(&rt, move || {
                    OnDrop(move || LATE.with_borrow_mut(|late| late.push(drops.sleeps())))
                });
            }
            wait_until(|| drops.all(10));
            wait_until(|| rt.metrics().live == 0);
        });
    }
}

#[test]
fn a_result_whose_handle_goes_as_its_thread_ends_is_dropped_by_a_thread_that_may_wait() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let rt = runtime(2, mode);
            let drops = Drops::default();
            let all = 5_000;
            rt.run(|| {
                for n in 0..all {
                    let waits = drops.waits(|| weald::sleep(Duration::from_micros(1)));
                    let handle = weald::spawn(move || waits);
                    for _ in 0..n % 97 {
                        std::hint::spin_loop();
                    }
                    if n % 3 == 0 {
                        weald::checkpoint();
                    }
                    drop(handle);
                    if n % 64 == 0 {
                        weald::yield_now();
                    }
                }
            });
            wait_until(|| drops.all(all));
            wait_until(|| rt.metrics().live == 0);
            assert!(rt.shutdown(Duration::ZERO), "nothing had to be killed");
        });
    }
}

/// Panics when it is dropped, with a payload that does so too.
struct Panics(u32);

impl Drop for Panics {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Panics(self.0 - 1));
        }
    }
}

#[test]
fn results_and_payloads_that_panic_when_dropped_end_their_thread_and_nothing_else() {
    each_mode(|rt| {
        drop(rt.spawn(|| Panics(2)));
        drop(rt.spawn(|| -> u32 { std::panic::panic_any(Panics(1)) }));
        let never = Panics(2);
        let killed = rt.run(|| {
            let killed = weald::spawn(move || {
                // It applies if the thread has still started.
                let _never = std::mem::ManuallyDrop::new(never);
                weald::park();
            });
            killed.thread().kill();
            killed
        });
        assert!(was_killed(&killed.join()));
        wait_until(|| rt.metrics().live == 0);
        assert_eq!(rt.run(|| 7), 7);
    });
}

#[test]
fn a_kill_does_not_cut_the_destructor_of_a_result_short() {
    each_mode(|rt| {
        let drops = Drops::default();
        let waits = drops.waits(|| weald::sleep(20 * MS));
        let thread = start_detached(rt, move || waits);
        wait_until(|| drops.began.get() == 1);
        thread.kill();
        thread.throw("nobody hears it");
        wait_until(|| drops.all(1));
    });
}

#[test]
fn a_thread_in_a_destructor_shows_in_a_dump() {
    each_mode(|rt| {
        let drops = Drops::default();
        let waits = drops.waits(weald::park);
        let thread = start_detached(rt, move || waits);
        wait_until(|| drops.began.get() == 1);
        let shows = || {
            let dump = rt.run(weald::dump);
            dump.threads.iter().any(|known| known.id == thread.id())
        };
        wait_until(shows);
        thread.unpark();
        wait_until(|| drops.all(1));
        wait_until(|| !shows());
    });
}

#[test]
fn an_error_that_comes_too_late_is_dropped_at_once() {
    each_mode(|rt| {
        let drops = Count::default();
        let ended = rt.spawn(|| ());
        wait_until(|| ended.is_finished());
        ended.thread().throw(drops.on_drop());
        assert_eq!(drops.get(), 1);
        // An exception that may come at any time is dropped while the handle is still there.
        let threads: Vec<_> = (0..500)
            .map(|_| {
                let thread = rt.spawn(|| ());
                thread.thread().throw(drops.on_drop());
                thread
            })
            .collect();
        wait_until(|| threads.iter().all(JoinHandle::is_finished));
        wait_until(|| drops.get() == 501);
    });
}

#[test]
fn an_error_that_is_never_raised_is_dropped_where_waiting_works() {
    struct Slow(Waits);
    impl std::fmt::Debug for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("slow")
        }
    }
    impl std::fmt::Display for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{self:?} {}", self.0.began.get())
        }
    }
    impl std::error::Error for Slow {}
    in_each_mode(|| {
        let drops = Drops::default();
        let error = Slow(drops.sleeps());
        let thread = weald::spawn(move || {
            weald::exc_after(HOUR, error);
        });
        thread.join().unwrap();
        assert!(drops.all(1));
        // In a destructor nothing is raised any more, so the error is dropped at once.
        let late = Slow(drops.sleeps());
        let (mut late, go) = (Some(late), Flag::default());
        let goes = go.clone();
        drop(weald::spawn(move || {
            goes.wait();
            OnDrop(move || {
                weald::exc_after(HOUR, late.take().unwrap());
            })
        }));
        go.set();
        wait_until(|| drops.all(2));
    });
}

// Shutdown.

#[test]
fn a_shutdown_goes_on_as_long_as_threads_end() {
    at_once_in_each_mode(1, |rt| {
        let (drops, parked) = (Count::default(), Count::default());
        let all = 30;
        for _ in 0..all {
            let (drops, parked) = (drops.clone(), parked.clone());
            rt.spawn(move || {
                let _slow = OnDrop(move || {
                    spin(200 * MS);
                    drops.add();
                });
                parked.add();
                weald::park();
            });
        }
        wait_until(|| parked.get() == all);
        assert!(!rt.shutdown(Duration::ZERO));
        assert_eq!(drops.get(), all);
    });
}

#[test]
fn a_shutdown_kills_who_only_gives_way() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let (drops, started) = (Count::default(), Count::default());
                for give_way in [weald::yield_now, weald::checkpoint] {
                    let (guard, starts) = (drops.on_drop(), started.clone());
                    rt.spawn(move || {
                        let _guard: Counted = guard;
                        starts.add();
                        while weald::is_green() {
                            give_way();
                        }
                    });
                }
                wait_until(|| started.get() == 2);
                let begun = Instant::now();
                assert!(!rt.shutdown(Duration::ZERO));
                let took = begun.elapsed();
                assert_eq!(
                    drops.get(),
                    2,
                    "in {mode:?} with {workers} workers after {took:?}"
                );
                assert!(took < Duration::from_secs(4));
            });
        }
    }
}

#[test]
fn who_has_been_joined_is_not_counted_as_alive() {
    each_mode_on(2, |rt| {
        for _ in 0..2_000 {
            rt.spawn(|| ()).join().unwrap();
            assert_eq!(rt.metrics().live, 0);
        }
    });
}
