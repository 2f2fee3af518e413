//! Which workers search and which sleep, and which worker is woken. No wake-up is lost, and never do all workers wake
//! at once.
//!
//! | word      | meaning                                                                      |
//! |-----------|------------------------------------------------------------------------------|
//! | searching | workers that look for work, and workers that were woken and do not look yet  |
//! | sleeping  | a bit for each worker that sleeps or is about to                             |
//! | resting   | the same for workers that have retired; work that others can run wakes none  |
//!
//! A worker goes to sleep (`sleep`, then its second look, then `Poller::sleep`):
//! 1. It sets its bit, and counts itself out of `searching`.
//! 2. `fence(SeqCst)`.
//! 3. It looks everywhere once more, at all workers that do not sleep ([`Idle::find_awake`]). If there is
//!    work, it calls `stay`.
//!
//! A thread has pushed work (`notify`):
//! 1. `fence(SeqCst)`. It pairs with the fence above: either the sleeper's second look finds the work, or the pusher
//!    sees the sleeper's bit.
//! 2. If a worker searches, that worker will find the work, and the pusher returns.
//! 3. The pusher steps `searching` from 0 to 1. So only one wake-up is on its way at a time.
//! 4. The pusher clears a bit and wakes that worker. The 1 in `searching` stands for that worker now.
//! 5. If there is no bit to clear, the pusher takes its 1 back. Meanwhile another pusher may have seen the 1 and
//!    returned in step 2, and after that a worker may have gone to sleep. So this pusher makes a fence and looks at
//!    the bits again; if there is one, it begins again with step 3.
//!
//! Invariant 1: a worker's bit is cleared exactly once for each time that it is set. Either a waker clears it, and has
//! counted the worker as searching, or the worker itself does, and has not.
//! Invariant 2: if the last searcher finds work, it calls `notify`, because there may be more work.
//! Invariant 3: while a worker's bit is set, its own queues are empty. So a worker that looks for work may pass over
//! all workers whose bit is set, and looks at one word for 64 of them. There is one exception: a worker that
//! wakes may put events of its poller into its queues before it clears its bit. Others may pass over these threads.
//! They are not forgotten: after it has cleared the bit the worker counts as searching, or it calls `notify` if it has
//! more than the thread that it runs next. The order is this. A worker that pushes work into its own queues first
//! clears its bit, then pushes, then makes the fence of `notify`. A worker that goes to sleep makes its fence, then
//! looks at the bits, then at the queues. So the sleeper sees the cleared bit and the work, or the pusher sees the
//! sleeper's bit.
//! Invariant 4: a worker that retires (`run/retired.rs`) counts itself out of `searching` and then calls `notify`
//! ([`Idle::retire`]). It needs that because it takes no second look, and a pusher may have seen it search and have
//! returned in step 2.
//! Checked by `loom-tests/tests/idle.rs`.

use crossbeam_utils::CachePadded;

use crate::shim::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

const BITS: usize = 64;

#[derive(Debug)]
pub(crate) struct Idle {
    searching: CachePadded<AtomicUsize>,
    sleeping: Box<[CachePadded<AtomicU64>]>,
    resting: Box<[CachePadded<AtomicU64>]>,
    /// How many workers there are, including the retired ones. It only grows.
    made: AtomicUsize,
    /// How many workers are not retired. They are the first ones.
    workers: AtomicUsize,
    /// How often workers were told to retire. It is counted before `workers` says so.
    retirements: AtomicUsize,
}

impl Idle {
    /// All workers are awake, and none searches.
    #[allow(dead_code, reason = "for models: a runtime keeps room for more")]
    pub(crate) fn new(workers: usize) -> Self {
        Self::with_room(workers, workers)
    }

    /// As `new`, with room for so many workers.
    pub(crate) fn with_room(workers: usize, room: usize) -> Self {
        let words = || {
            let words = 0..room.div_ceil(BITS);
            words.map(|_| CachePadded::default()).collect()
        };
        Self {
            searching: CachePadded::new(AtomicUsize::new(0)),
            sleeping: words(),
            resting: words(),
            made: AtomicUsize::new(workers),
            workers: AtomicUsize::new(workers),
            retirements: AtomicUsize::new(0),
        }
    }

    /// From now on there are so many workers; the new ones are awake. The caller has made them before.
    pub(crate) fn made(&self, workers: usize) {
        self.made.store(workers, Ordering::Release);
    }

