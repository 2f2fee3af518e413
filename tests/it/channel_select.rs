//! `select!` and `Select`: exactly one arm is done, a random one of those that are ready.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald::select;
use weald::sync::channel::{Receiver, Select, Sender, after, bounded, never, tick, unbounded};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MS, Mark, caught, each_mode, each_mode_on, everywhere, green_pair,
    in_each_mode, mark_in, settle, v4, was_killed, with_deadline,
};

#[test]
fn the_arm_that_is_ready_is_done_and_its_body_is_the_callers() {
    everywhere(|| {
        let (sender, receiver) = unbounded();
        let (full, _keep) = bounded::<u8>(0);
        let mut seen = Vec::new();
        loop {
            sender.send(seen.len()).unwrap();
            select! {
                recv(receiver) -> n => {
                    seen.push(n.unwrap());
                    if seen.len() < 3 { continue; }
                    break;
                }
                send(full, 1) -> _ => unreachable!(),
                recv(never::<u8>()) -> _ => unreachable!(),
            }
        }
        assert_eq!(seen, [0, 1, 2]);
        let by_reference = &receiver;
        let value = select! {
            recv(by_reference) -> n => n.ok(),
            default(MS) => None,
        };
        assert_eq!(value, None);
        assert!(select! { recv(&receiver) -> _ => false, default => true });
        // What was borrowed for an arm may be moved by a body.
        drop(sender);
        let ended = select! {
            recv(receiver) -> n => { drop(receiver); n.is_err() }
        };
        assert!(ended);
    });
}

#[test]
fn the_message_is_made_only_when_its_arm_is_chosen() {
    everywhere(|| {
        let (sender, receiver) = bounded(1);
        let made = Count::default();
        let make = || made.add();
        for _ in 0..3 {
            select! {
                send(sender, make()) -> sent => sent.unwrap(),
                default => {}
            }
        }
        assert_eq!((made.get(), receiver.len()), (1, 1));
        // One that cannot be made leaves its place to others.
        let (sender, receiver) = bounded::<u8>(1);
        let fails = || -> u8 { panic!("on purpose") };
        let failed = caught(|| {
            select! {
                send(sender, fails()) -> sent => sent.unwrap(),
            }
        });
        assert!(failed.is_err());
        sender.try_send(3).unwrap();
        assert_eq!(receiver.recv(), Ok(3));
        drop(receiver);
        let sent = select! { send(&sender, 4) -> sent => sent };
        assert_eq!(sent.unwrap_err().into_inner(), 4);
    });
}

#[test]
fn a_message_that_takes_long_to_make_holds_up_no_other() {
    everywhere(|| {
        let (sender, receiver) = bounded(1);
        select! {
            // While this one is made, the only place is taken.
            send(sender, {
                let waits = Flag::default();
                weald::scope(|scope| {
                    scope.spawn(|| {
                        assert!(sender.try_send(1).is_err());
                        waits.set();
                        sender.send(1).unwrap();
                    });
                    waits.wait();
                    settle();
                    assert_eq!(receiver.recv(), Ok(1));
                });
                2
            }) -> sent => sent.unwrap(),
        }
        assert_eq!(receiver.try_recv(), Ok(2));
    });
}

#[test]
fn a_select_with_default_takes_what_waits_behind_a_message_that_takes_long_to_make() {
    everywhere(|| {
        let (sender, receiver) = bounded(1);
        select! {
            send(sender, {
                let got = weald::scope(|scope| {
                    scope.spawn(|| sender.send(1).unwrap());
                    loop {
                        select! {
                            recv(receiver) -> n => break n,
                            // It does not wait yet.
                            default => weald::yield_now(),
                        }
                    }
                });
                assert_eq!(got, Ok(1));
                2
            }) -> sent => sent.unwrap(),
        }
        assert_eq!(receiver.try_recv(), Ok(2));
    });
}

