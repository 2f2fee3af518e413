//! A channel: its state under one lock, the counts of its ends, and what threads see that do not take the lock.
//!
//! `state.rs` says how messages go from senders to receivers, `ring.rs` how they do so without the lock.
//!
//! Invariant: `offered` is a hint, and may be old. Threads that act on it take the lock and look again, and threads
//! that wait have looked under the lock. A thread that only tries may rely on the hint: it was true at some moment
//! after everything that the thread knows of. A message may move into the ring, and then `offered` counts it no
//! longer. A thread that sees the lower count must find the message in the ring, so `offered` releases and acquires.
//!
//! Checked by `loom-tests/tests/channel.rs`.
#![allow(unsafe_code, reason = "packets lie on the waiters' stacks")]

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::PoisonError;

use weald_scheduler::io::{Awaited, On, WaitQueue};

use super::ring::{Look, Popped, Refused, Ring};
use super::state::State;
use super::waiters::{Packet, Stage};
use crate::shim::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::shim::sync::{Mutex, MutexGuard};

/// The order of the fields matters. Threads that use the ring read the last two fields; threads that take the lock
/// write the first ones, which are on another cache line.
#[repr(C)]
pub(crate) struct Channel<T> {
    mutex: Mutex<()>,
    /// How many messages there were to take when the lock was last let go: those in the deque, and those of waiting
    /// senders. For threads that look without the lock.
    offered: AtomicUsize,
    /// Touched under the lock.
    state: UnsafeCell<State<T>>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// `usize::MAX`: any number.
    capacity: usize,
    /// The ring, which can be used without the lock; null: there is none yet. Set once, under the lock.
    ring: AtomicPtr<Ring<T>>,
}

impl<T> Channel<T> {
    pub(crate) fn new(capacity: Option<usize>) -> Self {
        let capacity = capacity.unwrap_or(usize::MAX);
        Self {
            ring: AtomicPtr::new(ptr::null_mut()),
            mutex: Mutex::new(()),
            offered: AtomicUsize::new(0),
            state: UnsafeCell::new(State::new(capacity)),
            capacity,
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
        }
    }

    /// `usize::MAX`: any number.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes the lock. It is held for a few steps, which run nothing of the user's.
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_, T> {
        Locked {
            _guard: self.mutex.lock().unwrap_or_else(PoisonError::into_inner),
            channel: self,
        }
    }

    /// The ring, if there is one. It can be used without the lock.
    #[inline(always)]
    pub(super) fn ring(&self) -> Option<&Ring<T>> {
        let acquire = relaxed_if!("ring_is_found_relaxed", Ordering::Acquire);
        // SAFETY: a ring that was shown stays as long as the channel.
        unsafe { self.ring.load(acquire).as_ref() }
    }

    /// The ring has room for all messages of the channel. So if the ring is full, the channel is full.
    #[inline]
    fn is_whole(&self, ring: &Ring<T>) -> bool {
        ring.capacity() == self.capacity
    }

    /// Sends a message if that can be done without the lock. For a caller that does not wait: `Full` means that the
    /// channel is full, and after `Frozen` it must take the lock.
    #[inline]
    pub(super) fn try_push_unlocked(&self, message: T) -> Result<(), (Refused, T)> {
        let Some(ring) = self.ring() else {
            return Err((Refused::Frozen, message));
        };
        match ring.push(message) {
            Err((Refused::Full, back)) if !self.is_whole(ring) => Err((Refused::Frozen, back)),
            pushed => pushed,
        }
    }

    /// Receives a message if that can be done without the lock. For a caller that does not wait: `Empty` means that
    /// the channel is empty, and after `Frozen` it must take the lock.
    #[inline]
    pub(super) fn try_pop_unlocked(&self) -> Popped<T> {
        match self.ring().map_or(Popped::Frozen, Ring::pop) {
            // No sender is left. Either the channel is closed, or the last sender has left a message since the look.
            // Only under the lock can this be found out.
            Popped::Empty
                if self.senders.load(Ordering::Acquire) == 0
                    && !fault!("channel_is_empty_for_ever") =>
            {
                Popped::Frozen
            }
            popped => popped,
        }
    }

