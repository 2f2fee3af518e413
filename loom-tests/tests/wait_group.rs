//! Models of `sync/src/wait_group.rs`, with the wait queue and all that stands behind it. The threads are
//! OS threads, which wait in place.
//!
//! Invariant 1: a waiter goes on once the last of the others is gone, and not before.
//! Invariant 2: it sees what they did.
#![allow(unsafe_code, reason = "what is done has no lock of its own")]

mod message;

use weald::sync::WaitGroup;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread};

use self::message::Message;

#[test]
fn who_waits_sees_what_the_others_did() {
    check(
        Model::new("who_waits_sees_what_the_others_did", 380, &[]),
        || {
            let group = WaitGroup::new();
            let done = [1, 2].map(|number| {
                let (done, member) = (Arc::new(Message::new(0)), group.clone());
                let work = Arc::clone(&done);
                thread::spawn(move || {
                    work.add(number);
                    drop(work);
                    drop(member);
                });
                done
            });
            group.wait();
            assert_eq!(done.each_ref().map(|done| done.look()), [1, 2]);
        },
    );
}

#[test]
fn all_who_wait_go_on() {
    check(Model::new("all_who_wait_go_on", 2300, &[]), || {
        let group = WaitGroup::new();
        let others =
            [group.clone(), group.clone()].map(|member| thread::spawn(move || member.wait()));
        group.wait();
        for other in others {
            other.join().unwrap();
        }
    });
}
