//! The receiving end.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Awaited, On, Selected, Selection};

use super::core::{Channel, Locked, wait_until_filled};
use super::error::{RecvError, RecvTimeoutError, TryRecvError};
use super::limit::Limit;
use super::ring::Popped;
use super::state::Receive;
use super::timer::{After, Tick};
use super::waiters::{Packet, Stage};
use crate::shim::clock;

/// The receiving end of a channel.
///
/// # Examples
/// See [`bounded`](super::bounded).
pub struct Receiver<T> {
    pub(super) flavor: Flavor<T>,
}

pub(super) enum Flavor<T> {
    Channel(Arc<Channel<T>>),
    After(Arc<After>, fn(Instant) -> T),
    Tick(Arc<Tick>, fn(Instant) -> T),
    Never,
}

impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Receiver<T> {
    /// Receives a message. Waits until there is one. A blocking call.
    ///
    /// # Errors
    /// If there is none and no sender is left.
    pub fn recv(&self) -> Result<T, RecvError> {
        match self.recv_within(Limit::Never) {
            Ok(message) => Ok(message),
            Err(_) => Err(RecvError),
        }
    }

    /// Receives a message if there is one. Not a blocking call: it raises no exception.
    ///
    /// A `select!` that waits to send has not made its message yet. As in crossbeam, this call chooses such a send
    /// all the same, and waits until the message is made.
    ///
    /// # Errors
    /// If there is none. The error says whether a sender is left.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match &self.flavor {
            Flavor::Channel(channel) => try_recv(channel),
            Flavor::After(after, make) => after.take().map(make).ok_or(TryRecvError::Empty),
            Flavor::Tick(tick, make) => tick.take().map(make).ok_or(TryRecvError::Empty),
            Flavor::Never => Err(TryRecvError::Empty),
        }
    }

    /// As [`recv`](Self::recv), and waits at most that long; [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// If the time has passed, or there is no message and no sender is left.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_within(Limit::Within(limit))
    }

    /// As [`recv`](Self::recv), and waits until the clock shows the deadline.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.recv_within(Limit::At(deadline))
    }

    #[inline]
    fn recv_within(&self, mut limit: Limit) -> Result<T, RecvTimeoutError> {
        io::enter_and_spend_after(|| limit.start());
        let Flavor::Channel(channel) = &self.flavor else {
            return self.wait_for_time(limit);
        };
        if let Some(ring) = channel.ring() {
            return match ring.pop() {
                Popped::Message(message) => Ok(message),
                _ => receive_with_lock(channel, limit),
            };
        }
        let mut state = channel.lock();
        if state.gives_nothing_at_once() {
            return wait_to_receive(channel, state, limit);
        }
        match state.pop() {
            Some(message) => Ok(message),
            None => wait_to_receive(channel, state, limit),
        }
    }

    /// Receives from a channel whose messages come by the clock.
    #[cold]
    fn wait_for_time(&self, mut limit: Limit) -> Result<T, RecvTimeoutError> {
        loop {
            if let Ok(message) = self.try_recv() {
                return Ok(message);
            }
            if limit.is_over() {
                return Err(RecvTimeoutError::Timeout);
            }
            let until = match (limit.deadline(), self.next_time()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            if Selection::begin_on(On::just(Awaited::Time)).park(until) == Selected::Pending {
                io::enter_unwinding();
            }
        }
    }

    /// When its next message comes, if messages come by the clock.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        match &self.flavor {
            Flavor::Channel(_) | Flavor::Never => None,
            Flavor::After(after, _) => after.next(),
            Flavor::Tick(tick, _) => tick.next(),
        }
    }

    pub(crate) fn channel(&self) -> Option<&Channel<T>> {
        match &self.flavor {
            Flavor::Channel(channel) => Some(channel),
            _ => None,
        }
    }

    /// True if it holds no message. With capacity 0 always.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no room. With capacity 0 always.
    pub fn is_full(&self) -> bool {
        match &self.flavor {
            Flavor::Channel(channel) => channel.is_full(),
            Flavor::Never => true,
            Flavor::After(..) | Flavor::Tick(..) => !self.is_empty(),
        }
    }

    /// The number of messages that it holds.
    pub fn len(&self) -> usize {
        match &self.flavor {
            Flavor::Channel(channel) => channel.len(),
            Flavor::Never => 0,
            Flavor::After(..) | Flavor::Tick(..) => {
                usize::from(self.next_time().is_some_and(|time| time <= clock::now()))
            }
        }
    }

    /// The number of messages that it can hold; `None`: any number.
    pub fn capacity(&self) -> Option<usize> {
        match &self.flavor {
            Flavor::Channel(channel) => {
                Some(channel.capacity()).filter(|&capacity| capacity != usize::MAX)
            }
            Flavor::Never => Some(0),
            Flavor::After(..) | Flavor::Tick(..) => Some(1),
        }
    }

    /// True if both are ends of the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        match (&self.flavor, &other.flavor) {
            (Flavor::Channel(a), Flavor::Channel(b)) => Arc::ptr_eq(a, b),
            (Flavor::After(a, _), Flavor::After(b, _)) => Arc::ptr_eq(a, b),
            (Flavor::Tick(a, _), Flavor::Tick(b, _)) => Arc::ptr_eq(a, b),
            (Flavor::Never, Flavor::Never) => true,
            _ => false,
        }
    }
}

