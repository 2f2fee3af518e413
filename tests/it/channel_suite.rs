//! `sync::channel`: one suite over all kinds of channels, between green threads, OS threads, and both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use weald::sync::channel::{
    Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError, after, bounded, never, tick, unbounded,
};

use crate::support::{
    Count, Flag, HOUR, MS, Mark, caught, each_mode, each_mode_on, everywhere, in_each_mode,
    mark_in, settle, spin, wait_until, was_killed,
};

/// The capacities of the suite; `None`: unbounded.
const KINDS: [Option<usize>; 6] = [Some(0), Some(1), Some(3), Some(128), Some(5000), None];

fn make<T>(kind: Option<usize>) -> (Sender<T>, Receiver<T>) {
    kind.map_or_else(unbounded, bounded)
}

/// Runs a body on a green or an OS thread, and waits for it later.
enum Thread<T> {
    Green(weald::JoinHandle<T>),
    Os(std::thread::JoinHandle<T>),
}

impl<T: Send + 'static> Thread<T> {
    fn start(rt: &weald::Runtime, os: bool, body: impl FnOnce() -> T + Send + 'static) -> Self {
        if os {
            Self::Os(std::thread::spawn(body))
        } else {
            Self::Green(rt.spawn(body))
        }
    }

    fn join(self) -> T {
        match self {
            Self::Green(handle) => handle.join().unwrap(),
            Self::Os(handle) => handle.join().unwrap(),
        }
    }
}

/// Every kind, mode, number of workers, and mix of threads: (sender is an OS thread, receiver is).
fn each_mix(check: impl Fn(&weald::Runtime, Option<usize>, bool, bool) + Sync) {
    each_mode(|rt| {
        for kind in KINDS {
            for (sends, receives) in [(false, false), (false, true), (true, false), (true, true)] {
                check(rt, kind, sends, receives);
            }
        }
    });
}

#[test]
fn one_to_one_keeps_the_order() {
    each_mix(|rt, kind, sends, receives| {
        let (sender, receiver) = make(kind);
        let sending = Thread::start(rt, sends, move || {
            (0..200).for_each(|n| sender.send(n).unwrap());
        });
        let receiving = Thread::start(rt, receives, move || receiver.iter().collect::<Vec<_>>());
        sending.join();
        assert!(receiving.join().into_iter().eq(0..200));
    });
}

#[test]
fn many_to_many_deliver_each_message_once() {
    each_mix(|rt, kind, sends, receives| {
        let (sender, receiver) = make(kind);
        let sending: Vec<_> = (0..4_u64)
            .map(|n| {
                let sender = sender.clone();
                Thread::start(rt, sends, move || {
                    (0..50).for_each(|i| sender.send(n * 50 + i).unwrap());
                })
            })
            .collect();
        drop(sender);
        let receiving: Vec<_> = (0..3)
            .map(|_| {
                let receiver = receiver.clone();
                Thread::start(rt, receives, move || {
                    receiver.into_iter().collect::<Vec<_>>()
                })
            })
            .collect();
        for thread in sending {
            thread.join();
        }
        let mut all: Vec<u64> = receiving.into_iter().flat_map(Thread::join).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..200));
    });
}

#[test]
fn the_end_of_one_side_is_told_to_the_other() {
    each_mix(|rt, kind, sends, receives| {
        let (sender, receiver) = make::<u8>(kind);
        let waits = Thread::start(rt, receives, move || receiver.recv());
        drop(sender);
        assert_eq!(waits.join(), Err(RecvError));
        let (sender, receiver) = make(kind);
        let fills = Thread::start(rt, sends, move || {
            let mut sent = 0_u32;
            while sender.send(sent).is_ok() {
                sent += 1;
            }
            sender.send(9)
        });
        drop(receiver);
        assert_eq!(fills.join(), Err(SendError(9)));
    });
}

