//! One level of the wheel: 64 slots, each a list of entries, and a bitmap of those that hold any.
//!
//! Lists are doubly linked, so that any entry can be taken out in constant time. New entries go to the tail, so
//! that the timer that was inserted first comes first. The links are in the entries, and only the owner of the
//! wheel follows them.
//!
//! Invariant 1: bit `s` of `occupied` is set exactly if slot `s` holds an entry.

use crate::Tick;
use crate::entry::{Index, Links};
use crate::slab::Owner;

/// Slots of a level: as many as a bitmap of one word has bits.
pub(crate) const SLOTS: usize = 64;

/// The bits of a tick that choose the slot of a level.
pub(crate) const SLOT_BITS: u32 = SLOTS.ilog2();

#[derive(Debug)]
pub(crate) struct Level {
    occupied: u64,
    slots: [List; SLOTS],
}

impl Level {
    pub(crate) const fn new() -> Self {
        Self {
            occupied: 0,
            slots: [const { List::new() }; SLOTS],
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// The lowest slot that holds an entry.
    #[inline]
    pub(crate) fn first_slot(&self) -> Option<u32> {
        (self.occupied != 0).then(|| self.occupied.trailing_zeros())
    }

    #[inline]
    pub(crate) fn slot(&self, slot: u32) -> &List {
        &self.slots[slot as usize]
    }

    #[inline]
    pub(crate) fn push_back<T>(
        &mut self,
        owner: &mut Owner<T>,
        slot: u32,
        index: Index,
        deadline: Tick,
    ) {
        self.slots[slot as usize].push_back(owner, index, deadline);
        self.occupied |= 1 << slot;
    }

    #[inline]
    pub(crate) fn unlink<T>(&mut self, owner: &mut Owner<T>, slot: u32, links: Links) {
        self.slots[slot as usize].unlink(owner, links);
        // It was the only entry. The links say so, and they are read anyway.
        if links.prev.is_none() && links.next.is_none() {
            self.occupied &= !(1 << slot);
        }
    }

    /// Takes the first entry of a slot.
    #[inline]
    pub(crate) fn pop_front<T>(
        &mut self,
        owner: &mut Owner<T>,
        slot: u32,
    ) -> Option<(Index, Tick)> {
        let list = &mut self.slots[slot as usize];
        let first = list.pop_front(owner);
        if list.is_empty() {
            self.occupied &= !(1 << slot);
        }
        first
    }

    /// Empties a slot.
    pub(crate) fn take(&mut self, slot: u32) -> List {
        self.occupied &= !(1 << slot);
        std::mem::replace(&mut self.slots[slot as usize], List::new())
    }
}

/// A list of entries, in the order in which they came.
#[derive(Debug)]
pub(crate) struct List {
    head: Option<Index>,
    tail: Option<Index>,
}

impl List {
    pub(crate) const fn new() -> Self {
        Self {
            head: None,
            tail: None,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    pub(crate) fn begins_with(&self, index: Index) -> bool {
        self.head == Some(index)
    }

    pub(crate) fn ends_with(&self, index: Index) -> bool {
        self.tail == Some(index)
    }

    /// The deadline of the only entry, if there is just one.
    #[inline]
    pub(crate) fn sole_deadline<T>(&self, owner: &Owner<T>) -> Option<Tick> {
        if self.head == self.tail {
            self.head.map(|index| owner.links(index).deadline)
        } else {
            None
        }
    }

    #[inline]
    pub(crate) fn push_back<T>(&mut self, owner: &mut Owner<T>, index: Index, deadline: Tick) {
        let tail = self.tail.replace(index);
        owner.edit_links(index, |links| {
            *links = Links {
                deadline,
                prev: tail,
                next: None,
            }
        });
        match tail {
            Some(tail) => owner.edit_links(tail, |links| links.next = Some(index)),
            None => self.head = Some(index),
        }
    }

    #[inline]
    pub(crate) fn pop_front<T>(&mut self, owner: &mut Owner<T>) -> Option<(Index, Tick)> {
        let head = self.head?;
        let links = owner.links(head);
        self.unlink(owner, links);
        Some((head, links.deadline))
    }

    /// Takes out the entry that has these links, which must be in this list.
    #[inline]
    pub(crate) fn unlink<T>(&mut self, owner: &mut Owner<T>, links: Links) {
        if let Some(prev) = links.prev {
            owner.edit_links(prev, |prev| prev.next = links.next);
        } else {
            self.head = links.next;
        }
        if let Some(next) = links.next {
            owner.edit_links(next, |next| next.prev = links.prev);
        } else {
            self.tail = links.prev;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn check_order(mut list: List, owner: &mut Owner<u32>, expected: &[Index]) {
        let mut seen = Vec::new();
        while let Some((index, _)) = list.pop_front(owner) {
            seen.push(index);
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn entries_leave_from_the_head_the_middle_and_the_tail() {
        for leaving in 0..3 {
            let mut owner = Owner::new();
            let mut list = List::new();
            let mut indices: Vec<_> = (0..3).map(|value| owner.insert(value).0).collect();
            for &index in &indices {
                list.push_back(&mut owner, index, Tick::ZERO);
            }
            let links = owner.links(indices.remove(leaving));
            list.unlink(&mut owner, links);
            check_order(list, &mut owner, &indices);
        }
    }

    #[test]
    fn the_bitmap_follows_the_lists() {
        let mut owner = Owner::new();
        let mut level = Level::new();
        let (a, _) = owner.insert('a');
        let (b, _) = owner.insert('b');
        level.push_back(&mut owner, 63, a, Tick::ZERO);
        level.push_back(&mut owner, 63, b, Tick::ZERO);
        assert_eq!(level.first_slot(), Some(63));
        let links = owner.links(a);
        level.unlink(&mut owner, 63, links);
        assert_eq!(level.first_slot(), Some(63));
        let links = owner.links(b);
        level.unlink(&mut owner, 63, links);
        assert_eq!(level.first_slot(), None);
        level.push_back(&mut owner, 0, a, Tick::ZERO);
        assert!(!level.take(0).is_empty());
        assert!(level.is_empty());
    }
}
