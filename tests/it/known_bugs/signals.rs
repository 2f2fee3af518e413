//! Notifications that come too early or never, and permits that are used up.

use std::sync::Arc;

use weald::sync::{Barrier, Condvar, Event, Mutex, PoisonError, Promise, Semaphore};
use weald::{Awaited, Doing};

use super::{Steps, is_in, lock, stuck};

/// As moby#29733 and kubernetes#10182: the notification comes before a thread waits.
#[test]
fn a_notification_that_came_too_early() {
    stuck(|crew| {
        let pair = Arc::new((Mutex::new(()), Condvar::new()));
        pair.1.notify_one();
        let inner = pair.clone();
        crew.start("plugin", move || {
            let _ = inner.1.wait(lock(&inner.0));
        });
        crew.waits("plugin", Awaited::Condvar, |_, waits| is_in(waits, &pair.1));
    });
}

/// As moby#30408: two threads wait, and one of them is notified.
#[test]
fn a_notification_too_few() {
    stuck(|crew| {
        let pair = Arc::new((Mutex::new(0), Condvar::new()));
        for _ in 0..2 {
            let pair = pair.clone();
            crew.start("waiter", move || {
                let _ = pair.1.wait(lock(&pair.0));
            });
        }
        crew.until("two that wait", |dump| {
            dump.to_string().contains("2 wait for a condition variable")
        });
        pair.1.notify_one();
        crew.until("one that waits", |dump| {
            dump.to_string()
                .contains("1 waits for a condition variable")
        });
    });
}

/// Of the kind of cockroach#10790: a thread waits for a condition and has a lock that the notifier needs.
#[test]
fn a_condition_under_another_lock() {
    stuck(|crew| {
        let outer = Arc::new(Mutex::new(()));
        let pair = Arc::new((Mutex::new(()), Condvar::new()));
        let (a, b, steps) = (outer.clone(), pair.clone(), Steps::default());
        let told = steps.clone();
        crew.start("waiter", move || {
            let _outer = lock(&a);
            told.done(0);
            let _ = b.1.wait(lock(&b.0));
        });
        crew.start("notifier", move || {
            steps.wait(0);
            drop(lock(&outer));
            pair.1.notify_all();
        });
        crew.waits_for_lock_of("notifier", Awaited::Mutex, "waiter");
        crew.waits("waiter", Awaited::Condvar, |_, _| true);
    });
}

/// The closure of a wait for a condition takes the lock of the condition once more.
#[test]
fn a_condition_whose_lock_is_taken_again() {
    stuck(|crew| {
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        crew.start("waiter", move || {
            let guard = lock(&pair.0);
            let _ = pair.1.wait_while(guard, |_| *lock(&pair.0));
        });
        crew.deadlock(true, &["waiter"]);
    });
}

/// There is one permit, and a thread takes two.
#[test]
fn a_permit_that_its_owner_takes_again() {
    stuck(|crew| {
        let slots = Arc::new(Semaphore::new(1));
        let inner = slots.clone();
        crew.start("upload", move || {
            let _first = inner.acquire();
            let _second = inner.acquire();
        });
        crew.waits("upload", Awaited::Semaphore, |_, waits| {
            is_in(waits, &*slots)
        });
    });
}

/// Of the kind of kubernetes#6632: a path with an error does not give its permit back.
#[test]
fn a_permit_that_was_lost() {
    stuck(|crew| {
        let slots = Arc::new(Semaphore::new(1));
        let inner = slots.clone();
        crew.hand("first", move || inner.acquire().forget())
            .join()
            .unwrap();
        let inner = slots.clone();
        crew.start("second", move || drop(inner.acquire()));
        crew.waits("second", Awaited::Semaphore, |_, waits| {
            is_in(waits, &*slots)
        });
    });
}

/// Two threads have a permit each, and each wants the other's permit.
#[test]
fn two_semaphores_in_two_orders() {
    stuck(|crew| {
        let slots = Arc::new([Semaphore::new(1), Semaphore::new(1)]);
        let both = Arc::new(Barrier::new(2));
        for (name, first, second) in [("one", 0, 1), ("two", 1, 0)] {
            let (slots, both) = (slots.clone(), both.clone());
            crew.start(name, move || {
                let _first = slots[first].acquire();
                both.wait();
                let _second = slots[second].acquire();
            });
        }
        for (name, other) in [("one", 1), ("two", 0)] {
            crew.waits(name, Awaited::Semaphore, |_, waits| {
                is_in(waits, &slots[other])
            });
        }
    });
}

/// A barrier waits for a thread that never comes.
#[test]
fn a_barrier_with_one_too_few() {
    stuck(|crew| {
        let all = Arc::new(Barrier::new(3));
        for name in ["one", "two"] {
            let all = all.clone();
            crew.start(name, move || {
                all.wait();
            });
        }
        for name in ["one", "two"] {
            crew.waits(name, Awaited::Condvar, |_, waits| is_in(waits, &*all));
        }
    });
}

/// As istio#17860: no thread sets the event that ends the agent.
#[test]
fn an_event_that_nobody_sets() {
    stuck(|crew| {
        let stop = Arc::new(Event::new());
        let inner = stop.clone();
        crew.start("agent", move || inner.wait());
        crew.waits("agent", Awaited::Event, |_, waits| is_in(waits, &*stop));
    });
}

/// No thread sets the value of a promise.
#[test]
fn a_promise_that_nobody_keeps() {
    stuck(|crew| {
        let value = Arc::new(Promise::<u32>::new());
        let inner = value.clone();
        crew.start("asks", move || drop(inner.wait()));
        crew.waits("asks", Awaited::Promise, |_, waits| is_in(waits, &*value));
    });
}

/// Two unparks before one park count as one.
#[test]
fn an_unpark_too_few() {
    stuck(|crew| {
        let steps = Steps::default();
        let then = steps.clone();
        let thread = crew.start("parks", move || {
            then.wait(0);
            weald::park();
            weald::park();
        });
        thread.unpark();
        thread.unpark();
        steps.done(0);
        crew.until("one that parks", |dump| {
            let mut threads = dump.threads.iter();
            threads.any(|thread| {
                thread.name.as_deref() == Some("parks") && thread.doing == Doing::Parks
            })
        });
    });
}

/// A thread has a lock and waits for an unpark. The thread that would unpark it wants the lock.
#[test]
fn a_lock_that_is_held_over_a_park() {
    stuck(|crew| {
        let queue = Arc::new(Mutex::new(()));
        let (inner, steps) = (queue.clone(), Steps::default());
        let told = steps.clone();
        let sleeper = crew.start("sleeper", move || {
            let _queue = lock(&inner);
            told.done(0);
            weald::park();
        });
        crew.start("waker", move || {
            steps.wait(0);
            drop(queue.lock().unwrap_or_else(PoisonError::into_inner));
            sleeper.unpark();
        });
        crew.waits_for_lock_of("waker", Awaited::Mutex, "sleeper");
    });
}
