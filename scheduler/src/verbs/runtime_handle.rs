//! Handles to runtimes, for those that watch them.

use std::io;

use crate::engine::inner::Inner;
use crate::shim::sync::{self, Arc, Weak};
use crate::verbs::runtime::Runtime;
use crate::verbs::{default_runtime, leftovers};
use crate::watch::dump::{self, Dump};
use crate::watch::metrics::Metrics;
use crate::watch::workers::WorkerMetrics;

/// A runtime, to look at from outside; from [`runtimes`] or [`Runtime::handle`].
///
/// It does not keep the runtime: when that has ended, there is nothing to see any more. Its methods may be called from any thread. They
/// do not suspend the caller, and answer also while all workers are busy or stuck. Two handles are equal if they are of the same
/// runtime.
#[derive(Clone, Debug)]
pub struct RuntimeHandle {
    inner: Weak<Inner>,
    name: String,
    number: u64,
}

impl PartialEq for RuntimeHandle {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for RuntimeHandle {}

/// Returns handles to all runtimes of the process that have started and not ended, the oldest first. The default runtime is among
/// them once something has used it.
///
/// # Examples
/// ```
/// let rt = weald::Runtime::builder().workers(1).name("jobs").build()?;
/// for runtime in weald::runtimes() {
///     if let Some(metrics) = runtime.metrics() {
///         println!("{}: {} green threads", runtime.name(), metrics.live);
///     }
/// }
/// let is_there = || weald::runtimes().iter().any(|runtime| runtime.name() == "jobs");
/// assert!(is_there());
/// drop(rt);
/// assert!(!is_there());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn runtimes() -> Vec<RuntimeHandle> {
    let running = leftovers::running();
    let running = running.iter().filter_map(Weak::upgrade);
    running.map(|inner| RuntimeHandle::of(&inner)).collect()
}

impl Runtime {
    /// Returns a handle that does not keep the runtime.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// let handle = rt.handle();
    /// assert!(handle.metrics().is_some());
    /// drop(rt);
    /// assert!(handle.metrics().is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn handle(&self) -> RuntimeHandle {
        RuntimeHandle::of(&self.inner)
    }
}

impl RuntimeHandle {
    fn of(inner: &Arc<Inner>) -> Self {
        Self {
            inner: sync::downgrade(inner),
            name: inner.settings.name.clone(),
            number: inner.number,
        }
    }

    /// The runtime, if it has not ended. One with threads that outlive it stays in memory.
    fn running(&self) -> Option<Arc<Inner>> {
        self.inner.upgrade().filter(|inner| !inner.is_stopping())
    }

    /// Returns its name: [`RuntimeBuilder::name`](crate::RuntimeBuilder::name).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its number in the process: 1 for the first runtime that was built, and none twice. Several runtimes may have the same
    /// name.
    ///
    /// # Examples
    /// ```
    /// let first = weald::Runtime::builder().workers(1).build()?;
    /// let second = weald::Runtime::builder().workers(1).build()?;
    /// assert!(first.handle().number() < second.handle().number());
    /// assert_eq!(first.handle(), first.handle());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True if it is the default runtime, also one that was installed.
    ///
    /// # Examples
    /// ```
    /// weald::Runtime::builder().workers(1).install()?;
    /// assert!(weald::runtimes()[0].is_default());
    /// # Ok::<(), weald::InstallError>(())
    /// ```
    pub fn is_default(&self) -> bool {
        let inner = self.inner.upgrade();
        inner.is_some_and(|inner| default_runtime::is_default(&inner))
    }

    /// As [`Runtime::dump`]; `None` if it has ended.
    pub fn dump(&self) -> Option<Dump> {
        self.running().map(|inner| dump::of(&inner))
    }

    /// As [`Runtime::metrics`]; `None` if it has ended.
    pub fn metrics(&self) -> Option<Metrics> {
        self.running().map(|inner| Metrics::of(&inner))
    }

    /// As [`Runtime::worker_metrics`]; `None` if it has ended.
    pub fn worker_metrics(&self) -> Option<Vec<WorkerMetrics>> {
        self.running().map(|inner| WorkerMetrics::of_all(&inner))
    }

    /// As [`Runtime::set_workers`].
    ///
    /// # Errors
    /// Those of `Runtime::set_workers`; `NotConnected` if the runtime has ended.
    pub fn set_workers(&self, workers: usize) -> io::Result<()> {
        let Some(inner) = self.running() else {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the runtime has ended",
            ));
        };
        let _bypass = crate::shim::bypass::Bypass::enter();
        Inner::set_workers(&inner, workers)
    }
}
