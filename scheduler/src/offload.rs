//! A bounded pool of OS threads for weald's own calls that block: look-ups of names.
//!
//! Jobs are `Send + 'static`; whoever waits for one may leave, the job is then finished for nobody.
//! Threads are started when a job finds none idle, and end after [`KEEP_ALIVE`] without one.

use crate::shim::plain::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

/// Threads at once; the further jobs queue. A look-up is mostly waiting, and resolvers bound what
/// one host may ask at a time.
const THREADS: usize = 32;

const KEEP_ALIVE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    jobs: VecDeque::new(),
    threads: 0,
    idle: 0,
});
static WORK: Condvar = Condvar::new();

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a job on the pool.
///
/// # Errors
/// The system's, if no thread runs and none can be started; the job is dropped.
pub fn offload(job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let mut pool = pool();
    pool.jobs.push_back(Box::new(job));
    if pool.idle >= pool.jobs.len() {
        WORK.notify_one();
    } else if pool.threads < THREADS {
        pool.threads += 1;
        let started = std::thread::Builder::new()
            .name("weald-offload".to_string())
            .spawn(work);
        if let Err(error) = started {
            pool.threads -= 1;
            if pool.threads == 0 {
                pool.jobs.pop_back();
                return Err(error);
            }
        }
    }
    Ok(())
}

fn work() {
    let mut guard = pool();
    loop {
        if let Some(job) = guard.jobs.pop_front() {
            drop(guard);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                log::error!("weald: a job of the offload pool panicked");
            }
            guard = pool();
            continue;
        }
        guard.idle += 1;
        let (next, waited) = WORK
            .wait_timeout(guard, KEEP_ALIVE)
            .unwrap_or_else(PoisonError::into_inner);
        guard = next;
        guard.idle -= 1;
        if waited.timed_out() && guard.jobs.is_empty() {
            guard.threads -= 1;
            return;
        }
    }
}
