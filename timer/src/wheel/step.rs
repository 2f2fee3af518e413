//! How time passes, and where a timer lies: the moves between slots. `wheel.rs` has the invariants.

use super::{Cascading, Spot, Wheel};
use crate::Tick;
use crate::entry::{Index, Links};
use crate::level::{SLOT_BITS, SLOTS};

impl<T> Wheel<T> {
    /// If the next occupied slot is not after `now`: moves time to it, makes its timers due or moves them down, at most
    /// `left` of them, and returns true. Else moves time to `now` and
    /// returns false. Subtracts from `left` the number of timers, at least one.
    pub(super) fn step(&mut self, now: Tick, left: &mut usize) -> bool {
        debug_assert!(self.due.is_empty());
        *left -= 1;
        if let Some(slot) = self.cascading {
            self.cascade(slot, left);
            return true;
        }
        let Some((level, slot)) = self.first_slot() else {
            self.elapsed = self.elapsed.max(now);
            return false;
        };
        let start = self.start(level, slot);
        debug_assert!(start > self.elapsed);
        if start > now {
            // Time reaches the slot later, so `now` differs from its timers in the same digit as before.
            self.elapsed = self.elapsed.max(now);
            return false;
        }
        if level == 0 {
            self.reach(start, slot);
        } else {
            // The slots of one level begin apart, so nothing lies between.
            self.elapsed = Tick::new(start.get() - 1);
            let slot = Cascading { level, slot, start };
            self.cascading = Some(slot);
            self.cascade(slot, left);
        }
        true
    }

    /// Moves time to a tick. Its timers are in this slot of level 0, and become due.
    fn reach(&mut self, start: Tick, slot: u32) {
        self.elapsed = start;
        self.due = self.levels[0].take(slot);
        self.due_first = start;
        self.note_level(0);
    }

    /// Moves timers of a slot down, at most `left`. When the last one has moved, time reaches the slot.
    fn cascade(&mut self, from: Cascading, left: &mut usize) {
        while *left > 0 {
            let first = self.levels[from.level].pop_front(&mut self.owner, from.slot);
            let Some((index, deadline)) = first else {
                self.cascading = None;
                self.note_level(from.level);
                self.reach(from.start, 0);
                return;
            };
            let (level, slot) = Self::spot_below(from.start, deadline);
            self.levels[level].push_back(&mut self.owner, slot, index, deadline);
            self.occupied |= 1 << level;
            *left -= 1;
        }
    }

    /// Where a timer of a slot that begins at `start` moves to. It goes where it will belong when the time is `start`.
    /// A timer that will be due then goes to the first slot of level 0, in which no other timer can be.
    #[inline]
    fn spot_below(start: Tick, deadline: Tick) -> (usize, u32) {
        match start.get() ^ deadline.get() {
            0 => (0, 0),
            differing => {
                let level = differing.ilog2() / SLOT_BITS;
                (level as usize, digit(deadline, level))
            }
        }
    }

    /// Where a deadline belongs at the present time (invariant 1).
    #[inline]
    pub(super) fn spot(&self, deadline: Tick) -> Spot {
        if deadline <= self.elapsed {
            return Spot::Due;
        }
        let level = (deadline.get() ^ self.elapsed.get()).ilog2() / SLOT_BITS;
        Spot::Slot {
            level: level as usize,
            slot: digit(deadline, level),
        }
    }

    /// Puts an entry into the list to which it belongs. It is in no list.
    #[inline]
    pub(super) fn link(&mut self, index: Index, deadline: Tick) {
        match self.spot(deadline) {
            Spot::Due => {
                self.due_first = self.due_first.min(deadline);
                self.due.push_back(&mut self.owner, index, deadline);
            }
            Spot::Slot { level, slot } => {
                self.levels[level].push_back(&mut self.owner, slot, index, deadline);
                self.occupied |= 1 << level;
            }
        }
    }

    /// Takes the entry with these links out of its list.
    #[inline]
    pub(super) fn unlink(&mut self, index: Index, links: Links) {
        match self.spot(links.deadline) {
            Spot::Due => {
                self.due.unlink(&mut self.owner, links);
            }
            Spot::Slot { level, slot } => {
                let (level, slot) = match self.cascading {
                    Some(from) if from.level == level && from.slot == slot => {
                        self.spot_while_cascading(from, index, links)
                    }
                    _ => (level, slot),
                };
                self.levels[level].unlink(&mut self.owner, slot, links);
                self.note_level(level);
            }
        }
    }

    /// Where an entry of a slot that cascades is: still in the slot, or below. For an entry that is neither the first
    /// nor the last of its list the answer may be wrong, and does no harm: only its neighbours refer to it.
    #[cold]
    fn spot_while_cascading(&self, from: Cascading, index: Index, links: Links) -> (usize, u32) {
        let list = self.levels[from.level].slot(from.slot);
        let has_moved = (links.prev.is_none() && !list.begins_with(index))
            || (links.next.is_none() && !list.ends_with(index));
        if has_moved {
            Self::spot_below(from.start, links.deadline)
        } else {
            (from.level, from.slot)
        }
    }

    /// Restores invariant 3 after entries have left a level.
    #[inline]
    fn note_level(&mut self, level: usize) {
        if self.levels[level].is_empty() {
            self.occupied &= !(1 << level);
        }
    }

    /// The slot that time reaches next.
    #[inline]
    pub(super) fn first_slot(&self) -> Option<(usize, u32)> {
        if self.occupied == 0 {
            return None;
        }
        let level = self.occupied.trailing_zeros() as usize;
        let slot = self.levels[level].first_slot();
        debug_assert!(slot.is_some());
        slot.map(|slot| (level, slot))
    }

    /// The first tick of a slot that lies ahead.
    #[inline]
    pub(super) fn start(&self, level: usize, slot: u32) -> Tick {
        let width = SLOT_BITS * u32::try_from(level).expect("there are nine levels");
        let above = width + SLOT_BITS;
        let prefix = self.elapsed.get() >> above << above;
        Tick::new(prefix | u64::from(slot) << width)
    }
}

/// The digit of a tick that chooses its slot on a level.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "six bits are left")]
fn digit(tick: Tick, level: u32) -> u32 {
    (tick.get() >> (SLOT_BITS * level)) as u32 & (SLOTS as u32 - 1)
}