    /// From now on so many workers are not retired. One caller at a time.
    pub(crate) fn set_workers(&self, workers: usize) {
        if workers < self.workers.load(Ordering::Relaxed) {
            self.retirements.fetch_add(1, Ordering::Release);
        }
        self.workers.store(workers, Ordering::Release);
    }

    /// How many workers there are, including the retired ones.
    pub(crate) fn all_workers(&self) -> usize {
        self.made.load(Ordering::Acquire)
    }

    /// How many workers are not retired.
    #[inline]
    pub(crate) fn workers(&self) -> usize {
        self.workers.load(Ordering::Acquire)
    }

    /// There is, or was, more than one worker.
    #[inline]
    pub(crate) fn several(&self) -> bool {
        self.made.load(Ordering::Relaxed) > 1
    }

    /// The worker has retired: it must run nothing that others can run.
    #[inline]
    pub(crate) fn is_retired(&self, worker: usize) -> bool {
        worker >= self.workers.load(Ordering::Relaxed)
    }

    /// The number of this worker's present retirement. `None`: the worker has not retired. If the worker was not retired for some
    /// time between two calls, their numbers differ, also if nobody asked in that time.
    pub(crate) fn retirement(&self, worker: usize) -> Option<usize> {
        // The count is read first. So a retirement that is counted after this read gets another number.
        // Acquire pairs with the release in `set_workers`: `workers` is not older than the count.
        let acquire = relaxed_if!("idle_relaxed_retirement", Ordering::Acquire);
        let mut retirements = self.retirements.load(acquire);
        let is_retired = self.is_retired(worker);
        if fault!("idle_counts_retirements_after_the_look") {
            retirements = self.retirements.load(Ordering::Acquire);
        }
        is_retired.then_some(retirements)
    }

    /// A worker has just retired. Returns the worker that the caller must wake instead of it, if any (invariant 4).
    pub(crate) fn retire(&self) -> Option<usize> {
        if fault!("idle_retires_quietly") {
            return None;
        }
        self.notify()
    }

    /// A retired worker sleeps. It must look once more at what only it can run.
    pub(crate) fn rest(&self, worker: usize) {
        self.resting[worker / BITS].fetch_or(1 << (worker % BITS), Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// A retired worker has woken.
    pub(crate) fn end_rest(&self, worker: usize) {
        self.resting[worker / BITS].fetch_and(!(1 << (worker % BITS)), Ordering::AcqRel);
    }

    /// The words in which workers have bits.
    #[inline]
    fn used<'a>(&self, words: &'a [CachePadded<AtomicU64>]) -> &'a [CachePadded<AtomicU64>] {
        let used = self.made.load(Ordering::Relaxed).div_ceil(BITS);
        words.get(..used).unwrap_or(words)
    }

    /// Work was pushed. Returns the worker that the caller must wake, if any.
    #[inline]
    pub(crate) fn notify(&self) -> Option<usize> {
        unless!("idle_no_notify_fence", fence(Ordering::SeqCst));
        if self.nobody_sleeps() {
            return None;
        }
        self.claim()
    }

    #[cold]
    fn claim(&self) -> Option<usize> {
        loop {
            let free = self
                .searching
                .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed);
            if free.is_err() {
                return None;
            }
            if let Some(worker) = self.claim_bit() {
                return Some(worker);
            }
            self.searching.fetch_sub(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            if self.nobody_sleeps() || fault!("idle_no_recheck_after_claim") {
                return None;
            }
        }
    }

