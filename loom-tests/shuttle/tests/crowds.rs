//! Crowds of green threads do one kind of thing to each other; then all that was begun has ended, and
//! every message, permit, coin and thread is counted. A deadlock is a lost wake-up.
#![cfg(loom)]
#![allow(
    unsafe_code,
    reason = "migration shares thread-locals; the crowds keep nothing in them"
)]

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::sync::{Arc, Condvar as OsCondvar, Mutex as OsMutex};
use weald::sync::channel::{Receiver, Sender, bounded, unbounded};
use weald::sync::{Barrier, Condvar, Event, Mutex, Promise, RwLock, Semaphore, WaitGroup, oneshot};
use weald::{Exception, GreenPool, JoinHandle, Killed, Runtime, ThreadLocals};
use weald_shuttle_tests::random::{below, one_in};
use weald_shuttle_tests::{Deliberate, check};

/// Of whatever length: the clock stands still unless somebody waits until a limit.
const MS: Duration = Duration::from_millis(1);

fn runtime() -> Runtime {
    let builder = Runtime::builder().workers(3).spare_threads(2);
    let builder = if one_in(2) {
        builder.thread_locals(ThreadLocals::Pinned)
    } else {
        // SAFETY: nothing here is kept in thread-locals.
        unsafe { builder.share_thread_locals() }
    };
    builder.build().expect("it starts")
}

/// So many threads that run `body`, each with its number.
fn crowd<T: Send + 'static>(
    rt: &Runtime,
    size: usize,
    body: impl Fn(usize) -> T + Clone + Send + 'static,
) -> Vec<JoinHandle<T>> {
    (0..size)
        .map(|number| {
            let body = body.clone();
            rt.spawn(move || body(number))
        })
        .collect()
}

/// Now and then the others get a turn, or the caller waits for a moment.
fn pause() {
    match below(9) {
        0 | 1 => weald::yield_now(),
        2 => weald::checkpoint(),
        3 => weald::sleep(MS),
        4 => weald::park_timeout(MS),
        _ => {}
    }
}

#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) -> usize {
        self.0.fetch_add(1, SeqCst)
    }

    fn sub(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }

    /// Counts when it is dropped.
    fn on_drop(&self) -> OnDrop {
        OnDrop(self.clone())
    }
}

struct OnDrop(Count);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// While it lives, one more is inside.
struct Inside(Count);

