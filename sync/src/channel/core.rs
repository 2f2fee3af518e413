//! A channel under one lock: the messages, who waits to send, who waits to receive.
//!
//! A sender that meets a waiting receiver hands its message over directly; a receiver that takes from
//! a full channel moves the message of the oldest waiting sender in. So nobody who was woken need try
//! again, and order is kept. (Go's channels work so.) With capacity 0 handing over is all there is.
//!
//! Who waits leaves an [`Entry`]: its selection, the arm, and the address of a [`Packet`] on its stack.
//! A `send` of a `select!` has no message yet: it is *lazy*. It holds a place in the buffer
//! (`reserved`), or the receiver that it has claimed, until it has made the message.
//!
//! | packet  | of a receiver                      | of a sender                                |
//! |---------|------------------------------------|--------------------------------------------|
//! | EMPTY   | nothing yet                        | the message, or none if it is lazy         |
//! | FULL    | the message                        | -                                          |
//! | TAKEN   | -                                  | the message was taken                      |
//! | PLACE   | -                                  | lazy: a place in the buffer is reserved    |
//! | PARTNER | -                                  | lazy: `partner` is a claimed receiver      |
//! | RETRY   | its sender could make no message   | -                                          |
//! | CLOSED  | no sender is left                  | no receiver is left                        |
//!
//! Invariant 1: packets and entries are touched under the lock. A waiter takes its entry out, or
//! finds it taken out, under the lock before its packet goes; or, if it waits for this one thing only,
//! it was woken by its partner (`selection.rs`, invariant 3), which has taken the entry out, and has
//! said in the packet what became of it, before.
//! Invariant 2: an entry that was taken out by a claim has its packet out of EMPTY in the same hold of
//! the lock, but for a receiver claimed by a lazy sender: it waits until that has filled it, however
//! long, and the lazy sender does so or says RETRY when it is dropped.
//! Invariant 3: `queue.len() + reserved <= capacity`. A waiting receiver (not yet claimed) means that
//! the queue is empty and no sender waits, but one of the same selection; a waiting sender that the
//! buffer is full, reserved places included.
//! Invariant 4: an entry whose selection cannot be claimed is dropped by whoever meets it; its owner
//! does not mind.
//! Invariant 5: `told` is a hint. Whoever acts on it takes the lock and looks, and whoever waits has
//! looked under the lock; so it may be old, and its accesses are relaxed. Who only tries may go by it: it
//! is the truth of a moment that is not before anything that the caller knows of.
//!
//! Checked by `loom-tests/tests/channel.rs`.
#![allow(unsafe_code, reason = "packets lie on the waiters' stacks")]

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomPinned;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::PoisonError;

use weald_scheduler::io::{Selection, WaitQueue};

use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::cell::Cell;
use crate::shim::sync::{Mutex, MutexGuard};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Empty,
    Full,
    Taken,
    Place,
    Partner,
    Retry,
    Closed,
}

/// What a waiter and its partner exchange; on the waiter's stack, touched under the lock.
pub(crate) struct Packet<T> {
    stage: Cell<Stage>,
    value: UnsafeCell<Option<T>>,
    /// Of a lazy sender: the receiver it has claimed.
    partner: Cell<*const Packet<T>>,
    /// Of a receiver that was claimed while it waits: whom to wake.
    waiter: Cell<*const Selection>,
    lazy: bool,
    /// Where a receiver that was claimed by a lazy sender waits until the packet is filled; or null.
    awaited: Cell<*const WaitQueue>,
    /// Partners have its address: a `&mut` of its owner's is not the only way to it.
    _shared: PhantomPinned,
}

impl<T> Packet<T> {
    #[inline]
    pub(crate) fn new(value: Option<T>, lazy: bool) -> Self {
        Self {
            stage: Cell::new(Stage::Empty),
            value: UnsafeCell::new(value),
            partner: Cell::new(ptr::null()),
            waiter: Cell::new(ptr::null()),
            lazy,
            awaited: Cell::new(ptr::null()),
            _shared: PhantomPinned,
        }
    }

    /// As new, without a value; for its owner while nobody else knows of it.
    pub(crate) fn reset(&mut self) {
        self.stage.set(Stage::Empty);
        self.partner.set(ptr::null());
        self.waiter.set(ptr::null());
        self.awaited.set(ptr::null());
    }

    pub(crate) fn take_value(&mut self) -> Option<T> {
        self.value.get_mut().take()
    }
}

/// A waiter, as its partners find it.
pub(crate) struct Entry<T> {
    selection: *const Selection,
    arm: usize,
    packet: *const Packet<T>,
}

