//! What a channel has under its lock: the messages, the waiting senders, the waiting receivers.
//!
//! A sender that finds a waiting receiver hands its message over directly. A receiver that takes a message out of
//! a full buffer moves the message of the oldest waiting sender in. So a thread that was woken need not try
//! again, and the order is kept. (Go's channels work so.) With capacity 0 all messages are handed over.
//!
//! A waiter leaves a [`Packet`] on its stack, and puts it into a queue (`waiters.rs`) with its selection and the arm.
//! A `send` of a `select!` has no message when it is chosen: such a sender is *lazy*. Until it has made the message
//! it holds a place of the buffer (`reserved`), or a receiver that it has claimed.
//!
//! | packet   | of a receiver                      | of a sender                                |
//! |----------|------------------------------------|--------------------------------------------|
//! | EMPTY    | nothing yet                        | the message, or none if it is lazy         |
//! | FULL     | the message                        | -                                          |
//! | TAKEN    | -                                  | the message was taken                      |
//! | RESERVED | -                                  | lazy: a place of the buffer is reserved    |
//! | PARTNER  | -                                  | lazy: `partner` is a claimed receiver      |
//! | RETRY    | its sender could make no message   | -                                          |
//! | CLOSED   | no sender is left                  | no receiver is left                        |
//!
//! Invariant 1: packets are touched under the lock. A waiter goes only after its packet has left the queue. There
//! are two ways. The waiter takes the lock, and takes the packet out or finds it taken out. Or it waits for this one
//! thing only, and its partner has woken it (`selection.rs`, invariant 3): before that, the partner has taken the
//! packet out and written down what became of it.
//! Invariant 2: who claims a waiter takes its packet out, and the packet leaves EMPTY in the same hold of the lock.
//! There is one exception: a receiver that a lazy sender has claimed. It waits, however long, until the lazy sender
//! has filled the packet, or says RETRY because it is dropped.
//! Invariant 3: `messages.len() + reserved <= capacity`. While a receiver waits that nobody has claimed, there are no
//! messages, and no sender waits except of the same selection. While a sender waits, the buffer is full, if
//! reserved places are counted.
//! Invariant 4: if a packet's selection cannot be claimed, whoever finds that out takes the packet out of its queue.
//! The owner does not mind.
//!
//! If the messages are in a ring (`ring.rs`), senders and receivers use the ring without the lock, except for
//! those that are kept off. The holder of the lock sees to it that these are kept off when it lets the lock go:
//!
//! | as long as                            | kept off              | because                                          |
//! |---------------------------------------|-----------------------|--------------------------------------------------|
//! | a receiver waits                      | senders               | it gets the next message                         |
//! | a sender waits                        | senders and receivers | it gets the next place                           |
//! | a watcher waits                       | senders and receivers | each change is told to it                        |
//! | a place is reserved                   | senders               | not all the room of the ring is to be had        |
//! | there are messages in the deque       | senders               | their messages come behind those (`messages.rs`) |
//! | no receiver is left                   | senders, for ever     | the message comes back                           |
//!
//! Invariant 5: the table holds. A thread that is about to wait keeps the others off first and then looks, in the
//! same hold of the lock. So it sees what they did before, and what they do afterwards needs the lock.
//! Invariant 6: a message is put in under the lock only while senders are kept off. So room that was seen
//! is still there.
//! Others may be kept off without need. The next thread that takes the lock and finds no waiter lets them in again.
//!
//! Checked by `loom-tests/tests/channel.rs` and `select.rs` there.
#![allow(unsafe_code, reason = "packets lie on the waiters' stacks")]

use std::collections::VecDeque;
use std::ptr;

use weald_scheduler::io::Selection;

use super::messages::Messages;
use super::ring::Ring;
use super::waiters::{Packet, Role, Stage, Waiters};

/// What happens under the lock.
pub(crate) struct State<T> {
    messages: Messages<T>,
    /// Places of the buffer that lazy senders hold.
    reserved: usize,
    senders: Waiters<T>,
    receivers: Waiters<T>,
    /// They wait until an operation could be done, and do none.
    watchers: Waiters<T>,
    no_senders: bool,
    no_receivers: bool,
}

