//! Counters, read without stopping anyone.

use crate::engine::inner::Inner;
use crate::parts::stack;
use crate::shim::atomic::Ordering;

/// What a runtime has done and holds; from [`Runtime::metrics`](crate::Runtime::metrics).
///
/// # Examples
/// ```
/// let rt = weald::Runtime::builder().workers(1).build()?;
/// rt.run(|| weald::spawn(|| ()).join().unwrap());
/// let metrics = rt.metrics();
/// assert_eq!((metrics.spawned, metrics.live), (2, 0));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Workers: green threads that can run at the same time. [`Runtime::set_workers`](crate::Runtime::set_workers) changes it.
    pub workers: usize,
    /// Green threads that were spawned and have not ended.
    pub live: usize,
    /// Those of them that wait, but for those with [`own_thread`](crate::Builder::own_thread).
    pub parked: usize,
    /// Threads in the shared queue, for any worker to take.
    pub injector_len: usize,
    /// Threads in the workers' own queues.
    pub run_queue_len: usize,
    /// Timers that will fire unless cancelled: sleeps, time-outs of waits, `call_after`,
    /// `exc_after`. A cancelled one is counted no more as soon as `cancel` has returned.
    pub timers: usize,
    /// Green threads spawned since the start.
    pub spawned: u64,
    /// Successful thefts of a worker from another.
    pub steals: u64,
    /// Waits of green threads.
    pub parks: u64,
    /// Looks at a poller, whether they waited or not.
    pub polls: u64,
    /// OS threads that drive the workers, or wait to do so, or are blocked by a green thread.
    pub carriers: usize,
    /// How many of them there may be beside one for each worker:
    /// [`RuntimeBuilder::spare_threads`](crate::RuntimeBuilder::spare_threads).
    pub spare_threads: usize,
    /// Green threads that have an OS thread for themselves: [`Builder::own_thread`](crate::Builder::own_thread).
    pub own_threads: usize,
    /// Green threads that have kept their OS thread for more than 10 ms without a blocking call of
    /// weald's: by computing, or in a call that blocks it.
    pub hogs: u64,
    /// Times that a worker was taken from such a thread and given to another OS thread.
    pub handovers: u64,
    /// Times that there was no OS thread to give it to, so others had to wait; see
    /// [`RuntimeBuilder::spare_threads`](crate::RuntimeBuilder::spare_threads).
    pub unrelieved: u64,
    /// Workers that stand still for that reason now.
    pub stalled: usize,
    /// Green threads that wait to enter [`blocking`](crate::blocking()) or its like, as
    /// [`spare_threads`](crate::RuntimeBuilder::spare_threads) such calls run.
    pub waiting_to_block: usize,
    /// OS threads that the system has refused.
    pub refused_threads: u64,
    /// Address space of the stacks in use, in bytes, of all runtimes of the process. What a stack
    /// costs in memory is the pages that its thread has touched.
    pub stack_bytes: u64,
}

impl Metrics {
    pub(crate) fn of(inner: &Inner) -> Self {
        let sum = |counter: fn(&crate::engine::worker::Worker) -> u64| -> u64 {
            inner.workers.iter().map(counter).sum()
        };
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let wakes = sum(|worker| worker.counters.wakes.load(Ordering::Relaxed))
            + inner.woken_without_seat.load(Ordering::Relaxed);
        let parks = sum(|worker| worker.counters.parks.load(Ordering::Relaxed))
            + inner.parked_without_seat.load(Ordering::Relaxed);
        let live = inner.live();
        let alarms = inner
            .workers
            .iter()
            .map(|worker| worker.counters.alarms.load(Ordering::Relaxed))
            .fold(inner.alarms.load(Ordering::Relaxed), usize::wrapping_add);
        // The parts are read one after the other, so the sum may be off by what happens meanwhile.
        let alarms = alarms.cast_signed().max(0).cast_unsigned();
        Self {
            workers: inner.idle.workers(),
            live: count(live),
            parked: count(parks.saturating_sub(wakes).min(live)),
            injector_len: inner.injector.len(),
            run_queue_len: inner
                .workers
                .iter()
                .map(|worker| worker.queued() + worker.reserved.len())
                .chain(
                    inner
                        .carriers
                        .iter()
                        .map(crate::engine::carrier::Carrier::queued),
                )
                .sum(),
            timers: inner
                .workers
                .iter()
                .map(|worker| worker.timers.len())
                .sum::<usize>()
                + alarms,
            spawned: inner.spawned(),
            steals: sum(|worker| worker.counters.steals.load(Ordering::Relaxed)),
            parks,
            polls: sum(|worker| worker.counters.polls.load(Ordering::Relaxed)),
            carriers: inner.seats.carriers(),
            spare_threads: inner.settings.spares,
            own_threads: inner.own_threads.load(Ordering::Relaxed),
            hogs: inner.monitor.hogs.load(Ordering::Relaxed),
            handovers: inner.monitor.handovers.load(Ordering::Relaxed),
            unrelieved: inner.monitor.unrelieved.load(Ordering::Relaxed),
            stalled: inner.monitor.stalled.load(Ordering::Relaxed),
            waiting_to_block: inner.blocking.waiting(),
            refused_threads: inner.seats.refused.load(Ordering::Relaxed),
            stack_bytes: stack::stack_bytes(),
        }
    }
}
