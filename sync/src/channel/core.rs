//! A channel: its state under one lock, the counts of its ends, and what those see who come without the lock.
//!
//! `state.rs` tells how messages go from senders to receivers, `ring.rs` how they do so without the lock.
//!
//! Invariant: `told` is a hint. Whoever acts on it takes the lock and looks, and whoever waits has looked under
//! the lock; so it may be old. A thread that only tries may go by it: it is the truth of a moment that is not before
//! anything that the caller knows of. A message may move from what `told` counts into the ring. Whoever sees that
//! `told` counts it no more must find it in the ring, so `told` releases and acquires.
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

/// In this order: those who use the ring read the last two fields, which are on another cache line than what
/// those write who take the lock.
#[repr(C)]
pub(crate) struct Channel<T> {
    mutex: Mutex<()>,
    /// How many messages there were to take, in a list and of those who wait to send, when the lock
    /// was last let go; for who looks without it.
    told: AtomicUsize,
    /// Under the lock.
    state: UnsafeCell<State<T>>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// `usize::MAX`: any number.
    capacity: usize,
    /// What can be used without the lock; null: nothing. Set once, under the lock.
    ring: AtomicPtr<Ring<T>>,
}

impl<T> Channel<T> {
    pub(crate) fn new(capacity: Option<usize>) -> Self {
        let capacity = capacity.unwrap_or(usize::MAX);
        Self {
            ring: AtomicPtr::new(ptr::null_mut()),
            mutex: Mutex::new(()),
            told: AtomicUsize::new(0),
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

    /// Held for a few steps that run nothing of the user's.
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_, T> {
        Locked {
            _guard: self.mutex.lock().unwrap_or_else(PoisonError::into_inner),
            channel: self,
        }
    }

    /// What can be used without the lock.
    #[inline(always)]
    pub(super) fn ring(&self) -> Option<&Ring<T>> {
        let acquire = relaxed_if!("ring_is_found_relaxed", Ordering::Acquire);
        // SAFETY: once set it stays as long as the channel.
        unsafe { self.ring.load(acquire).as_ref() }
    }

    /// The ring has room for all messages of the channel: if it is full, so is the channel.
    #[inline]
    fn is_whole(&self, ring: &Ring<T>) -> bool {
        ring.capacity() == self.capacity
    }

    /// Sends a message if it can be done without the lock, for who does not wait. `Full` is the answer.
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

    /// Receives a message if it can be done without the lock, for who does not wait. `Empty` is the answer.
    #[inline]
    pub(super) fn try_pop_unlocked(&self) -> Popped<T> {
        match self.ring().map_or(Popped::Frozen, Ring::pop) {
            // The last sender may have gone, and left a message before.
            Popped::Empty
                if self.senders.load(Ordering::Acquire) == 0
                    && !fault!("channel_is_empty_for_ever") =>
            {
                Popped::Frozen
            }
            popped => popped,
        }
    }

    /// Would a receive begin at once? A guess, without the lock; of some channels always true.
    #[inline]
    pub(crate) fn seems_to_give(&self) -> bool {
        self.told.load(Ordering::Acquire) != 0
            || self.ring().is_some_and(|ring| match ring.look() {
                Look::Message => true,
                Look::Empty => false,
                // While `told` was looked at, messages may have been behind the ring.
                Look::Frozen => !self.is_whole(ring),
            })
            || self.capacity == 0
            || self.senders.load(Ordering::Relaxed) == 0
    }

    /// Would a send begin at once? As `seems_to_give`.
    #[inline]
    pub(crate) fn seems_to_take(&self) -> bool {
        let has_room = match self.ring() {
            // All messages are in the ring. What `told` says may be from before they were moved there, and would count twice.
            Some(ring) if self.is_whole(ring) => ring.len() < self.capacity,
            Some(_) => true,
            None => self.told.load(Ordering::Acquire) < self.capacity,
        };
        has_room || self.capacity == 0 || self.receivers.load(Ordering::Relaxed) == 0
    }

    /// What a receiver waits for, as `dump` tells it.
    #[inline(always)]
    pub(super) fn message(&self) -> On {
        On::counted(Awaited::Message, self, std::mem::offset_of!(Self, senders))
    }

    /// What a sender waits for, as `dump` tells it.
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

    /// For a selection that holds the locks of several channels.
    ///
    /// # Safety
    /// The caller holds the lock, and no other reference to the state.
    #[allow(clippy::mut_from_ref, reason = "the caller's promise makes it unique")]
    pub(crate) unsafe fn state(&self) -> &mut State<T> {
        // SAFETY: by contract.
        unsafe { &mut *self.state.get() }
    }

    /// Calls `f` with the state; as `Locked`, for a selection that holds the locks of several channels.
    ///
    /// # Safety
    /// As `state`.
    pub(crate) unsafe fn with_state<R>(&self, f: impl FnOnce(&mut State<T>) -> R) -> R {
        // SAFETY: by contract.
        let state = unsafe { self.state() };
        let result = f(state);
        self.tell(state);
        result
    }

    /// Tells those who look without the lock; before the lock is let go.
    #[inline(always)]
    fn tell(&self, state: &State<T>) {
        self.told.store(state.on_offer(), Ordering::Release);
    }

    pub(crate) fn count_sender(&self) {
        count(&self.senders);
    }

    pub(crate) fn count_receiver(&self) {
        count(&self.receivers);
    }

    /// A sender is gone. With the last one the receivers that wait are told.
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

    /// A receiver is gone. With the last one the senders that wait are told, and the messages dropped.
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
    /// Drops the messages in the ring: no receiver is left, and no more come.
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
            // SAFETY: the state has made it by `Box::into_raw`, and it was shown to nobody but through `self`.
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
    /// Puts a message into the buffer, in the hold of the lock in which `send` has found a place.
    #[inline(always)]
    pub(super) fn push(&mut self, message: T) {
        if self.push_quietly(message) {
            self.show_ring();
        }
    }

    /// A lazy sender has made its message. The message comes back if no receiver is left.
    pub(super) fn put_reserved(&mut self, message: T) -> Result<(), T> {
        if let Some(message) = self.hand_reserved(message)? {
            self.push(message);
        }
        Ok(())
    }

    /// From now on it can be used without the lock.
    #[cold]
    fn show_ring(&self) {
        let ring = self.ring_address().cast_mut();
        self.channel.ring.store(ring, Ordering::Release);
    }
}

impl<T> Drop for Locked<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.channel.tell(self);
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

/// Waits until the packet of a receiver that a lazy sender has claimed is filled or refused. No
/// exception ends it: a message may be on its way.
#[cold]
pub(crate) fn wait_until_filled<T>(channel: &Channel<T>, packet: &Packet<T>) {
    let filled = WaitQueue::of("the message of a send that was chosen");
    let is_settled = || {
        let _state = channel.lock();
        let settled = packet.stage.get() != Stage::Empty;
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
