//! `on_deadlock` tells once of green threads that wait for each other for ever, and never of threads that could still
//! go on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use weald::sync::{Barrier, Condvar, Event, Mutex, PoisonError, RwLock, channel::unbounded};
use weald::{Awaited, Builder, Dump, JoinHandle, Runtime};

use crate::support::{Flag, HOUR, LIMIT, MODES, MS, Mode, builder, wait_until, with_deadline};

/// Returns a runtime that tells of deadlocks.
fn telling(mode: Mode) -> (Runtime, Receiver<Dump>) {
    let (sender, told) = channel();
    let builder = builder(2, mode).name("told");
    let tell = move |dump: &Dump| drop(sender.send(dump.clone()));
    (builder.on_deadlock(tell).build().unwrap(), told)
}

fn start(rt: &Runtime, name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let builder = Builder::new().name(name.to_owned());
    rt.run(|| builder.spawn(body)).unwrap()
}

fn lock<T>(mutex: &Mutex<T>) -> weald::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts two threads that take two locks in opposite orders, with a limit or without.
fn two_orders(rt: &Runtime, names: [&str; 2], limit: Option<Duration>) -> [JoinHandle<()>; 2] {
    let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
    let both = Arc::new(Barrier::new(2));
    [0, 1].map(|first| {
        let (locks, both) = (locks.clone(), both.clone());
        start(rt, names[first], move || {
            let _first = lock(&locks[first]);
            both.wait();
            let second = || drop(lock(&locks[1 - first]));
            match limit {
                Some(limit) => drop(weald::timeout(limit, second)),
                None => second(),
            }
        })
    })
}

fn kill(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    let threads: Vec<_> = threads.into_iter().collect();
    for thread in &threads {
        thread.thread().kill();
    }
    for thread in threads {
        // The thread was killed, or had ended before.
        let _ = thread.join();
    }
}

fn names_of_deadlock(dump: &Dump) -> Vec<&str> {
    let members = dump.deadlocks.iter().flat_map(|deadlock| &deadlock.threads);
    let mut names: Vec<&str> = members
        .map(|&id| {
            let mut threads = dump.threads.iter();
            let thread = threads.find(|thread| thread.id == id).unwrap();
            thread.name.as_deref().unwrap_or("?")
        })
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn threads_that_wait_for_each_other_for_ever_are_told_once() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let (rt, told) = telling(mode);
            let threads = two_orders(&rt, ["lease", "table"], None);
            let dump = told.recv().unwrap();
            assert_eq!(names_of_deadlock(&dump), ["lease", "table"]);
            assert!(dump.deadlocks[0].is_certain);
            let text = dump.to_string();
            assert!(text.starts_with("told: 2 green threads"), "{text}");
            kill(threads);
            drop(rt);
            assert!(told.recv().is_err(), "it was told once");
        });
    }
}

#[test]
fn waits_that_somebody_may_end_are_not_told() {
    with_deadline(LIMIT, || {
        let (rt, told) = telling(MODES[0]);
        let mut threads = Vec::new();
        // An OS thread has the lock.
        let table = Arc::new(Mutex::new(()));
        let held = lock(&table);
        let inner = table.clone();
        threads.push(start(&rt, "lock", move || drop(lock(&inner))));
        // The OS thread may send, wake, notify or set as well.
        let (sender, receiver) = unbounded::<u32>();
        threads.push(start(&rt, "channel", move || {
            let _ = receiver.recv();
        }));
        threads.push(start(&rt, "park", weald::park));
        let event = Arc::new(Event::new());
        let inner = event.clone();
        threads.push(start(&rt, "event", move || inner.wait()));
        let pair = Arc::new((Mutex::new(()), Condvar::new()));
        let inner = pair.clone();
        threads.push(start(&rt, "condvar", move || {
            drop(inner.1.wait(lock(&inner.0)));
        }));
        // The thread that has this lock waits for the OS thread.
        let (inner, is_held) = (Arc::new(Mutex::new(())), Flag::default());
        let (owned, tells) = (inner.clone(), is_held.clone());
        threads.push(start(&rt, "owner", move || {
            let _owned = lock(&owned);
            tells.set();
            weald::park();
        }));
        is_held.wait();
        threads.push(start(&rt, "behind", move || drop(lock(&inner))));
        // There is a reader, and a writer that waits for the reader.
        let state = Arc::new(RwLock::new(()));
        let reads = state.read().unwrap();
        let inner = state.clone();
        threads.push(start(&rt, "writer", move || drop(inner.write())));
        // These two threads give up by themselves.
        threads.extend(two_orders(&rt, ["one", "two"], Some(HOUR)));
        threads.push(start(&rt, "sleeps", || weald::sleep(HOUR)));
        wait_until(|| rt.dump().metrics.parked == threads.len());
        // The runtime needs this time to suspect a deadlock. Nothing shows that it has looked.
        std::thread::sleep(700 * MS);
        // After that, the runtime tells of these two threads, and not of the threads above.
        let stuck = two_orders(&rt, ["left", "right"], None);
        let dump = told.recv().unwrap();
        assert_eq!(names_of_deadlock(&dump), ["left", "right"], "{dump}");
        let lock_wait = dump
            .threads
            .iter()
            .find(|thread| thread.name.as_deref() == Some("lock"));
        let waits_for = lock_wait
            .and_then(|thread| thread.waits_for.clone())
            .unwrap();
        assert_eq!((waits_for.what, waits_for.holder), (Awaited::Mutex, None));
        drop((held, reads, sender));
        kill(stuck.into_iter().chain(threads));
    });
}

