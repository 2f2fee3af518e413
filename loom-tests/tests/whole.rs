//! Models of the whole scheduler: workers, carriers, seats, queues, timers and exceptions are production
//! code, green threads are real coroutines. Doubled are the deque and the wait in the poller.
//!
//! Most models begin when the workers have come to rest, and only two of them explore the end of a runtime
//! ([`unexplored`]): otherwise most of each search would be about starts and ends.
//!
//! Invariant 1: what was spawned runs once, what was woken goes on once. A lost wake-up is a deadlock.
//! Invariant 2: a stack has one user at a time, and each sees what the one before left there: the token
//! of `coroutine/mod.rs` is loom's to watch.
//! Invariant 3: a wait that has ended leaves no timer behind.
//! Invariant 4: a thread that joins, or leaves a scope, sees all that the other thread did.
//! Invariant 5: a runtime that ends leaves no stack that was not unwound.
#![cfg(loom)]
#![allow(unsafe_code, reason = "what is passed on has no lock of its own")]
mod message;
mod runtimes;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use weald::sync::channel;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::sync::atomic::{AtomicUsize, Ordering};
use weald_loom_tests::{Flag, Model, check, explored, thread, unexplored, witness};
use weald_scheduler::{
    ThreadLocals, blocking, call_after, exc_after, park, park_timeout, scope, spawn, yield_now,
};

use self::message::Message;
use self::runtimes::{LIMIT, at_rest, builder, carrier, ends, is_killed, resting, runtime};

#[test]
fn one_worker_runs_and_joins() {
    check(Model::new("one_worker_runs_and_joins", 1500, &[]), || {
        let runtime = runtime(1);
        assert_eq!(runtime.run(|| 7), 7);
    });
}

#[test]
fn a_spawn_meets_a_worker_that_falls_asleep() {
    check(
        Model::new("a_spawn_meets_a_worker_that_falls_asleep", 9400, &[]),
        || {
            at_rest(1, |runtime| {
                assert_eq!(runtime.run(|| 1), 1);
                // The worker goes to sleep meanwhile.
                assert_eq!(runtime.run(|| 2), 2);
            });
        },
    );
}

/// All orders from the parking to the going on, and only those.
#[test]
fn a_parked_thread_goes_on_elsewhere() {
    let witnesses = &["went on elsewhere", "went on here"];
    check(
        Model::new("a_parked_thread_goes_on_elsewhere", 19000, witnesses),
        || {
            unexplored(|| {
                let runtime = resting(2);
                let started = Arc::new(Flag::new());
                let thread = runtime.spawn({
                    let started = started.clone();
                    move || {
                        let before = carrier();
                        started.set();
                        explored(park);
                        let after = carrier();
                        witness!("went on elsewhere", after != before);
                        witness!("went on here", after == before);
                    }
                });
                started.wait();
                thread.thread().unpark();
                thread.join().unwrap();
                drop(runtime);
            });
        },
    );
}

/// From the parking to the going on.
#[test]
fn two_unparks_resume_a_thread_once_each() {
    check(
        Model::new("two_unparks_resume_a_thread_once_each", 5400, &[]),
        || {
            unexplored(|| {
                let runtime = resting(1);
                let parked = Arc::new(AtomicUsize::new(0));
                let started = Arc::new(Flag::new());
                let thread = runtime.spawn({
                    let (parked, started) = (parked.clone(), started.clone());
                    move || {
                        started.set();
                        explored(park);
                        parked.fetch_add(1, Ordering::Relaxed);
                    }
                });
                started.wait();
                let other = thread::spawn({
                    let thread = thread.thread().clone();
                    move || thread.unpark()
                });
                thread.thread().unpark();
                thread.join().unwrap();
                other.join().unwrap();
                assert_eq!(parked.load(Ordering::Relaxed), 1);
                drop(runtime);
            });
        },
    );
}

#[test]
fn a_limited_wait_meets_an_unpark() {
    let witnesses = &["the limit was first", "the unpark was first"];
    check(
        Model::new("a_limited_wait_meets_an_unpark", 21000, witnesses),
        || {
            at_rest(1, |runtime| {
                let over = Arc::new(Flag::new());
                let thread = runtime.spawn({
                    let over = over.clone();
                    move || {
                        let begin = weald_scheduler::io::deadline(Duration::ZERO);
                        park_timeout(LIMIT);
                        let end = weald_scheduler::io::deadline(Duration::ZERO);
                        witness!("the limit was first", end > begin);
                        witness!("the unpark was first", end == begin);
                        over.set();
                        // By the second, or by the first if that came too late.
                        park();
                    }
                });
                thread.thread().unpark();
                over.wait();
                thread.thread().unpark();
                thread.join().unwrap();
            });
        },
    );
}

