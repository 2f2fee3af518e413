//! Models of `sync/src/selecting/wait.rs` and `scheduler/src/verbs/selection.rs`: one wait for several channels,
//! with the channels and all that stands behind them. The threads are OS threads, which wait in place.
//!
//! Invariant 1: of the arms exactly one commits; the others have no effect, and what they would have
//! taken is there for the next.
//! Invariant 2: selections over the same channels, in whatever roles, do not wait for each other.
//! Invariant 3: the end of a channel ends a selection over it, and uses up no message of another.
//! Invariant 4: an exception or a limit takes no message along.
//! Invariant 5: a send that was chosen and makes no message leaves its partner, or its place, to others
//! (`late_sends/`).
//! All of this holds whichever pass has chosen: the quick pass, the pass under all locks, or a partner.
//! Arms that belong to no channel are in `select_pairs.rs`.
//!
//! The order of the locks is that of the channels' addresses, so the models sort theirs; and the
//! selections are biased, as a fair choice is not the same in each permutation.
#![allow(
    unsafe_code,
    reason = "packets lie on the waiters' stacks, and messages have no lock of their own"
)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
mod arms;
mod late_sends;
mod message;
mod shim;

#[path = "../../sync/src/channel/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "much has no model; outside it is public"
)]
mod channel;
#[path = "../../sync/src/selecting/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "ends have their model in `whole.rs`; outside it is public"
)]
mod selecting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use weald_loom_tests::{Model, check, thread, witness};

use self::arms::channels::{recv_either, recv_or_send, two_channels};
use self::arms::recv;
use self::arms::seen::{PASSES, Seen, recv_either_seen};
use self::channel::arm::SendArm;
use self::channel::{RecvError, Select};
use self::message::Message;
use self::selecting::{Arm, Limit};

