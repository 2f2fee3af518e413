//! The monitor: one OS thread that looks at the workers each millisecond while any of them runs.
//!
//! | it sees                                          | it does                                    |
//! |--------------------------------------------------|--------------------------------------------|
//! | a seat that was lent at the last look, and still | seizes it for a spare carrier              |
//! | a worker that dispatched nothing since the last  | marks it late and wakes an idle worker,    |
//! | look, and has work or a poller                   | which may take its slot and drain its poller|
//! | a backlog beside a sleeping worker               | wakes that one                             |
//! | every worker asleep                              | sleeps until one wakes                     |
//!
//! Going to sleep: say so, `fence(SeqCst)`, look at the workers once more. A worker that wakes takes
//! its bit out of `Idle`, `fence(SeqCst)`, and looks whether the monitor sleeps ([`Monitor::poke`]).
//! One of the two sees the other.
//! Checked by `loom-tests/tests/monitor.rs`.

use std::time::Duration;

use crate::runtime::Inner;
use crate::shim::atomic::{AtomicBool, Ordering, fence};
use crate::shim::sync::{Arc, Condvar, Mutex, wait, wait_for};

/// Between two looks; the bound on how long a lent seat, a slot or a poller is left alone.
const TICK: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct Monitor {
    /// It sleeps, or is about to.
    asleep: AtomicBool,
    stop: Mutex<bool>,
    door: Condvar,
}

/// What was seen of a worker at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    ticks: u64,
    lent: Option<u64>,
}

impl Monitor {
    pub(crate) fn new() -> Self {
        Self {
            asleep: AtomicBool::new(false),
            stop: Mutex::new(false),
            door: Condvar::new(),
        }
    }

    /// A worker has woken up.
    #[inline]
    pub(crate) fn poke(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let stop = self.stop.lock();
        self.asleep.store(false, Ordering::Relaxed);
        drop(stop);
        self.door.notify_one();
    }

    pub(crate) fn stop(&self) {
        *self.stop.lock() = true;
        self.door.notify_one();
    }

    pub(crate) fn run(&self, inner: &Arc<Inner>) {
        let mut seen = vec![Seen::default(); inner.workers.len()];
        loop {
            let stop = self.stop.lock();
            if *stop {
                return;
            }
            drop(wait_for(&self.door, stop, TICK));
            Self::look(inner, &mut seen);
            if inner.all_idle() {
                self.asleep.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                if inner.all_idle() {
                    let mut stop = self.stop.lock();
                    while self.asleep.load(Ordering::Relaxed) && !*stop {
                        stop = wait(&self.door, stop);
                    }
                }
                self.asleep.store(false, Ordering::Relaxed);
            }
        }
    }

    fn look(inner: &Arc<Inner>, seen: &mut [Seen]) {
        let mut backlog = false;
        for (worker, seen) in inner.workers.iter().zip(seen) {
            let lent = worker.seat.lent();
            if lent.is_some() && lent == seen.lent && worker.seat.seize() {
                inner.seats.give(inner, worker.index);
            }
            seen.lent = lent;
            let ticks = worker.ticks.load(Ordering::Relaxed);
            if ticks == seen.ticks && !inner.idle.sleeps(worker.index) {
                worker.late.store(true, Ordering::Relaxed);
                backlog = true;
            }
            seen.ticks = ticks;
            backlog |= worker.has_stealable();
        }
        if backlog && inner.workers.len() > 1 && inner.idle.somebody_sleeps() {
            inner.notify();
        }
    }
}