impl Inside {
    fn enter(count: &Count, at_most: usize) -> Self {
        assert!(count.add() < at_most, "more than may be");
        Self(count.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.sub();
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Mark(usize);

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mark {}", self.0)
    }
}

impl std::error::Error for Mark {}

fn was_killed<T>(outcome: &std::thread::Result<T>) -> bool {
    let exception = |payload: &Box<dyn std::any::Any + Send>| {
        let exception = payload.downcast_ref::<Exception>();
        exception.is_some_and(|exception| exception.downcast_ref::<Killed>().is_some())
    };
    outcome.as_ref().err().is_some_and(exception)
}

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

/// Threads hold permits, locks and messages while exceptions come from everywhere.
#[test]
fn cancels() {
    check("cancels", || {
        let rt = runtime();
        let permits = Arc::new(Semaphore::new(2));
        let lock = Arc::new(Mutex::new(()));
        let (inside, holders) = (Count::default(), Count::default());
        let (send, receive) = bounded::<()>(2);
        let (sent, received, marks) = (Count::default(), Count::default(), Count::default());
        let own = (
            permits.clone(),
            lock.clone(),
            inside.clone(),
            holders.clone(),
        );
        let counts = (sent.clone(), received.clone(), marks.clone());
        let ends = (send, receive.clone());
        let body = move |_: usize| {
            let (permits, lock, inside, holders) = &own;
            let (sent, received, marks) = &counts;
            let work = || {
                loop {
                    pause();
                    match below(5) {
                        0 => {
                            let _permit = permits.acquire();
                            let _held = Inside::enter(holders, 2);
                            pause();
                        }
                        1 => {
                            let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
                            let _alone = Inside::enter(inside, 1);
                            pause();
                        }
                        // Nothing is raised between a call that has done something and the count of it.
                        2 => {
                            ends.0.send(()).unwrap();
                            sent.add();
                        }
                        3 => {
                            ends.1.recv().unwrap();
                            received.add();
                        }
                        _ => weald::park(),
                    }
                }
            };
            loop {
                let interrupted: Result<(), Mark> = weald::catch(work);
                assert!(interrupted.is_err());
                marks.add();
            }
        };
        let mut threads = crowd(&rt, 10 + below(10), body);
        let mut thrown = 0;
        while !threads.is_empty() {
            let at = below(threads.len());
            if one_in(2) {
                let thread: JoinHandle<()> = threads.swap_remove(at);
                thread.thread().kill();
                assert!(was_killed(&thread.join()));
            } else {
                threads[at].thread().throw(Mark(1));
                thrown += 1;
            }
        }
        assert!(marks.get() <= thrown, "one was delivered twice");
        assert_eq!(permits.available_permits(), 2);
        assert!(lock.try_lock().is_ok() || lock.is_poisoned());
        assert_eq!((inside.get(), holders.get()), (0, 0));
        assert_eq!(sent.get(), received.get() + receive.try_iter().count());
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

/// Threads offer and take on several channels at once, some with little patience.
#[test]
fn selects() {
    check("selects", || {
        let rt = runtime();
        let ends = [Some(0), Some(1), Some(2), None];
        let [a, b, c, d]: [(Sender<usize>, Receiver<usize>); 4] =
            ends.map(|capacity| capacity.map_or_else(unbounded, bounded));
        let next = Count::default();
        let rest = [b.1.clone(), c.1.clone(), d.1.clone()];
        let body = move |_: usize| {
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            for _ in 0..6 {
                pause();
                let message = next.add();
                match below(4) {
                    0 => weald::select! {
                        send(a.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(b.1) -> message => received.push(message.unwrap()),
                        default(MS) => {}
                    },
                    1 => weald::select! {
                        recv(a.1) -> message => received.push(message.unwrap()),
                        send(b.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(c.1) -> message => received.push(message.unwrap()),
                        default(MS) => {}
                    },
                    2 => weald::select! {
                        send(a.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(a.1) -> message => received.push(message.unwrap()),
                        send(c.0, message) -> done => { done.unwrap(); sent.push(message) },
                        default => {}
                    },
                    _ => weald::select! {
                        send(d.0, message) -> done => { done.unwrap(); sent.push(message) },
                        recv(d.1) -> message => received.push(message.unwrap()),
                        recv(c.1) -> message => received.push(message.unwrap()),
                    },
                }
            }
            (sent, received)
        };
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for thread in crowd(&rt, 10 + below(10), body) {
            let (own_sent, own_received) = thread.join().unwrap();
            sent.extend(own_sent);
            received.extend(own_received);
        }
        received.extend(rest.iter().flat_map(Receiver::try_iter));
        sent.sort_unstable();
        received.sort_unstable();
        assert_eq!(sent, received);
    });
}

/// Ends are dropped while others wait at them.
#[test]
fn channels_that_close() {
    check("channels_that_close", || {
        let rt = runtime();
        let capacity = [Some(0), Some(2), None][below(3)];
        let (send, receive) = capacity.map_or_else(unbounded, bounded);
        let dropped = Count::default();
        let made = Count::default();
        let own = (dropped.clone(), made.clone());
        let producer = move |number: usize| {
            let mut sent = HashSet::new();
            for n in 0..below(6) {
                pause();
                let message = number * 100 + n;
                own.1.add();
                match send.send((message, own.0.on_drop())) {
                    Ok(()) => assert!(sent.insert(message)),
                    Err(back) => {
                        assert_eq!(back.into_inner().0, message);
                        break;
                    }
                }
            }
            sent
        };
        let consumer = move |_: usize| {
            let mut received = HashSet::new();
            for _ in 0..below(10) {
                pause();
                let Ok((message, _)) = receive.recv() else {
                    break;
                };
                assert!(received.insert(message), "received twice");
            }
            received
        };
        // The closures of the crowd hold the ends, so the last of each kind closes its side.
        let (producers, consumers) = (crowd(&rt, 7, producer), crowd(&rt, 7, consumer));
        let (mut sent, mut received) = (HashSet::new(), HashSet::new());
        for thread in producers {
            sent.extend(thread.join().unwrap());
        }
        for thread in consumers {
            for message in thread.join().unwrap() {
                assert!(received.insert(message), "received twice");
            }
        }
        drop(rt);
        assert!(received.is_subset(&sent), "received and not sent");
        assert!(
            capacity != Some(0) || received == sent,
            "lost in a rendezvous"
        );
        assert_eq!(dropped.get(), made.get(), "a message is lost");
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

/// One direction of a connection.
type Line = (Sender<usize>, Receiver<usize>);

fn copy(from: &Receiver<usize>, to: &Sender<usize>) {
    for word in from {
        pause();
        if to.send(word).is_err() {
            break;
        }
    }
}

/// Clients talk to servers through proxies; some are killed, and the proxies' threads too.
#[test]
fn proxies() {
    check("proxies", || {
        let rt = runtime();
        let (connect, accept) = bounded::<(Receiver<usize>, Sender<usize>)>(1);
        let (connect_far, accept_far) = bounded::<(Receiver<usize>, Sender<usize>)>(1);
        let server = rt.spawn(move || {
            weald::scope(|scope| {
                for (from, to) in &accept_far {
                    scope.spawn(move || copy(&from, &to));
                }
            });
        });
        let proxy = rt.spawn(move || {
            weald::scope(|scope| {
                for (from, to) in &accept {
                    let connect_far = connect_far.clone();
                    scope.spawn(move || {
                        let (up, down): (Line, Line) = (bounded(1), bounded(0));
                        if connect_far.send((up.1, down.0)).is_err() {
                            return;
                        }
                        let back = weald::spawn(move || copy(&down.1, &to));
                        if one_in(6) {
                            back.thread().kill();
                        }
                        copy(&from, &up.0);
                        drop(up.0);
                        let _ = back.join();
                    });
                }
            });
        });
        let body = move |number: usize| {
            let (out, back): (Line, Line) = (bounded(1), bounded(1));
            connect.send((out.1, back.0)).unwrap();
            let sender = weald::spawn(move || {
                for n in 0..4 {
                    pause();
                    if out.0.send(number * 10 + n).is_err() {
                        break;
                    }
                }
            });
            for (n, word) in back.1.iter().enumerate() {
                assert_eq!(word, number * 10 + n, "not in its order");
            }
            drop(back.1);
            sender.join().unwrap();
        };
        for client in crowd(&rt, 6, body) {
            if one_in(4) {
                client.thread().kill();
            }
            drop(client.join());
        }
        proxy.join().unwrap();
        server.join().unwrap();
    });
}

/// Limits within limits, around whatever waits.
fn limited(depth: usize, permits: &Semaphore) -> usize {
    let mut elapsed = 0;
    for _ in 0..below(3) {
        let outcome = weald::timeout(MS * 2, || {
            match below(5) {
                0 if depth > 0 => return limited(depth - 1, permits),
                1 => drop(permits.acquire()),
                2 => weald::park(),
                3 => weald::sleep(MS),
                _ => pause(),
            }
            0
        });
        elapsed += outcome.unwrap_or(1);
    }
    elapsed
}

#[test]
fn limits_and_alarms() {
    check("limits_and_alarms", || {
        let rt = runtime();
        let permits = Arc::new(Semaphore::new(1));
        let (fired, cancelled, set) = (Count::default(), Count::default(), Count::default());
        let dropped = Count::default();
        let own = (
            permits.clone(),
            fired.clone(),
            cancelled.clone(),
            set.clone(),
        );
        let held = dropped.clone();
        let body = move |_: usize| {
            let (permits, fired, cancelled, set) = &own;
            for _ in 0..2 {
                limited(2, permits);
                let (fires, held) = (fired.clone(), held.on_drop());
                set.add();
                let call = weald::call_after(MS, move || {
                    fires.add();
                    drop(held);
                });
                // An alarm is raised where the caller waits, or cancelled, and never both.
                let raised = weald::catch::<Mark, _>(|| {
                    let alarm = weald::exc_after(MS, Mark(7));
                    pause();
                    pause();
                    // Nothing is raised after this, whatever it says.
                    alarm.cancel()
                });
                assert_ne!(raised, Ok(false), "neither raised nor cancelled");
                weald::checkpoint();
                if one_in(2) && call.cancel() {
                    cancelled.add();
                    assert!(!call.cancel(), "cancelled twice");
                }
            }
        };
        for thread in crowd(&rt, 10 + below(6), body) {
            thread.join().unwrap();
        }
        // Who waits until a limit moves the clock.
        rt.run(|| {
            while fired.get() + cancelled.get() < set.get() {
                weald::sleep(MS);
            }
        });
        drop(rt);
        assert_eq!(fired.get() + cancelled.get(), set.get());
        assert_eq!(dropped.get(), set.get());
        assert_eq!(permits.available_permits(), 1);
    });
}

struct Bank {
    accounts: [Mutex<i64>; 4],
    table: RwLock<[i64; 3]>,
    baton: (Mutex<usize>, Condvar),
}

impl Bank {
    fn visit(&self) {
        match below(4) {
            0 => {
                let (from, to) = (below(4), below(4));
                if from == to {
                    return;
                }
                // In the order of their numbers, or by trying.
                let mut low = self.accounts[from.min(to)].lock().unwrap();
                pause();
                if let Ok(mut high) = self.accounts[from.max(to)].try_lock_for(MS) {
                    *low -= 5;
                    pause();
                    *high += 5;
                }
            }
            1 => {
                let mut table = self.table.write().unwrap();
                for place in table.iter_mut() {
                    *place += 1;
                    pause();
                }
            }
            2 => {
                let table = self.table.read().unwrap();
                pause();
                assert!(
                    table.iter().all(|place| *place == table[0]),
                    "torn: {table:?}"
                );
            }
            _ => {
                let mut held = self.baton.0.lock().unwrap();
                *held += 1;
                self.baton.1.notify_one();
                held = self.baton.1.wait_timeout(held, MS).unwrap().0;
                *held -= 1;
            }
        }
    }
}

/// Green threads and OS threads share locks, and meet in rounds.
#[test]
fn locks() {
    check("locks", || {
        let rt = runtime();
        let bank = Arc::new(Bank {
            accounts: std::array::from_fn(|_| Mutex::new(100)),
            table: RwLock::new([0; 3]),
            baton: (Mutex::new(0), Condvar::new()),
        });
        let (size, others) = (8 + below(8), 2);
        let barrier = Arc::new(Barrier::new(size + others));
        let leaders = Count::default();
        let own = (bank.clone(), barrier, leaders.clone());
        let body = move |_: usize| {
            for _ in 0..2 {
                for _ in 0..2 {
                    own.0.visit();
                }
                if own.1.wait().is_leader() {
                    own.2.add();
                }
            }
        };
        let os_threads: Vec<_> = (0..others)
            .map(|number| {
                let body = body.clone();
                shuttle::thread::spawn(move || body(number))
            })
            .collect();
        for thread in crowd(&rt, size, body) {
            thread.join().unwrap();
        }
        for thread in os_threads {
            thread.join().unwrap();
        }
        assert_eq!(leaders.get(), 2);
        let balance = |account: &Mutex<i64>| *account.lock().unwrap();
        assert_eq!(bank.accounts.iter().map(balance).sum::<i64>(), 400);
        assert_eq!(*bank.baton.0.lock().unwrap(), 0);
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

/// Many wait for what comes once; some are killed, some are OS threads.
#[test]
fn promises_and_events() {
    check("promises_and_events", || {
        let rt = runtime();
        let (event, promise) = (Arc::new(Event::new()), Arc::new(Promise::new()));
        let group = WaitGroup::new();
        let (came, first) = (Count::default(), oneshot::channel());
        let own = (event.clone(), promise.clone(), came.clone());
        let body = move |number: usize| {
            match number % 3 {
                0 => own.0.wait(),
                1 => assert_eq!(own.1.wait().unwrap(), 7),
                _ => while !own.0.wait_timeout(MS) {},
            }
            own.2.add();
        };
        let os_thread = shuttle::thread::spawn({
            let body = body.clone();
            move || body(1)
        });
        let waiting = crowd(&rt, 15, body);
        let members: Vec<_> = (0..4)
            .map(|_| {
                let group = group.clone();
                rt.spawn(move || {
                    pause();
                    drop(group);
                })
            })
            .collect();
        let (tell, told) = first;
        let teller = rt.spawn(move || {
            pause();
            tell.send(3).unwrap();
        });
        let mut killed = 0;
        for thread in &waiting {
            if one_in(5) {
                thread.thread().kill();
                killed += 1;
            }
        }
        event.set();
        assert!(promise.set(7).is_ok());
        group.wait();
        assert_eq!(told.recv(), Ok(3));
        let mut ended = 0;
        for thread in waiting {
            let outcome = thread.join();
            ended += usize::from(outcome.is_ok());
            assert!(outcome.is_ok() || was_killed(&outcome));
        }
        os_thread.join().unwrap();
        teller.join().unwrap();
        for member in members {
            member.join().unwrap();
        }
        assert_eq!(came.get(), ended + 1);
        assert!(ended + killed >= 15);
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
