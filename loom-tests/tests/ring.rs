//! Models of `sync/src/channel/ring.rs`. Whoever holds the channel's lock is one of the threads; the lock itself
//! is in `channel.rs`.
//!
//! Invariant 1: each message that was pushed is popped once, and those of one sender in their order.
//! Invariant 2: a slot has one user at a time.
//! Invariant 3: a message that was pushed before the frost is found by the look that follows; after it none is pushed.
//! Invariant 4: a place that was freed before the frost is found by the look that follows; after it none is freed.
//! Invariant 5: there are never more messages than the capacity.
#![allow(unsafe_code, reason = "messages have no lock of their own")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
mod message;
mod shim;

#[path = "../../sync/src/channel/ring.rs"]
#[allow(dead_code, reason = "much is for those who hold the lock")]
mod ring;

use std::collections::VecDeque;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::message::Message;
use self::ring::{Popped, Refused, Ring};

/// A ring that everybody may use, with messages that have these numbers.
fn ring(capacity: usize, numbers: &[usize]) -> Arc<Ring<Message>> {
    let mut messages: VecDeque<_> = numbers.iter().copied().map(Message::new).collect();
    let ring = Ring::frozen(capacity, &mut messages);
    ring.thaw_tail();
    ring.thaw_head();
    Arc::new(ring)
}

fn push(ring: &Ring<Message>, number: usize) -> Result<(), Refused> {
    let pushed = ring.push(Message::new(number));
    pushed.map_err(|(refused, back)| {
        assert_eq!(back.read(), number);
        refused
    })
}

fn pop(ring: &Ring<Message>) -> Option<usize> {
    match ring.pop() {
        Popped::Message(message) => Some(message.read()),
        Popped::Empty => None,
        Popped::Frozen => panic!("there is no frost"),
    }
}

/// All that is left, by who is alone.
fn rest(ring: &Ring<Message>) -> Vec<usize> {
    std::iter::from_fn(|| ring.pop_held())
        .map(Message::read)
        .collect()
}

#[test]
fn two_senders_get_a_slot_each() {
    check(Model::new("two_senders_get_a_slot_each", 10, &[]), || {
        let ring = ring(3, &[1]);
        let other = thread::spawn({
            let ring = Arc::clone(&ring);
            move || assert_eq!(push(&ring, 2), Ok(()))
        });
        assert_eq!(push(&ring, 3), Ok(()));
        other.join().unwrap();
        assert_eq!(push(&ring, 4), Err(Refused::Full));
        let mut all = rest(&ring);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3]);
    });
}

#[test]
fn two_receivers_get_a_message_each() {
    check(
        Model::new("two_receivers_get_a_message_each", 10, &[]),
        || {
            let ring = ring(2, &[1, 2]);
            let other = thread::spawn({
                let ring = Arc::clone(&ring);
                move || pop(&ring).expect("there are two")
            });
            let mine = pop(&ring).expect("there are two");
            assert_eq!(mine + other.join().unwrap(), 3);
            assert_eq!(pop(&ring), None);
        },
    );
}

#[test]
fn a_slot_goes_from_lap_to_lap() {
    let witnesses = &["full", "pushed", "empty", "popped the second"];
    check(
        Model::new("a_slot_goes_from_lap_to_lap", 20, witnesses),
        || {
            let ring = ring(1, &[1]);
            let other = thread::spawn({
                let ring = Arc::clone(&ring);
                move || {
                    assert_eq!(pop(&ring), Some(1));
                    let second = pop(&ring);
                    witness!("empty", second.is_none());
                    witness!("popped the second", second.is_some());
                    second
                }
            });
            let pushed = push(&ring, 2);
            witness!("full", pushed == Err(Refused::Full));
            witness!("pushed", pushed.is_ok());
            assert!(ring.len() <= 1);
            let second = other.join().unwrap();
            let all: Vec<usize> = second.into_iter().chain(rest(&ring)).collect();
            assert_eq!(all, if pushed.is_ok() { vec![2] } else { vec![] });
        },
    );
}

#[test]
fn what_was_sent_before_the_frost_is_found_after_it() {
    let witnesses = &["before", "after"];
    check(
        Model::new(
            "what_was_sent_before_the_frost_is_found_after_it",
            10,
            witnesses,
        ),
        || {
            let ring = ring(2, &[]);
            let other = thread::spawn({
                let ring = Arc::clone(&ring);
                move || push(&ring, 1)
            });
            ring.freeze_tail();
            let found = ring.pop_held().map(Message::read);
            let pushed = other.join().unwrap();
            witness!("before", pushed.is_ok());
            witness!("after", pushed == Err(Refused::Frozen));
            assert_eq!(found, pushed.ok().map(|()| 1));
            assert_eq!(rest(&ring), [0; 0]);
        },
    );
}

#[test]
fn a_place_that_was_freed_before_the_frost_is_found_after_it() {
    let witnesses = &["before", "after"];
    check(
        Model::new(
            "a_place_that_was_freed_before_the_frost_is_found_after_it",
            10,
            witnesses,
        ),
        || {
            let ring = ring(1, &[1]);
            let other = thread::spawn({
                let ring = Arc::clone(&ring);
                move || match ring.pop() {
                    Popped::Message(message) => Some(message.read()),
                    Popped::Frozen => None,
                    Popped::Empty => panic!("it was full"),
                }
            });
            ring.freeze_tail();
            ring.freeze_head();
            let has_room = ring.len() == 0;
            if has_room {
                // The receiver may still be at the slot.
                ring.push_frozen(Message::new(2));
            }
            let popped = other.join().unwrap();
            witness!("before", has_room);
            witness!("after", !has_room);
            assert_eq!(popped, has_room.then_some(1));
            assert_eq!(rest(&ring), [if has_room { 2 } else { 1 }]);
        },
    );
}

#[test]
fn who_has_the_lock_and_who_has_not_share_out_the_messages() {
    check(
        Model::new(
            "who_has_the_lock_and_who_has_not_share_out_the_messages",
            10,
            &[],
        ),
        || {
            let ring = ring(2, &[1]);
            ring.freeze_tail();
            let other = thread::spawn({
                let ring = Arc::clone(&ring);
                move || match ring.pop() {
                    Popped::Message(message) => message.read(),
                    Popped::Empty => panic!("there is frost on the tail"),
                    Popped::Frozen => 0,
                }
            });
            ring.push_frozen(Message::new(2));
            let mine = ring.pop_held().map_or(0, Message::read);
            let theirs = other.join().unwrap();
            let left: usize = rest(&ring).into_iter().sum();
            assert_eq!(mine + theirs + left, 3, "each once");
            assert!(mine != 0, "there were two");
        },
    );
}
