//! Where the timer of a call in the future is. A worker puts the timer into its wheel, another thread may cancel the
//! call at the same time; they agree by one word.
//!
//! | state       | the entry               | counted by        | leaves by                        |
//! |-------------|-------------------------|-------------------|----------------------------------|
//! | ON THE WAY  | is not in a wheel yet   | the runtime       | `settle` -> worker, `leave` -> GONE |
//! | worker + 1  | is in that wheel        | the wheel         | never                            |
//! | GONE        | goes into none          | nobody            | never                            |
//!
//! Invariant 1: `settle` and `leave` are each one compare-and-swap from ON THE WAY, so one of them
//! learns of the other: the canceller finds the entry, or the worker takes it out again. `settle_first`
//! needs none: the call has not been shown to anybody else.
//! Invariant 2: the winner counts the entry out of the runtime's number, once.
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
    /// It was on the way, and goes into no wheel.
    OnTheWay,
    /// It is in the wheel of this worker, under this key.
    InWheel(usize, u64),
    /// It was never to go into one.
    Nowhere,
}

impl TimerPlace {
    /// Of an entry that a worker is to put into its wheel.
    pub(crate) fn on_the_way() -> Self {
        Self::of(ON_THE_WAY)
    }

    /// Of a call that is never due.
    pub(crate) fn nowhere() -> Self {
        Self::of(GONE)
    }

    fn of(word: usize) -> Self {
        Self {
            word: AtomicUsize::new(word),
            key: AtomicU64::new(0),
        }
    }

    /// The worker has put it in. False: it was cancelled, and must come out again.
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

    /// As `settle`, by the worker that has made the call: nobody else knows of it yet.
    pub(crate) fn settle_first(&self, worker: usize, key: u64) {
        self.key.store(key, Ordering::Relaxed);
        self.word.store(worker + 1, Ordering::Release);
    }

    /// The call is cancelled; for the one who has done so.
    pub(crate) fn leave(&self) -> Found {
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
