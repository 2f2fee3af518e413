//! Models of `sync/src/channel`: the messages, who waits to send, who waits to receive, the end of
//! either side. The threads are OS threads, which wait in place; what `select!` adds is in `select.rs`.
//!
//! Invariant 1: each message reaches one receiver, or comes back to its sender, or is dropped with the
//! channel; those of one sender in their order.
//! Invariant 2: nobody waits while there is somebody to meet, a message or a place.
//! Invariant 3: who leaves early takes no message along, and leaves none behind.
//! Invariant 4: the end of one side ends every wait of the other.
//! Invariant 5: what was done before a send is seen after its receive.
#![allow(unsafe_code, reason = "messages have no lock of their own")]

mod message;
mod times;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use weald::sync::channel::{
    Receiver, RecvError, Select, SendTimeoutError, Sender, TryRecvError, bounded, unbounded,
};
use weald_loom_tests::{Model, check, thread, witness};

use self::message::Message;

fn channel_of(capacity: Option<usize>) -> (Sender<Message>, Receiver<Message>) {
    capacity.map_or_else(unbounded, bounded)
}

fn recv(receiver: &Receiver<Message>) -> Result<usize, RecvError> {
    receiver.recv().map(Message::read)
}

/// Receives; `None`: an exception was first.
fn recv_unless_interrupted(receiver: &Receiver<Message>) -> Option<usize> {
    catch_unwind(AssertUnwindSafe(|| {
        recv(receiver).expect("a sender is left")
    }))
    .ok()
}

/// A sender of two against the receiver, which learns of the end.
fn messages_arrive_in_order(name: &'static str, floor: u64, capacity: Option<usize>) {
    let witnesses = &["there was room", "it waited"];
    check(Model::new(name, floor, witnesses), move || {
        let (sender, receiver) = channel_of(capacity);
        let other = thread::spawn(move || {
            for number in [1, 2] {
                match sender.try_send(Message::new(number)) {
                    Ok(()) => witness!("there was room"),
                    Err(error) => {
                        witness!("it waited");
                        assert!(sender.send(error.into_inner()).is_ok());
                    }
                }
            }
        });
        assert_eq!(recv(&receiver), Ok(1));
        assert_eq!(recv(&receiver), Ok(2));
        assert_eq!(recv(&receiver), Err(RecvError));
        other.join().unwrap();
    });
}

#[test]
fn messages_pass_from_hand_to_hand() {
    messages_arrive_in_order("messages_pass_from_hand_to_hand", 800, Some(0));
}

#[test]
fn messages_pass_through_one_place() {
    messages_arrive_in_order("messages_pass_through_one_place", 580, Some(1));
}

#[test]
fn a_place_that_is_free_goes_to_who_waits() {
    check(
        Model::new("a_place_that_is_free_goes_to_who_waits", 6, &[]),
        || {
            let (sender, receiver) = channel_of(Some(1));
            assert!(sender.send(Message::new(1)).is_ok());
            let other = thread::spawn(move || {
                assert!(sender.send(Message::new(2)).is_ok());
                sender
            });
            assert_eq!(recv(&receiver), Ok(1));
            // It waits for the place, not for a receiver.
            let _sender = other.join().unwrap();
            assert_eq!(recv(&receiver), Ok(2));
        },
    );
}

