//! A barrier, at which several threads wait for each other.

use std::fmt;

use crate::condvar::Condvar;
use crate::mutex::Mutex;

/// Lets threads wait until a number of them have come. The interface is that of [`std::sync::Barrier`].
///
/// It can be used again. A thread that an exception takes out of its wait still counts as having come: it does not
/// come twice in the same round.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// let barrier = Arc::new(weald::sync::Barrier::new(3));
/// let threads: Vec<_> = (0..3)
///     .map(|_| {
///         let barrier = Arc::clone(&barrier);
///         weald::spawn(move || barrier.wait().is_leader())
///     })
///     .collect();
/// let leaders = threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|l| *l);
/// assert_eq!(leaders.count(), 1);
/// ```
pub struct Barrier {
    round: Mutex<Round>,
    all_here: Condvar,
    number: usize,
}

#[derive(Debug)]
struct Round {
    here: usize,
    number: usize,
}

/// Tells if the thread was the one that completed the round.
///
/// # Examples
/// See [`Barrier`].
#[derive(Debug)]
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// Returns true in one thread of each round.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl Barrier {
    constructor! {
        /// Returns a barrier for `number` threads. With 0, as with 1, no thread waits.
        pub const fn new(number: usize) -> Self {
            Self {
                round: Mutex::new(Round { here: 0, number: 0 }),
                all_here: Condvar::new(),
                number,
            }
        }
    }

    /// Waits until all have come. A blocking call; an exception unwinds.
    pub fn wait(&self) -> BarrierWaitResult {
        let unpoisoned = std::sync::PoisonError::into_inner;
        let mut round = self.round.lock().unwrap_or_else(unpoisoned);
        let mine = round.number;
        round.here += 1;
        if round.here >= self.number {
            round.here = 0;
            unless!(
                "barrier_keeps_its_round",
                round.number = round.number.wrapping_add(1)
            );
            drop(round);
            if fault!("barrier_wakes_one") {
                self.all_here.notify_one();
                return BarrierWaitResult(true);
            }
            self.all_here.notify_all();
            return BarrierWaitResult(true);
        }
        let over = self
            .all_here
            .wait_while(round, |round| round.number == mine);
        drop(over);
        BarrierWaitResult(false)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}
