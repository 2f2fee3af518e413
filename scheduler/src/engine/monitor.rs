//! The monitor's sleep, and what other threads report to it. `run/watch.rs` has its looks and says what it is for.
//!
//! The monitor goes to sleep in three steps: it sets `asleep`, makes a `fence(SeqCst)`, and looks at the workers once
//! more. A worker that wakes clears its bit in `Idle`, makes a `fence(SeqCst)`, and looks whether the monitor sleeps
//! ([`Monitor::poke`]). One of the two sees the other. Checked by `loom-tests/tests/monitor.rs`.

use std::time::{Duration, Instant};

use crate::shim::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::shim::clock;
use crate::shim::sync::{Condvar, Mutex, wait, wait_for};

#[derive(Debug)]
pub(crate) struct Monitor {
    /// The monitor sleeps, or is about to.
    pub(crate) asleep: AtomicBool,
    pub(crate) stop: Mutex<bool>,
    pub(crate) bell: Condvar,
    /// Carriers without a seat that run a thread that was a hog before, and how often each had come back without
    /// its seat until then.
    pub(crate) expected: Mutex<Vec<(usize, usize)>>,
    /// Green threads that have kept their OS thread longer than the monitor's patience.
    pub(crate) hogs: AtomicU64,
    /// Seats that were taken from a hog.
    pub(crate) handovers: AtomicU64,
    /// Hogs that kept their seat although others waited, because no carrier was left.
    pub(crate) unrelieved: AtomicU64,
    /// Workers that have such a hog now.
    pub(crate) stalled: AtomicUsize,
    /// A green thread has begun to wait and blocks its OS thread meanwhile (`run/silence.rs`).
    sign: AtomicBool,
}

impl Monitor {
    pub(crate) fn new() -> Self {
        Self {
            asleep: AtomicBool::new(false),
            stop: Mutex::new(false),
            bell: Condvar::new(),
            expected: Mutex::new(Vec::new()),
            hogs: AtomicU64::new(0),
            handovers: AtomicU64::new(0),
            unrelieved: AtomicU64::new(0),
            stalled: AtomicUsize::new(0),
            sign: AtomicBool::new(false),
        }
    }

    /// A worker has woken up.
    #[inline]
    pub(crate) fn poke(&self) {
        unless!("monitor_poke_without_fence", fence(Ordering::SeqCst));
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// A green thread is about to wait and to block its OS thread. Only where somebody wants to know of deadlocks.
    #[cfg(not(loom))]
    pub(crate) fn waits_in_place(&self) {
        // As long as the monitor has not taken an earlier sign, it will look again anyway.
        if !self.sign.load(Ordering::Relaxed) {
            self.sign.store(true, Ordering::Relaxed);
            self.poke();
        }
    }

    /// There was such a wait since the last call.
    pub(crate) fn take_sign(&self) -> bool {
        self.sign.load(Ordering::Relaxed) && self.sign.swap(false, Ordering::Relaxed)
    }

    #[cold]
    fn wake(&self) {
        let locks = !fault!("monitor_wakes_without_the_lock");
        let stop = locks.then(|| self.stop.lock());
        self.asleep.store(false, Ordering::Relaxed);
        drop(stop);
        self.bell.notify_one();
    }

    /// A carrier gives its seat away for a thread that was a hog the last time.
    pub(crate) fn handed_over(&self) {
        self.handovers.fetch_add(1, Ordering::Relaxed);
    }

    /// A carrier without a seat is about to run a thread that was a hog the last time.
    pub(crate) fn expect(&self, carrier: usize, losses: usize) {
        self.expected.lock().push((carrier, losses));
        self.poke();
    }

    pub(crate) fn stop(&self) {
        *self.stop.lock() = true;
        self.bell.notify_one();
    }

    /// Sleeps until a worker wakes, or until a hog that runs without a seat must be reported.
    pub(crate) fn sleep(&self, limit: Option<Instant>) {
        let mut stop = self.stop.lock();
        while self.asleep.load(Ordering::Relaxed)
            && (fault!("monitor_sleeps_over_the_stop") || !*stop)
        {
            match limit.map(|limit| limit.saturating_duration_since(clock::now())) {
                None => stop = wait(&self.bell, stop),
                Some(Duration::ZERO) => return,
                Some(left) => stop = wait_for(&self.bell, stop, left),
            }
        }
    }
}
