//! Registers descriptors, and begins and ends blocking calls.
#![allow(
    missing_docs,
    reason = "hidden from users; the types say what they are"
)]

use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

pub use crate::green::awaited::{Awaited, Mark, On, Owner};
pub use crate::green::wait_list::WaitQueue;
pub use crate::parts::poller::{EventSlot, Readiness};
pub use crate::verbs::selection::{Place, Pollable, Selected, Selection, Waitable};
pub use crate::wait::exception::{defer, is_deferred};
pub use crate::wait::wait_queue::{Interrupt, Woken};

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::shim::sync::Arc;
use crate::verbs::default_runtime;
use crate::wait::exception;
use crate::wait::waiter;

/// The poller of one worker. It keeps the runtime's memory, but it does not keep the runtime running.
#[derive(Clone, Debug)]
pub struct PollerHandle {
    inner: Arc<Inner>,
    worker: usize,
}

impl PollerHandle {
    /// The running worker's poller. On no carrier: a poller of the default runtime.
    pub fn here() -> Self {
        let inner = default_runtime::here();
        let own = carrier::with_core(Inner::address(&inner), |worker, _| worker.index);
        let worker = own.unwrap_or_else(|| inner.any_worker().index);
        Self { inner, worker }
    }

    /// Registers a descriptor for good, edge-triggered, in both directions.
    ///
    /// # Errors
    /// The system's; `NotConnected` if the poller has closed meanwhile.
    pub fn register(&self, fd: RawFd, slot: &'static EventSlot, generation: u16) -> io::Result<()> {
        self.inner.workers[self.worker]
            .poller
            .register(fd, slot, generation)
    }

    /// Undoes `register`, while the descriptor is still open.
    ///
    /// # Errors
    /// The system's.
    pub fn deregister(
        &self,
        fd: RawFd,
        slot: &'static EventSlot,
        generation: u16,
    ) -> io::Result<()> {
        self.inner.workers[self.worker]
            .poller
            .deregister(fd, slot, generation)
    }
}

/// The beginning of a blocking call that returns `io::Result`.
///
/// # Errors
/// The exception that is pending. If it was reported before, it unwinds.
#[inline]
#[allow(unsafe_code, reason = "the running thread's own header")]
pub fn enter() -> io::Result<()> {
    let header = crate::wait::os_header::header();
    // SAFETY: the running thread's header is alive.
    match exception::check(unsafe { &*header }) {
        None => Ok(()),
        Some(raise) => Err(raise.into_io()),
    }
}

/// The beginning of a blocking call that unwinds with its exceptions.
#[inline]
pub fn enter_unwinding() {
    waiter::enter();
}

/// [`enter_unwinding`] and [`spend`] at once: the beginning of a call that usually does not wait. Returns the mark that
/// stands for the caller in a lock that it holds.
#[inline]
pub fn enter_and_spend() -> Mark {
    waiter::enter_and_spend()
}

/// Like [`enter_and_spend`]. If it lets other threads run, it calls `first` before that: to note the time from
/// which a limit counts.
#[inline]
pub fn enter_and_spend_after(first: impl FnOnce()) -> Mark {
    waiter::enter_and_spend_after(first)
}

/// The mark that stands for the calling thread in a lock that it holds.
pub fn mark() -> Mark {
    waiter::mark()
}

/// True while the calling thread unwinds, by a panic or an exception of its own.
#[inline]
pub fn is_unwinding() -> bool {
    exception::is_unwinding()
}

/// Whether a wait of the running thread blocks its OS thread, because the thread cannot leave its stack: it is an OS
/// thread, or is inside `blocking`.
#[allow(unsafe_code, reason = "the running thread's own header")]
pub fn waits_in_place() -> bool {
    // SAFETY: the running thread's header is alive.
    !carrier::can_suspend(unsafe { &*crate::wait::os_header::header() })
}

/// The end of a blocking call that did not wait.
#[inline]
pub fn spend() {
    waiter::spend();
}

/// Waits until a thread has ended, without taking its result.
///
/// # Errors
/// An exception has ended the wait.
pub fn wait_for_end<T>(thread: &crate::JoinHandle<T>) -> Result<(), Interrupt> {
    thread.wait_only()
}

/// The result of a thread that has ended.
///
/// # Errors
/// As `join`.
pub fn take_result<T>(thread: crate::JoinHandle<T>) -> std::thread::Result<T> {
    thread.wait_to_end()
}

/// The moment at which a duration ends that begins now. `None`: never.
pub fn deadline(limit: std::time::Duration) -> Option<Instant> {
    crate::verbs::sleep::deadline(limit)
}
