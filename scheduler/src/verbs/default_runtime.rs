//! The runtime that the free functions use: the caller's, or the default one, which starts when it is first needed.
#![allow(unsafe_code, reason = "the OS thread's own carrier")]

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::shim::sync::Arc;
use crate::verbs::builder::RuntimeBuilder;
use crate::verbs::error::InstallError;
use crate::verbs::runtime::Runtime;
use crate::watch::dump::{self, Dump};
use crate::watch::metrics::Metrics;
use crate::watch::workers::WorkerMetrics;

impl RuntimeBuilder {
    /// Starts the runtime and makes it the process-wide default: the one of
    /// [`spawn`](crate::spawn()) and its like outside green threads. It is never shut down.
    ///
    /// # Errors
    /// If a default runtime runs already ([`InstallError::is_already_running`]), perhaps only because a free function has
    /// started it; or an error of `build`.
    ///
    /// # Examples
    /// ```
    /// weald::Runtime::builder().workers(1).install()?;
    /// let again = weald::Runtime::builder().install().unwrap_err();
    /// assert!(again.is_already_running());
    /// # Ok::<(), weald::InstallError>(())
    /// ```
    pub fn install(self) -> Result<(), InstallError> {
        if has_default() {
            return Err(InstallError::already_running());
        }
        let runtime = self.build().map_err(InstallError::starting)?;
        set_default(runtime).map_err(|_| InstallError::already_running())
    }
}

/// The green threads of the caller's runtime, or of the default one, that have started and have not
/// ended. Threads that have not started are only counted, in [`Metrics::live`](crate::Metrics::live).
///
/// This stops no thread: each entry was right at some moment during the call, but not all at the same moment.
/// It may be called from anywhere and does not block the green thread. A dump of 100,000 threads takes some tenths
/// of a second. [`RuntimeBuilder::dump_on_sigquit`](crate::RuntimeBuilder::dump_on_sigquit) writes one
/// when a signal comes.
///
/// # Platform-specific behavior
/// There are traces on Linux on x86-64 and AArch64, with the feature `traces`, on by default. They
/// need no frame pointers. Elsewhere [`DumpedThread::trace`](crate::DumpedThread::trace) is empty.
///
/// # Examples
/// ```
/// use weald::{Builder, Doing, Runtime, dump, yield_now};
/// let rt = Runtime::builder().workers(1).build()?;
/// rt.run(|| {
///     let builder = Builder::new().name("sleeper".to_string());
///     let sleeper = builder.spawn(weald::park).unwrap();
///     let asleep = || dump().threads.iter().any(|t| t.doing == Doing::Parks);
///     while !asleep() {
///         yield_now();
///     }
///     assert!(dump().to_string().contains("1 parks"));
///     sleeper.thread().unpark();
///     sleeper.join().unwrap();
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn dump() -> Dump {
    dump::of(&here())
}

/// Counters of the caller's runtime, or of the default one: [`Runtime::metrics`]. It may be called from anywhere and
/// blocks nobody.
///
/// # Examples
/// ```
/// let rt = weald::Runtime::builder().workers(3).build()?;
/// assert_eq!(rt.run(|| weald::metrics().workers), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// If the default runtime is needed and cannot be started.
pub fn metrics() -> Metrics {
    Metrics::of(&here())
}

/// The figures of each worker of the caller's runtime, or of the default one: [`Runtime::worker_metrics`]. It may be
/// called from anywhere and blocks nobody.
///
/// # Examples
/// ```
/// let rt = weald::Runtime::builder().workers(2).build()?;
/// assert_eq!(rt.run(weald::worker_metrics).len(), 2);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
/// If the default runtime is needed and cannot be started.
pub fn worker_metrics() -> Vec<WorkerMetrics> {
    WorkerMetrics::of_all(&here())
}

/// Calls `f` with the caller's runtime, or the default one. On a carrier this does not count a reference.
#[inline]
pub(crate) fn with_runtime_arc<R>(f: impl FnOnce(&Arc<Inner>) -> R) -> R {
    let carrier = carrier::here();
    if carrier.is_null() {
        return f(&here());
    }
    // SAFETY: the carrier's OS thread keeps a reference to its runtime for all that runs on it.
    // This borrows that reference, and never drops it.
    let inner = unsafe { std::mem::ManuallyDrop::new(Arc::from_raw((*carrier).inner())) };
    f(&inner)
}

/// The runtime that the free functions use: the running green thread's, else the default one.
pub(crate) fn here() -> Arc<Inner> {
    carrier::current_runtime().unwrap_or_else(default)
}

#[cfg(not(loom))]
static DEFAULT: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();

/// The default runtime, started now if it was not.
#[cfg(not(loom))]
pub(crate) fn default() -> Arc<Inner> {
    let runtime = DEFAULT.get_or_init(|| {
        let builder = RuntimeBuilder::from_environment();
        match builder.and_then(RuntimeBuilder::build) {
            Ok(runtime) => runtime,
            Err(error) => panic!("weald's default runtime cannot start: {error}"),
        }
    });
    Arc::clone(&runtime.inner)
}

#[cfg(loom)]
pub(crate) fn default() -> Arc<Inner> {
    crate::thin::runtime().expect("a model has no default runtime: it makes its own")
}

/// A default runtime runs.
pub(crate) fn has_default() -> bool {
    #[cfg(not(loom))]
    return DEFAULT.get().is_some();
    #[cfg(loom)]
    false
}

/// It is the default runtime.
#[cfg(not(loom))]
pub(crate) fn is_default(inner: &Arc<Inner>) -> bool {
    let default = DEFAULT.get();
    default.is_some_and(|default| Arc::ptr_eq(&default.inner, inner))
}

/// Makes a runtime the default one. Gives it back if there is a default runtime already.
#[cfg(not(loom))]
pub(crate) fn set_default(runtime: Runtime) -> Result<(), Runtime> {
    DEFAULT.set(runtime)
}

#[cfg(loom)]
pub(crate) fn set_default(runtime: Runtime) -> Result<(), Runtime> {
    Err(runtime)
}
