//! Models of `sync/src/selecting/wait.rs`: a select of which one arm is an event (the clock, a thread's end, a socket) and another one a
//! channel's, whose partner comes at the same time. Each kind of event, with each kind of partner.
//!
//! | what may happen               | partner, or limit                                                            |
//! |-------------------------------|------------------------------------------------------------------------------|
//! | `after`, `tick`               | sends by hand, into a place, without bound, late, ends; takes by hand, makes room, ends |
//! | a thread's end                | sends by hand, into a place, late; takes by hand, makes room; a limit        |
//! | a socket becomes readable     | the same                                                                     |
//! | each of the three, of `ready` | sends into a place                                                           |
//! | a limit passes                | sends late                                                                   |
//!
//! Invariant 1: one of the two is chosen, and the other one is there for the next: no message, no readiness and no end is lost.
//! Invariant 2: the message of a timer that is due while a partner chooses another arm is there for the next.
//! Invariant 3: `ready` names an arm that is ready, and takes nothing.
#![allow(
    unsafe_code,
    reason = "packets lie on the waiters' stacks, and messages have no lock of their own"
)]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
mod arms;
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
    reason = "much has its models in `select.rs`; outside it is public"
)]
mod selecting;

use std::time::{Duration, Instant};

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::arms::{Ending, Socket, chosen_send, recv};
use self::channel::arm::{RecvArm, SendArm};
use self::channel::{Receiver, RecvError, Select, after, bounded, tick, unbounded};
use self::message::Message;
use self::selecting::{Arm, JoinArm, Limit, PollArm};

/// Receives, or finds the socket readable; `Some`: it received.
fn recv_or_read(from: &Receiver<Message>, socket: &Socket) -> Option<usize> {
    let mut receive = RecvArm::new(from);
    let mut readable = PollArm::new(socket, false);
    let arms: &mut [&mut dyn Arm] = &mut [&mut receive, &mut readable];
    let chosen = selecting::select(arms, Limit::Until(None), true).expect("there is no limit");
    if chosen == 0 {
        return Some(receive.finish().expect("the other end is there").read());
    }
    readable.finish().expect("the double cannot fail");
    None
}

#[test]
fn a_select_sees_a_socket_become_readable() {
    check(
        Model::new("a_select_sees_a_socket_become_readable", 35, &[]),
        || {
            let (_send, recv) = bounded(1);
            let socket = Socket::new();
            let other = thread::spawn({
                let socket = Arc::clone(&socket);
                move || socket.becomes_ready()
            });
            assert_eq!(recv_or_read(&recv, &socket), None);
            other.join().unwrap();
        },
    );
}

#[test]
fn a_wake_up_that_a_select_does_not_use_is_passed_on() {
    let witnesses = &["it received", "it was readable"];
    check(
        Model::new(
            "a_wake_up_that_a_select_does_not_use_is_passed_on",
            2800,
            witnesses,
        ),
        || {
            let (send, recv) = bounded(1);
            let socket = Socket::new();
            let reader = thread::spawn({
                let socket = Arc::clone(&socket);
                move || socket.read()
            });
            let other = thread::spawn({
                let socket = Arc::clone(&socket);
                move || {
                    socket.becomes_ready();
                    assert!(send.send(Message::new(1)).is_ok());
                    send
                }
            });
            let received = recv_or_read(&recv, &socket);
            witness!("it received", received.is_some());
            witness!("it was readable", received.is_none());
            reader.join().unwrap();
            drop(other.join().unwrap());
        },
    );
}

/// A channel whose message comes by the clock.
#[derive(Clone, Copy)]
enum Timer {
    After,
    Tick,
}

/// When the timer of a model is due.
#[derive(Clone, Copy)]
enum Due {
    /// After the quick pass and before the second look.
    WhileItRegisters,
    /// While it waits.
    WhileItWaits,
}

