//! The waiters of a channel, in the order in which they came. A waiter leaves a [`Packet`] on its stack, and the
//! packets are the nodes of a queue. So a wait allocates nothing, and a waiter that leaves early need not search.
//!
//! A queue is a circular, doubly linked list. Its head has the address of the first packet.
//!
//! | `queued_as`  | where the packet is                                | how that ends                                |
//! |--------------|----------------------------------------------------|----------------------------------------------|
//! | `None`       | in no queue: its owner or the owner's partner has it | the owner calls `push`                     |
//! | `Some(role)` | in the channel's queue for that role               | a partner calls `pop`, or `take_out` is called |
//!
//! Invariant 1: a packet is in at most one queue. It is put in and taken out only under the channel's lock. So a
//! thread that holds the lock and finds a packet in a queue may use the packet, and the selection that it names.
//! Invariant 2: `queued_as` says which queue a packet is in. So the owner knows whether it must take its packet out,
//! and of which queue. Afterwards the packet is in no queue.
//! Invariant 3: `selection` is that of the wait for which the packet was last put in. It stays until the owner has
//! called `forget`. So a partner that has taken the packet out finds there whom it must wake.
//!
//! Orderings: the lock's. Checked by `loom-tests/tests/channel.rs`.
#![allow(unsafe_code, reason = "packets lie on the waiters' stacks")]

use std::cell::UnsafeCell;
use std::marker::PhantomPinned;
use std::ptr;

use weald_scheduler::io::{Selection, WaitQueue};

use crate::shim::cell::Cell;

/// How far the exchange of a packet has come; the table is in `state.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Empty,
    Full,
    Taken,
    Reserved,
    Partner,
    Retry,
    Closed,
}

/// What a waiter waits for. Each role has a queue of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Sender,
    Receiver,
    Watcher,
}

/// What a waiter and its partner exchange. It is on the waiter's stack, and is touched under the lock.
pub(crate) struct Packet<T> {
    stage: Cell<Stage>,
    pub(super) value: UnsafeCell<Option<T>>,
    /// Of a lazy sender: the receiver that it has claimed.
    pub(super) partner: Cell<*const Packet<T>>,
    pub(super) lazy: bool,
    /// Where a receiver that a lazy sender has claimed waits until the packet is filled; or null.
    pub(super) awaited: Cell<*const WaitQueue>,
    /// The waiter's selection, and which of its arms this packet is for (invariant 3); or null.
    pub(super) selection: Cell<*const Selection>,
    arm: Cell<usize>,
    queued_as: Cell<Option<Role>>,
    /// The neighbours in that queue.
    next: Cell<*const Packet<T>>,
    prev: Cell<*const Packet<T>>,
    /// Partners have its address, so the owner's `&mut` is not the only way to it.
    _shared: PhantomPinned,
}

impl<T> Packet<T> {
    #[inline]
    pub(crate) fn new(value: Option<T>, lazy: bool) -> Self {
        Self {
            stage: Cell::new(Stage::Empty),
            value: UnsafeCell::new(value),
            partner: Cell::new(ptr::null()),
            lazy,
            awaited: Cell::new(ptr::null()),
            selection: Cell::new(ptr::null()),
            arm: Cell::new(0),
            queued_as: Cell::new(None),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            _shared: PhantomPinned,
        }
    }

    /// Makes it as good as new, without a value. For its owner, while nobody else knows of it.
    pub(crate) fn reset(&mut self) {
        debug_assert_eq!(self.queued_as.get(), None, "nobody else knows of it");
        self.stage.set(Stage::Empty);
        self.partner.set(ptr::null());
        self.awaited.set(ptr::null());
        self.selection.set(ptr::null());
    }

