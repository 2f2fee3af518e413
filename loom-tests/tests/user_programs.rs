//! `weald::model` on programs as its users write them. Half of them are wrong, and the model must say
//! so in their words.
#![cfg(loom)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use weald::model::{Explored, Failure};
use weald::sync::{Condvar, Mutex, channel};
use weald_loom_tests::{Model, keep_to_cap, tell};

/// The program has no interleaving that fails.
fn passes(model: Model, program: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let permutations = AtomicU64::new(0);
    let counted = move || {
        keep_to_cap(
            model,
            start,
            permutations.fetch_add(1, Ordering::Relaxed) + 1,
        );
        program();
    };
    match weald::model::check(counted) {
        Ok(Explored {
            interleavings,
            bound,
            ..
        }) => tell(model, start, interleavings, bound),
        Err(failure) => panic!("{failure}"),
    }
}

/// The program has one, whose report has these lines.
fn fails(name: &'static str, lines: &[&str], program: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let failure: Failure = weald::model::check(program).expect_err("it has a bug");
    let report = failure.to_string();
    println!("{report}");
    for line in lines {
        assert!(report.contains(line), "`{line}` is not in\n{report}");
    }
    tell(
        Model::new(name, 1, &[]),
        start,
        failure.interleaving(),
        Some(2),
    );
}

/// The outcomes of all interleavings; std's, as it is no part of the program.
struct Outcomes<T>(Arc<StdMutex<BTreeSet<T>>>);

impl<T: Ord> Outcomes<T> {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn add(&self, outcome: T) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(outcome);
    }

    fn take(&self) -> BTreeSet<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Clone for Outcomes<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A cache for one value that is dear to load.
#[derive(Default)]
struct Cache {
    value: Mutex<Option<u32>>,
    loads: Mutex<u32>,
}

impl Cache {
    fn load(&self) -> u32 {
        *self.loads.lock().unwrap() += 1;
        7
    }

    /// The planted bug: between the look and the loading somebody else may look.
    fn get(&self) -> u32 {
        let known = *self.value.lock().unwrap();
        if let Some(value) = known {
            return value;
        }
        let value = self.load();
        *self.value.lock().unwrap() = Some(value);
        value
    }
}

#[test]
fn a_cache_with_a_bug() {
    fails("a_cache_with_a_bug", &["loaded 2 times"], || {
        let cache = Arc::new(Cache::default());
        let other = weald::spawn({
            let cache = Arc::clone(&cache);
            move || cache.get()
        });
        assert_eq!(cache.get(), 7);
        assert_eq!(other.join().unwrap(), 7);
        let loads = *cache.loads.lock().unwrap();
        assert_eq!(loads, 1, "loaded {loads} times");
    });
}

enum Entry {
    Missing,
    Loading,
    Here(u32),
}

/// The cache, mended: a thread that loads says so, and the others wait for it.
struct MendedCache {
    entry: Mutex<Entry>,
    loaded: Condvar,
    loads: Mutex<u32>,
}

impl MendedCache {
    fn get(&self) -> u32 {
        let mut entry = self.entry.lock().unwrap();
        loop {
            match *entry {
                Entry::Here(value) => return value,
                Entry::Loading => entry = self.loaded.wait(entry).unwrap(),
                Entry::Missing => break,
            }
        }
        *entry = Entry::Loading;
        drop(entry);
        *self.loads.lock().unwrap() += 1;
        *self.entry.lock().unwrap() = Entry::Here(7);
        self.loaded.notify_all();
        7
    }
}

#[test]
fn the_cache_mended() {
    passes(Model::new("the_cache_mended", 600, &[]), || {
        let cache = Arc::new(MendedCache {
            entry: Mutex::new(Entry::Missing),
            loaded: Condvar::new(),
            loads: Mutex::new(0),
        });
        let other = weald::spawn({
            let cache = Arc::clone(&cache);
            move || cache.get()
        });
        assert_eq!(cache.get(), 7);
        assert_eq!(other.join().unwrap(), 7);
        assert_eq!(*cache.loads.lock().unwrap(), 1);
    });
}

/// Each philosopher takes the fork `first(seat)`, then the other one.
fn dine(philosophers: usize, first: fn(usize, usize) -> (usize, usize)) {
    let forks: Arc<Vec<Mutex<()>>> = Arc::new((0..philosophers).map(|_| Mutex::new(())).collect());
    for (number, fork) in forks.iter().enumerate() {
        weald::model::name(fork, format!("fork {number}"));
    }
    let philosophers: Vec<_> = (0..philosophers)
        .map(|seat| {
            let forks = Arc::clone(&forks);
            let name = format!("philosopher {seat}");
            let builder = weald::Builder::new().name(name);
            builder
                .spawn(move || {
                    let (one, two) = first(seat, forks.len());
                    let _one = forks[one].lock().unwrap();
                    let _two = forks[two].lock().unwrap();
                })
                .unwrap()
        })
        .collect();
    for philosopher in philosophers {
        philosopher.join().unwrap();
    }
}

#[test]
fn dining_philosophers() {
    let lines = [
        "deadlock",
        "main waits for the end of philosopher 0",
        "philosopher 0 waits for fork 1 (a mutex)",
        "philosopher 1 waits for fork 0 (a mutex)",
    ];
    fails("dining_philosophers", &lines, || {
        dine(2, |seat, forks| (seat, (seat + 1) % forks));
    });
}

