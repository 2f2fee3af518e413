//! The double of what the workers share: the parts that the monitor uses, and the seats' house.

use std::time::{Duration, Instant};

use crate::carrier::Carrier;
use crate::door::Door;
use crate::idle::Idle;
use crate::monitor::Monitor;
use crate::seat::{House, Seat, Seats};
use crate::shim::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use crate::shim::clock;
use crate::shim::sync::Arc;
use crate::worker::{Poller, Worker};

pub(crate) struct Settings {
    pub(crate) hog_report: Duration,
    pub(crate) spares: usize,
}

/// Nobody waits to enter `blocking`.
pub(crate) struct Blocking;

impl Blocking {
    #[allow(clippy::unused_self, reason = "as the real one")]
    pub(crate) fn waiting(&self) -> usize {
        0
    }
}

pub(crate) struct Injector;

impl Injector {
    #[allow(clippy::unused_self, reason = "as the real one")]
    pub(crate) fn is_empty(&self) -> bool {
        true
    }
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) blocking: Blocking,
    pub(crate) start: Instant,
    pub(crate) workers: Vec<Worker>,
    pub(crate) carriers: Vec<Carrier>,
    pub(crate) injector: Injector,
    pub(crate) idle: Idle,
    pub(crate) seats: Seats,
    pub(crate) monitor: Monitor,
}

impl Inner {
    /// Workers in whose seats sit carriers of the same number; there is one carrier more.
    pub(crate) fn new(workers: usize, is_away: bool) -> Self {
        let inner = Self {
            settings: Settings {
                hog_report: Duration::from_secs(1),
                spares: 1,
            },
            blocking: Blocking,
            start: clock::now(),
            workers: (0..workers)
                .map(|index| Worker {
                    index,
                    ticks: AtomicU64::new(0),
                    late: AtomicBool::new(false),
                    seat: Seat::new(),
                    poller: Poller,
                    queue: AtomicUsize::new(0),
                    has_due_timers: AtomicBool::new(false),
                    reserved: crate::worker::Nobody,
                })
                .collect(),
            carriers: (0..=workers)
                .map(|_| Carrier {
                    door: Door::new(),
                    reported: AtomicBool::new(false),
                    running: AtomicPtr::default(),
                    os_thread: AtomicUsize::new(0),
                    is_away,
                })
                .collect(),
            injector: Injector,
            idle: Idle::new(workers),
            seats: Seats::new(workers + 1),
            monitor: Monitor::new(),
        };
        for (carrier, worker) in inner.carriers.iter().zip(&inner.workers) {
            carrier.door.enter();
            carrier.door.sit(worker);
            inner.idle.sleep(worker.index, false);
        }
        inner
    }

    pub(crate) fn all_idle(&self) -> bool {
        self.idle.all_sleep()
    }

    /// Wakes nobody: a worker of these models that sleeps has nothing to do with the hog.
    #[allow(clippy::unused_self, reason = "as the real one")]
    pub(crate) fn notify(&self) {}
}

impl House for Inner {
    fn workers(&self) -> usize {
        self.workers.len()
    }

    fn seat(&self, worker: usize) -> &Seat {
        &self.workers[worker].seat
    }

    fn notify(&self) {
        self.notify();
    }

    fn start(this: &Arc<Self>, carrier: usize) -> std::io::Result<()> {
        crate::carrier::start(this, carrier)
    }
}
