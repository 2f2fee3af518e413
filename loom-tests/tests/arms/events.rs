//! A select of which one arm is an event: a thread's end, or a socket that becomes readable.

use std::time::Duration;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use super::{Ending, Socket, chosen_send, recv};
use crate::channel::arm::{RecvArm, SendArm};
use crate::channel::bounded;
use crate::message::Message;
use crate::selecting::{self, Arm, JoinArm, Limit, PollArm};

/// What happens while a select waits for it.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// The end of a thread.
    End,
    /// A socket becomes readable.
    Socket,
}

/// Both events; one of them happens.
pub(crate) struct Events {
    kind: Event,
    ending: Arc<Ending>,
    socket: Arc<Socket>,
}

impl Events {
    pub(crate) fn new(kind: Event) -> Self {
        Self {
            kind,
            ending: Ending::new(),
            socket: Socket::new(),
        }
    }

    /// By another thread.
    pub(crate) fn happens(&self) -> thread::JoinHandle<()> {
        let (kind, ending, socket) = (self.kind, self.ending.clone(), self.socket.clone());
        thread::spawn(move || match kind {
            Event::End => ending.ends(),
            Event::Socket => socket.becomes_ready(),
        })
    }

    pub(crate) fn has_happened(&self) -> bool {
        match self.kind {
            Event::End => weald_scheduler::io::Waitable::has_ended(&*self.ending),
            Event::Socket => self.socket.is_ready(),
        }
    }

    /// Waits for the event and for another arm, if there is one. `Some(0)`: the event was first.
    pub(crate) fn select(&self, other: Option<&mut dyn Arm>, limit: Limit) -> Option<usize> {
        self.with(other, |arms| selecting::select(arms, limit, true))
    }

    /// As `select`, and only looks.
    pub(crate) fn ready(&self, other: &mut dyn Arm) -> Option<usize> {
        self.with(Some(other), |arms| {
            selecting::ready(arms, Limit::Until(None), true)
        })
    }

    pub(crate) fn with<T>(
        &self,
        other: Option<&mut dyn Arm>,
        f: impl FnOnce(&mut [&mut dyn Arm]) -> T,
    ) -> T {
        let mut end = JoinArm::new(&*self.ending);
        let mut readable = PollArm::new(&*self.socket, false);
        let event: &mut dyn Arm = match self.kind {
            Event::End => &mut end,
            Event::Socket => &mut readable,
        };
        match other {
            Some(other) => f(&mut [event, other]),
            None => f(&mut [event]),
        }
    }
}

/// What the partner of a select's arm does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partner {
    /// Sends from hand to hand.
    SendsByHand,
    /// Sends into a place.
    SendsToAPlace,
    /// Sends from hand to hand, by a select that makes the message late.
    SendsLate,
    /// Receives from hand to hand.
    TakesByHand,
    /// Takes a message out of a channel that is full.
    MakesRoom,
}

/// An event and a channel's operation, which a partner may choose, are the arms of a select.
pub(crate) fn an_event_meets(name: &'static str, floor: u64, event: Event, partner: Partner) {
    let witnesses = &["the event was first", "the partner was first"];
    check(Model::new(name, floor, witnesses), move || {
        let events = Events::new(event);
        let by_hand = !matches!(partner, Partner::SendsToAPlace | Partner::MakesRoom);
        let (sender, receiver) = bounded(usize::from(!by_hand));
        if partner == Partner::MakesRoom {
            assert!(sender.send(Message::new(0)).is_ok());
        }
        let happens = events.happens();
        let (mine, theirs) = ((sender.clone(), receiver.clone()), (sender, receiver));
        let other = thread::spawn(move || match partner {
            Partner::SendsByHand | Partner::SendsToAPlace => {
                assert!(theirs.0.send(Message::new(1)).is_ok());
            }
            Partner::SendsLate => {
                let mut arm = SendArm::new(&theirs.0);
                assert!(chosen_send(&mut arm).send(Message::new(1)).is_ok());
            }
            Partner::TakesByHand => assert_eq!(recv(&theirs.1), Ok(1)),
            Partner::MakesRoom => {
                assert_eq!(recv(&theirs.1), Ok(0));
                assert_eq!(recv(&theirs.1), Ok(1));
            }
        });
        let sends = matches!(partner, Partner::TakesByHand | Partner::MakesRoom);
        let (mut receive, mut send) = (RecvArm::new(&mine.1), SendArm::new(&mine.0));
        let operation: &mut dyn Arm = if sends { &mut send } else { &mut receive };
        let partner_was_first = events.select(Some(operation), Limit::Until(None)) == Some(1);
        witness!("the partner was first", partner_was_first);
        witness!("the event was first", !partner_was_first);
        match (sends, partner_was_first) {
            (true, true) => assert!(send.finish().send(Message::new(1)).is_ok()),
            (true, false) => assert!(mine.0.send(Message::new(1)).is_ok()),
            (false, true) => assert_eq!(receive.finish().map(Message::read), Ok(1)),
            (false, false) => assert_eq!(recv(&mine.1), Ok(1)),
        }
        assert_eq!(events.select(None, Limit::Until(None)), Some(0));
        happens.join().unwrap();
        other.join().unwrap();
    });
}

/// An event happens while a select that waits for it leaves, as its time is up. The next one finds it.
pub(crate) fn an_event_meets_a_limit(name: &'static str, floor: u64, event: Event) {
    let witnesses = &["it left", "it was told"];
    check(Model::new(name, floor, witnesses), move || {
        let events = Events::new(event);
        let happens = events.happens();
        let told = events.select(None, Limit::within(Duration::from_millis(1)));
        witness!("it left", told.is_none());
        witness!("it was told", told.is_some());
        assert_eq!(events.select(None, Limit::Until(None)), Some(0));
        happens.join().unwrap();
    });
}

/// `ready` finds an event, or a message in a place, and takes neither.
pub(crate) fn ready_meets_an_event(name: &'static str, floor: u64, event: Event) {
    let witnesses = &["the event was first", "the message was first"];
    check(Model::new(name, floor, witnesses), move || {
        let events = Events::new(event);
        let (sender, receiver) = bounded(1);
        let happens = events.happens();
        let other = thread::spawn(move || {
            assert!(sender.send(Message::new(1)).is_ok());
            // Its end would be told as well.
            sender
        });
        let mut receive = RecvArm::new(&receiver);
        let ready = events.ready(&mut receive);
        witness!("the event was first", ready == Some(0));
        witness!("the message was first", ready == Some(1));
        if ready == Some(0) {
            assert!(events.has_happened());
            assert_eq!(recv(&receiver), Ok(1));
        } else {
            assert_eq!(receiver.try_recv().map(Message::read), Ok(1));
        }
        assert_eq!(events.select(None, Limit::Until(None)), Some(0));
        happens.join().unwrap();
        drop(other.join().unwrap());
    });
}

/// `ready` finds an event, and nothing else happens.
pub(crate) fn ready_is_told(name: &'static str, floor: u64, event: Event) {
    check(Model::new(name, floor, &[]), move || {
        let events = Events::new(event);
        let (_sender, receiver) = bounded::<Message>(1);
        let happens = events.happens();
        let mut receive = RecvArm::new(&receiver);
        assert_eq!(events.ready(&mut receive), Some(0));
        assert!(events.has_happened());
        happens.join().unwrap();
    });
}