#[test]
fn what_is_sent_before_the_end_is_received_after_it() {
    everywhere(|| {
        for kind in &KINDS[1..] {
            let (sender, receiver) = make(*kind);
            sender.send(1).unwrap();
            drop(sender);
            assert_eq!(receiver.recv(), Ok(1));
            assert_eq!(receiver.recv(), Err(RecvError));
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
            let timed = receiver.recv_timeout(HOUR);
            assert_eq!(timed, Err(RecvTimeoutError::Disconnected));
        }
    });
}

#[test]
fn trying_and_limits_give_the_message_back() {
    everywhere(|| {
        for kind in &KINDS[..3] {
            let (sender, receiver) = make(*kind);
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            let limited = receiver.recv_timeout(MS);
            assert_eq!(limited, Err(RecvTimeoutError::Timeout));
            let past = receiver.recv_deadline(Instant::now());
            assert_eq!(past, Err(RecvTimeoutError::Timeout));
            let capacity = kind.unwrap();
            (0..capacity).for_each(|n| sender.try_send(n).unwrap());
            assert!(sender.is_full() && receiver.is_full());
            assert_eq!(sender.capacity(), Some(capacity));
            assert_eq!((sender.len(), receiver.len()), (capacity, capacity));
            assert_eq!(sender.try_send(77), Err(TrySendError::Full(77)));
            let limited = sender.send_timeout(78, MS);
            assert_eq!(limited, Err(SendTimeoutError::Timeout(78)));
            let past = sender.send_deadline(79, Instant::now());
            assert_eq!(past, Err(SendTimeoutError::Timeout(79)));
            drop(receiver);
            assert_eq!(sender.try_send(1), Err(TrySendError::Disconnected(1)));
            let limited = sender.send_timeout(2, HOUR);
            assert_eq!(limited, Err(SendTimeoutError::Disconnected(2)));
        }
    });
}

#[test]
fn a_rendezvous_waits_until_the_message_is_taken() {
    each_mode(|rt| {
        let (sender, receiver) = bounded(0);
        let sent = Flag::default();
        let tells = sent.clone();
        let sending = rt.spawn(move || {
            sender.send(5).unwrap();
            tells.set();
        });
        settle();
        assert!(!sent.is_set());
        assert_eq!(receiver.recv(), Ok(5));
        sending.join().unwrap();
        assert!(receiver.is_empty() && receiver.is_full());
        assert_eq!(receiver.capacity(), Some(0));
    });
}

#[test]
fn messages_that_nobody_receives_are_dropped_once() {
    everywhere(|| {
        for kind in &KINDS[2..] {
            let drops = Count::default();
            let (sender, receiver) = make(*kind);
            (0..3).for_each(|_| sender.send(drops.on_drop()).unwrap());
            drop(receiver.recv());
            assert_eq!(drops.get(), 1);
            drop(receiver);
            assert_eq!(drops.get(), 3);
            drop(sender.send(drops.on_drop()));
            assert_eq!(drops.get(), 4);
        }
    });
}

#[test]
fn an_exception_ends_a_wait_and_loses_nothing() {
    everywhere(|| {
        for kind in &KINDS[..3] {
            let (sender, receiver) = make(*kind);
            weald::exc_after(MS, Mark(1));
            assert_eq!(mark_in(&caught(|| receiver.recv())), Some(1));
            let capacity = kind.unwrap();
            (0..capacity).for_each(|n| sender.try_send(n).unwrap());
            weald::exc_after(MS, Mark(2));
            assert_eq!(mark_in(&caught(|| sender.send(99))), Some(2));
            assert!(receiver.try_iter().eq(0..capacity));
        }
    });
}