#[test]
fn who_only_tries_meets_a_select_that_waits() {
    everywhere(|| {
        let (sender, receiver) = bounded(0);
        // Makes no message at first.
        let fails = Flag::default();
        let select = {
            let (sender, fails) = (sender.clone(), fails.clone());
            move || {
                let make = |n: u8| {
                    assert!(fails.is_set(), "on purpose");
                    n
                };
                let failed = caught(|| select! { send(sender, make(0)) -> _ => {} });
                fails.set();
                select! { send(sender, make(1)) -> sent => sent.unwrap() }
                select! { send(sender, make(2)) -> sent => sent.unwrap() }
                failed.is_err()
            }
        };
        let other = weald::spawn(select);
        let mut got = Vec::new();
        while got.is_empty() {
            got.extend(receiver.try_recv());
        }
        while got.len() < 2 {
            select! {
                recv(receiver) -> n => got.extend(n),
                default => {}
            }
        }
        assert_eq!(got, [1, 2]);
        assert!(other.join().unwrap());
        assert!(receiver.try_recv().unwrap_err().is_empty());
        drop(sender);
        assert!(receiver.try_recv().unwrap_err().is_disconnected());
    });
}

#[test]
fn every_arm_that_is_always_ready_gets_its_turn() {
    everywhere(|| {
        let channels: Vec<_> = (0..4).map(|_| unbounded()).collect();
        let mut counts = [0; 4];
        for (sender, _) in &channels {
            (0..400).for_each(|_| sender.send(()).unwrap());
        }
        let [a, b, c, d] = &channels[..] else {
            unreachable!()
        };
        for _ in 0..400 {
            let chosen = select! {
                recv(a.1) -> _ => 0,
                recv(b.1) -> _ => 1,
                recv(c.1) -> _ => 2,
                recv(d.1) -> _ => 3,
            };
            counts[chosen] += 1;
        }
        assert!(counts.iter().all(|&n| n > 40), "{counts:?}");
        let left: usize = channels.iter().map(|(_, r)| r.len()).sum();
        assert_eq!(left, 1200);
    });
}

/// Sends on one of two channels, by a select; counts where it went.
fn send_one(a: &Sender<u64>, b: &Sender<u64>, n: u64) -> Option<usize> {
    select! {
        send(a, n) -> sent => sent.is_ok().then_some(0),
        send(b, n) -> sent => sent.is_ok().then_some(1),
        default(HOUR) => None,
    }
}

#[test]
fn selects_that_meet_each_other_commit_to_one_arm_each() {
    for capacity in [0, 1, 4] {
        each_mode(|rt| {
            let (a, from_a) = bounded(capacity);
            let (b, from_b) = bounded(capacity);
            let sending: Vec<_> = (0..4_u64)
                .map(|n| {
                    let (a, b) = (a.clone(), b.clone());
                    rt.spawn(move || {
                        for i in 0..100 {
                            let sent = if n % 2 == 0 {
                                send_one(&a, &b, n * 100 + i)
                            } else {
                                send_one(&b, &a, n * 100 + i)
                            };
                            assert!(sent.is_some());
                        }
                    })
                })
                .collect();
            drop((a, b));
            let receive = |from_a: Receiver<u64>, from_b: Receiver<u64>| {
                move || {
                    let (mut got, mut open) = (Vec::new(), [true, true]);
                    let none = never();
                    while open != [false, false] {
                        let (a, b) = (
                            if open[0] { &from_a } else { &none },
                            if open[1] { &from_b } else { &none },
                        );
                        let (end, message) = select! {
                            recv(b) -> n => (1, n),
                            recv(a) -> n => (0, n),
                        };
                        match message {
                            Ok(n) => got.push(n),
                            Err(_) => open[end] = false,
                        }
                    }
                    got
                }
            };
            let green = rt.spawn(receive(from_a.clone(), from_b.clone()));
            let os = std::thread::spawn(receive(from_a, from_b));
            for thread in sending {
                thread.join().unwrap();
            }
            let mut all = green.join().unwrap();
            all.extend(os.join().unwrap());
            all.sort_unstable();
            assert!(all.into_iter().eq(0..400));
        });
    }
}

