//! Models of `sync/src/selecting/wait.rs`: a select with two arms. One is an event (the clock, a thread's end, a socket),
//! the other one is a channel's, whose partner comes at the same time. Each kind of event meets each kind of partner.
//!
//! | what may happen               | partner, or limit                                                            |
//! |-------------------------------|------------------------------------------------------------------------------|
//! | `after`, `tick`               | sends by hand, into a place, without bound, late, ends; takes by hand, makes room, ends |
//! | a thread's end                | sends by hand, into a place, late; takes by hand, makes room; a limit        |
//! | a socket becomes readable     | the same                                                                     |
//! | each of the three, of `ready` | sends into a place                                                           |
//! | a limit passes                | sends late                                                                   |
//!
//! Invariant 1: one of the two is chosen, and the other one is there for the next call: no message, no readiness and no
//! end is lost.
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

use std::time::Duration;

use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::arms::events::{
    Event, Partner, an_event_meets, an_event_meets_a_limit, ready_is_told, ready_meets_an_event,
};
use self::arms::timers::{
    Due, LONG, Receives, Sends, Timer, a_timer_meets_a_receiver, a_timer_meets_a_sender,
};
use self::arms::{Socket, chosen_send, recv};
use self::channel::arm::{RecvArm, SendArm};
use self::channel::{Receiver, Select, bounded};
use self::message::Message;
use self::selecting::{Arm, Limit, PollArm};

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

#[test]
fn ready_meets_an_end() {
    ready_meets_an_event("ready_meets_an_end", 3800, Event::End);
}

#[test]
fn ready_meets_a_socket() {
    ready_meets_an_event("ready_meets_a_socket", 3100, Event::Socket);
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