/// Two channels, each with a sender of one message, and a select that takes one of the messages.
fn a_quick_pass_meets_two_senders(name: &'static str, floor: u64, capacity: usize) {
    check(Model::new(name, floor, PASSES), move || {
        let ((send_a, recv_a), (send_b, recv_b)) = two_channels(capacity);
        let senders = [(send_a, 1), (send_b, 2)].map(|(sender, number)| {
            thread::spawn(move || {
                assert!(sender.send(Message::new(number)).is_ok());
                sender
            })
        });
        let (first, message) = recv_either_seen(&recv_a, &recv_b);
        assert_eq!(message, Ok(first + 1));
        let left = if first == 0 { &recv_b } else { &recv_a };
        assert_eq!(recv(left), Ok(2 - first), "the other arm took it");
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn a_quick_pass_meets_two_messages() {
    a_quick_pass_meets_two_senders("a_quick_pass_meets_two_messages", 2000, 1);
}

#[test]
fn a_quick_pass_meets_two_that_wait_to_send() {
    a_quick_pass_meets_two_senders("a_quick_pass_meets_two_that_wait_to_send", 4000, 0);
}

#[test]
fn a_quick_pass_meets_a_select_in_opposite_roles() {
    let witnesses = &[
        "in the quick pass",
        "under all locks",
        "by a partner",
        "it sent",
    ];
    check(
        Model::new(
            "a_quick_pass_meets_a_select_in_opposite_roles",
            400,
            witnesses,
        ),
        || {
            let ((send_a, recv_a), (send_b, recv_b)) = two_channels(0);
            let other = thread::spawn(move || recv_or_send(&recv_b, &send_a, 2));
            let (mut from, mut to) = (Seen::new(&recv_a), SendArm::new(&send_b));
            let arms: &mut [&mut dyn Arm] = &mut [&mut from, &mut to];
            if selecting::select(arms, Limit::Until(None), true) == Some(0) {
                assert_eq!(from.0.finish().map(Message::read), Ok(2));
                assert_eq!(other.join().unwrap(), None);
            } else {
                witness!("it sent");
                assert!(to.finish().send(Message::new(1)).is_ok());
                assert_eq!(other.join().unwrap(), Some(1));
            }
        },
    );
}

#[test]
fn a_quick_pass_meets_the_end_of_a_channel() {
    let witnesses = &[
        "in the quick pass",
        "under all locks",
        "by a partner",
        "the end was first",
        "the message was first",
    ];
    check(
        Model::new("a_quick_pass_meets_the_end_of_a_channel", 1500, witnesses),
        || {
            let ((send_a, recv_a), (send_b, recv_b)) = two_channels(1);
            let closer = thread::spawn(move || drop(send_a));
            let sender = thread::spawn(move || {
                assert!(send_b.send(Message::new(2)).is_ok());
            });
            let (first, message) = recv_either_seen(&recv_a, &recv_b);
            if first == 0 {
                witness!("the end was first");
                assert_eq!(message, Err(RecvError));
                assert_eq!(recv(&recv_b), Ok(2));
            } else {
                witness!("the message was first");
                assert_eq!(message, Ok(2));
            }
            closer.join().unwrap();
            sender.join().unwrap();
        },
    );
}

#[test]
fn two_selects_in_opposite_roles_meet_once() {
    let witnesses = &["over the first", "over the second"];
    check(
        Model::new("two_selects_in_opposite_roles_meet_once", 230, witnesses),
        || {
            let ((send_a, recv_a), (send_b, recv_b)) = two_channels(0);
            let other = thread::spawn(move || recv_or_send(&recv_b, &send_a, 2));
            let here = recv_or_send(&recv_a, &send_b, 1);
            let there = other.join().unwrap();
            witness!("over the first", here.is_some());
            witness!("over the second", there.is_some());
            match (here, there) {
                (Some(2), None) | (None, Some(1)) => {}
                other => panic!("not one message: {other:?}"),
            }
        },
    );
}

#[test]
fn two_senders_meet_one_select_each_once() {
    let witnesses = &["the first was first", "the second was first"];
    check(
        Model::new("two_senders_meet_one_select_each_once", 2100, witnesses),
        || {
            let ((send_a, recv_a), (send_b, recv_b)) = two_channels(0);
            let senders = [(send_a, 1), (send_b, 2)].map(|(sender, number)| {
                thread::spawn(move || {
                    assert!(sender.send(Message::new(number)).is_ok());
                    sender
                })
            });
            let (first, message) = recv_either(&recv_a, &recv_b);
            assert_eq!(message, Ok(first + 1));
            witness!("the first was first", first == 0);
            witness!("the second was first", first == 1);
            let left = if first == 0 { &recv_b } else { &recv_a };
            assert_eq!(recv(left), Ok(2 - first), "the other arm took it");
            for sender in senders {
                sender.join().unwrap();
            }
        },
    );
}

#[test]
fn a_select_and_a_receiver_share_out_the_messages() {
    check(
        Model::new("a_select_and_a_receiver_share_out_the_messages", 2100, &[]),
        || {
            let ((send_a, recv_a), (_send_b, recv_b)) = two_channels(0);
            let other = thread::spawn({
                let recv_a = recv_a.clone();
                move || recv(&recv_a).expect("one for each")
            });
            let sender = thread::spawn(move || {
                assert!(send_a.send(Message::new(1)).is_ok());
                assert!(send_a.send(Message::new(2)).is_ok());
            });
            let (index, message) = recv_either(&recv_a, &recv_b);
            assert_eq!(index, 0, "nobody sends to the second");
            let sum = message.expect("one for each") + other.join().unwrap();
            assert_eq!(sum, 3, "each comes once");
            sender.join().unwrap();
        },
    );
}

#[test]
fn the_end_of_one_channel_takes_no_message_of_the_other() {
    let witnesses = &["the end was first", "the message was first"];
    check(
        Model::new(
            "the_end_of_one_channel_takes_no_message_of_the_other",
            1300,
            witnesses,
        ),
        || {
            let ((send_a, recv_a), (send_b, recv_b)) = two_channels(0);
            let closer = thread::spawn(move || drop(send_a));
            let sender = thread::spawn(move || {
                assert!(send_b.send(Message::new(2)).is_ok());
            });
            match recv_either(&recv_a, &recv_b) {
                (0, message) => {
                    witness!("the end was first");
                    assert_eq!(message, Err(RecvError));
                    assert_eq!(recv(&recv_b), Ok(2));
                }
                (_, message) => {
                    witness!("the message was first");
                    assert_eq!(message, Ok(2));
                }
            }
            closer.join().unwrap();
            sender.join().unwrap();
        },
    );
}

#[test]
fn the_end_of_a_channel_ends_a_send_and_a_receive() {
    check(
        Model::new("the_end_of_a_channel_ends_a_send_and_a_receive", 45, &[]),
        || {
            let ((send_a, recv_a), (send_b, recv_b)) = two_channels(0);
            let closer = thread::spawn(move || drop((send_a, recv_b)));
            let mut select = Select::new_biased();
            select.recv(&recv_a);
            select.send(&send_b);
            let operation = select.select();
            if operation.index() == 0 {
                assert!(operation.recv(&recv_a).is_err());
            } else {
                assert!(operation.send(&send_b, Message::new(1)).is_err());
            }
            closer.join().unwrap();
        },
    );
}

#[test]
fn an_exception_in_a_select_takes_no_message() {
    let witnesses = &["interrupted", "received"];
    check(
        Model::new("an_exception_in_a_select_takes_no_message", 820, witnesses),
        || {
            let ((_send_a, recv_a), (send_b, recv_b)) = two_channels(0);
            let me = weald_scheduler::current();
            let other = thread::spawn(move || {
                me.throw("enough");
                assert!(send_b.send(Message::new(2)).is_ok());
            });
            let either = || recv_either(&recv_a, &recv_b);
            match catch_unwind(AssertUnwindSafe(either)) {
                Ok(chosen) => {
                    witness!("received");
                    assert_eq!(chosen, (1, Ok(2)));
                }
                Err(_) => {
                    witness!("interrupted");
                    assert_eq!(recv(&recv_b), Ok(2));
                }
            }
            other.join().unwrap();
        },
    );
}

#[test]
fn a_select_that_leaves_passes_nothing_by() {
    let witnesses = &["it left", "it received"];
    check(
        Model::new("a_select_that_leaves_passes_nothing_by", 100, witnesses),
        || {
            let ((_send_a, recv_a), (send_b, recv_b)) = two_channels(0);
            let other = thread::spawn(move || assert!(send_b.send(Message::new(2)).is_ok()));
            let mut select = Select::new_biased();
            select.recv(&recv_a);
            select.recv(&recv_b);
            match select.select_timeout(Duration::from_millis(1)) {
                Ok(operation) => {
                    witness!("it received");
                    assert_eq!(operation.recv(&recv_b).map(Message::read), Ok(2));
                }
                Err(_) => {
                    witness!("it left");
                    assert_eq!(recv(&recv_b), Ok(2));
                }
            }
            other.join().unwrap();
        },
    );
}

#[test]
fn who_only_tries_meets_a_select_that_waits() {
    let witnesses = &["met it", "came first"];
    check(
        Model::new("who_only_tries_meets_a_select_that_waits", 88, witnesses),
        || {
            let ((send_a, recv_a), (_send_b, recv_b)) = two_channels(0);
            let other = thread::spawn(move || {
                assert_eq!(recv_or_send(&recv_b, &send_a, 1), None);
            });
            if let Ok(message) = recv_a.try_recv() {
                witness!("met it");
                assert_eq!(message.read(), 1);
            } else {
                witness!("came first");
                assert_eq!(recv(&recv_a), Ok(1));
            }
            other.join().unwrap();
        },
    );
}

#[test]
fn who_watches_is_told_of_a_message() {
    check(
        Model::new("who_watches_is_told_of_a_message", 28, &[]),
        || {
            let ((_send_a, recv_a), (send_b, recv_b)) = two_channels(1);
            // It has its ring now, which the sender can use without the lock.
            assert!(send_b.send(Message::new(1)).is_ok());
            assert_eq!(recv(&recv_b), Ok(1));
            let other = thread::spawn(move || {
                assert!(send_b.send(Message::new(2)).is_ok());
                // Its end would be told as well.
                send_b
            });
            let mut select = Select::new_biased();
            select.recv(&recv_a);
            select.recv(&recv_b);
            assert_eq!(select.ready(), 1);
            assert_eq!(recv_b.try_recv().map(Message::read), Ok(2));
            drop(other.join().unwrap());
        },
    );
}
