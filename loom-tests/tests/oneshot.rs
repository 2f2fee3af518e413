//! Models of `sync/src/oneshot.rs`, with the channel and all that stands behind it. The threads are OS
//! threads, which wait in place.
//!
//! Invariant 1: the message reaches the receiver, also after its sender's end, or comes back, or is
//! dropped with the channel.
//! Invariant 2: the end of a sender without a message ends the wait.
//! Invariant 3: a receiver that leaves by its limit can ask again.
#![allow(unsafe_code, reason = "messages have no lock of their own")]

mod message;

use std::time::Duration;

use weald::sync::oneshot;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::message::Message;

#[test]
fn a_message_outlives_its_sender() {
    check(Model::new("a_message_outlives_its_sender", 38, &[]), || {
        let (sender, receiver) = oneshot::channel();
        let other = thread::spawn(move || {
            assert!(sender.send(Message::new(1)).is_ok());
        });
        assert_eq!(receiver.recv().map(Message::read), Ok(1));
        other.join().unwrap();
    });
}

#[test]
fn a_sender_without_a_message_ends_the_wait() {
    check(
        Model::new("a_sender_without_a_message_ends_the_wait", 28, &[]),
        || {
            let (sender, receiver) = oneshot::channel::<Message>();
            let other = thread::spawn(move || drop(sender));
            assert!(receiver.recv().is_err());
            other.join().unwrap();
        },
    );
}

#[test]
fn a_receiver_that_leaves_can_ask_again() {
    let witnesses = &["it left", "it received"];
    check(
        Model::new("a_receiver_that_leaves_can_ask_again", 90, witnesses),
        || {
            let (sender, receiver) = oneshot::channel();
            let other = thread::spawn(move || {
                assert!(sender.send(Message::new(1)).is_ok());
            });
            match receiver.recv_timeout(Duration::from_millis(1)) {
                Ok(message) => {
                    witness!("it received");
                    assert_eq!(message.read(), 1);
                    assert!(receiver.try_recv().is_err(), "it comes once");
                }
                Err(error) => {
                    witness!("it left");
                    assert!(error.is_timeout(), "the message comes first");
                    assert_eq!(receiver.recv().map(Message::read), Ok(1));
                }
            }
            other.join().unwrap();
        },
    );
}

#[test]
fn a_message_without_a_receiver_is_dropped_or_comes_back() {
    let witnesses = &["it was sent", "it came back"];
    check(
        Model::new(
            "a_message_without_a_receiver_is_dropped_or_comes_back",
            2,
            witnesses,
        ),
        || {
            let (sender, receiver) = oneshot::channel();
            let message = Arc::new(());
            let other = thread::spawn({
                let message = Arc::clone(&message);
                move || sender.send(message).is_err()
            });
            drop(receiver);
            let came_back = other.join().unwrap();
            witness!("it was sent", !came_back);
            witness!("it came back", came_back);
            assert_eq!(Arc::strong_count(&message), 1);
        },
    );
}
