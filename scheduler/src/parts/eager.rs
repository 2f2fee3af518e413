//! Decides where a green thread goes that a peer has woken: into `RunNext`, where it runs next and no other worker
//! finds it, or into a queue, where a worker that sleeps can find it (the thread is *shared*).
//!
//! Most peers wait next. Then it is useless to wake another worker, and it tears the pair apart. If the peer goes on
//! to compute, the woken thread waits although another worker has nothing to do. So a worker learns from
//! what it has tried: it judges each share when the waker has left its stack.
//!
//! | state     | shares                              | leaves by                                             |
//! |-----------|-------------------------------------|-------------------------------------------------------|
//! | computing | each                                | a useless share -> trying                             |
//! | trying    | one, then one in ever more looks at | a share that was of use, or the monitor (it has found |
//! |           | the clock                           | a woken thread that did not run) -> computing         |
//!
//! After a sleep a worker tries at once: the thread that it was woken for may compute.

use std::time::{Duration, Instant};

/// A share was useful if the waker went on for so long. Another worker needs about this time to wake up.
const OF_USE: Duration = Duration::from_micros(30);

/// The most looks at the clock between two tries; a guess.
const LONGEST_INTERVAL: u32 = 1024;

/// What a worker knows of its threads.
#[derive(Debug)]
pub(crate) struct Eagerness {
    computing: bool,
    /// When the last share was, until it has been judged.
    shared: Option<Instant>,
    /// Looks at the clock until the next try.
    left: u32,
    interval: u32,
}

impl Eagerness {
    pub(crate) fn new() -> Self {
        Self {
            computing: false,
            shared: None,
            left: 0,
            interval: 1,
        }
    }

    /// Whether a thread that a peer woke is to be shared. If so, the caller must call `saw` as soon as the peer
    /// has left its stack.
    pub(crate) fn is_due(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if !self.computing {
            if self.left > 0 {
                return false;
            }
            self.left = self.interval;
            self.interval = (self.interval * 2).min(LONGEST_INTERVAL);
        }
        if self.shared.is_none() {
            self.shared = Some(now());
        }
        true
    }

    /// The worker looks at the clock.
    pub(crate) fn saw(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(1);
        if let Some(shared) = self.shared.take() {
            if now.saturating_duration_since(shared) >= OF_USE {
                self.computes();
            } else {
                self.computing = false;
            }
        }
    }

    /// The monitor has moved the thread in `RunNext` elsewhere, because the worker did not come to run it.
    pub(crate) fn computes(&mut self) {
        self.computing = true;
        self.left = 0;
        self.interval = 1;
    }

    /// The worker has slept.
    pub(crate) fn woke_up(&mut self) {
        self.left = 0;
        self.interval = 1;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Rounds in each of which a thread wakes a peer and goes on for that long. Returns how many were shared.
    fn shares(eagerness: &mut Eagerness, rounds: usize, goes_on: Duration) -> usize {
        let mut now = Instant::now();
        let mut shared = 0;
        for _ in 0..rounds {
            shared += usize::from(eagerness.is_due(|| now));
            now += goes_on;
            eagerness.saw(now);
        }
        shared
    }

    #[test]
    fn whom_a_thread_wakes_that_computes_on_is_shared_each_time() {
        let mut eagerness = Eagerness::new();
        for micros in [50, 200, 1000, 8000] {
            assert_eq!(
                shares(&mut eagerness, 100, Duration::from_micros(micros)),
                100
            );
        }
    }

    #[test]
    fn a_ping_pong_shares_ever_more_seldom() {
        let mut eagerness = Eagerness::new();
        let brief = Duration::from_micros(1);
        assert!(shares(&mut eagerness, 1024, brief) <= 11);
        assert_eq!(shares(&mut eagerness, 1000, brief), 0);
    }

    #[test]
    fn a_worker_learns_when_its_threads_begin_to_compute_and_when_they_end() {
        let mut eagerness = Eagerness::new();
        let (brief, long) = (Duration::from_micros(1), Duration::from_millis(1));
        shares(&mut eagerness, 3000, brief);
        assert_eq!(shares(&mut eagerness, 10, long), 0, "not yet");
        // As the monitor does.
        eagerness.computes();
        assert_eq!(shares(&mut eagerness, 100, long), 100);
        assert!(shares(&mut eagerness, 1024, brief) <= 12);
    }

    #[test]
    fn all_whom_a_thread_wakes_that_computes_on_are_shared() {
        let mut eagerness = Eagerness::new();
        let now = Instant::now();
        eagerness.computes();
        assert!((0..10).all(|_| eagerness.is_due(|| now)));
        eagerness.saw(now + Duration::from_millis(1));
        assert!((0..10).all(|_| eagerness.is_due(|| now)));
    }
}
