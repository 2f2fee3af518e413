//! Bounded pools of OS threads for weald's own calls that block: look-ups of names.
//!
//! There are two pools ([`Lane`]), so that names that the system knows by itself never wait behind names that other
//! hosts have to answer. Jobs are `Send + 'static`. The waiter for a job holds an [`Offloaded`] and may give it up.
//! A job that has not begun is then dropped. A job that runs cannot be stopped, but it no longer counts among those
//! that may run at a time. An OS thread is started when a job finds none idle, and ends after [`KEEP_ALIVE`] without
//! a job. As a spare carrier it leaves nothing behind (`shim/lean.rs`). The last one joins the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::shim::bypass::Bypass;
use crate::shim::os_threads::{self, Handle};
use crate::shim::plain::{Condvar, Mutex, MutexGuard};

const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Which pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// For names that a file answers, soon.
    Local,
    /// For names that other hosts answer, which may take long.
    Remote,
}

/// The bounds of a pool.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// How many jobs that somebody waits for may run.
    wanted: usize,
    /// How many OS threads there may be, including those that finish a job for which nobody waits.
    threads: usize,
    /// How many jobs may wait for their turn.
    queue: usize,
    /// How long an OS thread waits for a job before it ends.
    keep_alive: Duration,
}

/// A look-up mostly waits, so an OS thread for each costs little, and name servers limit how much one host may ask. As
/// many OS threads again may finish jobs that were given up. Go allows 500 where it asks libc, tokio 512.
const REMOTE: Bounds = Bounds {
    wanted: 256,
    threads: 512,
    queue: 4096,
    keep_alive: KEEP_ALIVE,
};

/// These look-ups end soon, unless the system asks other sources before it looks into its files.
const LOCAL: Bounds = Bounds {
    wanted: 16,
    threads: 64,
    queue: 16 << 10,
    keep_alive: KEEP_ALIVE,
};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
struct Pool {
    bounds: Bounds,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    /// Jobs that have not begun, by number, in the order in which they came.
    queue: BTreeMap<u64, Job>,
    /// Jobs that run and for which somebody waits.
    wanted: BTreeSet<u64>,
    /// Jobs that run and for which nobody waits.
    unwanted: BTreeSet<u64>,
    next: u64,
    /// The OS threads, in the order in which they were started.
    threads: BTreeMap<u64, Handle>,
    started: u64,
    idle: usize,
    /// An OS thread that has ended. The next OS thread that has nothing to do joins it.
    retired: Option<Handle>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("queue", &self.queue.len())
            .field("wanted", &self.wanted.len())
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

static POOLS: [Pool; 2] = [Pool::new(LOCAL), Pool::new(REMOTE)];

/// Somebody's interest in a job; dropping it gives the job up.
#[derive(Debug)]
#[must_use = "dropping it gives the job up"]
pub struct Offloaded {
    pool: &'static Pool,
    number: u64,
}

/// Runs a job on a pool.
///
/// # Errors
/// `ResourceBusy` if too many wait already; the system's, if no thread runs and none can be started. The
/// job is dropped.
pub fn offload(lane: Lane, job: impl FnOnce() + Send + 'static) -> std::io::Result<Offloaded> {
    // The calls below are for the system, also if the caller is patched: the pool's OS threads are not the caller's.
    let _bypass = Bypass::enter();
    let pool = match lane {
        Lane::Local => &POOLS[0],
        Lane::Remote => &POOLS[1],
    };
    pool.push(Box::new(job))
}

impl Pool {
    const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: Mutex::new(State {
                queue: BTreeMap::new(),
                wanted: BTreeSet::new(),
                unwanted: BTreeSet::new(),
                next: 0,
                threads: BTreeMap::new(),
                started: 0,
                idle: 0,
                retired: None,
            }),
            work: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&'static self, job: Job) -> std::io::Result<Offloaded> {
        let mut state = self.state();
        if state.queue.len() >= self.bounds.queue {
            let Bounds { wanted, queue, .. } = self.bounds;
            return Err(std::io::Error::new(
                std::io::ErrorKind::ResourceBusy,
                format!("too many look-ups: {wanted} run and {queue} more wait"),
            ));
        }
        let number = state.next;
        state.next += 1;
        state.queue.insert(number, job);
        if let Err(error) = self.see_to_it(&mut state)
            && state.threads.is_empty()
        {
            state.queue.remove(&number);
            return Err(error);
        }
        Ok(Offloaded { pool: self, number })
    }

    /// One more job may run than before. Finds a thread for it.
    fn see_to_it(&'static self, state: &mut State) -> std::io::Result<()> {
        let may_begin = self.may_begin(state);
        if state.idle >= may_begin {
            self.work.notify_one();
        } else if state.threads.len() < self.bounds.threads {
            let number = state.started;
            // The lock is held, so the new thread will find its handle.
            let name = String::from("weald-offload");
            let handle = os_threads::spawn_lean(name, move || self.work(number))?;
            state.threads.insert(number, handle);
            state.started += 1;
        }
        Ok(())
    }

    /// Jobs of the queue that may run now.
    fn may_begin(&self, state: &State) -> usize {
        let room = self.bounds.wanted.saturating_sub(state.wanted.len());
        state.queue.len().min(room)
    }

