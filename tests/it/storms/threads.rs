//! Storms over threads: they are spawned, joined, killed, shut down, and take turns in a pool.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weald::{GreenPool, JoinHandle, Runtime};

use super::{Random, crowd, each_storm};
use crate::support::{Count, Counted, HOUR, Mark, OnDrop, caught, exception_in, was_killed};

#[derive(Clone, Default)]
struct Family {
    begun: Count,
    ended: Count,
    dropped: Count,
}

impl Family {
    fn member(&self, mut random: Random, generations: usize) {
        self.begun.add();
        random.pause();
        let mut children = Vec::new();
        if generations > 0 {
            for _ in 0..random.below(4) {
                let (own, random) = (self.clone(), random.fork());
                children.push(weald::spawn(move || own.member(random, generations - 1)));
            }
        }
        for child in children {
            random.pause();
            match random.below(3) {
                0 => {
                    self.dropped.add();
                    drop(child);
                }
                _ => child.join().unwrap(),
            }
        }
        self.ended.add();
    }
}

#[test]
fn spawn_storm() {
    each_storm(|rt, random| {
        let family = Family::default();
        let spawned = rt.metrics().spawned;
        let own = family.clone();
        let parents = crowd(rt, random, 10, move |_, random| own.member(random, 3));
        for parent in parents {
            parent.join().unwrap();
        }
        crate::support::wait_until(|| rt.metrics().live == 0);
        assert_eq!(family.begun.get(), family.ended.get());
        // A handle that is dropped as its thread ends leaves the result to one thread more.
        let spawned = rt.metrics().spawned - spawned;
        let least = family.begun.get() as u64;
        let most = least + family.dropped.get() as u64;
        assert!((least..=most).contains(&spawned), "{spawned} of {least}");
    });
}

type Shelf = Arc<Mutex<Vec<Option<(usize, JoinHandle<usize>)>>>>;

/// Threads take each other's handles, watch them, join them, lose patience, and put back handles that they only
/// watched.
#[test]
fn join_storm() {
    each_storm(|rt, random| {
        let shelf: Shelf = Arc::default();
        let (joined, lost) = (Count::default(), Count::default());
        let size = 10 + random.below(30);
        let own = (Arc::clone(&shelf), joined.clone(), lost.clone());
        let body = move |number: usize, mut random: Random| {
            let (shelf, joined, lost) = &own;
            for _ in 0..random.below(6) {
                random.pause();
                let taken = {
                    let mut shelf = shelf.lock().unwrap();
                    let len = shelf.len();
                    if len == 0 {
                        None
                    } else {
                        shelf[random.below(len)].take()
                    }
                };
                let Some((whose, handle)) = taken else {
                    continue;
                };
                if whose >= number {
                    // Later threads are only watched, so nobody waits in a circle.
                    let limit = random.micros(300);
                    weald::select! {
                        join(&handle) -> _ => assert!(handle.is_finished()),
                        default(limit) => {}
                    }
                    shelf.lock().unwrap().push(Some((whose, handle)));
                } else if random.one_in(4) {
                    match weald::timeout(random.micros(300), || handle.join()) {
                        Ok(result) => {
                            assert_eq!(result.unwrap(), whose);
                            joined.add();
                        }
                        // The interrupted join has released it.
                        Err(_) => drop(lost.add()),
                    }
                } else {
                    assert_eq!(handle.join().unwrap(), whose);
                    joined.add();
                }
            }
            number
        };
        for (number, handle) in crowd(rt, random, size, body).into_iter().enumerate() {
            shelf.lock().unwrap().push(Some((number, handle)));
        }
        // The handles that are still out come back, are joined or dropped.
        let mut rest = 0;
        crate::support::wait_until(|| {
            let mut shelf = shelf.lock().unwrap();
            for (whose, handle) in shelf.drain(..).flatten().collect::<Vec<_>>() {
                if handle.is_finished() {
                    assert_eq!(handle.join().unwrap(), whose);
                    rest += 1;
                } else {
                    shelf.push(Some((whose, handle)));
                }
            }
            rest + joined.get() + lost.get() == size
        });
    });
}

/// Threads hold permits, locks and messages while exceptions come from everywhere.
#[test]
fn cancel_storm() {
    each_storm(|rt, random| {
        let permits = Arc::new(weald::sync::Semaphore::new(3));
        let lock = Arc::new(weald::sync::Mutex::new(()));
        let inside = Arc::new(AtomicUsize::new(0));
        let (send, receive) = weald::sync::channel::bounded::<()>(2);
        let (sent, received, marks) = (Count::default(), Count::default(), Count::default());
        let own = (Arc::clone(&permits), Arc::clone(&lock), Arc::clone(&inside));
        let counts = (sent.clone(), received.clone(), marks.clone());
        let ends = (send, receive.clone());
        let body = move |_: usize, mut random: Random| {
            let (permits, lock, inside) = &own;
            let (sent, received, marks) = &counts;
            let mut work = || loop {
                random.pause();
                match random.below(5) {
                    0 => {
                        let _permit = permits.acquire();
                        random.pause();
                    }
                    1 => {
                        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
                        assert_eq!(inside.fetch_add(1, SeqCst), 0, "not alone");
                        let _left = OnDrop(|| {
                            inside.fetch_sub(1, SeqCst);
                        });
                        random.pause();
                    }
                    // Nothing is raised between a call that has done something and its counting.
                    2 => {
                        ends.0.send(()).unwrap();
                        sent.add();
                    }
                    3 => {
                        ends.1.recv().unwrap();
                        received.add();
                    }
                    _ => weald::sleep(Duration::from_micros(100)),
                }
            };
            loop {
                let interrupted: Result<(), Mark> = weald::catch(&mut work);
                assert!(interrupted.is_err());
                marks.add();
            }
        };
        let size = 10 + random.below(30);
        let mut threads = crowd(rt, random, size, body);
        let (dropped, mut thrown, mut thrown_marks) = (Count::default(), 0, 0);
        while !threads.is_empty() {
            let at = random.below(threads.len());
            match random.below(8) {
                0 => {
                    let thread = threads.swap_remove(at);
                    thread.thread().kill();
                    assert!(was_killed(&thread.join()));
                }
                1 => {
                    // They do not catch this one: it ends them.
                    let thread = threads.swap_remove(at);
                    thread.thread().throw(dropped.on_drop());
                    let outcome: std::thread::Result<()> = thread.join();
                    assert!(exception_in::<Counted, _>(&outcome).is_some());
                    thrown += 1;
                }
                _ => {
                    threads[at].thread().throw(Mark(1));
                    thrown_marks += 1;
                    std::thread::sleep(random.micros(100));
                }
            }
        }
        assert_eq!(dropped.get(), thrown);
        assert!(marks.get() <= thrown_marks, "one was delivered twice");
        assert_eq!(permits.available_permits(), 3);
        assert!(lock.try_lock().is_ok() || lock.is_poisoned());
        assert_eq!(inside.load(SeqCst), 0);
        assert_eq!(sent.get(), received.get() + receive.try_iter().count());
    });
}

