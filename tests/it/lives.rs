//! How green threads end: what is theirs is dropped by a thread that lives and may wait, in full, and before it counts as ended.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use weald::{JoinHandle, Runtime};

use crate::support::{
    Count, Counted, Flag, HOUR, LIMIT, MODES, MS, Mode, OnDrop, each_mode, each_mode_on,
    in_each_mode, own_runtime, runtime, settle, spin, wait_until, was_killed, with_deadline,
};

/// The check with a runtime of its own to shut down, in each mode at the same time, as it takes seconds.
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
struct Waits {
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
struct Drops {
    began: Count,
    ended: Count,
}

impl Drops {
    fn waits(&self, wait: fn()) -> Waits {
        Waits {
            began: self.began.clone(),
            ended: self.ended.clone(),
            wait,
        }
    }

    /// A value that sleeps when it is dropped.
    fn sleeps(&self) -> Waits {
        self.waits(|| weald::sleep(2 * MS))
    }

    fn all(&self, expected: usize) -> bool {
        self.ended.get() == expected
    }
}

/// Starts a thread whose handle is gone when its body ends.
fn start_detached<T: Send + 'static>(
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
struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.join().unwrap();
        }
    }
}

/// A guard that waits for a thread that sleeps for a moment.
fn joins_a_sleeper() -> JoinOnDrop {
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
                // If it has started all the same.
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
        // And one that may come at any time is dropped while the handle is still there.
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
        // In a destructor nothing is raised any more, so the error goes at once.
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

// What never starts.

#[test]
fn what_a_thread_owns_that_was_killed_before_it_started_may_wait() {
    in_each_mode(|| {
        let guard = joins_a_sleeper();
        let killed = weald::spawn(move || {
            let _guard = guard;
            weald::park();
        });
        killed.thread().kill();
        assert!(was_killed(&killed.join()));
    });
}

#[test]
fn what_a_thread_owns_that_a_shutdown_keeps_from_starting_may_wait() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let drops = Drops::default();
                let (hog, hogs) = (Flag::default(), Count::default());
                for _ in 0..workers {
                    let (until, hogs) = (hog.clone(), hogs.clone());
                    // It has not started before all carriers are busy, but for spare ones.
                    rt.spawn(move || {
                        hogs.add();
                        while !until.is_set() {
                            std::hint::spin_loop();
                        }
                    });
                }
                wait_until(|| hogs.get() == workers);
                for _ in 0..100 {
                    let waits = drops.sleeps();
                    rt.spawn(move || {
                        let _waits = waits;
                        weald::sleep(HOUR);
                    });
                }
                let ends = thread::spawn(move || rt.shutdown(Duration::ZERO));
                thread::sleep(20 * MS);
                hog.set();
                assert!(!ends.join().unwrap());
                assert!(drops.all(100), "{} of 100", drops.ended.get());
            });
        }
    }
}

#[test]
fn what_a_refused_thread_owns_may_wait_and_the_spawner_does_not() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let drops = Drops::default();
                let refused = Count::default();
                let (counts, all) = (refused.clone(), drops.clone());
                let spawner = rt.spawn(move || {
                    loop {
                        let waits = all.waits(|| weald::sleep(20 * MS));
                        let outcome = weald::spawn(move || drop(waits)).join();
                        if was_killed(&outcome) {
                            break;
                        }
                    }
                    let gate = Arc::new(weald::sync::Mutex::new(()));
                    let held = gate.lock().unwrap();
                    let locks = OnDrop({
                        let gate = gate.clone();
                        move || drop(gate.lock())
                    });
                    // Its destructor needs what the spawner has.
                    let handle = weald::spawn(move || drop(locks));
                    counts.add();
                    drop(held);
                    assert!(was_killed(&handle.join()));
                    counts.add();
                });
                settle();
                assert!(rt.shutdown(HOUR));
                spawner.join().unwrap();
                assert_eq!(refused.get(), 2);
                assert_eq!(drops.began.get(), drops.ended.get());
            });
        }
    }
}

#[test]
fn the_closure_of_a_timer_that_is_not_to_fire_may_wait_when_it_is_dropped() {
    each_mode(|rt| {
        let drops = Drops::default();
        let fired = Flag::default();
        let asker = rt.spawn({
            let (waits, fired) = (drops.sleeps(), fired.clone());
            move || {
                let guard = joins_a_sleeper();
                weald::call_after_local(200 * MS, move || {
                    drop((waits, guard));
                    fired.set();
                });
            }
        });
        asker.join().unwrap();
        wait_until(|| drops.all(1));
        assert!(!fired.is_set());
        assert_eq!(rt.run(|| 7), 7);
    });
}

#[test]
fn the_closure_of_a_timer_that_a_shutdown_leaves_may_wait_when_it_is_dropped() {
    for mode in MODES {
        for workers in [1, 2] {
            with_deadline(LIMIT, || {
                let rt = runtime(workers, mode);
                let drops = Drops::default();
                let runs = rt.run(|| {
                    for delay in [MS, 30 * MS, HOUR] {
                        let waits = drops.sleeps();
                        weald::call_after(delay, move || {
                            drop(waits);
                        });
                    }
                    // One that waits while timers come due that must not fire.
                    weald::spawn(|| weald::sleep(60 * MS))
                });
                assert!(rt.shutdown(HOUR));
                runs.join().unwrap();
                wait_until(|| drops.all(3));
            });
        }
    }
}

