//! Models of the sends of a select. Such a send makes its message only after it was chosen; until then it holds a
//! place in the buffer, or a receiver. `select.rs` has the invariants.

use std::panic::catch_unwind;
use std::time::Duration;

use weald_loom_tests::{Model, check, thread, witness};

use crate::arms::{chosen_send, recv};
use crate::channel::arm::SendArm;
use crate::channel::{RecvError, Select, bounded};
use crate::message::Message;

#[test]
fn a_send_of_a_select_meets_an_exception() {
    check(
        Model::new("a_send_of_a_select_meets_an_exception", 560, &[]),
        || {
            let (sender, receiver) = bounded(0);
            let me = weald_scheduler::current();
            let other = thread::spawn(move || {
                let mut arm = SendArm::new(&sender);
                let ticket = chosen_send(&mut arm);
                // The receiver was chosen and waits for the message, whatever comes.
                me.throw("enough");
                assert!(ticket.send(Message::new(1)).is_ok());
            });
            assert_eq!(recv(&receiver), Ok(1));
            other.join().unwrap();
            let raised = catch_unwind(weald_scheduler::checkpoint).is_err();
            assert!(raised, "it comes with the next call");
        },
    );
}

#[test]
fn a_send_without_a_message_leaves_its_partner() {
    check(
        Model::new("a_send_without_a_message_leaves_its_partner", 860, &[]),
        || {
            let (sender, receiver) = bounded(0);
            let other = thread::spawn(move || recv(&receiver));
            let mut arm = SendArm::new(&sender);
            drop(chosen_send(&mut arm));
            assert!(sender.send(Message::new(1)).is_ok());
            assert_eq!(other.join().unwrap(), Ok(1));
        },
    );
}

#[test]
fn a_send_without_a_message_leaves_its_place() {
    check(
        Model::new("a_send_without_a_message_leaves_its_place", 1000, &[]),
        || {
            let (sender, receiver) = bounded(1);
            let other = thread::spawn({
                let sender = sender.clone();
                move || assert!(sender.send(Message::new(1)).is_ok())
            });
            let last = thread::spawn(move || {
                let mut arm = SendArm::new(&sender);
                drop(chosen_send(&mut arm));
            });
            assert_eq!(recv(&receiver), Ok(1));
            other.join().unwrap();
            last.join().unwrap();
            assert_eq!(recv(&receiver), Err(RecvError));
        },
    );
}

#[test]
fn a_place_without_a_message_goes_to_who_waits() {
    check(
        Model::new("a_place_without_a_message_goes_to_who_waits", 6, &[]),
        || {
            let (sender, receiver) = bounded(1);
            let mut arm = SendArm::new(&sender);
            let ticket = chosen_send(&mut arm);
            let other = thread::spawn({
                let sender = sender.clone();
                move || assert!(sender.send(Message::new(1)).is_ok())
            });
            drop(ticket);
            // It waits for the place, not for a receiver.
            other.join().unwrap();
            assert_eq!(recv(&receiver), Ok(1));
        },
    );
}

#[test]
fn a_late_message_lets_nobody_pass_who_waits() {
    check(
        Model::new("a_late_message_lets_nobody_pass_who_waits", 6, &[]),
        || {
            let (sender, receiver) = bounded(1);
            let mut arm = SendArm::new(&sender);
            let ticket = chosen_send(&mut arm);
            let other = thread::spawn({
                let sender = sender.clone();
                move || assert!(sender.send(Message::new(1)).is_ok())
            });
            assert!(ticket.send(Message::new(2)).is_ok());
            assert_eq!(recv(&receiver), Ok(2));
            // It waits for the place, not for a receiver.
            other.join().unwrap();
            assert_eq!(recv(&receiver), Ok(1));
        },
    );
}

#[test]
fn a_place_that_is_reserved_is_kept() {
    check(
        Model::new("a_place_that_is_reserved_is_kept", 4, &[]),
        || {
            let (sender, receiver) = bounded(2);
            assert!(sender.send(Message::new(1)).is_ok());
            let mut arm = SendArm::new(&sender);
            let ticket = chosen_send(&mut arm);
            let other = thread::spawn(move || recv(&receiver).map(|number| (number, receiver)));
            // One place is the ticket's, the other one that of the message, until it is received.
            let sent = [2, 3].map(|number| sender.try_send(Message::new(number)).is_ok());
            assert_ne!(sent, [true, true], "a place was reserved");
            assert!(ticket.send(Message::new(4)).is_ok());
            let (first, receiver) = other.join().unwrap().expect("there was one");
            assert_eq!(first, 1);
            for (sent, number) in sent.into_iter().zip([2, 3]) {
                if sent {
                    assert_eq!(recv(&receiver), Ok(number));
                }
            }
            assert_eq!(recv(&receiver), Ok(4));
        },
    );
}

#[test]
fn a_late_send_that_leaves_passes_nothing_by() {
    let witnesses = &["it left", "it sent"];
    check(
        Model::new("a_late_send_that_leaves_passes_nothing_by", 500, witnesses),
        || {
            let (sender, receiver) = bounded(0);
            let other = thread::spawn(move || assert_eq!(recv(&receiver), Ok(1)));
            let mut select = Select::new_biased();
            select.send(&sender);
            if let Ok(operation) = select.select_timeout(Duration::from_millis(1)) {
                witness!("it sent");
                assert!(operation.send(&sender, Message::new(1)).is_ok());
            } else {
                witness!("it left");
                assert!(sender.send(Message::new(1)).is_ok());
            }
            other.join().unwrap();
        },
    );
}