#[test]
fn a_kill_meets_a_thread_that_parks() {
    let witnesses = &["it ran", "it did not"];
    check(
        Model::new("a_kill_meets_a_thread_that_parks", 14000, witnesses),
        || {
            at_rest(1, |runtime| {
                let unwound = Arc::new(AtomicUsize::new(0));
                let thread = runtime.spawn({
                    let unwound = unwound.clone();
                    move || {
                        let caught = catch_unwind(AssertUnwindSafe(park));
                        unwound.fetch_add(1, Ordering::Relaxed);
                        if let Err(payload) = caught {
                            resume_unwind(payload);
                        }
                    }
                });
                thread.thread().kill();
                assert!(is_killed(thread.join()), "nobody unparks it");
                let ran = unwound.load(Ordering::Relaxed) == 1;
                witness!("it ran", ran);
                witness!("it did not", !ran);
            });
        },
    );
}

#[test]
fn an_exception_in_the_future_meets_an_unpark() {
    let witnesses = &["it was raised", "it was cancelled"];
    check(
        Model::new(
            "an_exception_in_the_future_meets_an_unpark",
            3800,
            witnesses,
        ),
        || {
            at_rest(1, |runtime| {
                let thread = runtime.spawn(|| {
                    let timer = exc_after(LIMIT, "too late");
                    let raised = catch_unwind(AssertUnwindSafe(park)).is_err();
                    witness!("it was raised", raised);
                    witness!("it was cancelled", !raised);
                    assert_eq!(timer.cancel(), !raised, "raised or cancelled, not both");
                });
                thread.thread().unpark();
                thread.join().unwrap();
            });
        },
    );
}

#[test]
fn a_call_in_the_future_meets_its_cancel() {
    let witnesses = &["it was called", "it was cancelled"];
    check(
        Model::new("a_call_in_the_future_meets_its_cancel", 430, witnesses),
        || {
            let called = Arc::new(AtomicUsize::new(0));
            let cancelled = at_rest(1, |runtime| {
                let timer = runtime.run({
                    let called = called.clone();
                    move || {
                        call_after(LIMIT, move || {
                            called.fetch_add(1, Ordering::Relaxed);
                        })
                    }
                });
                timer.cancel()
            });
            let called = called.load(Ordering::Relaxed) > 0;
            witness!("it was called", called);
            witness!("it was cancelled", cancelled);
            assert!(!(called && cancelled), "what was cancelled is not called");
        },
    );
}

/// From when the other one goes on to its end until the joiner has its result.
#[test]
fn a_joiner_on_another_worker_sees_the_result() {
    check(
        Model::new("a_joiner_on_another_worker_sees_the_result", 7800, &[]),
        || {
            unexplored(|| {
                let runtime = resting(2);
                let gate = Arc::new(Flag::new());
                let opens = gate.clone();
                let first = runtime.spawn(move || {
                    gate.wait();
                    Message::new(7)
                });
                let second = runtime.spawn(move || {
                    let join = || {
                        opens.set();
                        first.join()
                    };
                    explored(join).unwrap().read()
                });
                assert_eq!(second.join().unwrap(), 7);
                drop(runtime);
            });
        },
    );
}

/// From when its thread goes on until the scope is left.
#[test]
fn a_scope_sees_what_its_threads_did() {
    check(
        Model::new("a_scope_sees_what_its_threads_did", 10500, &[]),
        || {
            unexplored(|| {
                let runtime = resting(2);
                runtime.run(|| {
                    let (did, gate, started) = (Message::new(0), Flag::new(), Flag::new());
                    explored(|| {
                        scope(|scope| {
                            unexplored(|| {
                                scope.spawn(|| {
                                    started.set();
                                    gate.wait();
                                    did.add(1);
                                });
                                started.wait();
                            });
                            gate.set();
                        });
                        assert_eq!(did.look(), 1);
                    });
                });
                drop(runtime);
            });
        },
    );
}

/// From when the sender goes on until the message has come.
#[test]
fn a_message_passes_between_workers() {
    check(
        Model::new("a_message_passes_between_workers", 3100, &[]),
        || {
            unexplored(|| {
                let runtime = resting(2);
                let (sender, receiver) = channel::bounded(0);
                let gate = Arc::new(Flag::new());
                let opens = gate.clone();
                let sent = runtime.spawn(move || {
                    gate.wait();
                    sender.send(Message::new(7)).is_ok()
                });
                let other = runtime.spawn(move || {
                    explored(|| {
                        opens.set();
                        receiver.recv().map(Message::read)
                    })
                });
                assert_eq!(other.join().unwrap(), Ok(7));
                assert!(sent.join().unwrap());
                drop(runtime);
            });
        },
    );
}

