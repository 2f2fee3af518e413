//! One direction of a slot: its word, and the queue of those that wait. `mod.rs` tells what the bits mean, and has the
//! invariants.
//!
//! Checked by `loom-tests/tests/readiness.rs`.

use std::time::Instant;

use weald_scheduler::io::{Awaited, On, WaitQueue, Woken};

use crate::shim::atomic::{AtomicU64, Ordering};

pub(super) const READY: u64 = 1;
pub(super) const STICKY: u64 = 2;
const WAITED: u64 = 4;
const TICK: u64 = 8;

#[derive(Debug)]
pub(super) struct Way {
    pub(super) word: AtomicU64,
    pub(super) waiters: WaitQueue,
}

impl Way {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(READY),
            waiters: WaitQueue::new(),
        }
    }

    /// Notes that an event told something of this direction, and wakes waiters.
    pub(super) fn note_event(&self, sticky: bool) {
        self.note(if sticky { READY | STICKY } else { READY }, sticky);
    }

    /// Has all waiters try, and register anew if they find nothing.
    pub(super) fn look_again(&self) {
        self.note(READY, true);
    }

    fn note(&self, bits: u64, all: bool) {
        let step = |word: u64| Some((word | bits).wrapping_add(TICK));
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, step)
            .expect("the step always gives a new word");
        if before & WAITED == 0 {
            return;
        }
        if all {
            self.waiters.wake_all();
        } else {
            self.waiters.wake_one();
        }
    }

    /// Announces that a waiter is about to enter the queue (invariant 4).
    pub(super) fn announce(&self) {
        let announced = self.word.load(Ordering::Relaxed) & WAITED != 0;
        if !announced && !fault!("source_waits_unannounced") {
            self.word.fetch_or(WAITED, Ordering::AcqRel);
        }
    }

    /// Waits until an event comes that had not come when the word was noted.
    pub(super) fn wait(&self, seen: u64, deadline: Option<Instant>) -> Woken {
        self.announce();
        let on = On::just(Awaited::Descriptor);
        let has_ticked = || self.has_ticked(seen);
        self.waiters.wait_on(on, has_ticked, deadline, true)
    }

    /// Wakes the next waiter after a call that did not wait any more, as the call may have left something (invariant
    /// 2).
    pub(super) fn wake_next(&self, seen: u64) {
        if seen & WAITED != 0 {
            self.waiters.wake_one();
        }
    }

    /// Notes that nothing was there when the word was noted (invariant 1).
    pub(super) fn clear(&self, seen: u64) {
        let seen = if fault!("source_clears_over_a_newer_edge") {
            self.word.load(Ordering::Acquire)
        } else {
            seen
        };
        let cleared = seen & !READY;
        let _ = self
            .word
            .compare_exchange(seen, cleared, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(super) fn is_drained(word: u64) -> bool {
        word & (READY | STICKY) == 0
    }

    pub(super) fn has_ticked(&self, seen: u64) -> bool {
        !fault!("source_waits_without_a_second_look")
            && self.word.load(Ordering::Acquire) / TICK != seen / TICK
    }
}
