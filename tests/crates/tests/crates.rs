//! A test for each row of `docs/crates-in-own.md`, in `Own` and in `Pinned`.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weald::{JoinHandle, Runtime, on_os_thread};
use weald_crates::runtime;

/// Some tests measure, so one runs at a time.
fn one() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn each_mode(check: impl Fn(&Runtime, &str)) {
    let _one = one();
    for mode in ["own", "pinned"] {
        if let Some(rt) = runtime(mode, 2) {
            check(&rt, mode);
        }
    }
}

fn in_own(check: impl Fn(&Runtime)) {
    each_mode(|rt, mode| {
        if mode == "own" {
            check(rt);
        }
    });
}

/// Returns `count` threads that have called `f` and are parked.
fn parked(rt: &Runtime, count: usize, f: impl Fn() + Send + Sync + 'static) -> Vec<JoinHandle<()>> {
    let f = Arc::new(f);
    let body = |_| {
        let f = Arc::clone(&f);
        rt.spawn(move || {
            f();
            weald::park();
        })
    };
    let all: Vec<_> = (0..count).map(body).collect();
    while rt.metrics().parked < count {
        std::thread::sleep(Duration::from_millis(1));
    }
    all
}

fn end(threads: Vec<JoinHandle<()>>) {
    for thread in &threads {
        thread.thread().unpark();
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Returns the microseconds of a call: the best of five rounds of 200 calls.
fn micros(f: impl Fn()) -> f64 {
    let round = |_| {
        let begun = Instant::now();
        (0..200).for_each(|_| f());
        begun.elapsed().as_secs_f64() * 1e6 / 200.0
    };
    (0..5).map(round).fold(f64::MAX, f64::min)
}

#[test]
fn arc_swap_walks_no_list_of_green_threads_on_os_threads() {
    each_mode(|rt, mode| {
        let cell = Arc::new(arc_swap::ArcSwap::from_pointee(1));
        let used = Arc::clone(&cell);
        let begun = Instant::now();
        let threads = parked(rt, 10_000, move || {
            assert_eq!(*on_os_thread(|| used.load_full()), 1);
        });
        let first = begun.elapsed().as_millis();
        let store = micros(|| cell.store(Arc::new(1)));
        println!("arc-swap in {mode}: 10,000 first loads {first} ms, then a store {store:.2} us");
        end(threads);
        assert!(store < 30.0, "{mode}: {store} us");
    });
}

#[test]
fn arc_swap_guards_may_be_held_over_blocking_calls() {
    each_mode(|rt, _| {
        let cell = Arc::new(arc_swap::ArcSwap::from_pointee(1));
        let body = |n: usize| {
            let cell = Arc::clone(&cell);
            rt.spawn(move || {
                for round in 0..50 {
                    let guard = cell.load();
                    let before = **guard;
                    weald::yield_now();
                    assert_eq!(**guard, before);
                    cell.store(Arc::new(n + round));
                }
            })
        };
        let all: Vec<_> = (0..50).map(body).collect();
        all.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn moka_on_os_threads_is_as_fast_beside_ten_thousand_threads() {
    each_mode(|rt, mode| {
        let cache = moka::sync::Cache::<u32, u32>::new(1000);
        let used = cache.clone();
        let threads = parked(rt, 10_000, move || {
            on_os_thread(|| used.insert(1, 2));
            assert_eq!(on_os_thread(|| used.get(&1)), Some(2));
        });
        let cache = &cache;
        let insert = rt.run(|| micros(|| on_os_thread(|| cache.insert(2, 3))));
        println!("moka in {mode}: an insert beside 10,000 threads {insert:.2} us");
        end(threads);
        assert!(insert < 60.0, "{mode}: {insert} us");
    });
}

#[test]
fn crossbeam_epoch_on_os_threads_is_as_fast_beside_ten_thousand_threads() {
    each_mode(|rt, mode| {
        let pin = || drop(crossbeam_epoch::pin());
        let threads = parked(rt, 10_000, move || on_os_thread(pin));
        let pin = rt.run(|| micros(|| on_os_thread(pin)));
        println!("crossbeam-epoch in {mode}: a pin beside 10,000 threads {pin:.2} us");
        end(threads);
        assert!(pin < 20.0, "{mode}: {pin} us");
    });
}

#[test]
fn parking_lot_guards_may_be_held_over_blocking_calls() {
    in_own(|rt| {
        let mutex = Arc::new(parking_lot::ReentrantMutex::new(()));
        let total = Arc::new(parking_lot::Mutex::new(0));
        let body = |_| {
            let (mutex, total) = (Arc::clone(&mutex), Arc::clone(&total));
            rt.spawn(move || {
                for _ in 0..5 {
                    // A thread that waits for the lock blocks an OS thread, and another one takes over.
                    let outer = mutex.lock();
                    let before = *total.lock();
                    weald::yield_now();
                    let inner = mutex.lock();
                    *total.lock() += 1;
                    assert_eq!(*total.lock(), before + 1);
                    drop((inner, outer));
                }
            })
        };
        let all: Vec<_> = (0..20).map(body).collect();
        all.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*total.lock(), 100);
    });
}

#[test]
fn parking_lot_beside_ten_thousand_that_used_it() {
    each_mode(|rt, mode| {
        let mutex = Arc::new(parking_lot::Mutex::new(0));
        let used = Arc::clone(&mutex);
        let threads = parked(rt, 10_000, move || *used.lock() += 1);
        let lock = micros(|| *mutex.lock() += 1);
        println!("parking_lot in {mode}: a lock {lock:.3} us");
        end(threads);
        assert!(lock < 5.0, "{mode}: {lock} us");
    });
}

#[test]
fn rands_generators_differ() {
    each_mode(|rt, _| {
        let all: Vec<_> = (0..1000).map(|_| rt.spawn(rand::random::<u64>)).collect();
        let values: HashSet<_> = all.into_iter().map(|it| it.join().unwrap()).collect();
        assert_eq!(values.len(), 1000);
    });
}

#[test]
fn a_hash_map_has_keys_of_its_own() {
    each_mode(|rt, mode| {
        let first = || {
            let begun = Instant::now();
            let mut map = HashMap::new();
            map.insert(1, 2);
            (begun.elapsed(), RandomState::new().hash_one(1))
        };
        let all: Vec<_> = (0..1000).map(|_| rt.spawn(first)).collect();
        let all: Vec<_> = all.into_iter().map(|it| it.join().unwrap()).collect();
        let hashes: HashSet<_> = all.iter().map(|it| it.1).collect();
        assert_eq!(hashes.len(), 1000);
        let mean = all.iter().map(|it| it.0).sum::<Duration>() / 1000;
        println!("HashMap in {mode}: the first one of a thread {mean:?}");
        // To make this cheaper, a program can use the value of the OS thread.
        let random = rt.run(|| on_os_thread(RandomState::new));
        assert_eq!(random.hash_one(5), random.clone().hash_one(5));
    });
}

#[test]
fn the_values_of_the_crate_thread_local_are_those_of_threads_that_live() {
    each_mode(|rt, mode| {
        let values = Arc::new(thread_local::ThreadLocal::<AtomicUsize>::new());
        for _ in 0..2 {
            let used = Arc::clone(&values);
            let threads = parked(rt, 1000, move || {
                used.get_or_default().fetch_add(1, SeqCst);
            });
            end(threads);
        }
        let mut values = Arc::into_inner(values).unwrap();
        let counts: Vec<usize> = values.iter_mut().map(|it| it.load(SeqCst)).collect();
        assert_eq!(counts.iter().sum::<usize>(), 2000);
        println!("thread_local in {mode}: {} values", counts.len());
        // The second thousand of threads has inherited the values of the first.
        let values = if mode == "own" { 900..=2000 } else { 1..=100 };
        assert!(values.contains(&counts.len()), "{mode}: {}", counts.len());
    });
}

#[test]
fn a_regex_is_used_by_all_and_its_closures_may_wait() {
    each_mode(|rt, _| {
        let regex = Arc::new(regex::Regex::new(r"(\w+)@(\w+)").unwrap());
        let body = |_| {
            let regex = Arc::clone(&regex);
            rt.spawn(move || {
                let replaced =
                    regex.replace_all("one@two and three@four", |it: &regex::Captures<'_>| {
                        weald::yield_now();
                        format!("{} at {}", &it[2], &it[1])
                    });
                assert_eq!(replaced, "two at one and four at three");
            })
        };
        let all: Vec<_> = (0..100).map(body).collect();
        all.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn rayon_computes_for_a_green_thread_and_sends_to_others() {
    use rayon::prelude::*;
    each_mode(|rt, _| {
        let (send, receive) = weald::sync::channel::bounded::<u64>(1);
        let sum = rt.spawn(move || receive.into_iter().sum::<u64>());
        rt.run(|| {
            let squares: u64 = (0..1000_u64).into_par_iter().map(|n| n * n).sum();
            assert_eq!(squares, 332_833_500);
            (0..1000_u64)
                .into_par_iter()
                .for_each(|n| send.send(n).unwrap());
            drop(send);
        });
        assert_eq!(sum.join().unwrap(), 499_500);
    });
}

#[test]
fn tokio_runs_within_a_green_thread() {
    each_mode(|rt, _| {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let tokio = &tokio;
        rt.run(|| {
            weald::scope(|scope| {
                for n in 0..20_u64 {
                    scope.spawn(move || {
                        let handle = tokio.spawn(async move {
                            tokio::time::sleep(Duration::from_millis(n)).await;
                            n
                        });
                        assert_eq!(weald::block_on(handle).unwrap(), n);
                    });
                }
            });
        });
    });
}

#[test]
fn tokios_context_is_the_green_threads_own() {
    in_own(|rt| {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let tokio = Arc::new(tokio);
        let body = |n: usize| {
            let tokio = Arc::clone(&tokio);
            rt.spawn(move || {
                for round in 0..50 {
                    assert!(tokio::runtime::Handle::try_current().is_err());
                    let guard = tokio.enter();
                    for _ in 0..(n + round) % 4 {
                        weald::yield_now();
                    }
                    assert!(tokio::runtime::Handle::try_current().is_ok());
                    drop(guard);
                }
            })
        };
        let all: Vec<_> = (0..50).map(body).collect();
        all.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_task_of_tokios_awaits_a_green_thread() {
    each_mode(|rt, _| {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let sum = tokio.block_on(async {
            let mut sum = 0;
            for n in 0..20_u64 {
                let (send, receive) = tokio::sync::oneshot::channel();
                rt.spawn(move || {
                    weald::sleep(Duration::from_millis(n % 3));
                    send.send(n).unwrap();
                });
                sum += receive.await.unwrap();
            }
            sum
        });
        assert_eq!(sum, 190);
    });
}

#[test]
fn lua_calls_back_and_that_may_wait() {
    each_mode(|rt, _| {
        let body = |n: i64| {
            rt.spawn(move || {
                let lua = mlua::Lua::new();
                let wait = lua.create_function(|_, n: i64| {
                    weald::yield_now();
                    if n == 7 {
                        return Err(mlua::Error::runtime("seven"));
                    }
                    Ok(n + 1)
                });
                lua.globals().set("wait", wait.unwrap()).unwrap();
                let script = "local sum = 0
                    for n = 1, 20 do
                        local fine, value = pcall(wait, n)
                        if fine then sum = sum + value end
                    end
                    return sum + ...";
                let sum: i64 = lua.load(script).call(n).unwrap();
                assert_eq!(sum, 230 - 8 + n);
            })
        };
        let all: Vec<_> = (0..100).map(body).collect();
        all.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