// Values of `green_local!`.

struct NotSend(ThreadId, Count, PhantomData<*const ()>);

impl Drop for NotSend {
    fn drop(&mut self) {
        if thread::current().id() == self.0 {
            self.1.add();
        }
    }
}

weald::green_local! {
    static LEASE: std::cell::RefCell<Option<Waits>> = std::cell::RefCell::new(None);
    static OF_ITS_THREAD: std::cell::RefCell<Option<NotSend>> = std::cell::RefCell::new(None);
    static CHAIN: [Link; 1] = [Link(0)];
    static NEXT_LINK: [Link; 1] = [Link(1)];
    static LAST_LINK: [Link; 1] = [Link(2)];
    static AGAIN: Again = Again;
}

fn not_send(count: &Count) -> NotSend {
    NotSend(thread::current().id(), count.clone(), PhantomData)
}

/// Makes the next one when it is dropped.
struct Link(u32);

static LINKS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

impl Drop for Link {
    fn drop(&mut self) {
        weald::sleep(MS);
        LINKS.lock().unwrap().push(self.0);
        match self.0 {
            0 => NEXT_LINK.with(|_| ()),
            1 => LAST_LINK.with(|_| ()),
            _ => {}
        }
    }
}

/// Makes itself anew when it is dropped.
struct Again;

static AGAINS: Mutex<u32> = Mutex::new(0);

impl Drop for Again {
    fn drop(&mut self) {
        *AGAINS.lock().unwrap() += 1;
        AGAIN.with(|_| ());
    }
}

#[test]
fn a_kill_does_not_cut_the_destructor_of_a_green_local_short() {
    in_each_mode(|| {
        let drops = Drops::default();
        let lease = drops.sleeps();
        let stored = Flag::default();
        let tells = stored.clone();
        let thread = weald::spawn(move || {
            LEASE.with(|place| *place.borrow_mut() = Some(lease));
            tells.set();
            weald::park();
        });
        stored.wait();
        thread.thread().kill();
        assert!(was_killed(&thread.join()));
        assert!(drops.all(1), "it has ended before `join` returns");
    });
}

#[test]
fn a_green_local_that_a_result_makes_is_dropped_by_its_own_thread() {
    // With shared thread-locals std's thread is the carrier's, which may change.
    for mode in MODES.into_iter().filter(|&mode| mode != Mode::Shared) {
        with_deadline(LIMIT, || {
            let rt = runtime(1, mode);
            let count = Count::default();
            let made = count.clone();
            let thread = start_detached(&rt, move || {
                OnDrop(move || {
                    let value = not_send(&made);
                    OF_ITS_THREAD.with(|place| *place.borrow_mut() = Some(value));
                })
            });
            wait_until(|| count.get() == 1);
            drop(thread);
            assert_eq!(count.get(), 1);
        });
    }
}

#[test]
fn a_green_local_of_an_os_thread_is_dropped_by_that_before_it_ends() {
    with_deadline(LIMIT, || {
        let count = Count::default();
        let made = count.clone();
        let thread = thread::spawn(move || {
            let value = not_send(&made);
            OF_ITS_THREAD.with(|place| *place.borrow_mut() = Some(value));
            weald::current()
        });
        let kept = thread.join().unwrap();
        assert_eq!(count.get(), 1);
        drop(kept);
        assert_eq!(count.get(), 1);
    });
}

#[test]
fn green_locals_that_destructors_make_are_dropped_in_turn() {
    in_each_mode(|| {
        let thread = weald::spawn(|| CHAIN.with(|_| ()));
        thread.join().unwrap();
        assert_eq!(*LINKS.lock().unwrap(), [0, 1, 2]);
        LINKS.lock().unwrap().clear();
    });
}

#[test]
fn a_green_local_that_makes_itself_anew_comes_to_an_end() {
    in_each_mode(|| {
        *AGAINS.lock().unwrap() = 0;
        let thread = weald::spawn(|| AGAIN.with(|_| ()));
        thread.join().unwrap();
        let made = *AGAINS.lock().unwrap();
        assert!((1..10).contains(&made), "{made} times");
    });
}

#[test]
fn a_green_local_is_refused_where_its_os_thread_would_not_drop_it() {
    thread_local! {
        static LAST: std::cell::RefCell<Option<Box<dyn std::any::Any>>> =
            const { std::cell::RefCell::new(None) };
    }
    with_deadline(LIMIT, || {
        let refused = Flag::default();
        let tells = refused.clone();
        let thread = thread::spawn(move || {
            // Registered before weald's own, so destroyed after that.
            LAST.with_borrow_mut(|last| {
                *last = Some(Box::new(OnDrop(move || {
                    let with = crate::support::caught(|| LEASE.with(|_| ()));
                    if with.is_err() {
                        tells.set();
                    }
                })));
            });
            LEASE.with(|_| ());
        });
        thread.join().unwrap();
        assert!(refused.is_set());
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
