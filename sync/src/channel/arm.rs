//! The arms of a selection over channels: a receive and a send, with what they need on the stack.
#![allow(
    unsafe_code,
    reason = "the state of a channel whose lock the selection holds"
)]

use std::fmt;
use std::time::Instant;

use weald_scheduler::io::Selection;

use super::core::{Channel, wait_until_filled};
use super::error::{RecvError, SendError};
use super::receiver::Receiver;
use super::ring::Popped;
use super::sender::Sender;
use super::state::{Receive, Send, State};
use super::waiters::{Packet, Stage};
use crate::selecting::Arm;
use crate::shim::sync::Mutex;

/// `recv(r) -> p`.
pub struct RecvArm<'a, T> {
    receiver: &'a Receiver<T>,
    packet: Packet<T>,
    got: Option<Result<T, RecvError>>,
}

impl<'a, T> RecvArm<'a, T> {
    /// An arm that receives.
    pub fn new(receiver: &'a Receiver<T>) -> Self {
        Self {
            receiver,
            packet: Packet::new(None, false),
            got: None,
        }
    }

    /// What it has received. Called once, after the arm was chosen.
    ///
    /// # Errors
    /// If there was no message and no sender is left.
    pub fn finish(&mut self) -> Result<T, RecvError> {
        self.got
            .take()
            .unwrap_or_else(|| unreachable!("the arm was chosen"))
    }
}

impl<T> RecvArm<'_, T> {
    /// Tries to receive. `waits`: the selection may go on to wait if there is nothing.
    #[inline]
    fn begin(&mut self, state: &mut State<T>, waits: bool) -> bool {
        if let Some(message) = state.pop() {
            self.got = Some(Ok(message));
            return true;
        }
        match state.receive(&self.packet, waits) {
            Receive::Value(message) => self.got = Some(Ok(message)),
            Receive::Closed => self.got = Some(Err(RecvError)),
            Receive::Comes => {}
            Receive::Empty => return false,
        }
        true
    }

    /// Tries to receive from a channel whose messages come by the clock.
    fn try_time(&mut self) -> bool {
        self.got = self.receiver.try_recv().ok().map(Ok);
        self.got.is_some()
    }
}

// SAFETY: the packet stays in the arm. The selection borrows the arm from `register` to `forget`.
unsafe impl<T> Arm for RecvArm<'_, T> {
    fn mutex(&self) -> Option<&Mutex<()>> {
        self.receiver.channel().map(Channel::mutex)
    }

    fn time(&self) -> Option<Instant> {
        self.receiver.next_time()
    }

    unsafe fn try_commit(&mut self) -> bool {
        let Some(channel) = self.receiver.channel() else {
            return self.try_time();
        };
        // SAFETY: the caller holds the lock.
        unsafe { channel.with_state(|state| self.begin(state, true)) }
    }

    fn try_alone(&mut self) -> bool {
        let Some(channel) = self.receiver.channel() else {
            return self.try_time();
        };
        match channel.try_pop_unlocked() {
            Popped::Message(message) => self.got = Some(Ok(message)),
            Popped::Empty => return false,
            Popped::Frozen => return self.begin(&mut channel.lock(), false),
        }
        true
    }

    fn seems_ready(&self) -> bool {
        self.receiver.channel().is_none_or(Channel::seems_to_give)
    }

    unsafe fn is_ready(&self) -> bool {
        match self.receiver.channel() {
            Some(channel) => {
                // SAFETY: the caller holds the lock.
                let state = unsafe { channel.state() };
                state.keep_all_off();
                state.can_receive()
            }
            None => !self.receiver.is_empty(),
        }
    }

    unsafe fn register(&mut self, selection: &Selection, index: usize) {
        if let Some(channel) = self.receiver.channel() {
            // SAFETY: the caller holds the lock.
            unsafe {
                channel.with_state(|state| state.wait_to_receive(selection, index, &self.packet));
            }
        }
    }

    unsafe fn watch(&mut self, selection: &Selection, index: usize) {
        if let Some(channel) = self.receiver.channel() {
            // SAFETY: the caller holds the lock.
            unsafe { channel.state() }.watch(selection, index, &self.packet);
        }
    }

    unsafe fn forget(&mut self) {
        if let Some(channel) = self.receiver.channel() {
            // SAFETY: the caller holds the lock.
            unsafe { channel.with_state(|state| state.forget(&self.packet)) };
        }
    }

    fn settle(&mut self) -> bool {
        if self.got.is_some() {
            return true;
        }
        let Some(channel) = self.receiver.channel() else {
            return false;
        };
        unless!(
            "select_takes_what_may_still_come",
            wait_until_filled(channel, &self.packet)
        );
        match self.packet.stage() {
            Stage::Closed => self.got = Some(Err(RecvError)),
            _ => self.got = self.packet.take_value().map(Ok),
        }
        self.packet.reset();
        self.got.is_some()
    }
}

