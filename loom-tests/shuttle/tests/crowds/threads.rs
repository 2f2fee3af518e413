//! Threads that spawn, join, unpark and block, in pools and scopes, and a runtime that ends meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use shuttle::sync::atomic::AtomicUsize;
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::sync::{Arc, Condvar as OsCondvar, Mutex as OsMutex};
use weald::sync::Semaphore;
use weald::sync::channel::{bounded, unbounded};
use weald::{Exception, GreenPool, JoinHandle};
use weald_shuttle_tests::random::{below, one_in};
use weald_shuttle_tests::{Deliberate, check};

use crate::support::{Count, Inside, MS, crowd, pause, runtime, was_killed};

#[derive(Clone, Default)]
struct Family {
    begun: Count,
    ended: Count,
}

impl Family {
    fn member(&self, generations: usize) {
        self.begun.add();
        pause();
        let children: Vec<_> = (0..if generations > 0 { below(4) } else { 0 })
            .map(|_| {
                let own = self.clone();
                weald::spawn(move || own.member(generations - 1))
            })
            .collect();
        for child in children {
            pause();
            child.join().unwrap();
        }
        self.ended.add();
    }
}

#[test]
fn spawn_and_join() {
    check("spawn_and_join", || {
        let rt = runtime();
        let family = Family::default();
        let own = family.clone();
        for parent in crowd(&rt, 6, move |_| own.member(2)) {
            parent.join().unwrap();
        }
        assert_eq!(family.begun.get(), family.ended.get());
        assert_eq!(rt.metrics().spawned, family.begun.get() as u64);
    });
}

/// Threads take each other's handles, watch them, join them and lose patience.
#[test]
fn joins_and_impatience() {
    check("joins_and_impatience", || {
        let rt = runtime();
        let size = 10 + below(10);
        let (send, receive) = unbounded::<(usize, JoinHandle<usize>)>();
        let (joined, lost) = (Count::default(), Count::default());
        let own = (send.clone(), receive.clone(), joined.clone(), lost.clone());
        let body = move |number: usize| {
            let (send, receive, joined, lost) = &own;
            for _ in 0..below(4) {
                pause();
                let Ok((whose, handle)) = receive.try_recv() else {
                    continue;
                };
                if whose >= number {
                    // Later ones are only watched: nobody waits in a circle.
                    weald::select! {
                        join(&handle) -> _ => assert!(handle.is_finished()),
                        default(MS) => {}
                    }
                    send.send((whose, handle)).unwrap();
                } else if one_in(3) {
                    match weald::timeout(MS, || handle.join()) {
                        Ok(result) => {
                            assert_eq!(result.unwrap(), whose);
                            joined.add();
                        }
                        // The interrupted join has let it go.
                        Err(_) => drop(lost.add()),
                    }
                } else {
                    assert_eq!(handle.join().unwrap(), whose);
                    joined.add();
                }
            }
            number
        };
        for named in crowd(&rt, size, body).into_iter().enumerate() {
            send.send(named).unwrap();
        }
        // Those that are out come back, or are joined, or let go.
        while joined.get() + lost.get() < size {
            for (whose, handle) in receive.try_iter() {
                assert_eq!(handle.join().unwrap(), whose);
                joined.add();
            }
            shuttle::thread::yield_now();
        }
    });
}

/// Of a runtime that ends meanwhile.
#[derive(Clone, Default)]
struct Crew {
    made: Count,
    dropped: Count,
    handles: Arc<OsMutex<Vec<JoinHandle<()>>>>,
}

impl Crew {
    fn member(&self, generations: usize) {
        loop {
            pause();
            match below(8) {
                0 => return,
                1 | 2 if generations > 0 => {
                    self.made.add();
                    let (held, own) = (self.dropped.on_drop(), self.clone());
                    let child = weald::spawn(move || {
                        let _held = held;
                        own.member(generations - 1);
                    });
                    self.handles.lock().unwrap().push(child);
                }
                3 => drop(weald::call_after(MS, || ())),
                4 => weald::park(),
                _ => {}
            }
        }
    }
}

/// A runtime ends while its threads spawn and wait.
#[test]
fn shutdowns() {
    check("shutdowns", || {
        let rt = runtime();
        let crew = Crew::default();
        let own = crew.clone();
        let first = crowd(&rt, 8, move |_| own.member(3));
        for _ in 0..below(200) {
            shuttle::thread::yield_now();
        }
        rt.shutdown(if one_in(2) { Duration::ZERO } else { MS });
        let mut handles = std::mem::take(&mut *crew.handles.lock().unwrap());
        assert_eq!(handles.len(), crew.made.get());
        handles.extend(first);
        for handle in handles {
            assert!(handle.is_finished());
            let outcome = handle.join();
            assert!(outcome.is_ok() || was_killed(&outcome));
        }
        let left = crew.made.get() - crew.dropped.get();
        assert_eq!(left, 0, "a closure's value is lost");
    });
}