/// How a receive began.
pub(crate) enum Receive<T> {
    Value(T),
    /// A lazy sender was claimed, and knows the receiver's packet. It will fill the packet.
    Comes,
    Empty,
    Closed,
}

/// How a send began. It says what the sender may do with its message.
#[derive(Clone, Copy)]
pub(crate) enum Send<T> {
    /// It gives the message to this receiver, which was claimed.
    Partner(*const Packet<T>),
    /// It puts the message into the buffer.
    Place,
    Full,
    Closed,
}

impl<T> State<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            messages: Messages::new(capacity),
            reserved: 0,
            senders: Waiters::new(Role::Sender),
            receivers: Waiters::new(Role::Receiver),
            watchers: Waiters::new(Role::Watcher),
            no_senders: false,
            no_receivers: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// How many messages there are to take, not counting those in a ring: in the deque, and of waiting senders.
    /// It also says whether there is room, because while a sender waits the buffer is full. Only reserved places
    /// are not in it while no sender waits.
    #[inline(always)]
    pub(super) fn on_offer(&self) -> usize {
        self.messages.in_deque() + self.senders.len()
    }

    /// Its ring, or null. The channel shows it to threads that do not take the lock.
    #[inline(always)]
    pub(super) fn ring_address(&self) -> *const Ring<T> {
        self.messages.ring_address()
    }

    /// Lets those in again that need not be kept off, by the table above. Called after a message was put in or
    /// taken out, if no waiter was found for it, and after the watchers were told.
    #[inline(always)]
    fn let_in(&self) {
        debug_assert!(self.watchers.is_empty(), "watchers were told");
        debug_assert!(self.receivers.is_empty(), "there is or was a message");
        debug_assert!(!self.no_receivers, "nobody puts in or takes out");
        if self.senders.is_empty() || fault!("channel_lets_in_over_senders") {
            let seeded = fault!("channel_lets_in_over_the_reserved");
            self.messages.let_in(self.reserved == 0 || seeded);
        }
    }

    #[inline]
    fn has_room(&self, capacity: usize) -> bool {
        self.messages.len() + self.reserved < capacity
    }

    /// A send has nothing to do but to `push`. A false answer says nothing.
    #[inline(always)]
    pub(crate) fn takes_more(&self, capacity: usize) -> bool {
        // One branch for all.
        let plain = !self.no_receivers & self.receivers.is_empty() & !self.messages.has_ring();
        plain && self.messages.in_deque() + self.reserved < capacity
    }

    pub(crate) fn is_full(&self, capacity: usize) -> bool {
        !self.has_room(capacity)
    }

    /// Claims and wakes all watchers.
    #[inline]
    fn tell_watchers(&mut self) {
        if !self.watchers.is_empty() {
            self.tell_watchers_slow();
        }
    }

    #[cold]
    fn tell_watchers_slow(&mut self) {
        // SAFETY: the lock is held.
        while let Some(packet) = unsafe { self.watchers.claim_first() } {
            // SAFETY: claimed under this lock.
            unsafe { Selection::wake((*packet).selection.get()) };
        }
    }

    /// There is no message in the deque. Whether there is one elsewhere takes a closer look.
    #[inline(always)]
    pub(crate) fn gives_nothing_at_once(&self) -> bool {
        self.messages.in_deque() == 0
    }

    /// The oldest message of the buffer.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<T> {
        let value = self.messages.pop()?;
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

    /// Begins a receive. `packet` is the receiver's own: a lazy sender would fill it. `waits`: the receiver may go on
    /// to wait if the answer is `Empty`.
    pub(crate) fn receive(&mut self, packet: &Packet<T>, waits: bool) -> Receive<T> {
        // The ring is asked for first: most channels here have none, and then that is all.
        if self.messages.has_ring()
            && waits
            && !fault!("channel_receiver_looks_before_it_keeps_off")
        {
            self.messages.keep_senders_off();
        }
        if let Some(value) = self.pop() {
            return Receive::Value(value);
        }
        if fault!("channel_receiver_looks_before_it_keeps_off") {
            self.messages.keep_senders_off();
        }
        // The buffer is empty, so a sender waits here only if the channel has no buffer, or if all places are
        // reserved. The messages for those places may take long to come.
        if self.reserved != 0 && fault!("channel_receiver_waits_for_the_reserved") {
            return Receive::Empty;
        }
        // SAFETY: the lock is held.
        if let Some(sender) = unsafe { self.senders.claim_first() } {
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
            unsafe { Packet::wake_with(sender, stage) };
            self.tell_watchers();
            return value.map_or(Receive::Comes, Receive::Value);
        }
        if self.no_senders && self.reserved == 0 {
            Receive::Closed
        } else {
            Receive::Empty
        }
    }

    /// A place of the buffer has become free. The oldest waiting sender gets it.
    #[inline(never)]
    fn fill_place(&mut self) {
        // SAFETY: the lock is held.
        let Some(sender) = (unsafe { self.senders.claim_first() }) else {
            return;
        };
        // SAFETY: it was claimed under this lock; its waiter needs the lock to go.
        let stage = if unsafe { (*sender).lazy } {
            self.reserved += 1;
            Stage::Reserved
        } else {
            // SAFETY: as above.
            if let Some(value) = unsafe { (*(*sender).value.get()).take() } {
                self.messages.push(value);
            }
            Stage::Taken
        };
        // SAFETY: as above.
        unsafe { Packet::wake_with(sender, stage) };
    }

    /// Begins a send. The sender may go on to wait if the answer is `Full`.
    pub(crate) fn send(&mut self, capacity: usize) -> Send<T> {
        if self.no_receivers {
            return Send::Closed;
        }
        if !self.receivers.is_empty()
            && !fault!("channel_passes_receivers_by")
            // SAFETY: the lock is held.
            && let Some(receiver) = unsafe { self.receivers.claim_first() }
        {
            self.messages.somebody_waited();
            // The receiver is woken when its packet is filled.
            return Send::Partner(receiver);
        }
        self.messages.keep_senders_off();
        if self.has_room(capacity) {
            return Send::Place;
        }
        if fault!("channel_sender_looks_before_it_keeps_off") {
            self.messages.keep_receivers_off();
            return Send::Full;
        }
        // The sender may go on to wait for a place, so it keeps receivers off and looks once more.
        self.messages.keep_receivers_off();
        if self.has_room(capacity) {
            Send::Place
        } else {
            Send::Full
        }
    }

    /// Gives a message to a receiver that `send` has claimed.
    ///
    /// # Safety
    /// `send` of this state has returned the packet, or it is the partner of a lazy sender. It was
    /// neither filled nor refused since.
    pub(crate) unsafe fn fill(&mut self, packet: *const Packet<T>, value: T) {
        // SAFETY: by contract, and invariant 2: the receiver waits until it is filled.
        unsafe {
            *(*packet).value.get() = Some(value);
            Packet::answer(packet, Stage::Full);
        }
        self.tell_watchers();
    }

    /// Puts a message into the buffer. `send` has found a place in the same hold of the lock. Returns true if there
    /// is a ring now that was not there before: the channel must show it.
    #[inline(always)]
    pub(super) fn push_quietly(&mut self, value: T) -> bool {
        self.messages.push(value);
        unless!("select_watches_in_vain", self.tell_watchers());
        let made = self.messages.nobody_waited();
        self.let_in();
        made
    }

    /// Holds a place of the buffer for a lazy sender. `send` has found the place in the same hold of the lock.
    pub(crate) fn reserve(&mut self) {
        self.reserved += 1;
    }

    /// A lazy sender with a reserved place has made its message. `Err`: no receiver is left. `Ok(None)`: a
    /// receiver has come meanwhile and got it. `Ok(Some(_))`: the caller must put it into the place, which is free
    /// as long as the lock is held.
    pub(super) fn hand_reserved(&mut self, value: T) -> Result<Option<T>, T> {
        self.reserved -= 1;
        if self.no_receivers {
            return Err(value);
        }
        // SAFETY: the lock is held.
        if let Some(receiver) = unsafe { self.receivers.claim_first() } {
            // SAFETY: claimed under this lock, and filled in the same hold.
            unsafe { self.fill(receiver, value) };
            return Ok(None);
        }
        Ok(Some(value))
    }

    /// A lazy sender has made no message. Its place is free again.
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
        unsafe { Packet::answer(packet, Stage::Retry) };
    }

    /// Puts a sender's packet into its queue, where receivers find it. The sender must `forget` its packet, or be
    /// woken by a partner, before the packet goes.
    pub(crate) fn wait_to_send(&mut self, selection: &Selection, arm: usize, packet: &Packet<T>) {
        // SAFETY: having the state proves that the lock is held; packet and selection stay (invariant 1).
        unsafe { self.senders.push(packet, selection, arm) };
        // A receive would succeed now, because a sender waits. Somebody may watch for that.
        self.tell_watchers();
    }

    /// Puts a receiver's packet into its queue, where senders find it. Otherwise as `wait_to_send`.
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

    /// Has the selection told of the next change. Otherwise as `wait_to_send`.
    pub(crate) fn watch(&mut self, selection: &Selection, arm: usize, packet: &Packet<T>) {
        // SAFETY: as in `wait_to_send`.
        unsafe { self.watchers.push(packet, selection, arm) };
    }

    /// Takes a waiter's packet out, if it is still in a queue.
    pub(crate) fn forget(&mut self, packet: &Packet<T>) {
        let queue = match packet.queued_as() {
            None => None,
            Some(Role::Sender) => Some(&mut self.senders),
            Some(Role::Receiver) => Some(&mut self.receivers),
            Some(Role::Watcher) => Some(&mut self.watchers),
        };
        if let Some(queue) = queue {
            // SAFETY: having the state proves that the lock is held, and the packet says that it is in this queue.
            unsafe { queue.take_out(packet) };
        }
        packet.selection.set(ptr::null());
    }

    /// Keeps senders and receivers off. A thread that may go on to `watch` calls this before it looks.
    pub(crate) fn keep_all_off(&self) {
        if !fault!("select_watches_what_goes_by") {
            self.messages.keep_senders_off();
            self.messages.keep_receivers_off();
        }
    }

    /// Would a receive begin at once?
    pub(crate) fn can_receive(&self) -> bool {
        !self.messages.is_empty()
            || !self.senders.is_empty()
            || (self.no_senders && self.reserved == 0)
    }

    /// Would a send begin at once?
    pub(crate) fn can_send(&self, capacity: usize) -> bool {
        self.no_receivers || !self.receivers.is_empty() || self.has_room(capacity)
    }

    fn tell_receivers_closed(&mut self) {
        // SAFETY: the lock is held.
        while let Some(receiver) = unsafe { self.receivers.claim_first() } {
            // SAFETY: claimed under this lock.
            unsafe { Packet::wake_with(receiver, Stage::Closed) };
        }
    }

    /// One side is gone: the senders, or else the receivers. Returns the messages that nobody will receive, except
    /// those in a ring.
    pub(super) fn close(&mut self, senders: bool) -> VecDeque<T> {
        if senders {
            self.no_senders = true;
            if fault!("oneshot_ends_with_its_message") {
                while self.messages.pop().is_some() {}
            }
            if self.reserved == 0 && !fault!("channel_closes_quietly") {
                self.tell_receivers_closed();
            }
            self.tell_watchers();
            return VecDeque::new();
        }
        unless!(
            "channel_closes_to_those_under_the_lock",
            self.messages.keep_senders_off()
        );
        self.no_receivers = true;
        // SAFETY: the lock is held.
        while let Some(sender) = unsafe { self.senders.claim_first() } {
            // SAFETY: claimed under this lock.
            unsafe { Packet::wake_with(sender, Stage::Closed) };
            if fault!("channel_close_tells_one") {
                break;
            }
        }
        self.tell_watchers();
        if fault!("channel_close_keeps_the_messages") {
            return VecDeque::new();
        }
        self.messages.take_deque()
    }
}
