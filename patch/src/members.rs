//! Waits for several numbers: who waits is told when one of them is closed. For `poll` and `select`.
//!
//! Such a wait waits for its own epoll instance, a [`Set`](crate::epoll::Set), out of which the kernel takes a file that is closed
//! without a word. So the number is counted as watched, and who closes it looks here for the sets that have it.
//!
//! Invariant 1: a number is in [`SETS`] before its file is put into the set. So who closes that file finds the set.
//! Invariant 2: `closes` of a set's own slot changes only while the set is here, under the lock of its part. So the next wait with
//! the same epoll instance is not told of it.
#![allow(unsafe_code, reason = "slots that live for ever")]

use std::os::fd::RawFd;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, PoisonError};

use weald_scheduler::patch::Bypass;

use crate::slot::{FdSlot, slot};

/// A guess: more than cores.
const PARTS: usize = 64;

/// The numbers that are waited for, each with the set's, in parts by number.
static SETS: [Mutex<Vec<(RawFd, RawFd)>>; PARTS] = [const { Mutex::new(Vec::new()) }; PARTS];

fn with_part<T>(member: RawFd, f: impl FnOnce(&mut Vec<(RawFd, RawFd)>) -> T) -> T {
    let part = &SETS[usize::try_from(member).unwrap_or(0) % PARTS];
    f(&mut part.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The numbers of one wait.
pub(crate) struct Members {
    /// What is told when one of them is closed.
    set: Option<RawFd>,
    all: Vec<(RawFd, &'static FdSlot, u32)>,
}

impl Members {
    /// After the wait for the set has begun ([`Wait::on_set`](crate::wait::Wait::on_set)), before it waits.
    pub(crate) fn of_set(set: RawFd, numbers: impl Iterator<Item = RawFd>) -> Self {
        Self::new(Some(set), numbers)
    }

    /// Of a wait that is not told, and looks whether one was closed.
    pub(crate) fn untold(numbers: impl Iterator<Item = RawFd>) -> Self {
        Self::new(None, numbers)
    }

    fn new(set: Option<RawFd>, numbers: impl Iterator<Item = RawFd>) -> Self {
        let _bypass = Bypass::enter();
        let mut all = Vec::new();
        for number in numbers {
            // One beyond the table is not waited for by its number.
            let Some(slot) = slot(number) else { continue };
            slot.watched.fetch_add(1, Ordering::Relaxed);
            let closes = slot.closes.load(Ordering::Relaxed);
            if let Some(set) = set {
                with_part(number, |part| part.push((number, set)));
            }
            all.push((number, slot, closes));
        }
        // Pairs with the fence of `Closing`'s end.
        fence(Ordering::SeqCst);
        Self { set, all }
    }

    /// The number was closed since the wait began.
    pub(crate) fn is_closed(&self, number: RawFd) -> bool {
        let mut all = self.all.iter();
        all.any(|(other, slot, closes)| {
            *other == number && slot.closes.load(Ordering::Acquire) != *closes
        })
    }

    /// One of them was.
    pub(crate) fn is_any_closed(&self) -> bool {
        let mut all = self.all.iter();
        all.any(|(_, slot, closes)| slot.closes.load(Ordering::Acquire) != *closes)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        let _bypass = Bypass::enter();
        for (number, slot, _) in &self.all {
            if let Some(set) = self.set {
                with_part(*number, |part| {
                    if let Some(at) = part.iter().position(|one| *one == (*number, set)) {
                        part.swap_remove(at);
                    }
                });
            }
            slot.watched.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The number, which is watched, was closed.
#[cold]
pub(crate) fn tell(number: RawFd) {
    let _bypass = Bypass::enter();
    let sets = with_part(number, |part| {
        let sets = part.iter().filter(|(member, _)| *member == number);
        let slots: Vec<&'static FdSlot> = sets.filter_map(|(_, set)| slot(*set)).collect();
        for slot in &slots {
            slot.closes.fetch_add(1, Ordering::Release);
        }
        slots
    });
    // One that has gone meanwhile may wake a wait for nothing.
    sets.into_iter().for_each(FdSlot::wake_all);
}