    /// Would a receive succeed at once? A guess, without the lock. For some channels it is always true.
    #[inline]
    pub(crate) fn seems_to_give(&self) -> bool {
        self.offered.load(Ordering::Acquire) != 0
            || self.ring().is_some_and(|ring| match ring.look() {
                Look::Message => true,
                Look::Empty => false,
                // When `offered` was looked at, there may have been messages in the deque.
                Look::Frozen => !self.is_whole(ring),
            })
            || self.capacity == 0
            || self.senders.load(Ordering::Relaxed) == 0
    }

    /// Would a send succeed at once? A guess, as `seems_to_give`.
    #[inline]
    pub(crate) fn seems_to_take(&self) -> bool {
        let counted = if fault!("channel_counts_a_message_twice") {
            self.offered.load(Ordering::Acquire)
        } else {
            0
        };
        let has_room = match self.ring() {
            // All messages are in the ring. `offered` may be older than their move, and would count them twice.
            Some(ring) if self.is_whole(ring) => counted + ring.len() < self.capacity,
            Some(_) => true,
            None => self.offered.load(Ordering::Acquire) < self.capacity,
        };
        has_room || self.capacity == 0 || self.receivers.load(Ordering::Relaxed) == 0
    }

    /// What a receiver waits for, for `dump`.
    #[inline(always)]
    pub(super) fn message(&self) -> On {
        On::counted(Awaited::Message, self, std::mem::offset_of!(Self, senders))
    }

    /// What a sender waits for, for `dump`.
    #[inline(always)]
    pub(super) fn room(&self) -> On {
        On::counted(Awaited::Room, self, std::mem::offset_of!(Self, receivers))
    }

    /// The number of messages that it holds.
    pub(crate) fn len(&self) -> usize {
        let len = self.ring().and_then(Ring::len_without_frost);
        len.unwrap_or_else(|| self.lock().len())
    }

    /// True if there is no room.
    pub(crate) fn is_full(&self) -> bool {
        match self.ring().and_then(Ring::len_without_frost) {
            // No place is reserved while senders are let in.
            Some(len) => len == self.capacity,
            None => self.lock().is_full(self.capacity),
        }
    }

    pub(crate) fn mutex(&self) -> &Mutex<()> {
        &self.mutex
    }

    /// The state, for a selection that holds the locks of several channels.
    ///
    /// # Safety
    /// The caller holds the lock, and no other reference to the state.
    #[allow(clippy::mut_from_ref, reason = "the caller's promise makes it unique")]
    pub(crate) unsafe fn state(&self) -> &mut State<T> {
        // SAFETY: by contract.
        unsafe { &mut *self.state.get() }
    }

    /// Calls `f` with the state, and notes the offer afterwards, as `Locked` does. For a selection that holds the
    /// locks of several channels.
    ///
    /// # Safety
    /// As `state`.
    pub(crate) unsafe fn with_state<R>(&self, f: impl FnOnce(&mut State<T>) -> R) -> R {
        // SAFETY: by contract.
        let state = unsafe { self.state() };
        let result = f(state);
        self.note_offer(state);
        result
    }

    /// Notes how many messages there are, for threads that look without the lock. Called before the lock is let go.
    #[inline(always)]
    fn note_offer(&self, state: &State<T>) {
        self.offered.store(state.on_offer(), Ordering::Release);
    }

    pub(crate) fn count_sender(&self) {
        count(&self.senders);
    }

    pub(crate) fn count_receiver(&self) {
        count(&self.receivers);
    }

