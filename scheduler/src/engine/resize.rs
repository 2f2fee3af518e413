//! Gives a runtime more or fewer workers while it runs. `run/retired.rs` says what becomes of workers that retire.
//!
//! Fewer: the number is stored, then the workers beyond it are woken. Each of them notices at its next look at the clock,
//! or before its next sleep. More: workers that had retired are woken, and notice in the same way. If these are not
//! enough, new workers are made: first the worker, then its bit in `Idle`, then its seat is given to a carrier.

use std::io;

use crate::engine::inner::Inner;
use crate::engine::settings::{WORKERS, out_of_range};
use crate::engine::worker::Worker;
use crate::shim::atomic::Ordering;
use crate::shim::sync::Arc;

impl Inner {
    /// # Errors
    /// `InvalidInput` for a number out of its range. The system's, if it gives no poller or OS thread; then there are as
    /// many workers as could be made.
    pub(crate) fn set_workers(this: &Arc<Self>, workers: usize) -> io::Result<()> {
        if !WORKERS.contains(&workers) {
            return Err(out_of_range("workers", workers, WORKERS));
        }
        let _alone = this.resizing.lock();
        if this.is_closing() {
            return Err(io::Error::other("the runtime is being shut down"));
        }
        this.follows_limits.store(false, Ordering::Relaxed);
        Self::resize(this, workers)
    }

    /// The system allows so many; nothing happens if somebody has said a number meanwhile.
    ///
    /// # Errors
    /// As for `set_workers`.
    pub(crate) fn follow_limits(this: &Arc<Self>, workers: usize) -> io::Result<()> {
        let _alone = this.resizing.lock();
        if !this.follows_limits.load(Ordering::Relaxed) || this.is_closing() {
            return Ok(());
        }
        Self::resize(this, workers)
    }

    /// By who holds `resizing`.
    fn resize(this: &Arc<Self>, workers: usize) -> io::Result<()> {
        let (before, all) = (this.idle.workers(), this.idle.all_workers());
        this.idle.set_workers(workers.min(all));
        for changed in before.min(workers)..before.max(workers).min(all) {
            this.workers[changed].poller.unpark();
        }
        for index in all..workers {
            Self::add_worker(this, index)?;
        }
        // The first worker may have been alone. Then others can steal from it only from now on.
        this.workers[0].poller.unpark();
        this.notify();
        Ok(())
    }

    fn add_worker(this: &Arc<Self>, index: usize) -> io::Result<()> {
        let make = || Worker::new(index, false, this.settings.guard, this.start);
        this.workers.ensure(index, make)?;
        this.seats.allow(index + 1 + this.settings.spares);
        this.seats.prepare(this).map_err(|shortage| {
            let text = format!("an OS thread for a worker could not be started: {shortage}");
            io::Error::other(text)
        })?;
        this.idle.made(index + 1);
        this.idle.set_workers(index + 1);
        this.seats.give(this, index);
        Ok(())
    }
}