#[test]
fn kills_and_limits_by_the_hundred_keep_the_account() {
    each_mode_on(2, |rt| {
        for kind in KINDS {
            let (sender, receiver) = make(kind);
            let (sent, got) = (Count::default(), Count::default());
            let mut threads = Vec::new();
            for n in 0..60_u64 {
                let (sender, sent) = (sender.clone(), sent.clone());
                let (receiver, got) = (receiver.clone(), got.clone());
                threads.push(rt.spawn(move || {
                    for i in 0..20 {
                        let limit = Duration::from_micros(5 * n);
                        let done = if i % 2 == 0 {
                            sender.send(n).is_ok()
                        } else {
                            sender.send_timeout(n, limit).is_ok()
                        };
                        if done {
                            sent.add();
                        }
                    }
                }));
                threads.push(rt.spawn(move || {
                    loop {
                        let limit = Duration::from_micros(300 + 10 * n);
                        match receiver.recv_timeout(limit) {
                            Ok(_) => drop(got.add()),
                            Err(RecvTimeoutError::Timeout) => weald::yield_now(),
                            Err(RecvTimeoutError::Disconnected) => break,
                        }
                    }
                }));
            }
            for thread in threads.iter().step_by(7) {
                thread.thread().kill();
            }
            drop(sender);
            for thread in threads {
                let result = thread.join();
                assert!(result.is_ok() || was_killed(&result));
            }
            let left = receiver.try_iter().count();
            assert_eq!(got.get() + left, sent.get(), "kind {kind:?}");
        }
    });
}

#[test]
fn clocks_give_their_message_in_time() {
    everywhere(|| {
        let start = Instant::now();
        let once = after(2 * MS);
        assert_eq!(once.try_recv(), Err(TryRecvError::Empty));
        let second = once.clone();
        assert!(once.same_channel(&second));
        assert!(second.recv().unwrap() >= start + 2 * MS);
        assert!(start.elapsed() >= 2 * MS);
        assert_eq!(once.recv_timeout(MS), Err(RecvTimeoutError::Timeout));
        let ticks = tick(MS);
        let times: Vec<_> = ticks.iter().take(3).collect();
        assert!(times[1] >= times[0] + MS && times[2] >= times[1] + MS);
        assert_eq!(ticks.capacity(), Some(1));
        let none = never::<u8>();
        assert_eq!(none.recv_timeout(MS), Err(RecvTimeoutError::Timeout));
        assert_eq!((none.len(), none.capacity()), (0, Some(0)));
        let forever = after(Duration::MAX);
        assert_eq!(forever.recv_timeout(MS), Err(RecvTimeoutError::Timeout));
    });
}

/// On one worker the caller's turn may end as the call begins. Another thread that runs then lets the limit pass,
/// gives way, and sends when it runs again: too late.
#[test]
fn a_limit_counts_from_the_call_also_if_others_are_run_first() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (sender, receiver) = bounded(1);
            let [calls, gave_way, ended] = [const { AtomicBool::new(false) }; 3];
            let neighbour = || {
                while !ended.load(SeqCst) {
                    if calls.swap(false, SeqCst) {
                        if rt.metrics().parked == 0 {
                            spin(8 * MS);
                            gave_way.store(true, SeqCst);
                            weald::yield_now();
                            if rt.metrics().parked == 0 {
                                // Another OS thread has the caller and has not run it yet: a message that is sent
                                // now is in time. If the caller has returned, it asks for this no more.
                                gave_way.store(false, SeqCst);
                            }
                        }
                        sender.try_send(()).unwrap();
                    }
                    weald::yield_now();
                }
            };
            weald::scope(|s| {
                s.spawn(neighbour);
                weald::yield_now();
                // One of these calls is the one that ends a turn, unless the machine disturbs it. Then it is tried
                // again.
                for before in (0..200).cycle() {
                    weald::yield_now();
                    gave_way.store(false, SeqCst);
                    let handovers = rt.metrics().handovers;
                    (0..before).for_each(|_| weald::checkpoint());
                    calls.store(true, SeqCst);
                    let got = receiver.recv_timeout(5 * MS);
                    // If the machine has held up the caller, the other thread ran on another OS thread.
                    if gave_way.load(SeqCst) && rt.metrics().handovers == handovers {
                        ended.store(true, SeqCst);
                        assert_eq!(got, Err(RecvTimeoutError::Timeout));
                        return;
                    }
                    if got.is_err() {
                        receiver.recv().unwrap();
                    }
                }
            });
        });
    });
}

