//! Threads that wait for each other, by locks and by their ends.

use std::sync::Arc;
use std::sync::mpsc;

use weald::sync::{Barrier, Mutex, RwLock, channel};
use weald::{Awaited, JoinHandle};

use super::{Steps, is_in, lock, stuck};
use crate::support::HOUR;

/// As cockroach#7504, cockroach#10214, kubernetes#13135 and moby#4951: two threads take two locks in opposite orders.
#[test]
fn two_locks_in_two_orders() {
    stuck(|crew| {
        let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
        let both = Arc::new(Barrier::new(2));
        for (name, first, second) in [("lease", 0, 1), ("table", 1, 0)] {
            let (locks, both) = (locks.clone(), both.clone());
            crew.start(name, move || {
                let _first = lock(&locks[first]);
                both.wait();
                let _second = lock(&locks[second]);
            });
        }
        let dump = crew.deadlock(true, &["lease", "table"]);
        let lease = crew.waits_for_lock_of("lease", Awaited::Mutex, "table");
        let table = crew.waits_for_lock_of("table", Awaited::Mutex, "lease");
        assert!(is_in(&lease, &locks[1]) && is_in(&table, &locks[0]));
        // The dump also shows the calls that led there, where there are traces.
        let text = dump.to_string();
        if dump.threads.iter().any(|thread| !thread.trace.is_empty()) {
            assert!(text.contains("two_locks_in_two_orders"), "{text}");
        }
    });
}

/// As kubernetes#58107: the same with a mutex and an `RwLock`.
#[test]
fn a_mutex_and_a_read_lock_in_two_orders() {
    stuck(|crew| {
        let (table, index) = (Arc::new(Mutex::new(())), Arc::new(RwLock::new(())));
        let both = Arc::new(Barrier::new(2));
        let (a, b, meets) = (table.clone(), index.clone(), both.clone());
        crew.start("reader", move || {
            let _index = b.read().unwrap();
            meets.wait();
            drop(lock(&a));
        });
        crew.start("writer", move || {
            let _table = lock(&table);
            both.wait();
            drop(index.write());
        });
        crew.deadlock(true, &["reader", "writer"]);
    });
}

/// The dining philosophers.
#[test]
fn five_locks_in_a_ring() {
    stuck(|crew| {
        let forks: Arc<Vec<Mutex<()>>> = Arc::new((0..5).map(|_| Mutex::new(())).collect());
        let all = Arc::new(Barrier::new(5));
        let names = ["ada", "bob", "cyd", "dan", "eve"];
        for (seat, name) in names.iter().enumerate() {
            let (forks, all) = (forks.clone(), all.clone());
            crew.start(name, move || {
                let _left = lock(&forks[seat]);
                all.wait();
                let _right = lock(&forks[(seat + 1) % 5]);
            });
        }
        crew.deadlock(true, &names);
    });
}

/// Further threads wait for the threads of a circle, and are not in it.
#[test]
fn who_waits_behind_a_circle_is_not_in_it() {
    stuck(|crew| {
        let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
        let both = Arc::new(Barrier::new(2));
        for (name, first, second) in [("one", 0, 1), ("two", 1, 0)] {
            let (locks, both) = (locks.clone(), both.clone());
            crew.start(name, move || {
                let _first = lock(&locks[first]);
                both.wait();
                let _second = lock(&locks[second]);
            });
        }
        crew.deadlock(true, &["one", "two"]);
        crew.start("third", move || drop(lock(&locks[0])));
        crew.waits_for_lock_of("third", Awaited::Mutex, "one");
        let dump = crew.deadlock(true, &["one", "two"]);
        assert_eq!(dump.deadlocks.len(), 1, "{dump}");
    });
}

/// As cockroach#1055: a thread stops the others and waits for their end. It holds the lock that they need to end.
#[test]
fn a_lock_that_is_held_over_a_join() {
    stuck(|crew| {
        let stopper = Arc::new(Mutex::new(()));
        let (inner, steps) = (stopper.clone(), Steps::default());
        let starts = steps.clone();
        let worker = crew.hand("worker", move || {
            starts.wait(0);
            drop(lock(&inner));
        });
        let worker_thread = worker.thread().clone();
        crew.start("stop", move || {
            let _stopper = lock(&stopper);
            steps.done(0);
            let _ = worker.join();
        });
        crew.deadlock(true, &["stop", "worker"]);
        worker_thread.kill();
    });
}