/// `send(s, v) -> p`.
pub struct SendArm<'a, T> {
    sender: &'a Sender<T>,
    packet: Packet<T>,
    right: Option<Right<T>>,
}

/// What a chosen `send` may do with its message.
enum Right<T> {
    /// Give it to this receiver.
    Partner(*const Packet<T>),
    /// Put it into the place that is reserved for it.
    Place,
    /// No receiver is left.
    Closed,
}

/// The right to send one message, which is made only now. A ticket that is dropped gives the right back.
pub struct Ticket<'a, T> {
    channel: &'a Channel<T>,
    right: Option<Right<T>>,
}

impl<'a, T> SendArm<'a, T> {
    /// An arm that sends.
    pub fn new(sender: &'a Sender<T>) -> Self {
        Self {
            sender,
            packet: Packet::new(None, true),
            right: None,
        }
    }

    /// The right to send. Called after the arm was chosen.
    pub fn finish(&mut self) -> Ticket<'a, T> {
        Ticket {
            channel: self.sender.channel(),
            right: self.right.take(),
        }
    }
}

impl<T> Ticket<'_, T> {
    /// Sends the message.
    ///
    /// # Errors
    /// The message, if no receiver is left.
    pub fn send(mut self, message: T) -> Result<(), SendError<T>> {
        let mut state = self.channel.lock();
        match self.right.take() {
            Some(Right::Partner(packet)) => {
                // SAFETY: the receiver was claimed for this arm, and waits until its packet is filled.
                unsafe { state.fill(packet, message) };
                Ok(())
            }
            Some(Right::Place) => state.put_reserved(message).map_err(SendError),
            Some(Right::Closed) | None => {
                drop(state);
                Err(SendError(message))
            }
        }
    }
}

impl<T> Drop for Ticket<'_, T> {
    fn drop(&mut self) {
        match self.right.take() {
            Some(Right::Partner(_)) if fault!("select_leaves_its_partner_waiting") => {}
            // SAFETY: as in `send`.
            Some(Right::Partner(packet)) => unsafe { self.channel.lock().refuse(packet) },
            Some(Right::Place) => self.channel.lock().give_place_back(),
            Some(Right::Closed) | None => {}
        }
    }
}

impl<T> Drop for SendArm<'_, T> {
    fn drop(&mut self) {
        drop(self.finish());
    }
}

impl<T> SendArm<'_, T> {
    /// Tries to get the right to send.
    fn begin(&mut self, state: &mut State<T>) -> bool {
        self.right = Some(match state.send(self.sender.channel().capacity()) {
            Send::Partner(packet) => Right::Partner(packet),
            Send::Place => {
                state.reserve();
                Right::Place
            }
            Send::Closed => Right::Closed,
            Send::Full => return false,
        });
        true
    }
}

// SAFETY: as for `RecvArm`.
unsafe impl<T> Arm for SendArm<'_, T> {
    fn mutex(&self) -> Option<&Mutex<()>> {
        Some(self.sender.channel().mutex())
    }

    unsafe fn try_commit(&mut self) -> bool {
        // SAFETY: the caller holds the lock.
        unsafe { self.sender.channel().with_state(|state| self.begin(state)) }
    }

    fn try_alone(&mut self) -> bool {
        self.begin(&mut self.sender.channel().lock())
    }

    fn seems_ready(&self) -> bool {
        self.sender.channel().seems_to_take()
    }

    unsafe fn is_ready(&self) -> bool {
        let channel = self.sender.channel();
        // SAFETY: the caller holds the lock.
        let state = unsafe { channel.state() };
        state.keep_all_off();
        state.can_send(channel.capacity())
    }

    unsafe fn register(&mut self, selection: &Selection, index: usize) {
        // SAFETY: the caller holds the lock.
        unsafe {
            self.sender
                .channel()
                .with_state(|state| state.wait_to_send(selection, index, &self.packet));
        }
    }

    unsafe fn watch(&mut self, selection: &Selection, index: usize) {
        // SAFETY: the caller holds the lock.
        unsafe { self.sender.channel().state() }.watch(selection, index, &self.packet);
    }

    unsafe fn forget(&mut self) {
        // SAFETY: the caller holds the lock.
        unsafe {
            self.sender
                .channel()
                .with_state(|state| state.forget(&self.packet));
        }
    }

    fn settle(&mut self) -> bool {
        if self.right.is_some() {
            return true;
        }
        let _state = self.sender.channel().lock();
        self.right = match self.packet.stage() {
            Stage::Reserved => Some(Right::Place),
            Stage::Partner => Some(Right::Partner(self.packet.partner.get())),
            Stage::Closed => Some(Right::Closed),
            Stage::Empty | Stage::Full | Stage::Taken | Stage::Retry => None,
        };
        self.packet.reset();
        self.right.is_some()
    }
}

impl<T> fmt::Debug for RecvArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("RecvArm { .. }")
    }
}

impl<T> fmt::Debug for SendArm<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("SendArm { .. }")
    }
}

impl<T> fmt::Debug for Ticket<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Ticket { .. }")
    }
}