/// A sender of one, which is gone afterwards, and another sender, which is gone before or after.
fn two_senders_end_the_receive(name: &'static str, floor: u64, capacity: Option<usize>) {
    check(Model::new(name, floor, &[]), move || {
        let (sender, receiver) = channel_of(capacity);
        let senders = [(1, sender.clone()), (2, sender)].map(|(number, sender)| {
            thread::spawn(move || assert!(sender.send(Message::new(number)).is_ok()))
        });
        let first = recv(&receiver).expect("a message comes");
        let second = recv(&receiver).expect("another comes");
        assert_eq!(first + second, 3, "each comes once");
        assert_eq!(recv(&receiver), Err(RecvError));
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn two_senders_meet_one_receiver() {
    two_senders_end_the_receive("two_senders_meet_one_receiver", 5600, Some(0));
}

#[test]
fn two_senders_share_one_place() {
    two_senders_end_the_receive("two_senders_share_one_place", 5600, Some(1));
}

#[test]
fn two_senders_need_no_place() {
    two_senders_end_the_receive("two_senders_need_no_place", 4900, None);
}

#[test]
fn two_receivers_share_out_the_messages() {
    check(
        Model::new("two_receivers_share_out_the_messages", 520, &[]).bounded(1),
        || {
            let (sender, receiver) = channel_of(Some(1));
            let others = [receiver.clone(), receiver]
                .map(|receiver| thread::spawn(move || recv(&receiver).expect("one for each")));
            assert!(sender.send(Message::new(1)).is_ok());
            assert!(sender.send(Message::new(2)).is_ok());
            let got = others.map(|other| other.join().unwrap());
            assert_eq!(got.iter().sum::<usize>(), 3, "each comes once");
        },
    );
}

#[test]
fn the_last_sender_ends_every_receive() {
    check(
        Model::new("the_last_sender_ends_every_receive", 720, &[]),
        || {
            let (sender, receiver) = channel_of(Some(0));
            let other = thread::spawn({
                let receiver = receiver.clone();
                move || assert_eq!(recv(&receiver), Err(RecvError))
            });
            let last = thread::spawn({
                let sender = sender.clone();
                move || drop(sender)
            });
            drop(sender);
            assert_eq!(recv(&receiver), Err(RecvError));
            other.join().unwrap();
            last.join().unwrap();
        },
    );
}

#[test]
fn the_last_receiver_ends_every_send() {
    let witnesses = &["it was received", "it came back"];
    check(
        Model::new("the_last_receiver_ends_every_send", 230, witnesses),
        || {
            let (sender, receiver) = channel_of(Some(0));
            let others = [(1, sender.clone()), (2, sender)].map(|(number, sender)| {
                thread::spawn(move || match sender.send(Message::new(number)) {
                    Ok(()) => None,
                    Err(error) => Some(error.into_inner().read()),
                })
            });
            let got = receiver.try_recv().map(Message::read).ok();
            drop(receiver);
            let back = others.map(|other| other.join().unwrap());
            let mut all: Vec<usize> = back.into_iter().chain([got]).flatten().collect();
            all.sort_unstable();
            assert_eq!(all, [1, 2], "each is somewhere, once");
            witness!("it was received", got.is_some());
            witness!("it came back", got.is_none());
        },
    );
}

#[test]
fn a_message_that_nobody_receives_is_dropped() {
    check(
        Model::new("a_message_that_nobody_receives_is_dropped", 2, &[]),
        || {
            let (sender, receiver) = bounded(1);
            let message = weald_loom_tests::sync::Arc::new(());
            let mine = weald_loom_tests::sync::Arc::clone(&message);
            // It has its ring now, which the sender can use without the lock.
            assert!(
                sender
                    .send(weald_loom_tests::sync::Arc::clone(&message))
                    .is_ok()
            );
            drop(receiver.recv());
            let other = thread::spawn(move || {
                let _ = sender.send(mine);
                sender
            });
            drop(receiver);
            let _sender = other.join().unwrap();
            // Though a sender is left.
            assert_eq!(weald_loom_tests::sync::Arc::strong_count(&message), 1);
        },
    );
}

#[test]
fn a_deque_stands_behind_its_ring() {
    check(
        Model::new("a_deque_stands_behind_its_ring", 1300, &[]),
        || {
            let (sender, receiver) = channel_of(None);
            // In a model the ring has one slot.
            assert!(sender.send(Message::new(1)).is_ok());
            assert!(sender.send(Message::new(2)).is_ok());
            let other = thread::spawn(move || {
                for number in [3, 4] {
                    assert!(sender.send(Message::new(number)).is_ok());
                }
            });
            for number in [1, 2, 3, 4] {
                assert_eq!(recv(&receiver), Ok(number));
            }
            other.join().unwrap();
            assert_eq!(recv(&receiver), Err(RecvError));
        },
    );
}

/// The second message moves the first one into a ring, while a selection that does not wait asks for room.
#[test]
fn messages_that_move_into_the_ring_fill_no_place_twice() {
    let witnesses = &["was first", "was last"];
    check(
        Model::new(
            "messages_that_move_into_the_ring_fill_no_place_twice",
            20,
            witnesses,
        ),
        || {
            let (sender, receiver) = channel_of(Some(3));
            let other = thread::spawn({
                let sender = sender.clone();
                move || {
                    for number in [1, 2] {
                        assert!(sender.send(Message::new(number)).is_ok());
                    }
                }
            });
            let mut select = Select::new();
            select.send(&sender);
            let room = select.try_select().expect("there are two others at most");
            assert!(room.send(&sender, Message::new(3)).is_ok());
            other.join().unwrap();
            let received = [(); 3].map(|()| recv(&receiver).expect("it was sent"));
            witness!("was first", received == [3, 1, 2]);
            witness!("was last", received == [1, 2, 3]);
            assert_eq!(received.iter().sum::<usize>(), 6);
        },
    );
}

#[test]
fn who_only_tries_is_told_of_the_end() {
    let witnesses = &["empty", "received"];
    check(
        Model::new("who_only_tries_is_told_of_the_end", 10, witnesses),
        || {
            let (sender, receiver) = channel_of(Some(2));
            assert!(sender.send(Message::new(1)).is_ok());
            let other = thread::spawn(move || assert!(sender.send(Message::new(2)).is_ok()));
            assert_eq!(receiver.try_recv().map(Message::read), Ok(1));
            let second = receiver.try_recv().map(Message::read);
            witness!("empty", second == Err(TryRecvError::Empty));
            witness!("received", second == Ok(2));
            other.join().unwrap();
            if second == Err(TryRecvError::Empty) {
                assert_eq!(receiver.try_recv().map(Message::read), Ok(2));
            }
            let end = receiver.try_recv().map(Message::read);
            assert_eq!(end, Err(TryRecvError::Disconnected));
        },
    );
}

/// An exception against a message: whoever is interrupted is as if it had not come.
fn an_exception_takes_no_message(name: &'static str, floor: u64, capacity: Option<usize>) {
    let witnesses = &["interrupted", "received"];
    check(Model::new(name, floor, witnesses), move || {
        let (sender, receiver) = channel_of(capacity);
        let me = weald_scheduler::current();
        let other = thread::spawn(move || {
            me.throw("enough");
            assert!(sender.send(Message::new(1)).is_ok());
        });
        match recv_unless_interrupted(&receiver) {
            Some(number) => {
                witness!("received");
                assert_eq!(number, 1);
            }
            None => {
                witness!("interrupted");
                assert_eq!(recv(&receiver), Ok(1));
            }
        }
        other.join().unwrap();
    });
}

#[test]
fn an_exception_takes_no_message_from_a_hand() {
    an_exception_takes_no_message("an_exception_takes_no_message_from_a_hand", 820, Some(0));
}

#[test]
fn an_exception_takes_no_message_from_a_place() {
    an_exception_takes_no_message("an_exception_takes_no_message_from_a_place", 710, Some(1));
}

#[test]
fn a_receiver_that_leaves_passes_nothing_by() {
    let witnesses = &["it left", "it received"];
    check(
        Model::new("a_receiver_that_leaves_passes_nothing_by", 100, witnesses),
        || {
            let (sender, receiver) = channel_of(Some(0));
            let other = thread::spawn(move || assert!(sender.send(Message::new(1)).is_ok()));
            let limit = Duration::from_millis(1);
            match receiver.recv_timeout(limit) {
                Ok(message) => {
                    witness!("it received");
                    assert_eq!(message.read(), 1);
                }
                Err(error) => {
                    witness!("it left");
                    assert!(error.is_timeout(), "the sender sends first");
                    assert_eq!(recv(&receiver), Ok(1));
                }
            }
            other.join().unwrap();
        },
    );
}

#[test]
fn a_sender_that_leaves_takes_its_message() {
    let witnesses = &["it left", "it sent"];
    check(
        Model::new("a_sender_that_leaves_takes_its_message", 100, witnesses),
        || {
            let (sender, receiver) = channel_of(Some(0));
            let other = thread::spawn(move || recv(&receiver));
            let limit = Duration::from_millis(1);
            let sent = sender.send_timeout(Message::new(1), limit);
            drop(sender);
            let got = other.join().unwrap();
            match sent {
                Ok(()) => {
                    witness!("it sent");
                    assert_eq!(got, Ok(1));
                }
                Err(SendTimeoutError::Timeout(message)) => {
                    witness!("it left");
                    assert_eq!(message.read(), 1);
                    assert_eq!(got, Err(RecvError), "it is with its sender");
                }
                Err(SendTimeoutError::Disconnected(_)) => panic!("the receiver waits"),
            }
        },
    );
}

#[test]
fn a_receiver_that_leaves_leaves_the_others_in_the_queue() {
    check(
        Model::new(
            "a_receiver_that_leaves_leaves_the_others_in_the_queue",
            100,
            &[],
        ),
        || {
            let (sender, receiver) = channel_of(Some(1));
            let leaves = thread::spawn({
                let receiver = receiver.clone();
                move || {
                    let got = receiver.recv_timeout(Duration::from_millis(1));
                    got.map(Message::read).ok()
                }
            });
            let stays = thread::spawn(move || recv(&receiver));
            let left = leaves.join().unwrap();
            assert_eq!(left, None, "nothing was sent yet");
            // Nothing else ends the wait of the other one.
            assert!(sender.send(Message::new(1)).is_ok());
            assert_eq!(stays.join().unwrap(), Ok(1));
        },
    );
}

#[test]
fn a_sender_that_leaves_leaves_the_others_in_the_queue() {
    check(
        Model::new(
            "a_sender_that_leaves_leaves_the_others_in_the_queue",
            100,
            &[],
        ),
        || {
            let (sender, receiver) = channel_of(Some(0));
            let leaves = thread::spawn({
                let sender = sender.clone();
                move || {
                    let sent = sender.send_timeout(Message::new(1), Duration::from_millis(1));
                    assert!(sent.is_err(), "nobody receives before");
                }
            });
            let stays = thread::spawn(move || {
                assert!(sender.send(Message::new(2)).is_ok());
                sender
            });
            leaves.join().unwrap();
            assert_eq!(recv(&receiver), Ok(2));
            drop(stays.join().unwrap());
        },
    );
}

#[test]
fn who_watches_no_more_leaves_the_others_in_the_queue() {
    check(
        Model::new(
            "who_watches_no_more_leaves_the_others_in_the_queue",
            100,
            &[],
        ),
        || {
            let (sender, receiver) = channel_of(Some(1));
            let leaves = thread::spawn({
                let receiver = receiver.clone();
                move || {
                    let mut select = Select::new_biased();
                    select.recv(&receiver);
                    assert!(select.ready_timeout(Duration::from_millis(1)).is_err());
                }
            });
            let stays = thread::spawn(move || {
                let mut select = Select::new_biased();
                select.recv(&receiver);
                assert_eq!(select.ready(), 0);
                assert_eq!(receiver.try_recv().map(Message::read), Ok(1));
            });
            leaves.join().unwrap();
            assert!(sender.send(Message::new(1)).is_ok());
            stays.join().unwrap();
        },
    );
}

#[test]
fn an_exception_in_a_send_drops_its_message() {
    let witnesses = &["interrupted", "sent"];
    check(
        Model::new("an_exception_in_a_send_drops_its_message", 590, witnesses),
        || {
            let (sender, receiver) = channel_of(Some(0));
            let me = weald_scheduler::current();
            let other = thread::spawn(move || {
                me.throw("enough");
                recv(&receiver)
            });
            let send = || assert!(sender.send(Message::new(1)).is_ok());
            let sent = catch_unwind(AssertUnwindSafe(send)).is_ok();
            drop(sender);
            let got = other.join().unwrap();
            witness!("sent", sent);
            witness!("interrupted", !sent);
            assert_eq!(got, if sent { Ok(1) } else { Err(RecvError) });
        },
    );
}
