//! What `net` and `sync` need of the scheduler: registering descriptors, waiting. Not for users.
#![allow(
    missing_docs,
    reason = "hidden from users; the types say what they are"
)]

use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

pub use crate::green::awaited::{Awaited, Mark, On, Owner};
pub use crate::green::wait_list::WaitQueue;
#[cfg(not(loom))]
pub use crate::parts::local_names::{is_in_hosts_file, is_localhost, lane_of};
#[cfg(not(loom))]
pub use crate::parts::offload::{Lane, Offloaded, offload};
pub use crate::parts::poller::{EventSlot, Readiness};
pub use crate::verbs::selection::{Place, Pollable, Selected, Selection, Waitable};
pub use crate::wait::exception::{defer, is_deferred};
#[cfg(not(loom))]
pub use crate::wait::flights::{Flights, Passenger};
pub use crate::wait::wait_queue::{Interrupt, Woken};

#[cfg(not(loom))]
use crate::engine::blocking_calls::Lasts;
use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::shim::sync::Arc;
#[cfg(not(loom))]
use crate::verbs::blocking;
use crate::verbs::default_runtime;
use crate::wait::exception;
use crate::wait::waiter;
#[cfg(not(loom))]
use crate::wait::waiter::{Ended, Waiting};

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

/// Blocks the OS thread in poll(2), for a thread that [waits in place](waits_in_place): until one of the descriptors is
/// ready (`Ready`; the caller finds out which one), or until the deadline or an exception. Adds one descriptor for the
/// time of the call.
///
/// # Errors
/// The system's: no more descriptors.
#[cfg(not(loom))]
#[allow(unsafe_code, reason = "the running thread's own header")]
pub fn poll_in_place(fds: &mut Vec<libc::pollfd>, deadline: Option<Instant>) -> io::Result<Woken> {
    // SAFETY: the running thread's header is alive.
    let parker = Arc::clone(unsafe { &(*crate::wait::os_header::header()).cold().parker });
    fds.push(parker.wake_fd()?);
    let waiting = Waiting::begin(On::just(Awaited::Descriptor));
    let ended = waiting.block(deadline, &mut |parker, until| parker.poll(fds, until));
    fds.pop();
    Ok(match ended {
        Ended::Woken(_) => Woken::Notified,
        Ended::TimedOut => Woken::TimedOut,
        Ended::Raised(raise) => Woken::Interrupted(Interrupt(raise)),
        Ended::Pending | Ended::Again => Woken::Ready,
    })
}

/// Gives the memory below the running green thread's stack pointer back to the system, after a call that
/// went deep and before waits that may be long. Does nothing on a thread that [waits in place](waits_in_place).
#[cfg(not(loom))]
#[inline(never)]
#[allow(unsafe_code, reason = "the running thread's own header and stack")]
pub fn release_stack() {
    // SAFETY: the running thread's header is alive.
    let header = unsafe { &*crate::wait::os_header::header() };
    let way_out = header.suspender.get().addr();
    if waits_in_place() || way_out == 0 {
        return;
    }
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page) = usize::try_from(page) else {
        return;
    };
    let here = std::ptr::from_ref(&page).addr();
    // One page below stays. It has room for calls from here, and for a signal's frame if that is small.
    let high = (here & !(page - 1)).saturating_sub(page);
    // The suspender lies at the top of the stack, less than a page below its end (`Coroutine::new` gets a
    // body of two words). So this is above the lowest usable byte.
    let low = ((way_out & !(page - 1)) + 2 * page).saturating_sub(header.stack_size());
    if high <= low || !(low..way_out).contains(&here) {
        return;
    }
    // SAFETY: the range lies in the running thread's stack, below all of its frames, so nobody uses it. A page that is
    // touched again reads as zero.
    let _ = unsafe {
        libc::madvise(
            std::ptr::with_exposed_provenance_mut(low),
            high - low,
            libc::MADV_DONTNEED,
        )
    };
}

/// The end of a blocking call that did not wait.
#[inline]
pub fn spend() {
    waiter::spend();
}

/// A number that is random enough for a fair choice. Each thread has a sequence of its own.
#[cfg(not(loom))]
#[allow(unsafe_code, reason = "the running thread's own header")]
pub fn random() -> u64 {
    // SAFETY: the running thread's header is alive.
    unsafe { &*crate::wait::os_header::header() }.random.next()
}

/// As [`blocking`](crate::blocking()), for a call that returns `io::Result`, and so returns its exceptions. `is_brief`:
/// the call ends soon and by itself, as a call about an ordinary file does. It does not wait until another green thread
/// has done something.
///
/// # Errors
/// Those of `f`. An exception; `f` has not begun then.
#[cfg(not(loom))]
pub fn blocking<T>(is_brief: bool, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    enter()?;
    let lasts = if is_brief {
        Lasts::Briefly
    } else {
        Lasts::UntilOthersAct
    };
    blocking::call_entered(lasts, f).map_err(Interrupt::into_io)?
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
