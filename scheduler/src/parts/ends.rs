//! Whether all green threads have ended, for good.
//!
//! A thread is counted as ended before it steps to DONE. So if a thread is seen to be DONE, it is counted. But
//! only the step to DONE says whether the thread leaves something that another thread must drop
//! (`wait/end.rs`), and that other thread is counted as spawned after the step. So for a moment the numbers of ended and
//! of spawned threads can be equal although a thread will still come. Each carrier says when its green thread is between
//! these steps:
//!
//! | a thread that ends, on its carrier                | a thread that asks whether all have ended |
//! |---------------------------------------------------|-----------------------------------------|
//! | 1. `Ending::begin`                                | 1. reads ended, then spawned: equal?    |
//! | 2. ended + 1 (release)                            | 2. waits for each carrier's `Ending`    |
//! | 3. DONE; if it leaves something: spawned + 1      | 3. reads spawned again: the same?       |
//! | 4. `Ending::end`                                  |                                         |
//!
//! One more thread may come: a carrier may find that a timer is due and that the runtime is not closing yet. It
//! then starts a thread for the timer, and nobody waits for that carrier. So a shutdown that has seen all threads
//! end asks once more when no carrier runs ([`some_are_left`]).
//!
//! Invariant: if the answer is yes, each thread that was counted as spawned by then is DONE, and none of them
//! starts a further one.
//! Orderings: step 2 of the thread releases step 1, so whoever has seen its count sees its carrier
//! in between, or later; step 4 releases step 3.
//! Checked by `loom-tests/tests/ends.rs`.

use crate::shim::atomic::{AtomicBool, Ordering};
use crate::shim::thread;

/// Whether the green thread on a carrier has been counted as ended and is not DONE yet.
#[derive(Debug)]
pub(crate) struct Ending(AtomicBool);

impl Ending {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// A thread will be counted as ended next. Called on its carrier.
    #[inline]
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The thread is DONE, and the thread that drops what it leaves is counted.
    #[inline]
    pub(crate) fn end(&self) {
        let order = relaxed_if!("ends_relaxed_end", Ordering::Release);
        self.0.store(false, order);
    }

    /// Waits while a thread is between the two steps. That takes some instructions, unless its OS thread is interrupted.
    fn wait(&self) {
        while self.0.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
}

/// True if all threads have ended and none of them has left another thread behind. The caller reads the numbers
/// with `Acquire`.
pub(crate) fn all_ended<'a>(
    ended: impl Fn() -> u64,
    spawned: impl Fn() -> u64,
    carriers: impl Iterator<Item = &'a Ending>,
) -> bool {
    let ended = ended();
    let before = spawned();
    if ended != before {
        return false;
    }
    unless!("ends_asks_no_carrier", carriers.for_each(Ending::wait));
    spawned() == before
}

/// Whether threads are left. No carrier runs any more. `ended`: all threads had ended before. `live`: how many threads
/// have not ended.
pub(crate) fn some_are_left(ended: bool, live: impl Fn() -> u64) -> bool {
    !ended || (live() > 0 && !fault!("ends_trusts_the_first_answer"))
}