type Handles = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// A runtime that ends meanwhile.
#[derive(Clone, Default)]
struct Crew {
    made: Count,
    dropped: Count,
    handles: Handles,
}

impl Crew {
    fn member(&self, mut random: Random) {
        loop {
            random.pause();
            match random.below(20) {
                0 => return,
                1 | 2 => {
                    self.made.add();
                    let (held, own, random) = (self.dropped.on_drop(), self.clone(), random.fork());
                    let child = weald::spawn(move || {
                        let _held = held;
                        own.member(random);
                    });
                    self.handles.lock().unwrap().push(child);
                }
                3 => drop(weald::call_after(random.micros(500), || ())),
                4 => weald::sleep(HOUR),
                _ => {}
            }
        }
    }
}

/// A runtime ends while its threads spawn and wait.
#[test]
fn shutdown_storm() {
    each_storm(|old, random| {
        let mode = old.thread_locals();
        let builder = Runtime::builder().workers(3);
        let builder = match mode {
            Some(mode) => builder.thread_locals(mode),
            // SAFETY: the crew holds nothing thread-local over a blocking call.
            None => unsafe { builder.share_thread_locals() },
        };
        let rt = builder.build().unwrap();
        let crew = Crew::default();
        let own = crew.clone();
        let first = crowd(&rt, random, 10, move |_, random| own.member(random));
        std::thread::sleep(random.micros(3000));
        rt.shutdown(random.micros(2000));
        let mut handles = std::mem::take(&mut *crew.handles.lock().unwrap());
        handles.extend(first);
        assert_eq!(handles.len(), crew.made.get() + 10);
        for handle in handles {
            assert!(handle.is_finished());
            let outcome = handle.join();
            assert!(outcome.is_ok() || was_killed(&outcome));
        }
        assert_eq!(
            crew.dropped.get(),
            crew.made.get(),
            "a closure's value is lost"
        );
    });
}

/// Threads of a pool spawn into it, are killed and panic; there are never more of them than seats.
#[test]
fn pool_storm() {
    each_storm(|rt, random| {
        let size = 1 + random.below(5);
        let pool = Arc::new(rt.run(|| GreenPool::new(size)));
        let (inside, most, ended) = (
            Arc::new(AtomicUsize::new(0)),
            Count::default(),
            Count::default(),
        );
        let spawned = Count::default();
        let own = (
            Arc::clone(&pool),
            Arc::clone(&inside),
            most.clone(),
            ended.clone(),
            spawned.clone(),
        );
        let body = move |_: usize, mut random: Random| {
            let (pool, inside, most, ended, spawned) = own.clone();
            for _ in 0..8 {
                random.pause();
                let (inside, most, ended) = (Arc::clone(&inside), most.clone(), ended.clone());
                let ended = ended.on_drop();
                let mut inner = random.fork();
                spawned.add();
                let thread = pool.spawn(move || {
                    let _ended = ended;
                    let _left = OnDrop(|| {
                        inside.fetch_sub(1, SeqCst);
                    });
                    if inside.fetch_add(1, SeqCst) >= size {
                        most.add();
                    }
                    inner.pause();
                    if inner.one_in(10) {
                        std::panic::resume_unwind(Box::new("bad luck"));
                    }
                });
                match random.below(4) {
                    0 => thread.thread().kill(),
                    1 => drop(caught(|| thread.join())),
                    _ => {}
                }
            }
        };
        for thread in crowd(rt, random, 12, body) {
            thread.join().unwrap();
        }
        rt.run(|| pool.wait_all());
        assert_eq!(most.get(), 0, "more than there are seats");
        assert_eq!(inside.load(SeqCst), 0);
        assert_eq!((pool.running(), pool.free()), (0, size));
        crate::support::wait_until(|| ended.get() == spawned.get());
        assert_eq!(spawned.get(), 12 * 8);
        // It has as many seats as ever.
        let taken = rt.run(|| {
            let gate = Arc::new(weald::sync::Event::new());
            let wait = |_| {
                let gate = Arc::clone(&gate);
                pool.spawn(move || gate.wait())
            };
            let threads: Vec<_> = (0..size).map(wait).collect();
            let free = pool.free();
            gate.set();
            for thread in threads {
                thread.join().unwrap();
            }
            free
        });
        assert_eq!(taken, 0);
    });
}