#[test]
fn ends_know_each_other_and_print() {
    let (sender, receiver) = unbounded::<u8>();
    let (other, _rest) = unbounded::<u8>();
    assert!(sender.same_channel(&sender.clone()) && !sender.same_channel(&other));
    assert!(receiver.same_channel(&receiver.clone()));
    assert_eq!(format!("{sender:?}"), "Sender { .. }");
    assert_eq!(format!("{receiver:?}"), "Receiver { .. }");
    assert_eq!(format!("{:?}", SendError(())), "SendError(..)");
    assert_eq!(TrySendError::Full(3).into_inner(), 3);
    assert!(SendTimeoutError::Timeout(()).is_timeout());
    let error: TrySendError<u8> = SendError(1).into();
    assert!(error.is_disconnected());
}

#[test]
fn a_full_channel_stops_its_producer_and_an_idle_receiver_costs_nothing() {
    in_each_mode(|| {
        let (sender, receiver) = bounded(4);
        let made = Count::default();
        let counts = made.clone();
        let producer = weald::spawn(move || {
            for n in 0..100 {
                counts.add();
                sender.send(n).unwrap();
            }
        });
        settle();
        assert!(made.get() <= 5);
        assert!(receiver.iter().eq(0..100));
        producer.join().unwrap();
    });
}

#[test]
fn two_stages_of_a_pipeline_pass_everything_on() {
    each_mode(|rt| {
        let (source, stage) = bounded(2);
        let (next, sink) = bounded(0);
        let doubling = rt.spawn(move || {
            for n in stage {
                next.send(2 * n).unwrap();
            }
        });
        let sending = rt.spawn(move || (1..=50_u64).for_each(|n| source.send(n).unwrap()));
        let sum = rt.run(|| sink.iter().sum::<u64>());
        sending.join().unwrap();
        doubling.join().unwrap();
        assert_eq!(sum, 2550);
        drop(Arc::new(sink));
    });
}

#[test]
fn who_leaves_a_queue_leaves_the_others_in_it() {
    const WAITERS: usize = 300;
    each_mode(|rt| {
        for kind in KINDS {
            let (sender, receiver) = make(kind);
            let got = Count::default();
            let threads: Vec<_> = (0..WAITERS)
                .map(|n| {
                    let (receiver, got) = (receiver.clone(), got.clone());
                    rt.spawn(move || {
                        match n % 3 {
                            0 => receiver.recv().unwrap(),
                            1 => weald::select! { recv(receiver) -> got => got.unwrap() },
                            _ => receiver.recv_timeout(HOUR).unwrap(),
                        }
                        got.add();
                    })
                })
                .collect();
            wait_until(|| rt.metrics().parked == WAITERS);
            let (mut leaving, mut staying) = (Vec::new(), Vec::new());
            for (n, thread) in threads.into_iter().enumerate() {
                let list = if n % 2 == 0 {
                    &mut leaving
                } else {
                    &mut staying
                };
                list.push(thread);
            }
            // The threads leave in no order of the queue.
            for n in 0..leaving.len() {
                leaving[n * 77 % leaving.len()].thread().kill();
            }
            for thread in leaving {
                assert!(was_killed(&thread.join()));
            }
            for _ in 0..staying.len() {
                sender.send(()).unwrap();
            }
            for thread in staying {
                thread.join().unwrap();
            }
            assert_eq!(got.get(), WAITERS / 2);
        }
    });
}

#[test]
fn a_message_that_panics_as_it_is_dropped_leaks_those_behind_it() {
    struct Panics<'a>(&'a Count);
    impl Drop for Panics<'_> {
        fn drop(&mut self) {
            self.0.add();
            panic!("as it is dropped");
        }
    }
    everywhere(|| {
        for kind in [Some(3), None] {
            let dropped = Count::default();
            let (sender, receiver) = make(kind);
            for _ in 0..3 {
                assert!(sender.send(Panics(&dropped)).is_ok());
            }
            assert!(caught(|| drop(receiver)).is_err());
            assert_eq!(dropped.get(), 1);
            let back = sender.send(Panics(&dropped));
            std::mem::forget(back);
        }
    });
}