#[test]
fn threads_that_swap_by_both_ends_of_two_channels_never_get_stuck() {
    each_mode_on(2, |rt| {
        let (to_left, left) = bounded::<u32>(0);
        let (to_right, right) = bounded::<u32>(0);
        let swap = |send: Sender<u32>, recv: Receiver<u32>| {
            move || {
                let (mut sent, mut got) = (0, 0);
                while sent < 200 || got < 200 {
                    let idle = never();
                    let from = if got < 200 { &recv } else { &idle };
                    if sent < 200 {
                        select! {
                            send(send, sent) -> done => { done.unwrap(); sent += 1; }
                            recv(from) -> n => { assert_eq!(n.unwrap(), got); got += 1; }
                        }
                    } else {
                        assert_eq!(from.recv().unwrap(), got);
                        got += 1;
                    }
                }
            }
        };
        let one = rt.spawn(swap(to_left, right));
        let two = rt.spawn(swap(to_right, left));
        one.join().unwrap();
        two.join().unwrap();
    });
}

#[test]
fn a_select_never_meets_itself() {
    everywhere(|| {
        let (sender, receiver) = bounded::<u8>(0);
        let met = select! {
            send(sender, 1) -> _ => true,
            recv(receiver) -> _ => true,
            default(5 * MS) => false,
        };
        assert!(!met);
    });
}

#[test]
fn timers_joins_and_sockets_are_arms_too() {
    in_each_mode(|| {
        let none = never::<u8>();
        let timed = select! {
            recv(none) -> _ => false,
            recv(after(2 * MS)) -> time => time.is_ok(),
        };
        assert!(timed);

        let go = Flag::default();
        let until = go.clone();
        let thread = Arc::new(weald::spawn(move || {
            until.wait();
            7
        }));
        let early = select! {
            join(&thread) -> _ => false,
            default(MS) => true,
        };
        assert!(early);
        // Any number of waiters.
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let thread = thread.clone();
                weald::spawn(move || {
                    select! {
                        join(&thread) -> _ => true,
                        default(HOUR) => false,
                    }
                })
            })
            .collect();
        go.set();
        for waiter in waiters {
            assert!(waiter.join().unwrap());
        }
        let thread = Arc::into_inner(thread).unwrap();
        select! { join(&thread) -> _ => {} }
        assert_eq!(thread.join().unwrap(), 7);

        let (mut near, mut far) = green_pair(v4());
        let quiet = select! {
            readable(&near) -> _ => false,
            default(MS) => true,
        };
        assert!(quiet);
        let writer = weald::spawn(move || {
            weald::sleep(MS);
            far.write_all(b"x").unwrap();
            far
        });
        let ready = select! {
            readable(&near) -> ready => ready,
            recv(after(HOUR)) -> _ => unreachable!(),
        };
        ready.unwrap();
        near.read_exact(&mut [0]).unwrap();
        select! { writable(&near) -> ready => ready.unwrap() }
        drop(writer.join().unwrap());
    });
}

/// Selects between a partner and a timer that is due at about the same time, again and again.
fn no_timer_is_lost(rounds: u64, partner: &Receiver<()>, timer: fn(Duration) -> Receiver<Instant>) {
    for round in 0..rounds {
        let wait = Duration::from_nanos(15_000 + round * 7919 % 10_000);
        let timer = timer(wait);
        let due = Instant::now() + wait;
        loop {
            select! {
                recv(partner) -> message => message.unwrap(),
                recv(timer) -> _ => break,
            }
            let is_due = Instant::now() >= due;
            assert!(!is_due || !timer.is_empty(), "lost in round {round}");
        }
    }
}

