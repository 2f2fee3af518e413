//! The sending end.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Selected, Selection};

use super::core::{Channel, Locked};
use super::error::{SendError, SendTimeoutError, TrySendError};
use super::limit::Limit;
use super::ring::Refused;
use super::state::Send;
use super::waiters::{Packet, Stage};

/// The sending end of a channel.
///
/// # Examples
/// See [`bounded`](super::bounded).
pub struct Sender<T> {
    pub(super) channel: Arc<Channel<T>>,
}

impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}

impl<T> Sender<T> {
    /// Sends a message. Waits while the channel is full. A blocking call.
    ///
    /// # Errors
    /// The message, if no receiver is left.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.send_within(message, Limit::Never)
            .map_err(|error| SendError(error.into_inner()))
    }

    /// Sends a message if it can be done at once. Not a blocking call.
    ///
    /// # Errors
    /// The message, if there is no room (with capacity 0: no receiver waits) or no receiver is left.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let message = match self.channel.try_push_unlocked(message) {
            Ok(()) => return Ok(()),
            Err((Refused::Full, back)) => return Err(TrySendError::Full(back)),
            Err((Refused::Frozen, back)) => back,
        };
        let mut state = self.channel.lock();
        match begin_send(&mut state, self.channel.capacity(), message) {
            Ok(()) => Ok(()),
            Err((Stage::Closed, message)) => Err(TrySendError::Disconnected(message)),
            Err((_, message)) => Err(TrySendError::Full(message)),
        }
    }

    /// As [`send`](Self::send), and waits at most that long; [`Duration::MAX`] means for ever.
    ///
    /// # Errors
    /// The message, if the time has passed or no receiver is left.
    pub fn send_timeout(&self, message: T, limit: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_within(message, Limit::Within(limit))
    }

    /// As [`send`](Self::send), and waits until the clock shows the deadline.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_deadline(&self, message: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.send_within(message, Limit::At(deadline))
    }

    #[inline]
    fn send_within(&self, message: T, mut limit: Limit) -> Result<(), SendTimeoutError<T>> {
        io::enter_and_spend_after(|| limit.start());
        if let Some(ring) = self.channel.ring() {
            return match ring.push(message) {
                Ok(()) => Ok(()),
                Err((_, back)) => self.send_with_lock(back, limit),
            };
        }
        let mut state = self.channel.lock();
        if state.takes_more(self.channel.capacity()) {
            state.push(message);
            return Ok(());
        }
        self.send_slow(state, message, limit)
    }

    /// The rest of a send that needs the lock.
    #[inline(never)]
    fn send_with_lock(&self, message: T, limit: Limit) -> Result<(), SendTimeoutError<T>> {
        self.send_slow(self.channel.lock(), message, limit)
    }

    /// The rest of a send for which there is no room, or which may find a receiver that waits.
    #[inline(never)]
    fn send_slow<'a>(
        &'a self,
        mut state: Locked<'a, T>,
        mut message: T,
        mut limit: Limit,
    ) -> Result<(), SendTimeoutError<T>> {
        loop {
            match begin_send(&mut state, self.channel.capacity(), message) {
                Ok(()) => return Ok(()),
                Err((Stage::Closed, back)) => return Err(SendTimeoutError::Disconnected(back)),
                Err((_, back)) => message = back,
            }
            if limit.is_over() {
                return Err(SendTimeoutError::Timeout(message));
            }
            let mut packet = Packet::new(Some(message), false);
            if fault!("channel_sender_lets_go_to_wait") {
                drop(state);
                state = self.channel.lock();
            }
            let selection = Selection::begin_on(self.channel.room());
            state.wait_to_send(&selection, 0, &packet);
            drop(state);
            let ended = selection.park(limit.deadline());
            let early = fault!("channel_sender_looks_without_the_lock").then(|| packet.stage());
            if !matches!(ended, Selected::Done(_)) {
                self.channel.lock().forget(&packet);
            }
            let reached = early.unwrap_or_else(|| packet.stage());
            if reached == Stage::Taken {
                return Ok(());
            }
            let back = packet.take_value();
            match (ended, back) {
                (Selected::TimedOut, Some(back)) => return Err(SendTimeoutError::Timeout(back)),
                (_, Some(back)) => message = back,
                (_, None) => unreachable!("only a receiver takes the message"),
            }
            if ended == Selected::Pending {
                io::enter_unwinding();
            }
            state = self.channel.lock();
        }
    }

    /// True if it holds no message. With capacity 0 always.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no room. With capacity 0 always.
    pub fn is_full(&self) -> bool {
        self.channel.is_full()
    }

    /// The number of messages that it holds.
    pub fn len(&self) -> usize {
        self.channel.len()
    }

    /// The number of messages that it can hold; `None`: any number.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.channel.capacity()).filter(|&capacity| capacity != usize::MAX)
    }

    /// True if both are ends of the same channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.channel, &other.channel)
    }

    pub(crate) fn channel(&self) -> &Channel<T> {
        &self.channel
    }
}

/// Sends at once, or gives the message back, with `Stage::Closed`, or with `Stage::Empty` if there is no room.
fn begin_send<T>(state: &mut Locked<'_, T>, capacity: usize, message: T) -> Result<(), (Stage, T)> {
    match state.send(capacity) {
        Send::Partner(packet) => {
            #[allow(unsafe_code, reason = "a packet that was claimed")]
            // SAFETY: the packet was claimed in this hold of the lock.
            unsafe {
                state.fill(packet, message);
            }
            Ok(())
        }
        Send::Place => {
            state.push(message);
            Ok(())
        }
        Send::Full => Err((Stage::Empty, message)),
        Send::Closed => Err((Stage::Closed, message)),
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.channel.count_sender();
        Self {
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.drop_sender();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Sender { .. }")
    }
}