/// Two threads wait for each other's end.
#[test]
fn two_threads_that_join_each_other() {
    stuck(|crew| {
        let (give, take) = mpsc::channel::<JoinHandle<()>>();
        let first = crew.hand("first", move || drop(take.recv().unwrap().join()));
        let thread = first.thread().clone();
        let second = crew.hand("second", move || drop(first.join()));
        give.send(second).unwrap();
        crew.deadlock(true, &["first", "second"]);
        thread.kill();
    });
}

/// A thread joins itself by its own handle.
#[test]
fn a_thread_that_joins_itself() {
    stuck(|crew| {
        let (give, take) = mpsc::channel::<JoinHandle<()>>();
        let me = crew.hand("me", move || drop(take.recv().unwrap().join()));
        let thread = me.thread().clone();
        give.send(me).unwrap();
        crew.deadlock(true, &["me"]);
        thread.kill();
    });
}

/// A parent waits for its children, and holds a lock that one of them needs.
#[test]
fn a_child_that_needs_a_lock_of_its_parent() {
    stuck(|crew| {
        let table = Arc::new(Mutex::new(()));
        let inner = table.clone();
        crew.start("parent", move || {
            let _table = lock(&inner);
            weald::scope(|scope| {
                let builder = weald::Builder::new().name("child".to_owned());
                let child = builder.spawn_scoped(scope, || drop(lock(&inner)));
                // A kill of the parent does not end the scope.
                let child = child.unwrap().thread().clone();
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(weald::park));
                child.kill();
            });
        });
        let waits = crew.waits_for_lock_of("child", Awaited::Mutex, "parent");
        assert!(is_in(&waits, &*table));
    });
}

/// Of the kind of cockroach#13755: waits with a limit end by themselves, so this is no deadlock.
#[test]
fn two_orders_with_a_limit_are_no_deadlock() {
    stuck(|crew| {
        let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
        let both = Arc::new(Barrier::new(2));
        for (name, first, second) in [("one", 0, 1), ("two", 1, 0)] {
            let (locks, both) = (locks.clone(), both.clone());
            crew.start(name, move || {
                let _first = lock(&locks[first]);
                both.wait();
                let _ = weald::timeout(HOUR, || drop(lock(&locks[second])));
            });
        }
        for (name, other) in [("one", "two"), ("two", "one")] {
            let waits = crew.waits_for_lock_of(name, Awaited::Mutex, other);
            assert!(waits.is_limited);
        }
        let dump = crew.rt.dump();
        assert!(dump.deadlocks.is_empty(), "{dump}");
        assert!(dump.to_string().contains("with a limit"), "{dump}");
    });
}

/// An OS thread has the lock, so no green thread is the cause.
#[test]
fn a_lock_of_an_os_thread_is_no_deadlock() {
    stuck(|crew| {
        let table = Arc::new(Mutex::new(()));
        let held = lock(&table);
        let inner = table.clone();
        crew.start("green", move || drop(lock(&inner)));
        let waits = crew.waits("green", Awaited::Mutex, |_, _| true);
        assert!(waits.holder.is_none() && !waits.holder_is_gone);
        assert!(crew.rt.dump().deadlocks.is_empty());
        drop(held);
    });
}

/// Actors wait for messages and hold each other's senders. One more sender is in a place that no stack shows.
#[test]
fn actors_that_others_can_wake_are_no_deadlock() {
    stuck(|crew| {
        let (to_one, one) = channel::unbounded::<u32>();
        let (to_two, two) = channel::unbounded::<u32>();
        let outside = Box::new((to_one.clone(), to_two.clone()));
        for (name, inbox, other) in [("one", one, to_two), ("two", two, to_one)] {
            crew.start(name, move || {
                while let Ok(message) = inbox.recv() {
                    let _ = other.send(message + 1);
                }
            });
        }
        for name in ["one", "two"] {
            crew.waits(name, Awaited::Message, |_, waits| waits.others == 2);
        }
        let dump = crew.rt.dump();
        assert!(dump.deadlocks.is_empty(), "{dump}");
        drop(outside);
        // Now no other thread can send.
        crew.deadlock(false, &["one", "two"]);
    });
}
