//! A channel: its state under one lock, the counts of its ends, and what those see who look without the lock.
//!
//! `state.rs` tells how messages go from senders to receivers.
//!
//! Invariant: `told` is a hint. Whoever acts on it takes the lock and looks, and whoever waits has
//! looked under the lock; so it may be old, and its accesses are relaxed. Who only tries may go by it: it
//! is the truth of a moment that is not before anything that the caller knows of.
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

use super::state::State;
use super::waiters::{Packet, Stage};
use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::sync::{Mutex, MutexGuard};

pub(crate) struct Channel<T> {
    mutex: Mutex<()>,
    /// How many messages there were to take, in the buffer and of those who wait to send, when the lock
    /// was last let go; for who looks without it.
    told: AtomicUsize,
    /// Under the lock.
    state: UnsafeCell<State<T>>,
    /// `usize::MAX`: any number.
    capacity: usize,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

impl<T> Channel<T> {
    pub(crate) fn new(capacity: Option<usize>) -> Self {
        Self {
            mutex: Mutex::new(()),
            told: AtomicUsize::new(0),
            state: UnsafeCell::new(State::new()),
            capacity: capacity.unwrap_or(usize::MAX),
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

    /// Would a receive begin at once? A guess, without the lock; of some channels always true.
    #[inline]
    pub(crate) fn seems_to_give(&self) -> bool {
        self.told.load(Ordering::Relaxed) != 0
            || self.capacity == 0
            || self.senders.load(Ordering::Relaxed) == 0
    }

    /// Would a send begin at once? As `seems_to_give`.
    #[inline]
    pub(crate) fn seems_to_take(&self) -> bool {
        self.told.load(Ordering::Relaxed) < self.capacity
            || self.capacity == 0
            || self.receivers.load(Ordering::Relaxed) == 0
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
        self.told.store(state.on_offer(), Ordering::Relaxed);
        result
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
            while let Some(message) = messages.pop_front() {
                drop(message);
            }
            drop(ManuallyDrop::into_inner(messages));
        }
    }
}

// SAFETY: the state is touched under the lock, and messages go from thread to thread.
unsafe impl<T: std::marker::Send> std::marker::Send for Channel<T> {}
// SAFETY: as above.
unsafe impl<T: std::marker::Send> Sync for Channel<T> {}

/// The state of a channel, locked.
pub(crate) struct Locked<'a, T> {
    _guard: MutexGuard<'a, ()>,
    channel: &'a Channel<T>,
}

impl<T> Drop for Locked<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.channel.told.store(self.on_offer(), Ordering::Relaxed);
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
