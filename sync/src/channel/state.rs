//! What a channel has under its lock: the messages, who waits to send, who waits to receive.
//!
//! A sender that meets a waiting receiver hands its message over directly; a receiver that takes from
//! a full channel moves the message of the oldest waiting sender in. So nobody who was woken need try
//! again, and order is kept. (Go's channels work so.) With capacity 0 handing over is all there is.
//!
//! Who waits leaves a [`Packet`], which lies on its stack, in a list (`waiters.rs`), with its selection and the arm.
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
//! Invariant 1: packets are touched under the lock. A waiter takes its packet out of its list, or
//! finds it taken out, under the lock before the packet goes; or, if it waits for this one thing only,
//! it was woken by its partner (`selection.rs`, invariant 3), which has taken the packet out, and has
//! said in it what became of it, before.
//! Invariant 2: a packet that was taken out by a claim leaves EMPTY in the same hold of
//! the lock, but for a receiver claimed by a lazy sender: it waits until that has filled it, however
//! long, and the lazy sender does so or says RETRY when it is dropped.
//! Invariant 3: `queue.len() + reserved <= capacity`. A waiting receiver (not yet claimed) means that
//! the queue is empty and no sender waits, but one of the same selection; a waiting sender that the
//! buffer is full, reserved places included.
//! Invariant 4: a packet whose selection cannot be claimed is taken out by whoever meets it; its owner
//! does not mind.
//!
//! Where the messages are in a ring (`ring.rs`), senders and receivers use it without the lock, but for those
//! who are kept off. Whoever then takes the lock finds what stands above.
//!
//! | while, when the lock is let go     | kept off              | because                                        |
//! |------------------------------------|-----------------------|------------------------------------------------|
//! | a receiver waits                   | senders               | it gets the next message                       |
//! | a sender waits                     | senders and receivers | it gets the next place                         |
//! | somebody watches                   | senders and receivers | each change is told                            |
//! | a place is reserved                | senders               | the ring's room is not all to be had           |
//! | there are messages behind the ring | senders               | theirs come behind those (`queue.rs`)          |
//! | no receiver is left                | senders, for ever     | the message comes back                         |
//!
//! Invariant 5: as the table says. Whoever is about to wait keeps them off first, and then looks, in the same
//! hold of the lock: what was done before is seen, what is done after takes the lock.
//! Invariant 6: a message is put in under the lock only with senders kept off, so that the room which was
//! seen is still there.
//! They may be kept off for nothing; the next who takes the lock and has nobody to meet lets them in.
//!
//! Checked by `loom-tests/tests/channel.rs` and `select.rs` there.
#![allow(unsafe_code, reason = "packets lie on the waiters' stacks")]

use std::collections::VecDeque;
use std::ptr;

use weald_scheduler::io::Selection;

use super::queue::Queue;
use super::ring::Ring;
use super::waiters::{List, Packet, Stage, Waiters};

/// What happens under the lock.
pub(crate) struct State<T> {
    queue: Queue<T>,
    reserved: usize,
    senders: Waiters<T>,
    receivers: Waiters<T>,
    /// Those who wait for the channel to become ready, without taking part.
    watchers: Waiters<T>,
    no_senders: bool,
    no_receivers: bool,
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

impl<T> State<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            queue: Queue::new(capacity),
            reserved: 0,
            senders: Waiters::new(List::Senders),
            receivers: Waiters::new(List::Receivers),
            watchers: Waiters::new(List::Watchers),
            no_senders: false,
            no_receivers: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// How many messages there are to take, but for those in a ring. While a sender waits the buffer, with its
    /// reserved places, is full; so it also tells whether there is room, but for places that are reserved and
    /// nobody waits.
    #[inline(always)]
    pub(super) fn on_offer(&self) -> usize {
        self.queue.listed() + self.senders.len()
    }

    /// Its ring, for the channel to show to those who have no lock; or null.
    #[inline(always)]
    pub(super) fn ring_address(&self) -> *const Ring<T> {
        self.queue.ring_address()
    }

    /// Lets in again those who are kept off for nothing, by the table of invariant 5; after a message was put
    /// in or taken out, nobody was met, and who watches was told.
    #[inline(always)]
    fn let_in(&self) {
        debug_assert!(self.watchers.is_empty(), "they were told");
        debug_assert!(self.receivers.is_empty(), "there is or was a message");
        debug_assert!(!self.no_receivers, "nobody puts in or takes out");
        if self.senders.is_empty() || fault!("channel_lets_in_over_senders") {
            let seeded = fault!("channel_lets_in_over_the_reserved");
            self.queue.let_in(self.reserved == 0 || seeded);
        }
    }

    #[inline]
    fn has_room(&self, capacity: usize) -> bool {
        self.queue.len() + self.reserved < capacity
    }

    /// A send need only `push`.
    #[inline(always)]
    pub(crate) fn takes_more(&self, capacity: usize) -> bool {
        // One branch for all.
        let plain = !self.no_receivers & self.receivers.is_empty() & !self.queue.has_ring();
        plain && self.queue.listed() + self.reserved < capacity
    }

