//! The messages of a channel, as who holds its lock sees them: in a ring, and in a list behind it.
//!
//! A channel begins with the list alone. When so many messages in a row have gone into it for which nobody waited,
//! it gets a ring (`ring.rs`), which can be used without the lock, and which therefore stays until the channel
//! is gone. A channel for one message, and one whose receivers always wait, never pays for it. The ring of a
//! channel with a small capacity holds all of it. That of any other one is small, and what it has no room
//! for goes into the list, whose memory is given back.
//!
//! Invariant 1: what is in the list was sent after all that is in the ring. Whoever has found the ring empty
//! under the lock fills it from the list.
//! Invariant 2: as long as the list has messages, senders are kept off the ring.
//!
//! Checked by `loom-tests/tests/channel.rs`.
#![allow(unsafe_code, reason = "the ring, by address")]

use std::collections::VecDeque;
use std::ptr;

use super::ring::Ring;

/// So many messages in a row for which nobody has waited are worth a ring. A guess. In a model the first.
const WARM_UP: u32 = if cfg!(loom) { 1 } else { 8 };

/// A list keeps room for so many bytes, or for so many messages. A ring for all of a channel is no longer.
const KEPT_BYTES: usize = 16 << 10;

const KEPT_MESSAGES: usize = 32;

/// So many messages a ring holds that is not for all of its channel, if they have no more than so many
/// bytes. In a model one, so that there is something in the list.
const PART: usize = if cfg!(loom) { 1 } else { 64 };

const PART_BYTES: usize = 4 << 10;

pub(super) struct Queue<T> {
    list: VecDeque<T>,
    /// Null: all messages are in the list. The channel's, which gives it back.
    ring: *const Ring<T>,
    ring_capacity: usize,
    /// How many messages have gone in since somebody waited for one.
    in_a_row: u32,
}

/// So many messages have so many bytes, at most; at least some.
const fn messages_in<T>(bytes: usize, least: usize) -> usize {
    let messages = bytes / Ring::<T>::BYTES_EACH;
    if messages > least { messages } else { least }
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let ring_capacity = if capacity <= const { messages_in::<T>(KEPT_BYTES, KEPT_MESSAGES) } {
            capacity
        } else {
            const { messages_in::<T>(PART_BYTES, PART / 8) }.min(PART)
        };
        Self {
            list: VecDeque::new(),
            ring: ptr::null(),
            ring_capacity,
            in_a_row: 0,
        }
    }

    /// Its ring, for the channel to show to those who have no lock; or null.
    #[inline(always)]
    pub(super) fn ring_address(&self) -> *const Ring<T> {
        self.ring
    }

    #[inline(always)]
    fn ring(&self) -> Option<&Ring<T>> {
        // SAFETY: once made it stays as long as the channel, which this is a part of.
        unsafe { self.ring.as_ref() }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        let in_ring = if self.ring.is_null() {
            0
        } else {
            self.ring_len()
        };
        in_ring + self.list.len()
    }

    #[inline(never)]
    fn ring_len(&self) -> usize {
        self.ring().map_or(0, Ring::len)
    }

    /// How many there are that no ring shows.
    #[inline(always)]
    pub(super) fn listed(&self) -> usize {
        self.list.len()
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a message in at the end. Senders are kept off.
    #[inline(always)]
    pub(super) fn push(&mut self, message: T) {
        if self.ring.is_null() {
            self.list.push_back(message);
        } else {
            self.push_to_ring(message);
        }
    }

    #[inline(never)]
    fn push_to_ring(&mut self, message: T) {
        let behind = !self.list.is_empty() && !fault!("queue_passes_its_list_by");
        match self.ring() {
            Some(ring) if !behind && ring.len() < self.ring_capacity => ring.push_frozen(message),
            _ => self.list.push_back(message),
        }
    }

    /// Nobody has waited for the message that was put in. True: there is a ring now, to be shown.
    #[inline(always)]
    pub(super) fn nobody_waited(&mut self) -> bool {
        self.in_a_row = self.in_a_row.wrapping_add(1);
        self.in_a_row == WARM_UP && self.make_ring()
    }

    /// A message has gone to somebody who waited for it.
    #[inline(always)]
    pub(super) fn was_passed_by(&mut self) {
        self.in_a_row = 0;
    }

    #[cold]
    fn make_ring(&mut self) -> bool {
        // With capacity 0 there is nothing to hold.
        if self.ring_capacity == 0 || !self.ring.is_null() {
            return false;
        }
        let ring = Ring::frozen(self.ring_capacity, &mut self.list);
        self.ring = Box::into_raw(Box::new(ring));
        self.shrink_to(0);
        true
    }

    /// The oldest message. `None`: if senders are kept off there is none; else there was none.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.has_ring() {
            return self.pop_from_ring();
        }
        let message = self.list.pop_front()?;
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
        if message.is_some() || self.list.is_empty() {
            return message;
        }
        self.pop_and_fill()
    }

    /// The oldest message of the list; the next ones go into the ring, which is empty, for who has no lock.
    #[inline(never)]
    fn pop_and_fill(&mut self) -> Option<T> {
        let message = self.list.pop_front();
        for _ in 0..self.ring_capacity.min(self.list.len()) {
            if let (Some(next), Some(ring)) = (self.list.pop_front(), self.ring()) {
                ring.push_frozen(next);
            }
        }
        self.shrink();
        message
    }

    /// All that is in the list.
    pub(super) fn take_list(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.list)
    }

    /// Lets receivers use the ring, and senders if they may.
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
            let behind = !self.list.is_empty() && !fault!("queue_lets_in_over_its_list");
            if senders && !behind {
                ring.thaw_tail();
            }
        }
    }

    /// Keeps senders off: all that follows comes under the lock.
    #[inline(always)]
    pub(super) fn keep_senders_off(&self) {
        if !self.ring.is_null() {
            self.freeze(true, false);
        }
    }

    /// Keeps receivers off, as `keep_senders_off`.
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

    /// Gives back the room of a list that is nearly empty and had been long; after a message was taken out.
    /// Before it does so again, most of the smaller room has to be filled and emptied: constant time, over
    /// all steps. The new room is a quarter of the old one at the most, so what is moved under the lock is little.
    #[inline(always)]
    fn shrink(&mut self) {
        let kept = const {
            match size_of::<T>() {
                // These take no room.
                0 => usize::MAX,
                bytes if KEPT_BYTES / bytes > KEPT_MESSAGES => KEPT_BYTES / bytes,
                _ => KEPT_MESSAGES,
            }
        };
        if self.list.capacity() > kept && self.list.len() < self.list.capacity() / 8 {
            self.shrink_to(kept);
        }
    }

    #[cold]
    #[inline(never)]
    fn shrink_to(&mut self, kept: usize) {
        self.list.shrink_to(kept.max(2 * self.list.len()));
    }
}
