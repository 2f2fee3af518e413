//! Selects that meet other threads at the same moment: each commits to one arm, and no message and no thread is lost.

use std::time::{Duration, Instant};

use weald::select;
use weald::sync::channel::{Receiver, Select, Sender, after, bounded, never, tick};

use crate::support::{Count, HOUR, LIMIT, each_mode, each_mode_on, was_killed, with_deadline};

/// Sends on one of two channels, by a select. Counts where the message went.
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

/// A partner meets a select that waits with arms over the same channel, `ROUNDS` times. `select` returns which arm
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
            // These are more locks than have their places on the stack.
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
