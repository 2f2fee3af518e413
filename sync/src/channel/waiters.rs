//! Who waits at a channel, in what order. The nodes of a list are the packets on the waiters' stacks, so
//! a wait allocates nothing, and who leaves early searches for nothing however many wait.
//!
//! A list is circular and doubly linked; its head has the address of the first packet.
//!
//! | `list`    | the packet is in                                | leaves by                                |
//! |-----------|-------------------------------------------------|------------------------------------------|
//! | NONE      | no list: its owner's, and of who has claimed it | `push` by its owner -> the list's kind   |
//! | another   | the channel's list of that kind                 | `pop` by a partner, `take_out` -> NONE   |
//!
//! Invariant 1: a packet is in at most one list, and only under the channel's lock is it put in or taken
//! out; so whoever finds a packet in a list under the lock may use it and the selection that it names.
//! Invariant 2: `list` says which list a packet is in. So the owner knows whether it must take it out, and
//! where, and its packet is in no list once it has done so.
//! Invariant 3: `selection` is that of the wait for which the packet was last put in, until its owner has
//! left: who has taken the packet out finds there whom to wake.
//!
//! Orderings: the lock's. Checked by `loom-tests/tests/channel.rs`.
#![allow(unsafe_code, reason = "packets lie on the waiters' stacks")]

use std::cell::UnsafeCell;
use std::marker::PhantomPinned;
use std::ptr;

use weald_scheduler::io::{Selection, WaitQueue};

use crate::shim::cell::Cell;

/// How far the exchange of a packet has come: see `core.rs`.
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

/// Which list a packet is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    None,
    Senders,
    Receivers,
    Watchers,
}

/// What a waiter and its partner exchange; on the waiter's stack, touched under the lock.
pub(crate) struct Packet<T> {
    pub(super) stage: Cell<Stage>,
    pub(super) value: UnsafeCell<Option<T>>,
    /// Of a lazy sender: the receiver it has claimed.
    pub(super) partner: Cell<*const Packet<T>>,
    pub(super) lazy: bool,
    /// Where a receiver that was claimed by a lazy sender waits until the packet is filled; or null.
    pub(super) awaited: Cell<*const WaitQueue>,
    /// Who waits, and by which of its arms (invariant 3); or null.
    pub(super) selection: Cell<*const Selection>,
    pub(super) arm: Cell<usize>,
    list: Cell<List>,
    /// The neighbours in that list.
    next: Cell<*const Packet<T>>,
    prev: Cell<*const Packet<T>>,
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
            lazy,
            awaited: Cell::new(ptr::null()),
            selection: Cell::new(ptr::null()),
            arm: Cell::new(0),
            list: Cell::new(List::None),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            _shared: PhantomPinned,
        }
    }

    /// As new, without a value; for its owner while nobody else knows of it.
    pub(crate) fn reset(&mut self) {
        debug_assert_eq!(self.list.get(), List::None, "nobody else knows of it");
        self.stage.set(Stage::Empty);
        self.partner.set(ptr::null());
        self.awaited.set(ptr::null());
        self.selection.set(ptr::null());
    }

    pub(crate) fn take_value(&mut self) -> Option<T> {
        self.value.get_mut().take()
    }

    /// Which list it is in.
    pub(super) fn list(&self) -> List {
        self.list.get()
    }
}

/// Those who wait for one thing at a channel, the oldest first.
pub(super) struct Waiters<T> {
    first: *const Packet<T>,
    len: usize,
    kind: List,
}

impl<T> Waiters<T> {
    pub(super) fn new(kind: List) -> Self {
        Self {
            first: ptr::null(),
            len: 0,
            kind,
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
    /// The lock is held, and the packet is in no list. It stays where it is until it was taken out, and the
    /// selection until then, or until it was woken by who has taken the packet out.
    pub(super) unsafe fn push(&mut self, packet: &Packet<T>, selection: &Selection, arm: usize) {
        debug_assert_eq!(packet.list.get(), List::None, "a packet is in one list");
        packet.selection.set(selection);
        packet.arm.set(arm);
        packet.list.set(self.kind);
        let node = ptr::from_ref(packet);
        if self.first.is_null() {
            packet.next.set(node);
            packet.prev.set(node);
            self.first = node;
        } else {
            // SAFETY: the lock is held, and both are in the list (invariant 1).
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
    pub(super) unsafe fn pop(&mut self) -> Option<*const Packet<T>> {
        let first = self.first;
        if first.is_null() {
            return None;
        }
        // SAFETY: the lock is held, and the first is in the list (invariant 1).
        unsafe { self.take_out(&*first) };
        Some(first)
    }

    /// Takes a packet out.
    ///
    /// # Safety
    /// The lock is held, and the packet is in this list.
    pub(super) unsafe fn take_out(&mut self, packet: &Packet<T>) {
        debug_assert_eq!(packet.list.get(), self.kind, "it is in this list");
        let node = ptr::from_ref(packet);
        let (next, prev) = (packet.next.get(), packet.prev.get());
        if next == node {
            self.first = ptr::null();
        } else {
            // SAFETY: the lock is held, and the neighbours are in the list (invariant 1).
            unsafe {
                (*prev).next.set(next);
                (*next).prev.set(prev);
            }
            if self.first == node {
                let forgets = fault!("channel_forgets_those_behind");
                self.first = if forgets { ptr::null() } else { next };
            }
        }
        packet.list.set(List::None);
        self.len -= 1;
    }
}
