//! A timer and a channel's operation, whose partner comes at the same time, are the arms of a select.

use std::time::{Duration, Instant};

use weald_loom_tests::{Model, check, thread, witness};

use super::{chosen_send, recv};
use crate::channel::arm::SendArm;
use crate::channel::{Receiver, RecvError, Select, after, bounded, tick, unbounded};
use crate::message::Message;
use crate::shim;

/// A channel whose message comes by the clock.
#[derive(Clone, Copy)]
pub(crate) enum Timer {
    After,
    Tick,
}

/// When the timer of a model is due.
#[derive(Clone, Copy)]
pub(crate) enum Due {
    /// After the quick pass and before the second look.
    WhileItRegisters,
    /// While it waits.
    WhileItWaits,
}

impl Timer {
    /// The timer, and the time that its first message tells.
    pub(crate) fn start(self, due: Due) -> (Receiver<Instant>, Instant) {
        // Each look at the clock is a second after the one before; making a tick is such a look.
        let (passes, limit) = match (due, self) {
            (Due::WhileItWaits, _) => (0, Duration::from_millis(1)),
            (Due::WhileItRegisters, Self::After) => (1, Duration::from_millis(500)),
            (Due::WhileItRegisters, Self::Tick) => (1, Duration::from_millis(1500)),
        };
        shim::clock::LOOKS.store(0, std::sync::atomic::Ordering::Relaxed);
        shim::clock::PASSES.store(passes, std::sync::atomic::Ordering::Relaxed);
        let timer = match self {
            Self::After => after(limit),
            Self::Tick => tick(limit),
        };
        let first = timer.next_time().expect("the time is short");
        (timer, first)
    }
}

/// Longer than any timer here.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// What the partner of a select's receive does.
#[derive(Clone, Copy)]
pub(crate) enum Sends {
    /// Sends into a channel of that capacity.
    Into(Option<usize>),
    /// Sends from hand to hand, by a select that makes the message late.
    Late,
    /// Ends the channel.
    Nothing,
}

/// A timer and a receive are the arms of a select, and one of the two is chosen.
pub(crate) fn a_timer_meets_a_sender(
    name: &'static str,
    floor: u64,
    (timer, due): (Timer, Due),
    sends: Sends,
) {
    let witnesses = &["the timer was first", "the partner was first"];
    check(Model::new(name, floor, witnesses), move || {
        let (timer, first) = timer.start(due);
        let (sender, receiver) = match sends {
            Sends::Into(capacity) => capacity.map_or_else(unbounded, bounded),
            Sends::Late | Sends::Nothing => bounded(0),
        };
        let other = thread::spawn(move || match sends {
            Sends::Into(_) => {
                assert!(sender.send(Message::new(1)).is_ok());
                Some(sender)
            }
            Sends::Late => {
                let mut arm = SendArm::new(&sender);
                assert!(chosen_send(&mut arm).send(Message::new(1)).is_ok());
                drop(arm);
                Some(sender)
            }
            Sends::Nothing => None,
        });
        let expected = match sends {
            Sends::Into(_) | Sends::Late => Ok(1),
            Sends::Nothing => Err(RecvError),
        };
        let mut select = Select::new_biased();
        select.recv(&timer);
        select.recv(&receiver);
        let operation = select.select();
        if operation.index() == 0 {
            witness!("the timer was first");
            assert_eq!(operation.recv(&timer), Ok(first));
            assert_eq!(recv(&receiver), expected);
        } else {
            witness!("the partner was first");
            assert_eq!(operation.recv(&receiver).map(Message::read), expected);
            assert_eq!(timer.recv_timeout(LONG), Ok(first), "it is lost");
        }
        drop(other.join().unwrap());
    });
}

/// What the partner of a select's send does.
#[derive(Clone, Copy)]
pub(crate) enum Receives {
    /// Receives from hand to hand.
    ByHand,
    /// Takes a message out of a channel that is full.
    ToMakeRoom,
    /// Ends the channel.
    Nothing,
}

/// A timer and a send are the arms of a select, and one of the two is chosen.
pub(crate) fn a_timer_meets_a_receiver(
    name: &'static str,
    floor: u64,
    (timer, due): (Timer, Due),
    receives: Receives,
) {
    let witnesses = &["the timer was first", "the partner was first"];
    check(Model::new(name, floor, witnesses), move || {
        let (timer, first) = timer.start(due);
        let full = matches!(receives, Receives::ToMakeRoom);
        let (sender, receiver) = bounded(usize::from(full));
        if full {
            assert!(sender.send(Message::new(0)).is_ok());
        }
        let other = thread::spawn(move || {
            if matches!(receives, Receives::Nothing) {
                return;
            }
            if full {
                assert_eq!(recv(&receiver), Ok(0));
            }
            assert_eq!(recv(&receiver), Ok(1));
        });
        let mut select = Select::new_biased();
        select.recv(&timer);
        select.send(&sender);
        let operation = select.select();
        let sent = if operation.index() == 0 {
            witness!("the timer was first");
            assert_eq!(operation.recv(&timer), Ok(first));
            sender.send(Message::new(1))
        } else {
            witness!("the partner was first");
            let sent = operation.send(&sender, Message::new(1));
            assert_eq!(timer.recv_timeout(LONG), Ok(first), "it is lost");
            sent
        };
        assert_eq!(sent.is_ok(), !matches!(receives, Receives::Nothing));
        other.join().unwrap();
    });
}
