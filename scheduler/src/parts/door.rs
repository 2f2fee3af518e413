//! The door between a carrier and the worker whose seat it holds. The carrier is the *owner*: it enters and leaves at
//! almost no cost. The monitor can shut the door while the owner is out.
//!
//! The owner is *inside* while it runs the scheduler and *outside* while it runs a green thread's
//! code. Every touch of the worker's core happens inside.
//!
//! | `held`    | meaning                                        | leaves by                            |
//! |-----------|------------------------------------------------|--------------------------------------|
//! | null      | no seat                                        | owner's `sit`                        |
//! | seat      | the owner's, whenever it is inside             | owner's `sit`, monitor -> seat + TAG |
//! | seat + TAG| the monitor looks whether the owner is outside | monitor -> seat, or -> null (seized);|
//! |           |                                                | owner's `sit` (it was inside)        |
//!
//! The owner enters: 1. it sets `entered`; 2. light fence; 3. it loads `held`. If that is not what it last
//! knew, it waits for the lock and looks again.
//!
//! The monitor seizes the seat, under the lock: 1. `held` goes from seat to seat + TAG; 2. heavy fence; 3. it loads
//! `entered`. If that is true, the monitor puts the seat back. If it is false and the tag is still there, `held` goes
//! from seat + TAG to null, and the seat is the monitor's. If the monitor only wants to hold the owner out, it takes
//! the same steps, and puts the seat back when it has done what it wanted.
//!
//! This is Dekker's handshake with unequal fences. The light fence stops only the compiler. The heavy one is
//! `membarrier(2)`, which puts a fence into every thread of the process. Where the kernel has no such call, both
//! are real fences (`shim/barrier.rs`). Either the owner sees the tag, or the monitor sees `entered`.
//!
//! Invariant 1: while `entered` is set and the owner has passed step 3, nobody takes its seat.
//! Invariant 2: the core passes with the seat. `leave` releases the core, and step 3 of the monitor acquires it. So
//! while the monitor holds the owner out, the core is the monitor's; the monitor releases it by putting the seat back.
//! Invariant 3: an owner whose seat was seized notices that when it enters next, before it touches
//! anything, because `held` is no longer what it knew.
//! Invariant 4: if the owner calls `sit` between step 1 and step 3 of the monitor, the owner wins. Its swap removes
//! the tag. The monitor may then find `entered` false, because the owner has gone out since. So in step 3 the monitor
//! takes or uses the seat only if its tag is still there, and it puts the seat back by a compare-and-swap that fails
//! if the tag is gone.
//! Checked by `loom-tests/tests/door.rs`.
#![allow(
    unsafe_code,
    reason = "the owner's view is its own, the seat outlives the door"
)]

use std::cell::Cell;
use std::ptr;

use crate::shim::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use crate::shim::barrier;
use crate::shim::sync::Mutex;

/// Seats are aligned, so the lowest bit is free.
const TAG: usize = 1;

/// One carrier's door; `T` is the seat.
#[derive(Debug)]
pub(crate) struct Door<T> {
    /// The owner is inside; written by the owner alone.
    entered: AtomicBool,
    held: AtomicPtr<T>,
    /// What the owner knows of `held`; its own.
    view: Cell<*const T>,
    /// How often the owner has come in without the seat that it had before it went out.
    losses: AtomicUsize,
    /// The monitor holds this lock while it decides about the owner's seat.
    decision: Mutex<()>,
}

// SAFETY: `view` is touched by the owner alone (the `unsafe` functions say so), the rest is shared.
unsafe impl<T: Sync> Sync for Door<T> {}
// SAFETY: nothing in it belongs to an OS thread.
unsafe impl<T: Sync> Send for Door<T> {}

/// The owner is inside as long as this lives. Sections nest; the outermost one counts.
#[derive(Debug)]
pub(crate) struct Section<'a, T>(Option<&'a Door<T>>);

impl<T> Section<'_, T> {
    /// The owner was inside before: it runs the scheduler, no green thread's code.
    #[inline(always)]
    pub(crate) fn is_nested(&self) -> bool {
        self.0.is_none()
    }
}

impl<T> Drop for Section<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(door) = self.0 {
            door.leave();
        }
    }
}

fn tagged<T>(seat: *mut T) -> *mut T {
    seat.map_addr(|address| address | TAG)
}

fn untagged<T>(seat: *mut T) -> *mut T {
    seat.map_addr(|address| address & !TAG)
}

impl<T> Door<T> {
    /// The owner is outside and holds no seat.
    pub(crate) fn new() -> Self {
        Self {
            entered: AtomicBool::new(false),
            held: AtomicPtr::new(ptr::null_mut()),
            view: Cell::new(ptr::null()),
            losses: AtomicUsize::new(0),
            decision: Mutex::new(()),
        }
    }

