//! Blocking calls that do not wait spend from the running thread's budget. When it is used up, the thread gives way.
#![allow(unsafe_code, reason = "the OS thread's own carrier")]

use std::time::Instant;

use super::{Carrier, can_suspend, here};
use crate::green::current;
use crate::green::green_thread::{Header, Note};
use crate::green::switch_out::switch_out;
use crate::shim::clock;

/// See `waiter::spend`. `share` makes green threads of what a thread that gives way has forked.
#[inline]
pub(crate) fn spend(share: fn(&Header)) {
    let carrier = here();
    if carrier.is_null() {
        return;
    }
    // SAFETY: a carrier outlives what runs on its OS thread.
    let carrier = unsafe { &*carrier };
    if !spend_from(carrier) {
        spend_slow(carrier, share);
    }
}

/// As `spend`, for the thread that runs on this carrier. False: nothing was spent, and the caller must call `spend`,
/// which may suspend.
#[inline]
pub(crate) fn spend_from(carrier: &Carrier) -> bool {
    carrier.budget.passes()
}

/// As `spend`, for a call that costs a few nanoseconds. A turn may have as many of them as there is time for.
pub(crate) fn spend_time(share: fn(&Header)) {
    let carrier = here();
    if carrier.is_null() {
        return;
    }
    // SAFETY: a carrier outlives what runs on its OS thread.
    let carrier = unsafe { &*carrier };
    if !spend_from(carrier) && (carrier.budget).look_at_time(clock::now(), || carrier.last_look()) {
        share_and_give_way(share);
    }
}

#[cold]
#[inline(never)]
fn spend_slow(carrier: &Carrier, share: fn(&Header)) {
    // When the turn began is not known. The carrier knows when it last looked at the clock before that, if it has a
    // seat.
    if carrier.budget.look(clock::now, || carrier.last_look()) {
        share_and_give_way(share);
    }
}

#[cold]
fn share_and_give_way(share: fn(&Header)) {
    // SAFETY: the running thread's header is alive.
    if let Some(header) = unsafe { current::running().as_ref() }
        && header.forks.is_used()
    {
        share(header);
    }
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
    match unsafe { current::running().as_ref() } {
        Some(header) => give_way_from(header),
        None => crate::shim::thread::yield_now(),
    }
}

/// As `give_way`, for the running thread's header.
#[inline]
pub(crate) fn give_way_from(header: &Header) {
    if !std::thread::panicking() && can_suspend(header) {
        switch_out(header, Note::Yield);
    } else if !header.runs_on_carriers() || (cfg!(loom) && here().is_null()) {
        crate::shim::thread::yield_now();
    }
}
