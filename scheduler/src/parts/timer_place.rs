//! Where the timer of a call in the future is. A worker puts the timer into its wheel. Another thread may cancel the
//! call at the same time. The two agree by one word.
//!
//! | state       | the timer               | counted by        | leaves by                              |
//! |-------------|-------------------------|-------------------|----------------------------------------|
//! | ON THE WAY  | is not in a wheel yet   | the runtime       | `settle` -> worker, `withdraw` -> GONE |
//! | worker + 1  | is in that wheel        | the wheel         | never                                  |
//! | GONE        | goes into no wheel      | nobody            | never                                  |
//!
//! Invariant 1: `settle` and `withdraw` are each one compare-and-swap from ON THE WAY, so the second one learns of the
//! first: either the canceller finds the timer, or the worker takes it out of the wheel again. `settle_first`
//! needs no compare-and-swap, because no other thread knows of the call yet.
//! Invariant 2: the first one takes the timer off the runtime's number, once.
//!
//! Orderings: settling releases the key; a canceller that finds the worker acquires it.
//! Checked by `loom-tests/tests/place.rs`.

use crate::shim::atomic::{AtomicU64, AtomicUsize, Ordering};

const ON_THE_WAY: usize = 0;
const GONE: usize = usize::MAX;

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct TimerPlace {
    word: AtomicUsize,
    key: AtomicU64,
}

/// What a canceller finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The timer was on the way, and goes into no wheel now.
    OnTheWay,
    /// The timer is in the wheel of this worker, under this key.
    InWheel(usize, u64),
    /// The timer is in no wheel, and never will be.
    Nowhere,
}

impl TimerPlace {
    /// For a timer that a worker will put into its wheel.
    pub(crate) fn on_the_way() -> Self {
        Self::of(ON_THE_WAY)
    }

    /// For a call that is never due.
    pub(crate) fn nowhere() -> Self {
        Self::of(GONE)
    }

    fn of(word: usize) -> Self {
        Self {
            word: AtomicUsize::new(word),
            key: AtomicU64::new(0),
        }
    }

    /// The worker has put the timer into its wheel. False: the call was cancelled, and the timer must come out again.
    pub(crate) fn settle(&self, worker: usize, key: u64) -> bool {
        self.key.store(key, Ordering::Relaxed);
        if fault!("place_settles_by_store") {
            let left = self.word.load(Ordering::Acquire) == GONE;
            self.word.store(worker + 1, Ordering::Release);
            return !left;
        }
        let settled = relaxed_if!("place_relaxed_settle", Ordering::Release);
        self.word
            .compare_exchange(ON_THE_WAY, worker + 1, settled, Ordering::Relaxed)
            .is_ok()
    }

    /// As `settle`, for the worker that has made the call. No other thread knows of the call yet.
    pub(crate) fn settle_first(&self, worker: usize, key: u64) {
        self.key.store(key, Ordering::Relaxed);
        self.word.store(worker + 1, Ordering::Release);
    }

    /// The caller cancels the call.
    pub(crate) fn withdraw(&self) -> Found {
        let word = self.word.load(Ordering::Acquire);
        let left = if word == ON_THE_WAY {
            self.word
                .compare_exchange(ON_THE_WAY, GONE, Ordering::Relaxed, Ordering::Acquire)
        } else {
            Err(word)
        };
        match left {
            Ok(_) => Found::OnTheWay,
            Err(GONE) => Found::Nowhere,
            Err(worker) => Found::InWheel(worker - 1, self.key.load(Ordering::Relaxed)),
        }
    }
}
