//! Models of `scheduler/src/engine/carrier/mail.rs`: what is sent to a carrier that is about to get a seat.
//!
//! Door, seats and idle protocol are production code; a carrier does what `Carrier::run` and
//! `Carrier::idle` do until it has got its mail.
//!
//! Invariant 1: a carrier does not sleep while it has mail: it sees the mail, or the sender sees its seat, or the
//! sender calls it. A letter that nobody takes is a deadlock.
//! Invariant 2: each letter is taken once, and the taker sees what was done before it was sent.
#![cfg(loom)]
#![allow(unsafe_code, reason = "seats by their address, and what has no lock")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/door.rs"]
#[allow(dead_code, reason = "nobody seizes")]
mod door;
#[path = "../../scheduler/src/parts/idle.rs"]
#[allow(dead_code, reason = "there is one worker")]
mod idle;
#[path = "../../scheduler/src/engine/carrier/mail.rs"]
mod mail;
mod message;
#[path = "../../scheduler/src/engine/seat.rs"]
#[allow(dead_code, reason = "no carrier retires")]
mod seat;
#[path = "../../scheduler/src/shim/loom.rs"]
#[allow(dead_code, unused_imports, reason = "only a part is used")]
mod shim;

/// What a seat takes from a runtime.
mod runtime {
    use super::door::Door;
    use super::idle::Idle;
    use super::mail::Mail;
    use super::message::Message;
    use super::seat::{House, Seat, Seats};
    use super::shim::sync::Arc;
    use weald_loom_tests::Flag;

    pub(crate) struct Worker {
        pub(crate) seat: Seat,
        /// Set: its poller is woken.
        pub(crate) woken: Flag,
    }

    pub(crate) struct Carrier {
        pub(crate) door: Door<Worker>,
        pub(crate) mail: Mail<Message>,
    }

    pub(crate) struct Inner {
        pub(crate) seats: Seats,
        pub(crate) workers: Vec<Worker>,
        pub(crate) carriers: Vec<Carrier>,
        pub(crate) idle: Idle,
    }

    impl Inner {
        /// One carrier, and a seat that is free.
        pub(crate) fn new() -> Self {
            Self {
                seats: Seats::new(1),
                workers: vec![Worker {
                    seat: Seat::new(),
                    woken: Flag::new(),
                }],
                carriers: vec![Carrier {
                    door: Door::new(),
                    mail: Mail::new(),
                }],
                idle: Idle::new(1),
            }
        }

        /// Wakes the worker if it sleeps.
        pub(crate) fn notify(&self) {
            if let Some(worker) = self.idle.notify() {
                self.workers[worker].woken.set();
            }
        }
    }

    impl House for Inner {
        fn workers(&self) -> usize {
            self.workers.len()
        }

        fn seat(&self, worker: usize) -> &Seat {
            &self.workers[worker].seat
        }

        fn notify(&self) {
            self.notify();
        }

        fn start(this: &Arc<Self>, carrier: usize) -> std::io::Result<()> {
            super::carrier::start(this, carrier)
        }
    }
}

/// What a seat takes from the carriers: no other can be started.
mod carrier {
    use super::runtime::Inner;
    use super::shim::sync::Arc;

    pub(crate) fn start(_: &Arc<Inner>, _: usize) -> std::io::Result<()> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::message::Message;
use self::runtime::{Carrier, Inner};
use self::seat::Waited;

/// As `Carrier::send`.
fn send(inner: &Inner, letter: Message) {
    let Carrier { door, mail } = &inner.carriers[0];
    mail.put(letter);
    // SAFETY: workers live as long as the model.
    match unsafe { door.held().as_ref() } {
        None => {
            witness!("called");
            inner.seats.call(0);
        }
        Some(worker) => {
            witness!("woke the poller");
            worker.woken.set();
        }
    }
}

/// As the carrier, until so many letters have come. `ready`: it has a thread of its own to run and
/// takes a seat at once.
fn receive(inner: &Arc<Inner>, ready: bool, count: usize) -> Vec<usize> {
    let Carrier { door, mail } = &inner.carriers[0];
    door.enter();
    let mut received = Vec::new();
    while received.len() < count {
        // SAFETY: as in `send`.
        let Some(worker) = (unsafe { door.seat().as_ref() }) else {
            let needs = || ready || mail.len() > 0;
            match inner.seats.wait(inner, 0, needs, true) {
                Waited::Seated(worker) => door.sit(&raw const inner.workers[worker]),
                ended => unreachable!("{ended:?}"),
            }
            continue;
        };
        if mail.is_there() {
            received.extend(mail.take().into_iter().map(Message::read));
            continue;
        }
        inner.idle.sleep(0, false);
        if mail.is_there() {
            witness!("saw it before it slept");
            inner.idle.stay(0);
            let _ = inner.idle.found();
        } else {
            worker.woken.wait();
            inner.idle.wake(0);
        }
    }
    door.leave();
    received
}

#[test]
fn a_letter_meets_a_carrier_that_takes_a_seat() {
    let witnesses = &["called", "woke the poller", "saw it before it slept"];
    check(
        Model::new("a_letter_meets_a_carrier_that_takes_a_seat", 11, witnesses),
        || {
            let inner = Arc::new(Inner::new());
            inner.seats.give(&inner, 0);
            let carrier = thread::spawn({
                let inner = Arc::clone(&inner);
                move || receive(&inner, true, 1)
            });
            send(&inner, Message::new(1));
            assert_eq!(carrier.join().unwrap(), [1]);
        },
    );
}

#[test]
fn two_letters_reach_a_carrier_without_a_seat() {
    let witnesses = &["called", "woke the poller"];
    check(
        Model::new("two_letters_reach_a_carrier_without_a_seat", 290, witnesses),
        || {
            let inner = Arc::new(Inner::new());
            inner.seats.give(&inner, 0);
            let carrier = thread::spawn({
                let inner = Arc::clone(&inner);
                move || receive(&inner, false, 2)
            });
            let other = thread::spawn({
                let inner = Arc::clone(&inner);
                move || send(&inner, Message::new(1))
            });
            send(&inner, Message::new(2));
            let mut received = carrier.join().unwrap();
            received.sort_unstable();
            assert_eq!(received, [1, 2]);
            other.join().unwrap();
        },
    );
}