#[test]
fn the_last_wait_of_a_circle_may_block_an_os_thread() {
    // The thread that closes the circle has an OS thread of its own, or is inside of `blocking`. No worker does anything then.
    for is_own in [true, false] {
        with_deadline(LIMIT, || {
            let (rt, told) = telling(MODES[0]);
            let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
            let (is_held, go) = (Flag::default(), Flag::default());
            let (inner, tells, waits) = (locks.clone(), is_held.clone(), go.clone());
            let last = rt.run(|| {
                let builder = Builder::new().name("last".to_owned()).own_thread(is_own);
                let body = move || {
                    weald::blocking(|| {
                        let _first = lock(&inner[0]);
                        tells.set();
                        waits.wait();
                        drop(lock(&inner[1]));
                    });
                };
                builder.spawn(body).unwrap()
            });
            is_held.wait();
            let inner = locks.clone();
            let green = start(&rt, "green", move || {
                let _second = lock(&inner[1]);
                drop(lock(&inner[0]));
            });
            wait_until(|| rt.dump().metrics.parked > 0);
            // The runtime looks for a deadlock meanwhile, and finds none. Nothing shows that it has looked; if it has not,
            // the circle is found all the same.
            std::thread::sleep(700 * MS);
            go.set();
            let dump = told.recv().unwrap();
            assert_eq!(names_of_deadlock(&dump), ["green", "last"], "{dump}");
            kill([green, last]);
        });
    }
}

/// In one green thread: two others, in a group or as the halves of a `join`, that wait for each other.
fn two_orders_inside(in_group: bool) {
    let locks = [Mutex::new(()), Mutex::new(())];
    let both = Barrier::new(2);
    let half = |first: usize| {
        let _first = lock(&locks[first]);
        both.wait();
        drop(lock(&locks[1 - first]));
    };
    if in_group {
        weald::group(|g| {
            g.spawn(|| half(0));
            g.spawn(|| half(1));
        });
    } else {
        weald::join(|| half(0), || half(1));
    }
}

#[test]
fn a_limit_around_a_group_or_join_may_end_its_threads_so_they_are_not_told() {
    for (mode, in_group) in MODES.into_iter().zip([true, false, true]) {
        with_deadline(LIMIT, || {
            let (rt, told) = telling(mode);
            let limited = start(&rt, "limited", move || {
                let _ = weald::timeout(HOUR, || two_orders_inside(in_group));
            });
            let inside = if in_group { 3 } else { 2 };
            wait_until(|| rt.metrics().parked == inside);
            let dump = rt.dump();
            assert!(dump.deadlocks.is_empty(), "{dump}");
            // As above: time to look.
            std::thread::sleep(700 * MS);
            let stuck = two_orders(&rt, ["left", "right"], None);
            let dump = told.recv().unwrap();
            assert_eq!(names_of_deadlock(&dump), ["left", "right"], "{dump}");
            kill(stuck);
            kill([limited]);
        });
    }
}

#[test]
fn threads_of_a_group_without_a_limit_are_told() {
    for in_group in [true, false] {
        with_deadline(LIMIT, || {
            let (rt, told) = telling(MODES[0]);
            let parent = start(&rt, "parent", move || two_orders_inside(in_group));
            let dump = told.recv().unwrap();
            assert_eq!(dump.deadlocks.len(), 1, "{dump}");
            assert!(dump.deadlocks[0].is_certain, "{dump}");
            kill([parent]);
        });
    }
}

#[test]
fn a_panic_of_who_is_told_harms_nobody() {
    with_deadline(LIMIT, || {
        let told = Flag::default();
        let tells = told.clone();
        let rt = builder(1, MODES[0]).on_deadlock(move |_| {
            tells.set();
            panic!("on purpose");
        });
        let rt = rt.build().unwrap();
        let threads = two_orders(&rt, ["one", "two"], None);
        told.wait();
        kill(threads);
        assert_eq!(rt.run(|| 7), 7);
    });
}