impl Timer {
    /// The timer, and the time that its first message tells.
    fn start(self, due: Due) -> (Receiver<Instant>, Instant) {
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
const LONG: Duration = Duration::from_secs(60);

/// What the partner of a select's receive does.
#[derive(Clone, Copy)]
enum Sends {
    /// Sends into a channel of that capacity.
    Into(Option<usize>),
    /// Sends from hand to hand, by a select that makes the message late.
    Late,
    /// Ends the channel.
    Nothing,
}

/// A timer and a receive are the arms of a select, and one of the two is chosen.
fn a_timer_meets_a_sender(
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
enum Receives {
    /// Receives from hand to hand.
    ByHand,
    /// Takes a message out of a channel that is full.
    ToMakeRoom,
    /// Ends the channel.
    Nothing,
}

/// A timer and a send are the arms of a select, and one of the two is chosen.
fn a_timer_meets_a_receiver(
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

#[test]
fn after_meets_a_hand() {
    let timer = (Timer::After, Due::WhileItRegisters);
    a_timer_meets_a_sender("after_meets_a_hand", 150, timer, Sends::Into(Some(0)));
}

#[test]
fn after_meets_a_place() {
    let timer = (Timer::After, Due::WhileItRegisters);
    a_timer_meets_a_sender("after_meets_a_place", 90, timer, Sends::Into(Some(1)));
}

#[test]
fn after_meets_a_channel_without_bound() {
    let timer = (Timer::After, Due::WhileItRegisters);
    a_timer_meets_a_sender(
        "after_meets_a_channel_without_bound",
        90,
        timer,
        Sends::Into(None),
    );
}

#[test]
fn after_meets_a_late_message() {
    let timer = (Timer::After, Due::WhileItRegisters);
    a_timer_meets_a_sender("after_meets_a_late_message", 1800, timer, Sends::Late);
}

#[test]
fn after_meets_the_end_of_the_senders() {
    let timer = (Timer::After, Due::WhileItRegisters);
    a_timer_meets_a_sender(
        "after_meets_the_end_of_the_senders",
        100,
        timer,
        Sends::Nothing,
    );
}

#[test]
fn after_meets_who_takes_by_hand() {
    let timer = (Timer::After, Due::WhileItRegisters);
    a_timer_meets_a_receiver(
        "after_meets_who_takes_by_hand",
        220,
        timer,
        Receives::ByHand,
    );
}

#[test]
fn after_meets_who_makes_room() {
    let timer = (Timer::After, Due::WhileItRegisters);
    a_timer_meets_a_receiver(
        "after_meets_who_makes_room",
        210,
        timer,
        Receives::ToMakeRoom,
    );
}

#[test]
fn after_meets_the_end_of_the_receivers() {
    let timer = (Timer::After, Due::WhileItRegisters);
    a_timer_meets_a_receiver(
        "after_meets_the_end_of_the_receivers",
        110,
        timer,
        Receives::Nothing,
    );
}

#[test]
fn a_tick_meets_a_hand() {
    let timer = (Timer::Tick, Due::WhileItRegisters);
    a_timer_meets_a_sender("a_tick_meets_a_hand", 150, timer, Sends::Into(Some(0)));
}

#[test]
fn a_tick_meets_a_place() {
    let timer = (Timer::Tick, Due::WhileItRegisters);
    a_timer_meets_a_sender("a_tick_meets_a_place", 90, timer, Sends::Into(Some(1)));
}

#[test]
fn a_tick_meets_a_late_message() {
    let timer = (Timer::Tick, Due::WhileItRegisters);
    a_timer_meets_a_sender("a_tick_meets_a_late_message", 1800, timer, Sends::Late);
}

#[test]
fn a_tick_meets_who_takes_by_hand() {
    let timer = (Timer::Tick, Due::WhileItRegisters);
    a_timer_meets_a_receiver(
        "a_tick_meets_who_takes_by_hand",
        220,
        timer,
        Receives::ByHand,
    );
}

#[test]
fn a_wait_for_after_meets_a_hand() {
    let timer = (Timer::After, Due::WhileItWaits);
    a_timer_meets_a_sender(
        "a_wait_for_after_meets_a_hand",
        140,
        timer,
        Sends::Into(Some(0)),
    );
}

#[test]
fn a_wait_for_after_meets_a_place() {
    let timer = (Timer::After, Due::WhileItWaits);
    a_timer_meets_a_sender(
        "a_wait_for_after_meets_a_place",
        100,
        timer,
        Sends::Into(Some(1)),
    );
}

#[test]
fn a_wait_for_after_meets_a_late_message() {
    let timer = (Timer::After, Due::WhileItWaits);
    a_timer_meets_a_sender(
        "a_wait_for_after_meets_a_late_message",
        1000,
        timer,
        Sends::Late,
    );
}

#[test]
fn a_wait_for_after_meets_who_takes_by_hand() {
    let timer = (Timer::After, Due::WhileItWaits);
    a_timer_meets_a_receiver(
        "a_wait_for_after_meets_who_takes_by_hand",
        490,
        timer,
        Receives::ByHand,
    );
}

#[test]
fn a_wait_for_a_tick_meets_a_hand() {
    let timer = (Timer::Tick, Due::WhileItWaits);
    a_timer_meets_a_sender(
        "a_wait_for_a_tick_meets_a_hand",
        140,
        timer,
        Sends::Into(Some(0)),
    );
}

#[test]
fn a_wait_for_a_tick_meets_who_makes_room() {
    let timer = (Timer::Tick, Due::WhileItWaits);
    a_timer_meets_a_receiver(
        "a_wait_for_a_tick_meets_who_makes_room",
        390,
        timer,
        Receives::ToMakeRoom,
    );
}

/// What happens while a select waits for it.
#[derive(Clone, Copy)]
enum Event {
    /// The end of a thread.
    End,
    /// A socket becomes readable.
    Socket,
}

/// Both events; one of them happens.
struct Events {
    kind: Event,
    ending: Arc<Ending>,
    socket: Arc<Socket>,
}

impl Events {
    fn new(kind: Event) -> Self {
        Self {
            kind,
            ending: Ending::new(),
            socket: Socket::new(),
        }
    }

    /// By another thread.
    fn happens(&self) -> thread::JoinHandle<()> {
        let (kind, ending, socket) = (self.kind, self.ending.clone(), self.socket.clone());
        thread::spawn(move || match kind {
            Event::End => ending.ends(),
            Event::Socket => socket.becomes_ready(),
        })
    }

    fn has_happened(&self) -> bool {
        match self.kind {
            Event::End => weald_scheduler::io::Waitable::has_ended(&*self.ending),
            Event::Socket => self.socket.is_ready(),
        }
    }

    /// Waits for the event and for another arm, if there is one. `Some(0)`: the event was first.
    fn select(&self, other: Option<&mut dyn Arm>, limit: Limit) -> Option<usize> {
        self.with(other, |arms| selecting::select(arms, limit, true))
    }

    /// As `select`, and only looks.
    fn ready(&self, other: &mut dyn Arm) -> Option<usize> {
        self.with(Some(other), |arms| {
            selecting::ready(arms, Limit::Until(None), true)
        })
    }

    fn with<T>(&self, other: Option<&mut dyn Arm>, f: impl FnOnce(&mut [&mut dyn Arm]) -> T) -> T {
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
enum Partner {
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
fn an_event_meets(name: &'static str, floor: u64, event: Event, partner: Partner) {
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

#[test]
fn an_end_meets_who_sends() {
    an_event_meets(
        "an_end_meets_who_sends",
        4700,
        Event::End,
        Partner::SendsByHand,
    );
}

#[test]
fn an_end_meets_who_receives() {
    an_event_meets(
        "an_end_meets_who_receives",
        16200,
        Event::End,
        Partner::TakesByHand,
    );
}

#[test]
fn an_end_meets_a_place() {
    an_event_meets(
        "an_end_meets_a_place",
        4200,
        Event::End,
        Partner::SendsToAPlace,
    );
}

#[test]
fn an_end_meets_who_makes_room() {
    an_event_meets(
        "an_end_meets_who_makes_room",
        12700,
        Event::End,
        Partner::MakesRoom,
    );
}

#[test]
fn an_end_meets_a_late_message() {
    an_event_meets(
        "an_end_meets_a_late_message",
        26400,
        Event::End,
        Partner::SendsLate,
    );
}

#[test]
fn a_socket_meets_a_hand() {
    an_event_meets(
        "a_socket_meets_a_hand",
        3900,
        Event::Socket,
        Partner::SendsByHand,
    );
}

#[test]
fn a_socket_meets_a_place() {
    an_event_meets(
        "a_socket_meets_a_place",
        3400,
        Event::Socket,
        Partner::SendsToAPlace,
    );
}

#[test]
fn a_socket_meets_a_late_message() {
    an_event_meets(
        "a_socket_meets_a_late_message",
        22800,
        Event::Socket,
        Partner::SendsLate,
    );
}

#[test]
fn a_socket_meets_who_takes_by_hand() {
    an_event_meets(
        "a_socket_meets_who_takes_by_hand",
        14400,
        Event::Socket,
        Partner::TakesByHand,
    );
}

#[test]
fn a_socket_meets_who_makes_room() {
    an_event_meets(
        "a_socket_meets_who_makes_room",
        11000,
        Event::Socket,
        Partner::MakesRoom,
    );
}

/// An event happens while a select that waits for it leaves, as its time is up. The next one finds it.
fn an_event_meets_a_limit(name: &'static str, floor: u64, event: Event) {
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

#[test]
fn an_end_meets_a_limit() {
    an_event_meets_a_limit("an_end_meets_a_limit", 100, Event::End);
}

#[test]
fn a_socket_meets_a_limit() {
    an_event_meets_a_limit("a_socket_meets_a_limit", 82, Event::Socket);
}

/// A partner makes a late message for a select that leaves, as its time is up: it is taken, or waits for the next.
#[test]
fn a_limit_meets_a_late_message() {
    let witnesses = &["it left", "it received"];
    check(
        Model::new("a_limit_meets_a_late_message", 1200, witnesses),
        || {
            let (sender, receiver) = bounded(0);
            let other = thread::spawn(move || {
                let mut arm = SendArm::new(&sender);
                assert!(chosen_send(&mut arm).send(Message::new(1)).is_ok());
            });
            let mut arm = RecvArm::new(&receiver);
            let limit = Limit::within(Duration::from_millis(1));
            let chosen = selecting::select(&mut [&mut arm as &mut dyn Arm], limit, true);
            witness!("it left", chosen.is_none());
            witness!("it received", chosen.is_some());
            let message = match chosen {
                Some(_) => arm.finish().map(Message::read),
                None => recv(&receiver),
            };
            assert_eq!(message, Ok(1));
            other.join().unwrap();
        },
    );
}

/// Who only looks for what is ready is told of an event, or of a message in a place, and takes neither.
fn ready_meets_an_event(name: &'static str, floor: u64, event: Event) {
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

#[test]
fn ready_meets_an_end() {
    ready_meets_an_event("ready_meets_an_end", 3800, Event::End);
}

#[test]
fn ready_meets_a_socket() {
    ready_meets_an_event("ready_meets_a_socket", 3100, Event::Socket);
}

/// Who only looks for what is ready is told of an event, and nothing else happens.
fn ready_is_told(name: &'static str, floor: u64, event: Event) {
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

#[test]
fn ready_is_told_of_an_end() {
    ready_is_told("ready_is_told_of_an_end", 5, Event::End);
}

#[test]
fn ready_is_told_of_a_socket() {
    ready_is_told("ready_is_told_of_a_socket", 5, Event::Socket);
}

#[test]
fn ready_meets_a_timer() {
    let witnesses = &["the timer was first", "the message was first"];
    check(Model::new("ready_meets_a_timer", 84, witnesses), || {
        let (timer, first) = Timer::After.start(Due::WhileItWaits);
        let (sender, receiver) = bounded(1);
        let other = thread::spawn(move || {
            assert!(sender.send(Message::new(1)).is_ok());
            sender
        });
        let mut select = Select::new_biased();
        select.recv(&timer);
        select.recv(&receiver);
        if select.ready() == 0 {
            witness!("the timer was first");
            assert_eq!(timer.try_recv(), Ok(first));
            assert_eq!(recv(&receiver), Ok(1));
        } else {
            witness!("the message was first");
            assert_eq!(receiver.try_recv().map(Message::read), Ok(1));
            assert_eq!(timer.recv_timeout(LONG), Ok(first), "it is lost");
        }
        drop(other.join().unwrap());
    });
}
