//! The messages of a channel, as the holder of its lock sees them: some in a ring, the later ones in a deque.
//!
//! A channel begins with the deque alone. After some messages in a row for which nobody waited ([`WARM_UP`])
//! it gets a ring (`ring.rs`). The ring can be used without the lock, and therefore stays until the channel
//! is gone. A channel for one message never pays for a ring, nor does a channel whose receivers always wait. If the
//! capacity of the channel is small, the ring has room for all of it. Otherwise the ring is small, and messages for
//! which it has no room go into the deque, whose memory is given back.
//!
//! Invariant 1: all messages in the deque were sent after all messages in the ring. A receiver that has the lock
//! and finds the ring empty fills it from the deque.
//! Invariant 2: as long as there are messages in the deque, senders are kept off the ring.
//!
//! Checked by `loom-tests/tests/channel.rs`.
#![allow(unsafe_code, reason = "the ring, by address")]

use std::collections::VecDeque;
use std::ptr;

use super::ring::Ring;

/// After so many messages in a row for which nobody waited the channel gets a ring. A guess.
const WARM_UP: u32 = 8;

/// The same number in a model: the first message does it. In a channel for three it is the second, so that there is one to
/// move into the ring.
const fn warm_up(ring_capacity: usize) -> u32 {
    match ring_capacity {
        _ if !cfg!(loom) => WARM_UP,
        3 => 2,
        _ => 1,
    }
}

/// A deque that shrinks keeps room for so many bytes, or for [`KEPT_MESSAGES`] if that is more. A ring that holds
/// all of a channel's capacity is at most as large.
const KEPT_BYTES: usize = 16 << 10;

const KEPT_MESSAGES: usize = 32;

/// How many messages a ring holds if it is smaller than the channel's capacity; fewer if they would need more than
/// [`PART_BYTES`]. In a model one, so that some messages are in the deque.
const PART: usize = if cfg!(loom) { 1 } else { 64 };

const PART_BYTES: usize = 4 << 10;

/// The messages of one channel.
pub(super) struct Messages<T> {
    deque: VecDeque<T>,
    /// Null: all messages are in the deque. The channel frees the ring when it is dropped.
    ring: *const Ring<T>,
    ring_capacity: usize,
    /// How many messages have gone in since somebody waited for one.
    in_a_row: u32,
}

/// How many messages fit into so many bytes, and at least `least`.
const fn messages_in<T>(bytes: usize, least: usize) -> usize {
    let messages = bytes / Ring::<T>::BYTES_EACH;
    if messages > least { messages } else { least }
}