#[test]
fn a_timer_that_is_due_while_a_partner_is_chosen_keeps_its_message() {
    const ROUNDS: u64 = 8000;
    let (sender, partner) = bounded(0);
    let sending = |sender: Sender<()>| move || while sender.send(()).is_ok() {};
    let receiving = |partner: Receiver<()>| {
        move || {
            no_timer_is_lost(ROUNDS, &partner, after);
            no_timer_is_lost(ROUNDS, &partner, tick);
        }
    };
    let senders = [sender.clone(), sender].map(|sender| std::thread::spawn(sending(sender)));
    with_deadline(LIMIT, move || receiving(partner)());
    for sender in senders {
        sender.join().unwrap();
    }

    each_mode_on(2, |rt| {
        let (sender, partner) = bounded(0);
        let receiver = rt.spawn(receiving(partner));
        let senders = [sender.clone(), sender].map(|sender| rt.spawn(sending(sender)));
        receiver.join().unwrap();
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

/// Sends when a select is chosen that was made on another thread.
#[test]
fn a_select_may_go_to_another_thread() {
    each_mode(|rt| {
        let (sender, receiver) = bounded(0);
        let mut select = Select::new();
        let index = select.recv(&receiver);
        std::thread::scope(|s| {
            s.spawn(|| {
                let operation = select.select();
                assert_eq!(operation.index(), index);
                assert_eq!(operation.recv(&receiver), Ok(String::from("here")));
            });
            rt.run(|| sender.send(String::from("here")).unwrap());
        });
    });
}

#[test]
fn an_operation_that_is_dropped_drops_its_message_where_it_may() {
    everywhere(|| {
        let dropped = Count::default();
        let (sender, receiver) = unbounded();
        let mut select = Select::new();
        select.recv(&receiver);
        sender.send(dropped.on_drop()).unwrap();
        assert!(caught(|| drop(select.select())).is_err());
        assert_eq!(dropped.get(), 1);
        // Elsewhere its type may not be dropped.
        sender.send(dropped.on_drop()).unwrap();
        std::thread::scope(|s| {
            let elsewhere = s.spawn(|| caught(|| drop(select.select())).is_err());
            assert!(elsewhere.join().unwrap());
        });
        assert_eq!(dropped.get(), 1);
    });
}

/// A partner meets a select that waits with arms over the same channel, `ROUNDS` times; `select` says which arm
/// was chosen.
fn each_of_them_is_chosen(
    arms: usize,
    mut meet: impl FnMut(),
    mut select: impl FnMut() -> usize + Send + 'static,
) {
    const ROUNDS: usize = 100;
    let mut chosen = vec![0; arms];
    let selects = weald::spawn(move || {
        for _ in 0..ROUNDS * arms {
            chosen[select()] += 1;
        }
        chosen
    });
    for _ in 0..ROUNDS * arms {
        // The select waits by then: with one worker nobody else runs until this thread gives way.
        weald::yield_now();
        meet();
    }
    let chosen = selects.join().unwrap();
    let all = chosen.iter().all(|n| (ROUNDS / 2..ROUNDS * 2).contains(n));
    assert!(all, "{chosen:?} of {ROUNDS} each");
}

#[test]
fn a_select_that_waits_leaves_its_partner_an_even_choice_of_its_arms() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (sender, receiver) = bounded(0);
            let (other, nobody) = (receiver.clone(), never::<()>());
            each_of_them_is_chosen(
                2,
                || sender.send(()).unwrap(),
                move || {
                    select! {
                        recv(receiver) -> _ => 0,
                        recv(nobody) -> _ => unreachable!(),
                        recv(other) -> _ => 1,
                    }
                },
            );
            let (sender, receiver) = bounded(0);
            let other = sender.clone();
            each_of_them_is_chosen(
                2,
                || receiver.recv().unwrap(),
                move || {
                    select! {
                        send(sender, ()) -> _ => 0,
                        send(other, ()) -> _ => 1,
                    }
                },
            );
            // More than have their places on the stack.
            let (sender, receiver) = bounded(0);
            let receivers: Vec<_> = (0..70).map(|_| receiver.clone()).collect();
            each_of_them_is_chosen(
                70,
                || sender.send(()).unwrap(),
                move || {
                    let mut select = Select::new();
                    for receiver in &receivers {
                        select.recv(receiver);
                    }
                    let operation = select.select();
                    let index = operation.index();
                    operation.recv(&receivers[index]).unwrap();
                    index
                },
            );
        });
    });
}