#[test]
fn a_select_meets_an_end_and_a_message() {
    let witnesses = &["it received", "it saw the end"];
    check(
        Model::new("a_select_meets_an_end_and_a_message", 8000, witnesses),
        || {
            at_rest(1, |runtime| {
                let (sender, receiver) = channel::bounded::<Message>(1);
                let ends = runtime.spawn(|| ());
                let selects = runtime.spawn(move || {
                    let received = weald::select! {
                        recv(receiver) -> message => Some(message.unwrap().read()),
                        join(ends) -> _ => None,
                    };
                    witness!("it received", received.is_some());
                    witness!("it saw the end", received.is_none());
                    if received.is_none() {
                        assert_eq!(receiver.recv().map(Message::read), Ok(7));
                    }
                    ends.join().unwrap();
                });
                assert!(sender.send(Message::new(7)).is_ok());
                selects.join().unwrap();
            });
        },
    );
}

/// From when the other one goes on until both have had the lock.
#[test]
fn two_workers_meet_at_a_mutex() {
    check(Model::new("two_workers_meet_at_a_mutex", 4000, &[]), || {
        unexplored(|| {
            let runtime = resting(2);
            let mutex = Arc::new(weald::sync::Mutex::new(Message::new(0)));
            let (gate, done) = (Arc::new(Flag::new()), Arc::new(Flag::new()));
            let first = runtime.spawn({
                let (mutex, gate, done) = (mutex.clone(), gate.clone(), done.clone());
                move || {
                    gate.wait();
                    mutex.lock().unwrap().add(1);
                    done.set();
                }
            });
            let second = runtime.spawn({
                let mutex = mutex.clone();
                move || {
                    explored(|| {
                        gate.set();
                        mutex.lock().unwrap().add(2);
                        done.wait();
                    });
                }
            });
            first.join().unwrap();
            second.join().unwrap();
            assert_eq!(mutex.lock().unwrap().look(), 3);
            drop(runtime);
        });
    });
}

/// The spawner does not come back: only another worker can run what it spawned.
#[test]
fn a_thread_is_stolen_from_one_that_blocks() {
    check(
        Model::new("a_thread_is_stolen_from_one_that_blocks", 1500, &[]),
        || {
            unexplored(|| {
                let runtime = resting(2);
                runtime.run(|| {
                    explored(|| {
                        let done = Arc::new(Flag::new());
                        let other = done.clone();
                        drop(spawn(move || other.set()));
                        done.wait();
                    });
                });
                drop(runtime);
            });
        },
    );
}

/// From when the one that yields goes on until the other has ended.
#[test]
fn one_that_yields_runs_beside_one_that_is_woken() {
    check(
        Model::new("one_that_yields_runs_beside_one_that_is_woken", 950, &[]),
        || {
            unexplored(|| {
                let runtime = resting(1);
                let waits = runtime.spawn(park);
                let begins = Arc::new(Flag::new());
                let yields = runtime.spawn({
                    let begins = begins.clone();
                    move || {
                        begins.wait();
                        yield_now();
                    }
                });
                thread::yield_now();
                explored(|| {
                    begins.set();
                    waits.thread().unpark();
                    waits.join().unwrap();
                });
                yields.join().unwrap();
                drop(runtime);
            });
        },
    );
}

/// A thread that must not migrate is woken while its carrier, which has lost its seat to a spare, gets it
/// back and goes to sleep: the one that wakes must see the seat, or the carrier the thread.
#[test]
fn a_pinned_thread_is_woken_as_its_carrier_comes_back() {
    check(
        Model::new(
            "a_pinned_thread_is_woken_as_its_carrier_comes_back",
            42000,
            &[],
        ),
        || {
            let (runtime, parked, gate) = unexplored(|| {
                let builder = builder(1).thread_locals(ThreadLocals::Pinned);
                let runtime = builder.build().expect("a model starts");
                let parked = runtime.spawn(park);
                let gate = Arc::new(Flag::new());
                let (inside, others) = (gate.clone(), Arc::new(Flag::new()));
                let ran = others.clone();
                drop(runtime.spawn(move || {
                    // The seat goes to the spare, which runs this one.
                    drop(spawn(move || others.set()));
                    blocking(|| inside.wait());
                }));
                ran.wait();
                thread::yield_now();
                (runtime, parked, gate)
            });
            gate.set();
            parked.thread().unpark();
            parked.join().unwrap();
            unexplored(|| drop(runtime));
        },
    );
}

#[test]
fn a_spawn_meets_the_end_of_the_runtime() {
    ends::meets_a_spawn("a_spawn_meets_the_end_of_the_runtime", 8000);
}

#[test]
fn an_unpark_meets_the_end_of_the_runtime() {
    ends::meets_an_unpark("an_unpark_meets_the_end_of_the_runtime", 11000);
}