    /// A sender is gone. If it was the last one, the receivers that wait are told.
    pub(crate) fn drop_sender(&self) {
        if fault!("channel_counts_senders_apart") && self.senders.load(Ordering::Acquire) != 1 {
            let left = self.senders.load(Ordering::Acquire) - 1;
            self.senders.store(left, Ordering::Release);
            return;
        }
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.lock().close(true);
        }
    }

    /// A receiver is gone. If it was the last one, the senders that wait are told, and the messages are dropped.
    pub(crate) fn drop_receiver(&self) {
        if self.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut messages = ManuallyDrop::new(self.lock().close(false));
            // Their destructors are the user's. If one panics, those behind it are leaked, as crossbeam
            // does: another panic while the first unwinds would end the process.
            self.drop_ring();
            while let Some(message) = messages.pop_front() {
                drop(message);
            }
            drop(ManuallyDrop::into_inner(messages));
        }
    }
}

impl<T> Channel<T> {
    /// Drops the messages in the ring. No receiver is left, and no more messages come.
    fn drop_ring(&self) {
        if fault!("channel_close_keeps_the_messages") {
            return;
        }
        if let Some(ring) = self.ring() {
            while let Some(message) = ring.pop_held() {
                drop(message);
            }
        }
    }
}

impl<T> Drop for Channel<T> {
    fn drop(&mut self) {
        let ring = self.ring.load(Ordering::Relaxed);
        if !ring.is_null() {
            // SAFETY: the state has made the ring by `Box::into_raw`. Others had references to it only through `self`.
            drop(unsafe { Box::from_raw(ring) });
        }
    }
}

// SAFETY: the state is touched under the lock, the ring as its stamps say, and messages go from thread to thread.
unsafe impl<T: std::marker::Send> std::marker::Send for Channel<T> {}
// SAFETY: as above.
unsafe impl<T: std::marker::Send> Sync for Channel<T> {}

/// The state of a channel, locked.
pub(crate) struct Locked<'a, T> {
    _guard: MutexGuard<'a, ()>,
    channel: &'a Channel<T>,
}

impl<T> Locked<'_, T> {
    /// Puts a message into the buffer. `send` has found a place in the same hold of the lock.
    #[inline(always)]
    pub(super) fn push(&mut self, message: T) {
        if self.push_quietly(message) {
            self.show_ring();
        }
    }

    /// A lazy sender with a reserved place has made its message. The message comes back if no receiver is left.
    pub(super) fn put_reserved(&mut self, message: T) -> Result<(), T> {
        if let Some(message) = self.hand_reserved(message)? {
            self.push(message);
        }
        Ok(())
    }

    /// From now on the ring can be used without the lock.
    #[cold]
    fn show_ring(&self) {
        let ring = self.ring_address().cast_mut();
        self.channel.ring.store(ring, Ordering::Release);
    }
}

impl<T> Drop for Locked<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.channel.note_offer(self);
    }
}

impl<T> Deref for Locked<'_, T> {
    type Target = State<T>;

    #[inline(always)]
    fn deref(&self) -> &State<T> {
        // SAFETY: the lock is held.
        unsafe { &*self.channel.state.get() }
    }
}

impl<T> DerefMut for Locked<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut State<T> {
        // SAFETY: the lock is held, and this is borrowed uniquely.
        unsafe { &mut *self.channel.state.get() }
    }
}

/// Counts one more handle.
fn count(handles: &AtomicUsize) {
    let before = handles.fetch_add(1, Ordering::Relaxed);
    // As `Arc`: a program that forgets so many handles is broken.
    if before > usize::MAX / 2 {
        std::process::abort();
    }
}

/// A lazy sender has claimed this receiver. Waits until the sender fills the packet, or says that no message comes.
/// No exception ends the wait, because a message may be on its way.
#[cold]
pub(crate) fn wait_until_filled<T>(channel: &Channel<T>, packet: &Packet<T>) {
    let filled = WaitQueue::of("the message of a send that was chosen");
    let is_settled = || {
        let _state = channel.lock();
        let settled = packet.stage() != Stage::Empty;
        packet.awaited.set(if settled {
            ptr::null()
        } else {
            &raw const filled
        });
        settled
    };
    while !is_settled() {
        filled.wait(is_settled, None, false);
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}