    pub(crate) fn is_full(&self, capacity: usize) -> bool {
        !self.has_room(capacity)
    }

    /// Takes out the first waiter that can be claimed, and claims it.
    ///
    /// # Safety
    /// The lock of the channel is held.
    #[inline]
    unsafe fn claim_first(waiters: &mut Waiters<T>) -> Option<*const Packet<T>> {
        // SAFETY: by contract.
        while let Some(packet) = unsafe { waiters.pop() } {
            // SAFETY: the lock is held, so the waiter is there (invariant 1).
            if unsafe { (*(*packet).selection.get()).claim((*packet).arm.get()) } {
                return Some(packet);
            }
        }
        None
    }

    /// Says to a waiter that was claimed what became of it, and wakes it.
    ///
    /// # Safety
    /// The packet was claimed in this hold of the lock. It may be gone afterwards.
    unsafe fn tell(packet: *const Packet<T>, stage: Stage) {
        // SAFETY: the waiter needs the lock to go, or to be woken (invariant 1).
        unsafe {
            let selection = (*packet).selection.get();
            (*packet).stage.set(stage);
            Selection::wake(selection);
        }
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
        // SAFETY: the lock is held.
        while let Some(packet) = unsafe { Self::claim_first(&mut self.watchers) } {
            // SAFETY: claimed under this lock.
            unsafe { Selection::wake((*packet).selection.get()) };
        }
    }

    /// There is nothing to take without a closer look; if the answer is false, there may be nothing either.
    #[inline(always)]
    pub(crate) fn gives_nothing_at_once(&self) -> bool {
        self.queue.listed() == 0
    }

