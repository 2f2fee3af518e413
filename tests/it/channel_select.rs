//! `select!` and `Select`: exactly one arm is done, a random one of those that are ready.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use weald::select;
use weald::sync::channel::{Select, after, bounded, never, unbounded};

use crate::support::{
    Count, Flag, HOUR, MS, Mark, caught, each_mode, everywhere, green_pair, in_each_mode, mark_in,
    settle, v4,
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
        // A body may move what was borrowed for an arm.
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
        // A message that cannot be made leaves its place to others.
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
            // While this message is made, the only place is taken.
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
        // Otherwise its type may not be dropped.
        sender.send(dropped.on_drop()).unwrap();
        std::thread::scope(|s| {
            let elsewhere = s.spawn(|| caught(|| drop(select.select())).is_err());
            assert!(elsewhere.join().unwrap());
        });
        assert_eq!(dropped.get(), 1);
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
