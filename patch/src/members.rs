//! Waits for several numbers. Such a wait is told when one of them is closed. For `poll` and `select`.
//!
//! Such a wait waits for an epoll instance of its own, a [`Set`](crate::epoll::Set). The kernel removes a closed file
//! from the instance without telling. So the numbers are counted as watched, and a thread that closes one looks here
//! for the sets that have it.
//!
//! Invariant 1: a number is in [`SETS`] before its file is put into the set. So a thread that closes the file finds
//! the set.
//! Invariant 2: `closes` of a set's own slot changes only while the set is here, under the lock of its part. So the
//! next wait with the same epoll instance is not told of it.
#![allow(unsafe_code, reason = "slots that live for ever")]

use std::os::fd::RawFd;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, PoisonError};

use weald_scheduler::patch::Bypass;

use crate::slot::{FdSlot, slot};

/// A guess: more than cores.
const PARTS: usize = 64;

/// The numbers that are waited for, each with its set's number, in parts by number.
static SETS: [Mutex<Vec<(RawFd, RawFd)>>; PARTS] = [const { Mutex::new(Vec::new()) }; PARTS];

fn with_part<T>(member: RawFd, f: impl FnOnce(&mut Vec<(RawFd, RawFd)>) -> T) -> T {
    let part = &SETS[usize::try_from(member).unwrap_or(0) % PARTS];
    f(&mut part.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The numbers of one wait.
pub(crate) struct Members {
    /// The set that is told when one of the numbers is closed.
    set: Option<RawFd>,
    all: Vec<(RawFd, &'static FdSlot, u32)>,
}

impl Members {
    /// Called after the wait for the set was made ([`Wait::on_set`](crate::wait::Wait::on_set)) and before it waits.
    pub(crate) fn of_set(set: RawFd, numbers: impl Iterator<Item = RawFd>) -> Self {
        Self::new(Some(set), numbers)
    }

    /// Returns the numbers of a wait that is not told, and that looks if one of them was closed.
    pub(crate) fn untold(numbers: impl Iterator<Item = RawFd>) -> Self {
        Self::new(None, numbers)
    }

    fn new(set: Option<RawFd>, numbers: impl Iterator<Item = RawFd>) -> Self {
        let _bypass = Bypass::enter();
        let mut all = Vec::new();
        for number in numbers {
            // A number beyond the table cannot be waited for by its number.
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

    /// Tells if the number was closed since the wait began.
    pub(crate) fn is_closed(&self, number: RawFd) -> bool {
        let mut all = self.all.iter();
        all.any(|(other, slot, closes)| {
            *other == number && slot.closes.load(Ordering::Acquire) != *closes
        })
    }

    /// Tells if any of the numbers was closed since the wait began.
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

/// Tells the sets that the number, which is watched, was closed.
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
    // A set that has gone meanwhile may wake a wait without a reason.
    sets.into_iter().for_each(FdSlot::wake_all);
}