    fn claim_bit(&self) -> Option<usize> {
        for (index, word) in self.used(&self.sleeping).iter().enumerate() {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                let before = word.fetch_and(!(1 << bit), Ordering::AcqRel);
                if before & (1 << bit) != 0 {
                    return Some(index * BITS + bit);
                }
                bits = before & !(1 << bit);
            }
        }
        None
    }

    #[inline]
    fn nobody_sleeps(&self) -> bool {
        self.used(&self.sleeping)
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Somebody may sleep (a hint).
    #[inline]
    pub(crate) fn somebody_sleeps(&self) -> bool {
        !self.nobody_sleeps()
    }

    /// A worker sleeps, and none searches or was just woken: a worker with work should share it (a hint).
    #[inline]
    pub(crate) fn wants_work(&self) -> bool {
        self.somebody_sleeps() && self.searching.load(Ordering::Relaxed) == 0
    }

    /// Calls `f` with each worker that does not sleep until `f` returns something: once around, beginning
    /// with `first`. After the fence of `sleep` it misses no worker that has work.
    pub(crate) fn find_awake<R>(
        &self,
        first: usize,
        mut f: impl FnMut(usize) -> Option<R>,
    ) -> Option<R> {
        let around = (first..self.made.load(Ordering::Acquire), 0..first);
        self.find_awake_in(around.0, &mut f)
            .or_else(|| self.find_awake_in(around.1, &mut f))
    }

    fn find_awake_in<R>(
        &self,
        range: std::ops::Range<usize>,
        f: &mut impl FnMut(usize) -> Option<R>,
    ) -> Option<R> {
        let mut next = range.start;
        while next < range.end {
            let word = next / BITS;
            let asleep = self.sleeping[word].load(Ordering::Relaxed)
                | self.resting[word].load(Ordering::Relaxed);
            // The workers of this word that are in the range and awake.
            let mut awake = !asleep & (u64::MAX << (next % BITS));
            next = (word + 1) * BITS;
            while awake != 0 {
                let worker = word * BITS + awake.trailing_zeros() as usize;
                if worker >= range.end {
                    return None;
                }
                if let Some(found) = f(worker) {
                    return Some(found);
                }
                awake &= awake - 1;
            }
        }
        None
    }

    /// This worker sleeps (a hint).
    pub(crate) fn sleeps(&self, worker: usize) -> bool {
        let has_bit = |words: &[CachePadded<AtomicU64>]| {
            words[worker / BITS].load(Ordering::Relaxed) & (1 << (worker % BITS)) != 0
        };
        has_bit(&self.sleeping) || has_bit(&self.resting)
    }

    /// Every worker sleeps (a hint that is exact after a fence).
    pub(crate) fn all_sleep(&self) -> bool {
        let sleeping = self.used(&self.sleeping).iter();
        let asleep: u32 = sleeping
            .chain(self.used(&self.resting))
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum();
        asleep as usize == self.made.load(Ordering::Acquire)
    }

    /// A worker without work wants to search. False: enough workers search already, it may sleep at once.
    pub(crate) fn start_search(&self) -> bool {
        if 2 * self.searching.load(Ordering::Relaxed) >= self.workers() {
            return false;
        }
        self.searching.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// A searcher has found work. True: it was the last, so it must `notify`.
    #[must_use]
    pub(crate) fn found(&self) -> bool {
        self.searching.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// A worker goes to sleep; a second look must follow.
    pub(crate) fn sleep(&self, worker: usize, searching: bool) {
        self.sleeping[worker / BITS].fetch_or(1 << (worker % BITS), Ordering::AcqRel);
        if searching {
            self.searching.fetch_sub(1, Ordering::AcqRel);
        }
        unless!("idle_no_sleep_fence", fence(Ordering::SeqCst));
    }

    /// A worker has seen work and stays awake. It counts as searching, also if it cleared its bit itself: a
    /// pusher may have seen it search before, and relied on it (invariant 2).
    pub(crate) fn stay(&self, worker: usize) {
        let claimed = self.wake(worker);
        if !claimed && !fault!("idle_stays_uncounted") {
            self.searching.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A worker has woken. True: somebody had claimed it, so it counts as searching.
    pub(crate) fn wake(&self, worker: usize) -> bool {
        let bit = 1 << (worker % BITS);
        let word = &self.sleeping[worker / BITS];
        let before = if fault!("idle_leaves_its_bit") {
            word.load(Ordering::Acquire)
        } else {
            word.fetch_and(!bit, Ordering::AcqRel)
        };
        before & bit == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Idle;

    fn awake(idle: &Idle, first: usize) -> Vec<usize> {
        let mut seen = Vec::new();
        let found = idle.find_awake(first, |worker| {
            seen.push(worker);
            None::<()>
        });
        assert_eq!(found, None);
        seen
    }

    #[test]
    fn those_that_do_not_sleep_are_found_once_around() {
        for workers in [1, 2, 63, 64, 65, 128, 200] {
            let idle = Idle::new(workers);
            for sleeper in (0..workers).filter(|worker| worker % 3 != 0) {
                idle.sleep(sleeper, false);
            }
            let expected: Vec<_> = (0..workers).step_by(3).collect();
            for first in 0..workers {
                let mut around = expected.clone();
                let before = expected.iter().filter(|&&worker| worker < first).count();
                around.rotate_left(before);
                assert_eq!(awake(&idle, first), around, "{first} of {workers}");
            }
            assert_eq!(idle.find_awake(0, Some), Some(0));
        }
    }

    #[test]
    fn where_all_sleep_nobody_is_looked_at() {
        let idle = Idle::new(256);
        (0..256).for_each(|worker| idle.sleep(worker, false));
        assert_eq!(awake(&idle, 100), []);
    }
}
