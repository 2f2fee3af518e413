//! Two channels, and selects over both.

use std::ptr;

use crate::channel::{Receiver, RecvError, Select, Sender, bounded};
use crate::message::Message;

/// Both ends of a channel.
type Ends = (Sender<Message>, Receiver<Message>);

/// Two channels, the one with the lower address first.
pub(crate) fn two_channels(capacity: usize) -> (Ends, Ends) {
    let (one, other) = (bounded(capacity), bounded(capacity));
    let address = |ends: &Ends| ptr::from_ref(ends.0.channel()).addr();
    if address(&one) < address(&other) {
        (one, other)
    } else {
        (other, one)
    }
}

/// Receives from the first of the two channels that is ready. Returns which one that was, and the message.
pub(crate) fn recv_either(
    a: &Receiver<Message>,
    b: &Receiver<Message>,
) -> (usize, Result<usize, RecvError>) {
    let mut select = Select::new_biased();
    select.recv(a);
    select.recv(b);
    let operation = select.select();
    let index = operation.index();
    let message = operation.recv(if index == 0 { a } else { b });
    (index, message.map(Message::read))
}

/// Receives from one channel or sends to the other. `Some`: it received.
pub(crate) fn recv_or_send(
    from: &Receiver<Message>,
    to: &Sender<Message>,
    number: usize,
) -> Option<usize> {
    let mut select = Select::new_biased();
    select.recv(from);
    select.send(to);
    let operation = select.select();
    if operation.index() == 0 {
        let message = operation.recv(from).expect("the other end is there");
        return Some(message.read());
    }
    assert!(operation.send(to, Message::new(number)).is_ok());
    None
}