/// The first thread is one of the two: a third one that only waits for them makes minutes of it.
#[test]
fn dining_philosophers_in_order() {
    passes(
        Model::new("dining_philosophers_in_order", 1000, &[]),
        || {
            let forks = Arc::new([Mutex::new(()), Mutex::new(())]);
            let dine = |forks: &[Mutex<()>; 2]| {
                let _one = forks[0].lock().unwrap();
                let _two = forks[1].lock().unwrap();
            };
            let other = Arc::clone(&forks);
            let other = weald::spawn(move || dine(&other));
            dine(&forks);
            other.join().unwrap();
        },
    );
}

#[test]
fn a_limit_may_pass_or_not() {
    let outcomes = Outcomes::new();
    let seen = outcomes.clone();
    passes(
        Model::new("a_limit_may_pass_or_not", 1000, &[]),
        move || {
            let (tx, rx) = channel::bounded(1);
            let sender = weald::spawn(move || tx.send(7));
            let got = rx.recv_timeout(Duration::from_secs(1));
            seen.add(got.is_ok());
            drop(rx);
            let _ = sender.join().unwrap();
        },
    );
    assert_eq!(outcomes.take(), BTreeSet::from([false, true]));
}

#[test]
fn a_sleep_may_be_long_or_short() {
    let outcomes = Outcomes::new();
    let seen = outcomes.clone();
    passes(
        Model::new("a_sleep_may_be_long_or_short", 380, &[]),
        move || {
            let value = Arc::new(Mutex::new(0));
            let other = weald::spawn({
                let value = Arc::clone(&value);
                move || *value.lock().unwrap() = 1
            });
            weald::sleep(Duration::from_secs(1));
            seen.add(*value.lock().unwrap());
            other.join().unwrap();
        },
    );
    assert_eq!(outcomes.take(), BTreeSet::from([0, 1]));
}

#[test]
fn a_kill_comes_before_or_after() {
    let outcomes = Outcomes::new();
    let seen = outcomes.clone();
    passes(
        Model::new("a_kill_comes_before_or_after", 10000, &[]),
        move || {
            let reached = Arc::new(Mutex::new(0));
            let victim = weald::spawn({
                let reached = Arc::clone(&reached);
                move || {
                    *reached.lock().unwrap() = 1;
                    weald::park();
                    *reached.lock().unwrap() = 2;
                }
            });
            victim.thread().kill();
            let payload = victim.join().unwrap_err();
            assert!(payload.is::<weald::Exception>());
            seen.add(*reached.lock().unwrap());
        },
    );
    assert_eq!(outcomes.take(), BTreeSet::from([0, 1]));
}

#[test]
fn a_select_takes_one_of_two() {
    let outcomes = Outcomes::new();
    let seen = outcomes.clone();
    passes(
        Model::new("a_select_takes_one_of_two", 100, &[]),
        move || {
            let (tx, rx) = channel::bounded(1);
            let worker = weald::spawn(move || tx.send(7).unwrap());
            let first = weald::select! {
                recv(rx) -> message => message.unwrap(),
                join(worker) -> _ => 8,
            };
            seen.add(first);
        },
    );
    // The message is there before its sender has ended, but who looks late finds both.
    assert!(outcomes.take().contains(&7));
}

#[test]
fn an_interrupt_by_the_clock() {
    let outcomes = Outcomes::new();
    let seen = outcomes.clone();
    passes(
        Model::new("an_interrupt_by_the_clock", 1200, &[]),
        move || {
            let me = weald::current();
            let other = weald::spawn(move || me.unpark());
            let done = weald::timeout(Duration::from_secs(1), weald::park);
            seen.add(done.is_ok());
            other.join().unwrap();
        },
    );
    assert_eq!(outcomes.take(), BTreeSet::from([false, true]));
}

#[test]
fn a_call_in_the_future() {
    passes(Model::new("a_call_in_the_future", 980, &[]), || {
        let me = weald::current();
        weald::call_after(Duration::from_secs(1), move || me.unpark());
        weald::park();
        let never = weald::call_after(Duration::MAX, || unreachable!());
        assert!(never.cancel());
    });
}

#[test]
fn a_panic_that_nobody_joins() {
    let lines = ["the clerk panicked, and nobody joined it: lost, at"];
    fails("a_panic_that_nobody_joins", &lines, || {
        let clerk = weald::Builder::new().name("the clerk".to_string());
        drop(clerk.spawn(|| panic!("lost")).unwrap());
    });
}

#[test]
fn a_wait_for_nobody() {
    let lines = [
        "main waits for the end of the clerk",
        "the clerk waits for `unpark`",
    ];
    fails("a_wait_for_nobody", &lines, || {
        let clerk = weald::Builder::new().name("the clerk".to_string());
        let _ = clerk.spawn(weald::park).unwrap().join();
    });
}

#[test]
fn a_message_that_nobody_sends() {
    let lines = ["main waits for a channel"];
    fails("a_message_that_nobody_sends", &lines, || {
        let (_tx, rx) = channel::unbounded::<u8>();
        let _ = rx.recv();
    });
}
