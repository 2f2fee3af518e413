//! What the workers of a runtime share. `runtime.rs` starts it and shuts it down.
#![allow(
    unsafe_code,
    reason = "the runtime at the address that its threads have"
)]

use std::io;
use std::time::Instant;

use crossbeam_utils::CachePadded;

use crate::engine::blocking_calls::Blocking;
use crate::engine::carrier::Carriers;
use crate::engine::monitor::Monitor;
use crate::engine::seat::{House, Seat, Seats};
use crate::engine::settings::{Settings, WORKERS};
use crate::engine::starts::Starts;
use crate::engine::worker::{Worker, Workers};
use crate::green::call::Call;
use crate::green::green_thread::{AnyRuntime, Header, Task};
use crate::green::queue::Injector;
use crate::green::registry::Registry;
use crate::green::wait_list::WaitQueue;
use crate::parts::ends::{self, Ending};
use crate::parts::idle::Idle;
#[cfg(not(loom))]
use crate::parts::recorder::Label;
use crate::parts::threads::Threads;
use crate::shim::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::shim::clock;
use crate::shim::sync::{Arc, Mutex};

/// The registry has so many shards beside one for each worker. That is enough, because only the first carriers are
/// busy for long.
const SHARDS: usize = 64;

pub(crate) const RUNNING: usize = 0;
pub(crate) const CLOSING: usize = 1;
pub(crate) const KILLING: usize = 2;
pub(crate) const STOPPING: usize = 3;

/// A runtime, as its carriers and handles see it.
///
/// Fields that several CPUs write have cache lines of their own. So a write does not disturb CPUs that only read other
/// fields.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    /// What the flight recorder tells of it.
    #[cfg(not(loom))]
    pub(crate) label: Arc<Label>,
    /// Starts the OS thread of a carrier that was given a seat. A higher floor hands it down at the start.
    start_carrier: StartCarrier,
    /// The process in which the runtime has its OS threads. A child of `fork` has none of them.
    pub(crate) process: u32,
    pub(crate) start: Instant,
    /// All workers, including the retired ones. `idle` says how many there are.
    pub(crate) workers: Workers,
    /// A thread that changes the number of workers holds this.
    pub(crate) resizing: Mutex<()>,
    /// There are as many workers as the system allows, also when that changes. Cleared under `resizing`.
    pub(crate) follows_limits: AtomicBool,
    pub(crate) carriers: Carriers,
    pub(crate) injector: CachePadded<Injector>,
    pub(crate) idle: Idle,
    pub(crate) seats: CachePadded<Seats>,
    pub(crate) monitor: CachePadded<Monitor>,
    pub(crate) registry: Registry,
    pub(crate) threads: Threads,
    /// RUNNING, CLOSING, KILLING or STOPPING. It only grows.
    pub(crate) phase: AtomicUsize,
    /// Threads that wait for the last green thread to end.
    pub(crate) ending: WaitQueue,
    pub(crate) spawned_without_seat: CachePadded<AtomicU64>,
    pub(crate) ended_without_seat: CachePadded<AtomicU64>,
    pub(crate) woken_without_seat: CachePadded<AtomicU64>,
    pub(crate) parked_without_seat: CachePadded<AtomicU64>,
    /// How many `exc_after`s and remote `call_after`s are live, without those that the workers have counted
    /// (`worker::Counters`). Like those counters it may be negative in two's complement.
    pub(crate) alarms: CachePadded<AtomicUsize>,
    /// Green threads that may still enter a `blocking` call.
    pub(crate) blocking: CachePadded<Blocking>,
    /// Green threads that wait for a stack.
    pub(crate) starts: Starts,
    /// Calls that were due when the runtime had begun to close.
    pub(crate) unfired: Mutex<Vec<Arc<Call>>>,
    /// Chooses a worker for a caller that is on no carrier.
    turn: CachePadded<AtomicUsize>,
    /// Green threads that have an OS thread for themselves.
    pub(crate) own_threads: AtomicUsize,
    /// One of these threads has been counted as ended and is not DONE yet. Written under `own_ends`.
    pub(crate) own_ending: Ending,
    pub(crate) own_ends: Mutex<()>,
    /// How many OS threads were started for such threads.
    pub(crate) own_threads_started: AtomicUsize,
    /// 1 for the first runtime of the process.
    pub(crate) number: u64,
}

/// See [`Inner::new`].
pub(crate) type StartCarrier = fn(&Arc<Inner>, usize) -> io::Result<()>;

impl Inner {
    /// The address of a runtime, as its threads have it.
    #[inline(always)]
    pub(crate) fn address(this: &Arc<Self>) -> *const AnyRuntime {
        Arc::as_ptr(this).cast()
    }

    /// The runtime of a green thread.
    ///
    /// # Safety
    /// The header is that of a green thread. As long as the reference is used, the thread is not DONE, or something
    /// else keeps its runtime.
    #[inline(always)]
    pub(crate) unsafe fn of<'a>(header: &Header) -> &'a Self {
        // SAFETY: by contract; only `address` makes such addresses.
        unsafe { &*header.runtime.cast::<Self>() }
    }

