//! The budget of the running thread: blocking calls that do not wait still give way now and then.
#![allow(unsafe_code, reason = "the OS thread's own carrier")]

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::current;
use crate::green_thread::{Header, Note};
use crate::shim::clock;
use crate::waiter::switch_out;

use super::{Carrier, can_suspend};

/// Blocking calls that did not wait, after which a thread gives way; tokio's figure.
const BUDGET: u32 = 128;

/// A thread whose calls never wait gives way after this too: DESIGN's bound for everybody else.
pub(super) const SLICE: Duration = Duration::from_micros(200);

/// While calls come quicker than this, only every [`STRIDE`]th reads the clock.
const QUICK: Duration = Duration::from_micros(25);

/// The call that is the first to read the clock. A thread that answers a peer and waits again makes two
/// or three; reading the clock would cost it a third as much as the switch does.
const FIRST_LOOK: u32 = 4;

/// Calls between two looks at the clock; twice as many after a stretch that took a quarter of [`QUICK`] at
/// most. No more: a thread whose calls become slow meanwhile holds the worker for as many of them.
const STRIDE: u32 = 8;

/// What is left when the first look is due.
const AT_FIRST: u32 = BUDGET + 1 - FIRST_LOOK;

/// What is left of the running thread's turn.
#[derive(Debug)]
pub(super) struct Budget {
    /// Above zero.
    left: Cell<u32>,
    /// At least one, so the last call of a turn does not pass either.
    next_look: Cell<u32>,
    since: Cell<Option<Instant>>,
    last: Cell<Option<Instant>>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            left: Cell::new(BUDGET),
            next_look: Cell::new(AT_FIRST),
            since: Cell::new(None),
            last: Cell::new(None),
        }
    }

    #[inline(always)]
    pub(super) fn reset(&self) {
        self.left.set(BUDGET);
        self.next_look.set(AT_FIRST);
    }
}

/// See `waiter::spend`.
#[inline]
pub(crate) fn spend() {
    let carrier = current::carrier();
    if carrier.is_null() {
        return;
    }
    // SAFETY: a carrier outlives what runs on its OS thread.
    let carrier = unsafe { &*carrier };
    if !spend_from(carrier) {
        spend_slow(carrier);
    }
}

/// As `spend`, of the thread that runs on this carrier. False: nothing was spent, and `spend` must be
/// called, which may suspend.
#[inline]
pub(crate) fn spend_from(carrier: &Carrier) -> bool {
    let budget = &carrier.budget;
    let left = budget.left.get();
    if left <= budget.next_look.get() {
        return false;
    }
    budget.left.set(left - 1);
    true
}

#[cold]
#[inline(never)]
fn spend_slow(carrier: &Carrier) {
    let budget = &carrier.budget;
    let left = budget.left.get() - 1;
    budget.left.set(left);
    if left > 0 {
        let now = clock::now();
        let first = budget.next_look.get() == AT_FIRST;
        if first {
            // When its turn began is not known, but when the carrier last saw the clock before; without a
            // seat not even that.
            budget.since.set(Some(carrier.last_look().unwrap_or(now)));
            budget.last.set(None);
        }
        let since = budget.since.get().unwrap_or(now);
        let last = budget.last.replace(Some(now));
        if now.saturating_duration_since(since) < SLICE {
            let took = last.map(|last| now.saturating_duration_since(last));
            let calls = match took {
                Some(took) if took < QUICK / 4 => 2 * STRIDE,
                Some(took) if took >= QUICK => 1,
                _ => STRIDE,
            };
            budget.next_look.set(left.saturating_sub(calls).max(1));
            return;
        }
    }
    budget.reset();
    give_way();
}

impl Carrier {
    /// When the worker last looked at the clock, if a seat is held.
    fn last_look(&self) -> Option<Instant> {
        let _inside = self.door.section();
        // SAFETY: the seat is held; ends with the statement.
        self.seat()
            .map(|worker| unsafe { worker.core() }.last_look())
    }
}

/// Lets the others run; raises nothing.
fn give_way() {
    // SAFETY: the running thread's header is alive.
    give_way_from(unsafe { &*current::header() });
}

/// As `give_way`, for the running thread's header.
#[inline]
pub(crate) fn give_way_from(header: &Header) {
    if !std::thread::panicking() && can_suspend(header) {
        switch_out(header, Note::Yield);
    } else if !header.is_green() || (cfg!(loom) && current::carrier().is_null()) {
        crate::shim::thread::yield_now();
    }
}