impl<T> Messages<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let ring_capacity = if capacity <= const { messages_in::<T>(KEPT_BYTES, KEPT_MESSAGES) } {
            capacity
        } else {
            const { messages_in::<T>(PART_BYTES, PART / 8) }.min(PART)
        };
        Self {
            deque: VecDeque::new(),
            ring: ptr::null(),
            ring_capacity,
            in_a_row: 0,
        }
    }

    /// Its ring, or null. The channel shows it to threads that do not take the lock.
    #[inline(always)]
    pub(super) fn ring_address(&self) -> *const Ring<T> {
        self.ring
    }

    #[inline(always)]
    fn ring(&self) -> Option<&Ring<T>> {
        // SAFETY: a ring that was made stays as long as the channel, and `self` is a part of the channel.
        unsafe { self.ring.as_ref() }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        let in_ring = if self.ring.is_null() {
            0
        } else {
            self.ring_len()
        };
        in_ring + self.deque.len()
    }

    #[inline(never)]
    fn ring_len(&self) -> usize {
        self.ring().map_or(0, Ring::len)
    }

    /// How many messages are in the deque.
    #[inline(always)]
    pub(super) fn in_deque(&self) -> usize {
        self.deque.len()
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a message in at the end. The caller has kept senders off.
    #[inline(always)]
    pub(super) fn push(&mut self, message: T) {
        if self.ring.is_null() {
            self.deque.push_back(message);
        } else {
            self.push_to_ring(message);
        }
    }

    #[inline(never)]
    fn push_to_ring(&mut self, message: T) {
        let behind = !self.deque.is_empty() && !fault!("messages_pass_the_deque_by");
        match self.ring() {
            Some(ring) if !behind && ring.len() < self.ring_capacity => ring.push_frozen(message),
            _ => self.deque.push_back(message),
        }
    }

    /// A message was put in for which nobody waited. Returns true if it has made the ring: the channel must show it.
    #[inline(always)]
    pub(super) fn nobody_waited(&mut self) -> bool {
        self.in_a_row = self.in_a_row.wrapping_add(1);
        self.in_a_row == warm_up(self.ring_capacity) && self.make_ring()
    }

    /// A message has gone to somebody who waited for it.
    #[inline(always)]
    pub(super) fn somebody_waited(&mut self) {
        self.in_a_row = 0;
    }

    #[cold]
    fn make_ring(&mut self) -> bool {
        // With capacity 0 there is nothing to hold.
        if self.ring_capacity == 0 || !self.ring.is_null() {
            return false;
        }
        let ring = Ring::frozen(self.ring_capacity, &mut self.deque);
        self.ring = Box::into_raw(Box::new(ring));
        self.shrink_to(0);
        true
    }

    /// The oldest message. `None`: there was none at some moment of the call. If senders are kept off there is none
    /// now either.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.has_ring() {
            return self.pop_from_ring();
        }
        let message = self.deque.pop_front()?;
        self.shrink();
        Some(message)
    }

    #[inline(always)]
    pub(super) fn has_ring(&self) -> bool {
        !self.ring.is_null()
    }

    #[inline(never)]
    fn pop_from_ring(&mut self) -> Option<T> {
        let message = self.ring().and_then(Ring::pop_held);
        if message.is_some() || self.deque.is_empty() {
            return message;
        }
        self.pop_and_fill()
    }

    /// Returns the oldest message of the deque, and moves the next ones into the ring, which is empty. There threads
    /// without the lock find them.
    #[inline(never)]
    fn pop_and_fill(&mut self) -> Option<T> {
        let message = self.deque.pop_front();
        for _ in 0..self.ring_capacity.min(self.deque.len()) {
            if let (Some(next), Some(ring)) = (self.deque.pop_front(), self.ring()) {
                ring.push_frozen(next);
            }
        }
        self.shrink();
        message
    }

    /// All messages of the deque.
    pub(super) fn take_deque(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.deque)
    }

    /// Lets receivers use the ring, and senders too if `senders` is true and the deque is empty.
    #[inline(always)]
    pub(super) fn let_in(&self, senders: bool) {
        if !self.ring.is_null() {
            self.thaw(senders);
        }
    }

    #[inline(never)]
    fn thaw(&self, senders: bool) {
        if let Some(ring) = self.ring() {
            ring.thaw_head();
            let behind = !self.deque.is_empty() && !fault!("messages_let_in_over_the_deque");
            if senders && !behind {
                ring.thaw_tail();
            }
        }
    }

    /// Keeps senders off. From now on they take the lock.
    #[inline(always)]
    pub(super) fn keep_senders_off(&self) {
        if !self.ring.is_null() {
            self.freeze(true, false);
        }
    }

    /// Keeps receivers off. From now on they take the lock.
    #[inline(always)]
    pub(super) fn keep_receivers_off(&self) {
        if !self.ring.is_null() {
            self.freeze(false, true);
        }
    }

    #[inline(never)]
    fn freeze(&self, senders: bool, receivers: bool) {
        if let Some(ring) = self.ring() {
            if senders {
                ring.freeze_tail();
            }
            if receivers {
                ring.freeze_head();
            }
        }
    }

    /// Gives back room of a deque that has been long and is nearly empty now. Called after a message was taken out.
    /// Over many messages this costs constant time for each, because most of the new room must be filled and emptied
    /// before the deque shrinks again. The new room is at most a quarter of the old, so few messages are moved
    /// under the lock.
    #[inline(always)]
    fn shrink(&mut self) {
        let kept = const {
            match size_of::<T>() {
                // Messages without a size need no room.
                0 => usize::MAX,
                bytes if KEPT_BYTES / bytes > KEPT_MESSAGES => KEPT_BYTES / bytes,
                _ => KEPT_MESSAGES,
            }
        };
        if self.deque.capacity() > kept && self.deque.len() < self.deque.capacity() / 8 {
            self.shrink_to(kept);
        }
    }

    #[cold]
    #[inline(never)]
    fn shrink_to(&mut self, kept: usize) {
        self.deque.shrink_to(kept.max(2 * self.deque.len()));
    }
}