/// Threads of a pool spawn into it, are killed and unwind; there are never more of them than seats.
#[test]
fn pools() {
    check("pools", || {
        let rt = runtime();
        let size = 1 + below(3);
        let pool = Arc::new(rt.run(|| GreenPool::new(size)));
        let (inside, ended, spawned) = (Count::default(), Count::default(), Count::default());
        let own = (pool.clone(), inside.clone(), ended.clone(), spawned.clone());
        let body = move |_: usize| {
            let (pool, inside, ended, spawned) = own.clone();
            for _ in 0..3 {
                pause();
                let (inside, ended) = (inside.clone(), ended.on_drop());
                spawned.add();
                let thread = pool.spawn(move || {
                    let _ended = ended;
                    let _inside = Inside::enter(&inside, size);
                    pause();
                    if one_in(8) {
                        resume_unwind(Box::new(Deliberate));
                    }
                });
                match below(4) {
                    0 => thread.thread().kill(),
                    1 => drop(thread.join()),
                    _ => {}
                }
            }
        };
        for thread in crowd(&rt, 8, body) {
            thread.join().unwrap();
        }
        rt.run(|| pool.wait_all());
        assert_eq!(inside.get(), 0);
        assert_eq!((pool.running(), pool.free()), (0, size));
        drop(rt);
        assert_eq!((spawned.get(), ended.get()), (24, 24));
    });
}

/// A token goes round by `unpark`; it comes from green threads and from OS threads.
#[test]
fn unparks() {
    check("unparks", || {
        let rt = runtime();
        let size = 10 + below(10);
        let turn = Arc::new(AtomicUsize::new(0));
        let laps = 3;
        let (send, receive) = bounded(size);
        let members = crowd(&rt, size, move |number| {
            let next: weald::GreenThread = receive.recv().unwrap();
            // Each member has the next one of another; that does not matter.
            for _ in 0..laps {
                weald::park();
                pause();
                next.unpark();
            }
            number
        });
        let threads: Vec<_> = members
            .iter()
            .map(|member| member.thread().clone())
            .collect();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (threads, turn) = (threads.clone(), turn.clone());
                shuttle::thread::spawn(move || {
                    // Until all have ended, tokens may be swallowed by those who hold one.
                    while turn.load(SeqCst) == 0 {
                        for thread in &threads {
                            thread.unpark();
                            shuttle::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for thread in threads.iter().cycle().skip(1).take(size) {
            send.send(thread.clone()).unwrap();
        }
        for (number, member) in members.into_iter().enumerate() {
            assert_eq!(member.join().unwrap(), number);
        }
        turn.store(1, SeqCst);
        for other in others {
            other.join().unwrap();
        }
    });
}

/// Of OS threads, which weald knows nothing of.
#[derive(Default)]
struct Gate(OsMutex<bool>, OsCondvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = self.1.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Some block their OS threads, and the others let them go on.
#[test]
fn blocking_calls() {
    check("blocking_calls", || {
        let rt = runtime();
        let places = Arc::new(Semaphore::new(2));
        let done = Count::default();
        let own = (places, done.clone());
        let body = move |number: usize| {
            for _ in 0..2 {
                pause();
                if number.is_multiple_of(2) {
                    let _place = own.0.acquire();
                    let gate = Arc::new(Gate::default());
                    let opens = gate.clone();
                    let other = weald::spawn(move || opens.open());
                    weald::blocking(|| gate.wait());
                    other.join().unwrap();
                }
                own.1.add();
            }
        };
        for thread in crowd(&rt, 12, body) {
            thread.join().unwrap();
        }
        assert_eq!(done.get(), 24);
    });
}

/// Scopes in scopes, whose threads borrow, unwind, and whose owners are killed.
#[test]
fn scopes() {
    check("scopes", || {
        let rt = runtime();
        let (begun, ended) = (Count::default(), Count::default());
        let own = (begun.clone(), ended.clone());
        let body = move |_: usize| {
            let here = AtomicUsize::new(0);
            let unwinds = one_in(4);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                weald::scope(|scope| {
                    for number in 0..3 {
                        let (here, own) = (&here, &own);
                        scope.spawn(move || {
                            own.0.add();
                            let _ended = own.1.on_drop();
                            pause();
                            here.fetch_add(1, SeqCst);
                            if unwinds && number == 1 {
                                resume_unwind(Box::new(Deliberate));
                            }
                            pause();
                        });
                    }
                    pause();
                });
            }));
            assert!(here.load(SeqCst) <= 3);
            if let Err(payload) = outcome {
                if payload.is::<Exception>() {
                    resume_unwind(payload);
                }
                assert!(unwinds, "a scope unwinds if a thread of it did");
            } else {
                assert_eq!(here.load(SeqCst), 3);
                assert!(!unwinds);
            }
        };
        let threads = crowd(&rt, 8, body);
        for thread in &threads {
            if one_in(4) {
                thread.thread().kill();
            }
        }
        for thread in threads {
            let outcome = thread.join();
            assert!(outcome.is_ok() || was_killed(&outcome));
        }
        assert_eq!(begun.get(), ended.get());
    });
}