    /// As `of`; `None` for an OS thread.
    ///
    /// # Safety
    /// As for `of`, if it is a green thread.
    #[inline(always)]
    pub(crate) unsafe fn of_any<'a>(header: &Header) -> Option<&'a Self> {
        // SAFETY: by contract.
        unsafe { header.runtime.cast::<Self>().as_ref() }
    }

    pub(crate) fn new(settings: Settings, start_carrier: StartCarrier) -> io::Result<Self> {
        // Not part of any protocol, so std's also in a model.
        static RUNTIMES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let workers = settings.workers;
        let carriers = workers + settings.spares;
        // A model has all of its workers from the beginning.
        let room = if cfg!(loom) { workers } else { *WORKERS.end() };
        let start = clock::now();
        let number = 1 + RUNTIMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Self {
            process: std::process::id(),
            start,
            workers: Workers::new(
                (0..workers)
                    .map(|i| Worker::new(i, workers == 1, settings.guard, start))
                    .collect::<io::Result<_>>()?,
                room,
            ),
            resizing: Mutex::new(()),
            follows_limits: AtomicBool::new(settings.follows_limits),
            carriers: Carriers::new(room + settings.spares),
            injector: CachePadded::new(Injector::new()),
            unfired: Mutex::new(Vec::new()),
            idle: Idle::with_room(workers, room),
            seats: CachePadded::new(Seats::new(carriers)),
            monitor: CachePadded::new(Monitor::new()),
            registry: Registry::new(carriers.min(workers + SHARDS)),
            threads: Threads::default(),
            phase: AtomicUsize::new(RUNNING),
            ending: WaitQueue::new(),
            spawned_without_seat: CachePadded::default(),
            ended_without_seat: CachePadded::default(),
            woken_without_seat: CachePadded::default(),
            parked_without_seat: CachePadded::default(),
            alarms: CachePadded::default(),
            blocking: CachePadded::new(Blocking::new(settings.spares)),
            starts: Starts::new(),
            turn: CachePadded::default(),
            own_threads: AtomicUsize::new(0),
            own_ending: Ending::new(),
            own_ends: Mutex::new(()),
            own_threads_started: AtomicUsize::new(0),
            start_carrier,
            #[cfg(not(loom))]
            label: Arc::new(Label::new(&settings.name)),
            settings,
            number,
        })
    }

    /// Work was pushed. Wakes a worker if one sleeps and no worker searches.
    #[inline]
    pub(crate) fn notify(&self) {
        if let Some(worker) = self.idle.notify() {
            self.workers[worker].poller.unpark();
        }
    }

    /// Queues a thread for a caller that is on no carrier of the runtime.
    pub(crate) fn inject(&self, task: Task) {
        match self.injector.push(task) {
            Ok(()) => self.notify(),
            // The runtime has stopped: only a thread that shutdown gave up gets here. Nobody can
            // resume it any more, so its stack is left as it is.
            Err(task) => std::mem::forget(task),
        }
    }

    /// Queues a thread that is to start on that worker. `Err`: the runtime has stopped.
    pub(crate) fn reserve(&self, worker: usize, task: Task) -> Result<(), Task> {
        let worker = &self.workers[worker];
        worker.reserved.push(task)?;
        worker.poller.unpark();
        Ok(())
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= CLOSING
    }

    pub(crate) fn is_killing(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= KILLING
    }

    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.phase.load(Ordering::Acquire) >= STOPPING
    }

    /// Every worker sleeps.
    pub(crate) fn all_idle(&self) -> bool {
        self.idle.all_sleep()
    }

    /// How many green threads were spawned and have not ended. The ends are read first. So if the number is wrong it is
    /// too low, by threads that those leave behind which end now (`ends.rs`).
    pub(crate) fn live(&self) -> u64 {
        let ended = self.ended();
        self.spawned().saturating_sub(ended)
    }

    /// No green thread is left, and none will come that another one leaves behind.
    pub(crate) fn all_ended(&self) -> bool {
        let carriers = self.carriers.iter().map(|carrier| &carrier.ending);
        let all = carriers.chain([&self.own_ending]);
        ends::all_ended(|| self.ended(), || self.spawned(), all)
    }

    pub(crate) fn ended(&self) -> u64 {
        self.workers
            .iter()
            .map(|worker| worker.counters.ended.load(Ordering::Acquire))
            .sum::<u64>()
            + self.ended_without_seat.load(Ordering::Acquire)
    }

    pub(crate) fn spawned(&self) -> u64 {
        self.workers
            .iter()
            .map(|worker| worker.counters.spawned.load(Ordering::Acquire))
            .sum::<u64>()
            + self.spawned_without_seat.load(Ordering::Acquire)
    }

    /// The worker whose turn it is to take something from a caller that is on no carrier.
    pub(crate) fn any_worker(&self) -> &Worker {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.workers[turn % self.idle.workers()]
    }

    pub(crate) fn enter_phase(&self, phase: usize) {
        self.phase.fetch_max(phase, Ordering::AcqRel);
    }
}

impl House for Inner {
    fn workers(&self) -> usize {
        self.idle.workers()
    }

    fn seat(&self, worker: usize) -> &Seat {
        &self.workers[worker].seat
    }

    fn notify(&self) {
        self.notify();
    }

    fn start(this: &Arc<Self>, carrier: usize) -> io::Result<()> {
        (this.start_carrier)(this, carrier)
    }
}