    pub(crate) fn take_value(&mut self) -> Option<T> {
        self.value.get_mut().take()
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Which queue it is in.
    pub(super) fn queued_as(&self) -> Option<Role> {
        self.queued_as.get()
    }

    /// Tells a waiter what became of its packet, and wakes it.
    ///
    /// # Safety
    /// The packet was claimed in this hold of the lock. It may be gone afterwards.
    pub(super) unsafe fn wake_with(this: *const Self, stage: Stage) {
        // SAFETY: the waiter goes only once it has the lock or was woken (invariant 1 of `state.rs`).
        unsafe {
            let selection = (*this).selection.get();
            (*this).stage.set(stage);
            Selection::wake(selection);
        }
    }

    /// Tells a receiver what became of its packet. A receiver that waits in a queue is woken; so is one that waits
    /// for a lazy sender's message. A receiver that only tries is not waiting yet, and looks at the packet later.
    ///
    /// # Safety
    /// The receiver was claimed, in this hold of the lock or earlier by a lazy sender, and was told nothing since.
    pub(super) unsafe fn answer(this: *const Self, stage: Stage) {
        // SAFETY: by contract; the receiver stays until it was told.
        let receiver = unsafe { &*this };
        let (selection, awaited) = (receiver.selection.get(), receiver.awaited.get());
        if fault!("channel_wakes_who_is_not_settled") && !selection.is_null() {
            // SAFETY: none, as a fault.
            unsafe { Selection::wake(selection) };
        }
        receiver.stage.set(stage);
        // If there is a selection that waits, the packet may be gone from here on.
        if !selection.is_null() {
            // SAFETY: it is the selection of the receiver. That still waits, or needs the lock to go.
            unsafe { Selection::wake(selection) };
        }
        if !awaited.is_null() {
            // SAFETY: the receiver waits in this queue, and needs the lock to go.
            unsafe { (*awaited).wake_one() };
        }
    }
}

/// The queue of the waiters with one role, the oldest first.
pub(super) struct Waiters<T> {
    first: *const Packet<T>,
    len: usize,
    role: Role,
}

impl<T> Waiters<T> {
    pub(super) fn new(role: Role) -> Self {
        Self {
            first: ptr::null(),
            len: 0,
            role,
        }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts a packet in at the end, for an arm of a selection.
    ///
    /// # Safety
    /// The lock is held, and the packet is in no queue. The packet stays where it is until it was taken out. The
    /// selection stays until then, too; if a partner takes the packet out, until that has woken the waiter.
    pub(super) unsafe fn push(&mut self, packet: &Packet<T>, selection: &Selection, arm: usize) {
        debug_assert_eq!(packet.queued_as.get(), None, "a packet is in one queue");
        packet.selection.set(selection);
        packet.arm.set(arm);
        packet.queued_as.set(Some(self.role));
        let node = ptr::from_ref(packet);
        if self.first.is_null() {
            packet.next.set(node);
            packet.prev.set(node);
            self.first = node;
        } else {
            // SAFETY: the lock is held, and both are in the queue (invariant 1).
            let (first, last) = unsafe { (&*self.first, &*(*self.first).prev.get()) };
            packet.next.set(first);
            packet.prev.set(last);
            last.next.set(node);
            first.prev.set(node);
        }
        self.len += 1;
    }

    /// Takes the first packet out.
    ///
    /// # Safety
    /// The lock is held.
    #[inline]
    unsafe fn pop(&mut self) -> Option<*const Packet<T>> {
        let first = self.first;
        if first.is_null() {
            return None;
        }
        // SAFETY: the lock is held, and the first is in the queue (invariant 1).
        unsafe { self.take_out(&*first) };
        Some(first)
    }

    /// Takes out the first waiter that can be claimed, and claims it.
    ///
    /// # Safety
    /// The lock is held.
    #[inline]
    pub(super) unsafe fn claim_first(&mut self) -> Option<*const Packet<T>> {
        // SAFETY: by contract.
        while let Some(packet) = unsafe { self.pop() } {
            // SAFETY: the lock is held, so the waiter is there (invariant 1).
            if unsafe { (*(*packet).selection.get()).claim((*packet).arm.get()) } {
                return Some(packet);
            }
        }
        None
    }

    /// Takes a packet out.
    ///
    /// # Safety
    /// The lock is held, and the packet is in this queue.
    pub(super) unsafe fn take_out(&mut self, packet: &Packet<T>) {
        debug_assert_eq!(
            packet.queued_as.get(),
            Some(self.role),
            "it is in this queue"
        );
        let node = ptr::from_ref(packet);
        let (next, prev) = (packet.next.get(), packet.prev.get());
        if next == node {
            self.first = ptr::null();
        } else {
            // SAFETY: the lock is held, and the neighbours are in the queue (invariant 1).
            unsafe {
                (*prev).next.set(next);
                (*next).prev.set(prev);
            }
            if self.first == node {
                let forgets = fault!("channel_forgets_those_behind");
                self.first = if forgets { ptr::null() } else { next };
            }
        }
        packet.queued_as.set(None);
        self.len -= 1;
    }
}