/// What happens under the lock.
pub(crate) struct State<T> {
    queue: VecDeque<T>,
    reserved: usize,
    senders: VecDeque<Entry<T>>,
    receivers: VecDeque<Entry<T>>,
    /// Selections that wait for the channel to become ready, without taking part.
    watchers: Vec<(*const Selection, usize)>,
    no_senders: bool,
    no_receivers: bool,
}

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

/// How a receive began.
pub(crate) enum Receive<T> {
    Value(T),
    /// The packet of a claimed lazy sender: that will fill the receiver's packet, which it was told.
    Comes,
    Empty,
    Closed,
}

/// How a send began: what the sender may do with its message.
#[derive(Clone, Copy)]
pub(crate) enum Send<T> {
    /// Give it to this receiver, which was claimed.
    Partner(*const Packet<T>),
    /// Put it into the buffer.
    Place,
    Full,
    Closed,
}

impl<T> Channel<T> {
    pub(crate) fn new(capacity: Option<usize>) -> Self {
        Self {
            mutex: Mutex::new(()),
            told: AtomicUsize::new(0),
            state: UnsafeCell::new(State {
                queue: VecDeque::new(),
                reserved: 0,
                senders: VecDeque::new(),
                receivers: VecDeque::new(),
                watchers: Vec::new(),
                no_senders: false,
                no_receivers: false,
            }),
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
        if cfg!(weald_fault = "channel_counts_senders_apart")
            && self.senders.load(Ordering::Acquire) != 1
        {
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
            let messages = self.lock().close(false);
            // Their destructors are the user's.
            drop(messages);
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

impl<T> State<T> {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// How many messages there are to take. While a sender waits the buffer, with its reserved places, is
    /// full; so it also tells whether there is room, but for places that are reserved and nobody waits.
    #[inline(always)]
    fn on_offer(&self) -> usize {
        self.queue.len() + self.senders.len()
    }

    #[inline]
    fn has_room(&self, capacity: usize) -> bool {
        self.queue.len() + self.reserved < capacity
    }

    /// A send need only `push`.
    #[inline(always)]
    pub(crate) fn takes_more(&self, capacity: usize) -> bool {
        let plain = !self.no_receivers && self.receivers.is_empty();
        plain && self.has_room(capacity)
    }

    pub(crate) fn is_full(&self, capacity: usize) -> bool {
        !self.has_room(capacity)
    }

    /// Takes out the first waiter that can be claimed, and claims it.
    ///
    /// # Safety
    /// The entries are of this state, whose lock is held.
    unsafe fn claim_first(entries: &mut VecDeque<Entry<T>>) -> Option<Entry<T>> {
        while let Some(entry) = entries.pop_front() {
            // SAFETY: the lock is held, so the waiter is there (invariant 1).
            if unsafe { (*entry.selection).claim(entry.arm) } {
                return Some(entry);
            }
        }
        None
    }

    /// Claims and wakes those who only watch.
    #[inline]
    fn tell_watchers(&mut self) {
        if !self.watchers.is_empty() {
            self.tell_watchers_slow();
        }
    }

    #[cold]
    fn tell_watchers_slow(&mut self) {
        for (selection, arm) in self.watchers.drain(..) {
            // SAFETY: the lock is held, so the watcher is there.
            unsafe {
                if (*selection).claim(arm) {
                    Selection::wake(selection);
                }
            }
        }
    }

    /// The oldest message of the buffer.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let value = self.queue.pop_front()?;
        if !self.senders.is_empty() && !cfg!(weald_fault = "channel_keeps_the_place") {
            self.fill_place();
        }
        self.tell_watchers();
        Some(value)
    }

    /// Begins a receive. `packet`: the receiver's own, which a lazy sender would fill.
    pub(crate) fn receive(&mut self, packet: &Packet<T>) -> Receive<T> {
        if let Some(value) = self.pop() {
            return Receive::Value(value);
        }
        // With an empty buffer only the senders of a channel without one wait here, or senders behind
        // reserved places, whose messages may take long to come.
        if self.reserved != 0 && cfg!(weald_fault = "channel_receiver_waits_for_the_reserved") {
            return Receive::Empty;
        }
        // SAFETY: the lock is held.
        if let Some(entry) = unsafe { Self::claim_first(&mut self.senders) } {
            // SAFETY: the entry was claimed under this lock; its waiter needs the lock to go.
            let sender = unsafe { &*entry.packet };
            // SAFETY: as above.
            let value = unsafe { (*sender.value.get()).take() };
            sender.stage.set(if value.is_some() {
                Stage::Taken
            } else {
                sender.partner.set(packet);
                Stage::Partner
            });
            // SAFETY: as above.
            unsafe { Selection::wake(entry.selection) };
            self.tell_watchers();
            return value.map_or(Receive::Comes, Receive::Value);
        }
        if self.no_senders && self.reserved == 0 {
            Receive::Closed
        } else {
            Receive::Empty
        }
    }

    /// A place in the buffer has become free: the oldest waiting sender gets it.
    #[inline(never)]
    fn fill_place(&mut self) {
        // SAFETY: the lock is held.
        let Some(entry) = (unsafe { Self::claim_first(&mut self.senders) }) else {
            return;
        };
        // SAFETY: the entry was claimed under this lock; its waiter needs the lock to go.
        let sender = unsafe { &*entry.packet };
        if sender.lazy {
            self.reserved += 1;
            sender.stage.set(Stage::Place);
        } else {
            // SAFETY: as above.
            self.queue.extend(unsafe { (*sender.value.get()).take() });
            sender.stage.set(Stage::Taken);
        }
        // SAFETY: as above.
        unsafe { Selection::wake(entry.selection) };
    }

    /// Begins a send.
    pub(crate) fn send(&mut self, capacity: usize) -> Send<T> {
        if self.no_receivers {
            return Send::Closed;
        }
        if !self.receivers.is_empty()
            && !cfg!(weald_fault = "channel_passes_receivers_by")
            // SAFETY: the lock is held.
            && let Some(entry) = unsafe { Self::claim_first(&mut self.receivers) }
        {
            // The selection is woken when the packet is filled: its packet is all that is needed.
            // SAFETY: claimed under this lock.
            unsafe { (*entry.packet).waiter.set(entry.selection) };
            return Send::Partner(entry.packet);
        }
        if self.has_room(capacity) {
            Send::Place
        } else {
            Send::Full
        }
    }

    /// Gives a message to a receiver that `send` has claimed.
    ///
    /// # Safety
    /// The packet is from `send` of this state, or the partner of a claimed lazy sender, and neither
    /// filled nor refused.
    pub(crate) unsafe fn fill(&mut self, packet: *const Packet<T>, value: T) {
        // SAFETY: by contract, and invariant 2: the receiver waits until it is filled.
        unsafe {
            *(*packet).value.get() = Some(value);
            Self::settle(packet, Stage::Full);
        }
        self.tell_watchers();
    }

    /// Says to a receiver that was claimed what became of it.
    ///
    /// # Safety
    /// As `fill`.
    unsafe fn settle(packet: *const Packet<T>, stage: Stage) {
        // SAFETY: by contract.
        let receiver = unsafe { &*packet };
        let (selection, awaited) = (receiver.waiter.get(), receiver.awaited.get());
        if cfg!(weald_fault = "channel_wakes_who_is_not_settled") && !selection.is_null() {
            // SAFETY: none, as a fault.
            unsafe { Selection::wake(selection) };
        }
        receiver.stage.set(stage);
        // From here on the packet may be gone if there is a selection that waits.
        if !selection.is_null() {
            // SAFETY: the receiver's selection, which waits; or it needs the lock to go.
            unsafe { Selection::wake(selection) };
        }
        if !awaited.is_null() {
            // SAFETY: who waits there needs the lock to go.
            unsafe { (*awaited).wake_one() };
        }
    }

    /// Puts a message into the buffer, or hands it to a receiver that has come meanwhile.
    pub(crate) fn put(&mut self, value: T) {
        // SAFETY: the lock is held.
        if let Some(entry) = unsafe { Self::claim_first(&mut self.receivers) } {
            // SAFETY: claimed under this lock, and filled in the same hold.
            unsafe {
                (*entry.packet).waiter.set(entry.selection);
                self.fill(entry.packet, value);
            }
        } else {
            self.push(value);
        }
    }

    /// Puts a message into the buffer, in the hold of the lock in which `send` has found a place.
    #[inline(always)]
    pub(crate) fn push(&mut self, value: T) {
        self.queue.push_back(value);
        if !cfg!(weald_fault = "select_watches_in_vain") {
            self.tell_watchers();
        }
    }

    /// Holds a place in the buffer for a lazy sender.
    pub(crate) fn reserve(&mut self) {
        self.reserved += 1;
    }

    /// A lazy sender has made its message. The message comes back if no receiver is left.
    pub(crate) fn put_reserved(&mut self, value: T) -> Result<(), T> {
        self.reserved -= 1;
        if self.no_receivers {
            return Err(value);
        }
        self.put(value);
        Ok(())
    }

    /// A lazy sender has made none: its place is free again.
    pub(crate) fn give_place_back(&mut self) {
        self.reserved -= 1;
        if !cfg!(weald_fault = "select_keeps_its_place") {
            self.fill_place();
        }
        if self.no_senders && self.reserved == 0 {
            self.tell_receivers_closed();
        }
        self.tell_watchers();
    }

    /// A lazy sender has made no message for the receiver that it claimed.
    ///
    /// # Safety
    /// As `fill`.
    #[allow(
        clippy::unused_self,
        reason = "having the state proves that the lock is held"
    )]
    pub(crate) unsafe fn refuse(&mut self, packet: *const Packet<T>) {
        // SAFETY: by contract.
        unsafe { Self::settle(packet, Stage::Retry) };
    }

    pub(crate) fn wait_to_send(&mut self, selection: &Selection, arm: usize, packet: &Packet<T>) {
        self.senders.push_back(Entry {
            selection,
            arm,
            packet,
        });
        // Who watches whether a receive would succeed: with a sender waiting it would.
        self.tell_watchers();
    }

    pub(crate) fn wait_to_receive(
        &mut self,
        selection: &Selection,
        arm: usize,
        packet: &Packet<T>,
    ) {
        self.receivers.push_back(Entry {
            selection,
            arm,
            packet,
        });
        self.tell_watchers();
    }

    /// Takes a waiter out, if it is still there.
    pub(crate) fn forget(&mut self, selection: &Selection) {
        for entries in [&mut self.senders, &mut self.receivers] {
            if !entries.is_empty() {
                entries.retain(|entry| !ptr::eq(entry.selection, selection));
            }
        }
    }

    pub(crate) fn watch(&mut self, selection: &Selection, arm: usize) {
        self.watchers.push((selection, arm));
    }

    pub(crate) fn unwatch(&mut self, selection: &Selection) {
        if !self.watchers.is_empty() {
            self.watchers
                .retain(|(watcher, _)| !ptr::eq(*watcher, selection));
        }
    }

    pub(crate) fn stage(packet: &Packet<T>) -> Stage {
        packet.stage.get()
    }

    pub(crate) fn partner(packet: &Packet<T>) -> *const Packet<T> {
        packet.partner.get()
    }

    /// Would a receive begin at once?
    pub(crate) fn can_receive(&self, own: Option<&Selection>) -> bool {
        let sender = |e: &Entry<T>| own.is_none_or(|own| !ptr::eq(e.selection, own));
        !self.queue.is_empty()
            || self.senders.iter().any(sender)
            || (self.no_senders && self.reserved == 0)
    }

    /// Would a send begin at once?
    pub(crate) fn can_send(&self, capacity: usize, own: Option<&Selection>) -> bool {
        let receiver = |e: &Entry<T>| own.is_none_or(|own| !ptr::eq(e.selection, own));
        self.no_receivers || self.receivers.iter().any(receiver) || self.has_room(capacity)
    }

    fn tell_receivers_closed(&mut self) {
        // SAFETY: the lock is held.
        while let Some(entry) = unsafe { Self::claim_first(&mut self.receivers) } {
            // SAFETY: claimed under this lock.
            unsafe {
                (*entry.packet).stage.set(Stage::Closed);
                Selection::wake(entry.selection);
            }
        }
    }

    /// One side is gone. Returns the messages that nobody will receive.
    fn close(&mut self, senders: bool) -> VecDeque<T> {
        if senders {
            self.no_senders = true;
            if cfg!(weald_fault = "oneshot_ends_with_its_message") {
                self.queue.clear();
            }
            if self.reserved == 0 && !cfg!(weald_fault = "channel_closes_quietly") {
                self.tell_receivers_closed();
            }
            self.tell_watchers();
            return VecDeque::new();
        }
        self.no_receivers = true;
        // SAFETY: the lock is held.
        while let Some(entry) = unsafe { Self::claim_first(&mut self.senders) } {
            // SAFETY: claimed under this lock.
            unsafe {
                (*entry.packet).stage.set(Stage::Closed);
                Selection::wake(entry.selection);
            }
            if cfg!(weald_fault = "channel_close_tells_one") {
                break;
            }
        }
        self.tell_watchers();
        if cfg!(weald_fault = "channel_close_keeps_the_messages") {
            return VecDeque::new();
        }
        std::mem::take(&mut self.queue)
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