    /// The life of an OS thread with this number.
    fn work(&self, me: u64) {
        let mut state = self.state();
        // When the thread ends if no job comes. `None` while it does not wait for a job.
        let mut ends = None;
        loop {
            if self.may_begin(&state) > 0
                && let Some((number, job)) = state.queue.pop_first()
            {
                ends = None;
                state.wanted.insert(number);
                drop(state);
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                    log::error!("weald: a job of the offload pool panicked");
                }
                state = self.state();
                let _ = state.wanted.remove(&number) || state.unwanted.remove(&number);
                continue;
            }
            if let Some(other) = state.retired.take() {
                drop(state);
                other.join();
                state = self.state();
                continue;
            }
            let until = *ends.get_or_insert_with(|| Instant::now() + self.bounds.keep_alive);
            let is_last = state.threads.len() == 1;
            state.idle += 1;
            state = if is_last {
                let waited = self.work.wait(state);
                waited.unwrap_or_else(PoisonError::into_inner)
            } else {
                let limit = until.saturating_duration_since(Instant::now());
                let waited = self.work.wait_timeout(state, limit);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
            state.idle -= 1;
            let ends_now = !is_last && Instant::now() >= until && self.may_begin(&state) == 0;
            if ends_now && state.threads.len() > 1 {
                let own = state.threads.remove(&me);
                let before = std::mem::replace(&mut state.retired, own);
                drop(state);
                self.work.notify_one();
                if let Some(before) = before {
                    before.join();
                }
                return;
            }
        }
    }
}

impl Offloaded {
    /// Nobody waits for the job any more. True: the job has not begun, and never will.
    pub fn give_up(&self) -> bool {
        let _bypass = Bypass::enter();
        let mut state = self.pool.state();
        let job = state.queue.remove(&self.number);
        if state.wanted.remove(&self.number) {
            state.unwanted.insert(self.number);
            // If there is no thread for the next job now, the job waits until a thread is free.
            let _ = self.pool.see_to_it(&mut state);
        }
        drop(state);
        job.is_some()
    }

    /// Somebody waits for the job again, if the job still runs.
    pub fn want_again(&self) {
        let _bypass = Bypass::enter();
        let mut state = self.pool.state();
        if state.unwanted.remove(&self.number) {
            state.wanted.insert(self.number);
        }
    }
}

impl Drop for Offloaded {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{Bounds, Pool};

    const BOUNDS: Bounds = Bounds {
        wanted: 2,
        threads: 4,
        queue: 3,
        keep_alive: super::KEEP_ALIVE,
    };

    /// A job that says that it runs and ends when its sender is dropped.
    fn job(number: u32, runs: &mpsc::Sender<u32>) -> (mpsc::Sender<()>, super::Job) {
        let (end, ends) = mpsc::channel::<()>();
        let runs = runs.clone();
        let job = move || {
            runs.send(number).unwrap();
            let _ = ends.recv();
        };
        (end, Box::new(job))
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "the pool's OS threads outlive the test, which Miri forbids"
    )]
    fn the_queue_is_bounded_and_what_is_given_up_gives_way() {
        static POOL: Pool = Pool::new(BOUNDS);
        let (runs, run) = mpsc::channel();
        let mut ends = Vec::new();
        let mut push = |number| {
            let (end, job) = job(number, &runs);
            ends.push(end);
            POOL.push(job)
        };
        let [first, second] = [1, 2].map(|number| push(number).unwrap());
        let mut running = [run.recv().unwrap(), run.recv().unwrap()];
        running.sort_unstable();
        assert_eq!(running, [1, 2]);
        let [third, fourth, fifth] = [3, 4, 5].map(|number| push(number).unwrap());
        let error = push(6).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
        // What has not begun is gone; what runs makes room though it does not end.
        assert!(third.give_up());
        assert!(run.try_recv().is_err());
        assert!(!first.give_up());
        assert_eq!(run.recv().unwrap(), 4);
        drop(second);
        assert_eq!(run.recv().unwrap(), 5);
        // All four threads are busy, two of them for nobody.
        let seventh = push(7).unwrap();
        drop(fourth);
        assert!(run.try_recv().is_err(), "there is no thread for it");
        // Wanted again, it counts as before.
        first.want_again();
        assert_eq!(POOL.state().wanted.len(), 2);
        drop((ends, fifth));
        assert_eq!(run.recv().unwrap(), 7);
        drop((first, third, seventh));
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "the pool's OS threads outlive the test, which Miri forbids"
    )]
    fn os_threads_that_have_nothing_to_do_end_and_are_joined_but_for_one() {
        static POOL: Pool = Pool::new(Bounds {
            keep_alive: Duration::from_millis(1),
            ..BOUNDS
        });
        for _ in 0..3 {
            let (runs, run) = mpsc::channel();
            let both: Vec<_> = (0..2)
                .map(|number| {
                    let (end, job) = job(number, &runs);
                    (end, POOL.push(job).unwrap())
                })
                .collect();
            run.recv().unwrap();
            run.recv().unwrap();
            assert!(POOL.state().threads.len() >= 2);
            drop(both);
            let is_at_rest = || {
                let state = POOL.state();
                state.threads.len() == 1 && state.idle == 1 && state.retired.is_none()
            };
            while !is_at_rest() {
                std::thread::yield_now();
            }
        }
        assert!(POOL.state().started >= 3);
    }
}