    /// The oldest message of the buffer.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let value = self.queue.pop()?;
        let met = !self.senders.is_empty();
        if met && !fault!("channel_keeps_the_place") {
            self.fill_place();
        }
        self.tell_watchers();
        if !met {
            self.let_in();
        }
        Some(value)
    }

    /// Begins a receive. `packet`: the receiver's own, which a lazy sender would fill. `waits`: it may wait if
    /// it is told `Empty`.
    pub(crate) fn receive(&mut self, packet: &Packet<T>, waits: bool) -> Receive<T> {
        // In this order: a channel without a ring asks once.
        if self.queue.has_ring() && waits && !fault!("channel_receiver_looks_before_it_keeps_off") {
            self.queue.keep_senders_off();
        }
        if let Some(value) = self.pop() {
            return Receive::Value(value);
        }
        if fault!("channel_receiver_looks_before_it_keeps_off") {
            self.queue.keep_senders_off();
        }
        // With an empty buffer only the senders of a channel without one wait here, or senders behind
        // reserved places, whose messages may take long to come.
        if self.reserved != 0 && fault!("channel_receiver_waits_for_the_reserved") {
            return Receive::Empty;
        }
        // SAFETY: the lock is held.
        if let Some(sender) = unsafe { Self::claim_first(&mut self.senders) } {
            // SAFETY: it was claimed under this lock; its waiter needs the lock to go.
            let value = unsafe { (*(*sender).value.get()).take() };
            let stage = if value.is_some() {
                Stage::Taken
            } else {
                // SAFETY: as above.
                unsafe { (*sender).partner.set(packet) };
                Stage::Partner
            };
            // SAFETY: as above.
            unsafe { Self::tell(sender, stage) };
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
        let Some(sender) = (unsafe { Self::claim_first(&mut self.senders) }) else {
            return;
        };
        // SAFETY: it was claimed under this lock; its waiter needs the lock to go.
        let stage = if unsafe { (*sender).lazy } {
            self.reserved += 1;
            Stage::Place
        } else {
            // SAFETY: as above.
            if let Some(value) = unsafe { (*(*sender).value.get()).take() } {
                self.queue.push(value);
            }
            Stage::Taken
        };
        // SAFETY: as above.
        unsafe { Self::tell(sender, stage) };
    }

    /// Begins a send, which may wait if it is told `Full`.
    pub(crate) fn send(&mut self, capacity: usize) -> Send<T> {
        if self.no_receivers {
            return Send::Closed;
        }
        if !self.receivers.is_empty()
            && !fault!("channel_passes_receivers_by")
            // SAFETY: the lock is held.
            && let Some(receiver) = unsafe { Self::claim_first(&mut self.receivers) }
        {
            self.queue.was_passed_by();
            // It is woken when its packet is filled.
            return Send::Partner(receiver);
        }
        self.queue.keep_senders_off();
        if self.has_room(capacity) {
            return Send::Place;
        }
        if fault!("channel_sender_looks_before_it_keeps_off") {
            self.queue.keep_receivers_off();
            return Send::Full;
        }
        // It may wait for a place now.
        self.queue.keep_receivers_off();
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
        let (selection, awaited) = (receiver.selection.get(), receiver.awaited.get());
        if fault!("channel_wakes_who_is_not_settled") && !selection.is_null() {
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

    /// Puts a message into the buffer, in the hold of the lock in which `send` has found a place. True: there is
    /// a ring now, to be shown.
    #[inline(always)]
    pub(super) fn push_quietly(&mut self, value: T) -> bool {
        self.queue.push(value);
        unless!("select_watches_in_vain", self.tell_watchers());
        let made = self.queue.nobody_waited();
        self.let_in();
        made
    }

    /// Holds a place in the buffer for a lazy sender, in the hold of the lock in which `send` has found it.
    pub(crate) fn reserve(&mut self) {
        self.reserved += 1;
    }

    /// A lazy sender has made its message. It comes back as an error if no receiver is left. `None`: it has gone to a
    /// receiver that has come meanwhile. Else its place is free, in this hold of the lock.
    pub(super) fn hand_reserved(&mut self, value: T) -> Result<Option<T>, T> {
        self.reserved -= 1;
        if self.no_receivers {
            return Err(value);
        }
        // SAFETY: the lock is held.
        if let Some(receiver) = unsafe { Self::claim_first(&mut self.receivers) } {
            // SAFETY: claimed under this lock, and filled in the same hold.
            unsafe { self.fill(receiver, value) };
            return Ok(None);
        }
        Ok(Some(value))
    }

    /// A lazy sender has made none: its place is free again.
    pub(crate) fn give_place_back(&mut self) {
        self.reserved -= 1;
        unless!("select_keeps_its_place", self.fill_place());
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

    /// Lets receivers find a sender. It must `forget` its packet, or be woken, before the packet goes.
    pub(crate) fn wait_to_send(&mut self, selection: &Selection, arm: usize, packet: &Packet<T>) {
        // SAFETY: who has the state has the lock; the packet and the selection stay (invariant 1).
        unsafe { self.senders.push(packet, selection, arm) };
        // Who watches whether a receive would succeed: with a sender waiting it would.
        self.tell_watchers();
    }

    /// Lets senders find a receiver; as `wait_to_send`.
    pub(crate) fn wait_to_receive(
        &mut self,
        selection: &Selection,
        arm: usize,
        packet: &Packet<T>,
    ) {
        // SAFETY: as in `wait_to_send`.
        unsafe { self.receivers.push(packet, selection, arm) };
        self.tell_watchers();
    }

    /// Has the selection told of any change; as `wait_to_send`.
    pub(crate) fn watch(&mut self, selection: &Selection, arm: usize, packet: &Packet<T>) {
        // SAFETY: as in `wait_to_send`.
        unsafe { self.watchers.push(packet, selection, arm) };
    }

    /// Takes a waiter's packet out, if it is still in a list.
    pub(crate) fn forget(&mut self, packet: &Packet<T>) {
        let list = match packet.list() {
            List::None => None,
            List::Senders => Some(&mut self.senders),
            List::Receivers => Some(&mut self.receivers),
            List::Watchers => Some(&mut self.watchers),
        };
        if let Some(list) = list {
            // SAFETY: who has the state has the lock, and the packet says that it is in this list.
            unsafe { list.take_out(packet) };
        }
        packet.selection.set(ptr::null());
    }

    pub(crate) fn stage(packet: &Packet<T>) -> Stage {
        packet.stage.get()
    }

    pub(crate) fn partner(packet: &Packet<T>) -> *const Packet<T> {
        packet.partner.get()
    }

    /// Keeps all off for somebody who may `watch`; before the look.
    pub(crate) fn keep_all_off(&self) {
        if !fault!("select_watches_what_goes_by") {
            self.queue.keep_senders_off();
            self.queue.keep_receivers_off();
        }
    }

    /// Would a receive begin at once?
    pub(crate) fn can_receive(&self) -> bool {
        !self.queue.is_empty()
            || !self.senders.is_empty()
            || (self.no_senders && self.reserved == 0)
    }

    /// Would a send begin at once?
    pub(crate) fn can_send(&self, capacity: usize) -> bool {
        self.no_receivers || !self.receivers.is_empty() || self.has_room(capacity)
    }

    fn tell_receivers_closed(&mut self) {
        // SAFETY: the lock is held.
        while let Some(receiver) = unsafe { Self::claim_first(&mut self.receivers) } {
            // SAFETY: claimed under this lock.
            unsafe { Self::tell(receiver, Stage::Closed) };
        }
    }

    /// One side is gone. Returns the messages that nobody will receive, but for those in a ring.
    pub(super) fn close(&mut self, senders: bool) -> VecDeque<T> {
        if senders {
            self.no_senders = true;
            if fault!("oneshot_ends_with_its_message") {
                while self.queue.pop().is_some() {}
            }
            if self.reserved == 0 && !fault!("channel_closes_quietly") {
                self.tell_receivers_closed();
            }
            self.tell_watchers();
            return VecDeque::new();
        }
        unless!(
            "channel_closes_to_those_under_the_lock",
            self.queue.keep_senders_off()
        );
        self.no_receivers = true;
        // SAFETY: the lock is held.
        while let Some(sender) = unsafe { Self::claim_first(&mut self.senders) } {
            // SAFETY: claimed under this lock.
            unsafe { Self::tell(sender, Stage::Closed) };
            if fault!("channel_close_tells_one") {
                break;
            }
        }
        self.tell_watchers();
        if fault!("channel_close_keeps_the_messages") {
            return VecDeque::new();
        }
        self.queue.take_list()
    }
}