/// Receives without waiting for a sender.
fn try_recv<T>(channel: &Channel<T>) -> Result<T, TryRecvError> {
    match channel.try_pop_unlocked() {
        Popped::Message(message) => return Ok(message),
        Popped::Empty => return Err(TryRecvError::Empty),
        Popped::Frozen => {}
    }
    loop {
        let mut state = channel.lock();
        if let Some(message) = state.pop() {
            return Ok(message);
        }
        let mut packet = Packet::new(None, false);
        let began = state.receive(&packet, false);
        drop(state);
        match began {
            Receive::Value(message) => return Ok(message),
            Receive::Closed => return Err(TryRecvError::Disconnected),
            Receive::Empty => return Err(TryRecvError::Empty),
            Receive::Comes => wait_until_filled(channel, &packet),
        }
        if let Some(message) = packet.take_value() {
            return Ok(message);
        }
        // The lazy sender has made no message after all. There may be other messages.
    }
}

/// The rest of a receive that needs the lock.
#[inline(never)]
fn receive_with_lock<T>(channel: &Channel<T>, limit: Limit) -> Result<T, RecvTimeoutError> {
    wait_to_receive(channel, channel.lock(), limit)
}

/// The rest of a receive that has to wait, unless a message has come meanwhile.
#[inline(never)]
fn wait_to_receive<'a, T>(
    channel: &'a Channel<T>,
    mut state: Locked<'a, T>,
    mut limit: Limit,
) -> Result<T, RecvTimeoutError> {
    loop {
        let mut packet = Packet::new(None, false);
        match state.receive(&packet, true) {
            Receive::Value(message) => return Ok(message),
            Receive::Closed => return Err(RecvTimeoutError::Disconnected),
            Receive::Comes => {
                drop(state);
                limit.start();
                wait_until_filled(channel, &packet);
            }
            Receive::Empty => {
                if limit.is_over() {
                    return Err(RecvTimeoutError::Timeout);
                }
                if fault!("channel_receiver_lets_go_to_wait") {
                    drop(state);
                    state = channel.lock();
                }
                let selection = Selection::begin_on(channel.message());
                state.wait_to_receive(&selection, 0, &packet);
                drop(state);
                match selection.park(limit.deadline()) {
                    Selected::Done(_) => {}
                    Selected::Arm(_) => wait_until_filled(channel, &packet),
                    ended => {
                        channel.lock().forget(&packet);
                        if ended == Selected::TimedOut {
                            return Err(RecvTimeoutError::Timeout);
                        }
                        if ended == Selected::Pending {
                            io::enter_unwinding();
                        }
                    }
                }
            }
        }
        if packet.stage() == Stage::Closed {
            return Err(RecvTimeoutError::Disconnected);
        }
        if let Some(message) = packet.take_value() {
            return Ok(message);
        }
        state = channel.lock();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        let flavor = match &self.flavor {
            Flavor::Channel(channel) => {
                channel.count_receiver();
                Flavor::Channel(Arc::clone(channel))
            }
            Flavor::After(after, make) => Flavor::After(Arc::clone(after), *make),
            Flavor::Tick(tick, make) => Flavor::Tick(Arc::clone(tick), *make),
            Flavor::Never => Flavor::Never,
        };
        Self { flavor }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Flavor::Channel(channel) = &self.flavor {
            channel.drop_receiver();
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Receiver { .. }")
    }
}
