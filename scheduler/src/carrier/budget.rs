//! The budget of the running thread: blocking calls that do not wait still give way now and then.
#![allow(unsafe_code, reason = "the OS thread's own carrier")]

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::current;
use crate::green_thread::{Header, Note};
use crate::shim::clock;
use crate::waiter::switch_out;

use super::can_suspend;

/// Blocking calls that did not wait, after which a thread gives way; tokio's figure.
const BUDGET: u32 = 128;

/// A thread whose calls never wait gives way after this too: DESIGN's bound for everybody else.
pub(super) const SLICE: Duration = Duration::from_micros(200);

/// While calls come quicker than this, only every 8th reads the clock.
const QUICK: Duration = Duration::from_micros(25);

/// What is left of the running thread's turn.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<u32>,
    next_look: Cell<u32>,
    since: Cell<Option<Instant>>,
    last: Cell<Option<Instant>>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            left: Cell::new(BUDGET),
            next_look: Cell::new(BUDGET),
            since: Cell::new(None),
            last: Cell::new(None),
        }
    }

    #[inline(always)]
    pub(super) fn reset(&self) {
        self.left.set(BUDGET);
        self.next_look.set(BUDGET);
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
    let budget = unsafe { &(*carrier).budget };
    let left = budget.left.get();
    budget.left.set(left.wrapping_sub(1));
    if left <= 1 || left <= budget.next_look.get() {
        spend_slow();
    }
}

#[cold]
#[inline(never)]
fn spend_slow() {
    let carrier = current::carrier();
    // SAFETY: `spend` has seen that there is one.
    let budget = unsafe { &(*carrier).budget };
    let left = budget.left.get().min(BUDGET);
    if left > 0 {
        let now = clock::now();
        if left == BUDGET - 1 {
            budget.since.set(Some(now));
            budget.last.set(Some(now));
        }
        let since = budget.since.get().unwrap_or(now);
        let last = budget.last.replace(Some(now)).unwrap_or(now);
        if now.saturating_duration_since(since) < SLICE {
            let quick = now.saturating_duration_since(last) < QUICK;
            budget
                .next_look
                .set(left.saturating_sub(if quick { 8 } else { 1 }));
            return;
        }
    }
    give_way();
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