#[test]
fn an_interrupted_select_has_done_nothing() {
    everywhere(|| {
        let (sender, receiver) = bounded::<u8>(0);
        weald::exc_after(MS, Mark(3));
        let result = caught(|| {
            select! {
                recv(receiver) -> _ => {}
                send(sender, 1) -> _ => {}
            }
        });
        assert_eq!(mark_in(&result), Some(3));
        assert!(sender.try_send(1).is_err());
        assert!(receiver.try_recv().is_err());
    });
}

#[test]
fn a_storm_of_kills_over_selects_keeps_the_account() {
    each_mode_on(2, |rt| {
        for capacity in [0, 2] {
            let (a, from_a) = bounded(capacity);
            let (b, from_b) = bounded(capacity);
            let (sent, got) = (Count::default(), Count::default());
            let mut threads = Vec::new();
            for n in 0..40_u64 {
                let (a, b, sent) = (a.clone(), b.clone(), sent.clone());
                let (from_a, from_b, got) = (from_a.clone(), from_b.clone(), got.clone());
                threads.push(rt.spawn(move || {
                    for i in 0..30 {
                        select! {
                            send(a, i) -> done => if done.is_ok() { sent.add(); },
                            send(b, i) -> done => if done.is_ok() { sent.add(); },
                            default(Duration::from_micros(n)) => {}
                        }
                    }
                }));
                threads.push(rt.spawn(move || {
                    for _ in 0..30 {
                        select! {
                            recv(from_b) -> m => if m.is_ok() { got.add(); },
                            recv(from_a) -> m => if m.is_ok() { got.add(); },
                            default(Duration::from_micros(2 * n)) => {}
                        }
                    }
                }));
            }
            for thread in threads.iter().step_by(5) {
                weald::yield_now();
                thread.thread().kill();
            }
            for thread in threads {
                let result = thread.join();
                assert!(result.is_ok() || was_killed(&result));
            }
            let left = from_a.try_iter().count() + from_b.try_iter().count();
            assert_eq!(got.get() + left, sent.get(), "capacity {capacity}");
        }
    });
}

#[test]
fn the_dynamic_select_commits_by_index_and_can_be_used_again() {
    everywhere(|| {
        let channels: Vec<_> = (0..3).map(|_| unbounded()).collect();
        let (full, _keep) = bounded(1);
        full.send(0).unwrap();
        let mut select = Select::new();
        for (_, receiver) in &channels {
            select.recv(receiver);
        }
        let send = select.send(&full);
        assert!(select.try_select().is_err());
        assert!(select.try_ready().is_err());
        assert!(select.select_timeout(MS).is_err());
        assert!(select.ready_timeout(MS).is_err());
        for n in [2, 0] {
            channels[n].0.send(n).unwrap();
            assert_eq!(select.ready(), n);
            let operation = select.select();
            assert_eq!(operation.index(), n);
            assert_eq!(operation.recv(&channels[n].1), Ok(n));
        }
        select.remove(send);
        assert!(caught(|| select.remove(send)).is_err());
        let (free, from) = bounded(1);
        let index = select.send(&free);
        let operation = select.select();
        assert_eq!(operation.index(), index);
        operation.send(&free, 'x').unwrap();
        assert_eq!(from.recv(), Ok('x'));
        channels[1].0.send(1).unwrap();
        let wrong = caught(|| select.select().recv(&channels[0].1));
        assert!(wrong.is_err());
    });
}

#[test]
fn a_wait_for_readiness_ends_when_a_partner_comes() {
    each_mode(|rt| {
        let (sender, receiver) = bounded(0);
        let (sends, receives) = (sender.clone(), receiver.clone());
        let waiter = rt.spawn(move || {
            let mut select = Select::new();
            let (a, b) = (select.recv(&receives), select.send(&sends));
            (select.ready(), a, b)
        });
        settle();
        let theirs = rt.spawn(move || sender.send(1).unwrap());
        let (ready, recv, _) = waiter.join().unwrap();
        assert_eq!(ready, recv);
        assert_eq!(receiver.recv(), Ok(1));
        theirs.join().unwrap();
    });
}