    /// The owner comes in, from a green thread's code. False: it finds that its seat was seized.
    #[inline(always)]
    pub(crate) fn enter(&self) -> bool {
        self.entered.store(true, Ordering::Relaxed);
        unless!("door_no_fence_on_enter", barrier::light());
        // Pairs with the release of whoever put the seat back after a look.
        ptr::eq(self.held.load(Ordering::Acquire), self.view.get()) || self.look_again()
    }

    /// Whether the owner is inside. Only the owner may ask.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn is_inside(&self) -> bool {
        self.entered.load(Ordering::Relaxed)
    }

    /// The owner goes out, to run a green thread's code.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        let order = relaxed_if!("door_relaxed_leave", Ordering::Release);
        self.entered.store(false, order);
    }

    /// The owner comes in until the section is dropped, if it is not inside already.
    #[inline(always)]
    pub(crate) fn section(&self) -> Section<'_, T> {
        if self.entered.load(Ordering::Relaxed) {
            return Section(None);
        }
        self.enter();
        Section(Some(self))
    }

    /// The monitor looks at the seat, or has taken it.
    #[cold]
    #[inline(never)]
    fn look_again(&self) -> bool {
        // `entered` is set, so after this lock nobody begins to take the seat.
        unless!("door_enters_under_the_tag", drop(self.decision.lock()));
        let held = untagged(self.held.load(Ordering::Acquire));
        if ptr::eq(held, self.view.get()) {
            return true;
        }
        self.view.set(held);
        self.losses.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// The owner comes in without the seat that it gave away before it went out. Counts as a loss.
    pub(crate) fn came_back(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// The seat that the owner holds. Only the owner may ask. Inside the answer is right; outside it
    /// is what the owner knew when it left.
    #[inline(always)]
    pub(crate) fn seat(&self) -> *const T {
        self.view.get()
    }

    /// The owner takes a seat that it was given, or lets go of its seat. It is inside.
    pub(crate) fn sit(&self, seat: *const T) {
        self.view.set(seat);
        // A swap, so that it comes before or after each of the monitor's steps, not between two.
        self.held.swap(seat.cast_mut(), Ordering::AcqRel);
    }

    /// Which seat the owner holds. Anybody may ask, and the answer may be out of date.
    pub(crate) fn held(&self) -> *const T {
        untagged(self.held.load(Ordering::Acquire))
    }

    /// The owner seems to be outside; a hint.
    pub(crate) fn is_outside(&self) -> bool {
        !self.entered.load(Ordering::Relaxed)
    }

    /// How often the owner has come back without its seat; a hint.
    pub(crate) fn losses(&self) -> usize {
        self.losses.load(Ordering::Relaxed)
    }

    /// Takes the seat from an owner that is outside. True: it is in the caller's hand.
    pub(crate) fn seize(&self, seat: *const T) -> bool {
        // The owner is outside and waits for the tag to go, so nobody else writes.
        let taken = |door: &Self| door.held.store(ptr::null_mut(), Ordering::Release);
        self.decide(seat.cast_mut(), taken).is_some()
    }

    /// Calls `f` while the owner is outside and cannot come in. `None`: it is inside.
    pub(crate) fn hold_out<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        self.hold_out_of(self.held(), f)
    }

    /// As `hold_out`, if the owner holds this seat: `f` may touch what belongs to the seat.
    pub(crate) fn hold_out_of<R>(&self, seat: *const T, f: impl FnOnce() -> R) -> Option<R> {
        let seat = if fault!("door_holds_out_of_any_seat") {
            self.held()
        } else {
            seat
        };
        self.decide(seat.cast_mut(), |_| f())
    }

    fn decide<R>(&self, seat: *mut T, decision: impl FnOnce(&Self) -> R) -> Option<R> {
        let _lock = self.decision.lock();
        if self.entered.load(Ordering::Relaxed)
            || self
                .held
                .compare_exchange(seat, tagged(seat), Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
        {
            return None;
        }
        let fenced = barrier::heavy();
        let blind = fault!("door_seizes_without_a_look");
        let is_out = fenced && (blind || !self.entered.load(Ordering::Acquire));
        // Before the fence the owner may have come in, taken another seat and gone out again: then the tag is gone.
        let holds = fault!("door_trusts_in_a_tag_that_is_gone")
            || ptr::eq(self.held.load(Ordering::Acquire), tagged(seat));
        let result = (is_out && holds).then(|| decision(self));
        let order = relaxed_if!("door_puts_the_seat_back_relaxed", Ordering::AcqRel);
        if fault!("door_puts_the_seat_back_by_store") && result.is_none() {
            self.held.store(seat, Ordering::Release);
        }
        // Fails if it was seized, or if the owner was inside and has sat elsewhere meanwhile.
        let _ = self
            .held
            .compare_exchange(tagged(seat), seat, order, Ordering::Relaxed);
        result
    }
}
