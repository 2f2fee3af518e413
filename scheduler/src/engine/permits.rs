//! Permits, and the threads that wait for one, first come, first served. `permits_wait.rs` has the left column.
//!
//! A thread that gives a permit back hands it to the first waiter. If there is none the permit becomes free. So no
//! thread overtakes those in the queue.
//!
//! | a waiter                               | a thread that gives a permit back                              |
//! |----------------------------------------|----------------------------------------------------------------|
//! | 1. counts as a waiter                  | 1. if nobody counts as a waiter, the permit is free: the end   |
//! | 2. enters the queue                    | 2. wakes the first in the queue, which has the permit: the end |
//! | 3. takes a free permit, if there is one | 3. if nobody was in the queue, the permit is free             |
//! | 4. sleeps until it has one             | 4. looks into the queue once more: if somebody is              |
//! |                                        |    there, takes a free permit again, and goes to 2             |
//!
//! Both steps 1 are on one word, so one of them sees the other. A waiter that enters the queue after the look of
//! step 4 sees the permit of step 3, by the lock of the queue.
//!
//! Invariant 1: a permit is free, or a thread has it, or a thread is about to give it back.
//! Invariant 2: nobody sleeps in the queue while a permit is free and nobody is in step 3 or 4.
//! Orderings: a permit is taken with `Acquire` and given with `Release`, by the word or by the queue's lock.
//! Checked by `loom-tests/tests/permits.rs`.

use crate::green::wait_list::WaitQueue;
use crate::shim::atomic::{AtomicU64, Ordering};

/// The permits, and the queue of threads that wait for one.
#[derive(Debug)]
pub(crate) struct Permits {
    /// Free permits, and in units of [`WAITER`] how many threads wait or are about to.
    pub(crate) word: AtomicU64,
    pub(crate) queue: WaitQueue,
}

pub(crate) const WAITER: u64 = 1 << 32;

fn free(word: u64) -> u64 {
    word % WAITER
}

impl Permits {
    pub(crate) fn new(free: usize) -> Self {
        let free = u64::try_from(free).unwrap_or(u64::MAX);
        Self {
            word: AtomicU64::new(free.min(WAITER / 2)),
            queue: WaitQueue::new(),
        }
    }

    /// Takes a free permit.
    #[inline]
    pub(crate) fn try_take(&self) -> bool {
        self.try_take_of_more_than(0)
    }

    /// Takes a free permit, unless it is the last one.
    #[cfg(not(loom))]
    pub(crate) fn try_take_but_the_last(&self) -> bool {
        self.try_take_of_more_than(1)
    }

    #[inline]
    fn try_take_of_more_than(&self, left: u64) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while free(word) > left {
            let taken = self.word.compare_exchange_weak(
                word,
                word - 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// How many threads wait for a permit, or are about to.
    #[cfg_attr(loom, allow(dead_code, reason = "its model has no need of it"))]
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        usize::try_from(self.word.load(Ordering::Relaxed) / WAITER).unwrap_or(usize::MAX)
    }

    /// Whether a thread is in the queue.
    #[cfg(loom)]
    #[allow(dead_code, reason = "for the models")]
    pub(crate) fn somebody_sleeps(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Gives a permit back.
    #[inline]
    pub(crate) fn give(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        while word < WAITER {
            let given = self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match given {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
        self.hand_over();
    }

    #[cold]
    fn hand_over(&self) {
        loop {
            if self.queue.wake_one() {
                if fault!("permits_are_handed_over_and_free") {
                    self.word.fetch_add(1, Ordering::AcqRel);
                }
                return;
            }
            self.word.fetch_add(1, Ordering::AcqRel);
            let somebody = !self.queue.is_empty() && !fault!("permits_are_given_without_a_look");
            if !somebody || !self.try_take() {
                return;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::Permits;
    use crate::{Runtime, ThreadLocals, spawn, yield_now};

    #[test]
    #[cfg_attr(miri, ignore = "a green thread needs a stack and assembly")]
    fn who_gives_a_permit_back_does_not_pass_those_who_wait() {
        let builder = || Runtime::builder().workers(1);
        for builder in [builder(), builder().thread_locals(ThreadLocals::Pinned)] {
            let rt = builder.build().unwrap();
            let order = rt.run(|| {
                let permits = Arc::new(Permits::new(1));
                let order = Arc::new(Mutex::new(Vec::new()));
                assert!(permits.take().is_ok());
                let visit = |name: usize| {
                    let (permits, order) = (Arc::clone(&permits), Arc::clone(&order));
                    move || {
                        assert!(permits.take().is_ok());
                        order.lock().unwrap().push(name);
                        permits.give();
                    }
                };
                let waiting: Vec<_> = (0..3)
                    .map(|name| {
                        let thread = spawn(visit(name));
                        // The only worker runs it until it waits.
                        yield_now();
                        thread
                    })
                    .collect();
                // It has not run by now, and we are back at once.
                permits.give();
                visit(3)();
                for thread in waiting {
                    thread.join().unwrap();
                }
                let order = order.lock().unwrap();
                order.clone()
            });
            assert_eq!(order, [0, 1, 2, 3]);
        }
    }
}
