//! Models of `sync/src/event.rs`, with the wait queue and all that stands behind it. The threads are OS
//! threads, which wait in place.
//!
//! Invariant 1: a thread that waits goes on once the event is set, also if it is reset at once.
//! Invariant 2: a thread that has waited sees what was done before the event was set.
//! Invariant 3: an exception or a limit ends one wait and no other.
#![allow(unsafe_code, reason = "what is told has no lock of its own")]

mod message;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use weald::sync::Event;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::message::Message;

fn spawn<T: Send + 'static>(
    event: &Arc<Event>,
    body: impl FnOnce(&Event) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let event = Arc::clone(event);
    thread::spawn(move || body(&event))
}

#[test]
fn two_wait_and_see_what_was_done() {
    check(
        Model::new("two_wait_and_see_what_was_done", 520, &[]),
        || {
            let event = Arc::new(Event::new());
            let told = Arc::new(Message::new(7));
            let others = [0, 1].map(|_| {
                let told = Arc::clone(&told);
                spawn(&event, move |event| {
                    event.wait();
                    assert_eq!(told.look(), 8);
                })
            });
            told.add(1);
            drop(told);
            event.set();
            for other in others {
                other.join().unwrap();
            }
        },
    );
}

#[test]
fn who_waits_goes_on_though_it_is_reset() {
    check(
        Model::new("who_waits_goes_on_though_it_is_reset", 400, &["it waited"]),
        || {
            let event = Arc::new(Event::new());
            let other = spawn(&event, |event| {
                witness!("it waited", !event.is_set());
                event.wait();
            });
            let setter = spawn(&event, Event::set);
            setter.join().unwrap();
            // Whoever comes from here on waits for the second.
            event.reset();
            event.set();
            other.join().unwrap();
        },
    );
}

#[test]
fn an_exception_ends_one_wait() {
    let witnesses = &["interrupted", "it was set"];
    check(
        Model::new("an_exception_ends_one_wait", 9500, witnesses),
        || {
            let event = Arc::new(Event::new());
            let me = weald_scheduler::current();
            let other = spawn(&event, Event::wait);
            let setter = spawn(&event, move |event| {
                me.throw("enough");
                event.set();
            });
            let seen = catch_unwind(AssertUnwindSafe(|| event.wait())).is_ok();
            witness!("it was set", seen);
            witness!("interrupted", !seen);
            other.join().unwrap();
            setter.join().unwrap();
        },
    );
}

#[test]
fn a_limit_ends_a_wait_or_the_event_does() {
    let witnesses = &["it was set", "it was late"];
    check(
        Model::new("a_limit_ends_a_wait_or_the_event_does", 85, witnesses),
        || {
            let event = Arc::new(Event::new());
            let setter = spawn(&event, Event::set);
            let seen = event.wait_timeout(Duration::from_millis(1));
            witness!("it was set", seen);
            witness!("it was late", !seen);
            setter.join().unwrap();
            assert!(event.wait_timeout(Duration::ZERO), "it stays set");
        },
    );
}
