//! What no model has: polls of descriptors, memory of stacks, blocking calls, look-ups of names.
#![allow(
    missing_docs,
    reason = "hidden from users; the types say what they are"
)]

use std::io;
use std::time::Instant;

pub use crate::parts::local_names::{is_in_hosts_file, is_localhost, lane_of};
pub use crate::parts::offload::{Lane, Offloaded, offload};
pub use crate::wait::flights::{Flights, Passenger};

use super::calls::{enter, waits_in_place};
use crate::engine::blocking_calls::Lasts;
use crate::green::awaited::{Awaited, On};
use crate::shim::sync::Arc;
use crate::verbs::blocking;
use crate::wait::wait_queue::{Interrupt, Woken};
use crate::wait::waiter::{Ended, Waiting};

/// Blocks the OS thread in poll(2), for a thread that [waits in place](waits_in_place): until one of the descriptors is
/// ready (`Ready`; the caller finds out which one), or until the deadline or an exception. Adds one descriptor for the
/// time of the call.
///
/// # Errors
/// The system's: no more descriptors.
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

/// A number that is random enough for a fair choice. Each thread has a sequence of its own.
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
pub fn blocking<T>(is_brief: bool, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    enter()?;
    let lasts = if is_brief {
        Lasts::Briefly
    } else {
        Lasts::UntilOthersAct
    };
    blocking::call_entered(lasts, f).map_err(Interrupt::into_io)?
}
