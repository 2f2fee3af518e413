//! Waiting for the end of a process.
//!
//! Nothing here takes the status of the process; `try_wait` does that. So a wait that is interrupted loses nothing.

use std::io;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use weald_net::Fd;
use weald_scheduler::io::{WaitQueue, Woken};

/// The first pause between two questions. Each pause is twice as long as the one before.
const FIRST: Duration = Duration::from_micros(500);
/// The longest pause. The end of a child may be seen this late, and the system is asked 50 times a second.
const LONGEST: Duration = Duration::from_millis(20);

/// How a wait learns of the end of a process.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// The descriptor of the process, from the first wait on.
    #[cfg(target_os = "linux")]
    fd: Option<Fd<OwnedFd>>,
}

impl Ended {
    /// Waits until the process may have ended, or until the deadline. `try_wait` then tells if it has ended. `asked`
    /// counts the calls of one wait. A blocking call.
    pub(super) fn wait(
        &mut self,
        id: u32,
        deadline: Option<Instant>,
        asked: u32,
    ) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            if self.fd.is_none() {
                self.fd = pidfd::open(id).map(Fd::new);
            }
            // `try_wait` may not see at once what the descriptor tells. Then pauses keep this from spinning.
            if let Some(fd) = &self.fd
                && asked == 0
            {
                let Some(deadline) = deadline else {
                    return fd.readable();
                };
                let left = deadline.saturating_duration_since(Instant::now());
                return crate::timeout(left, || fd.readable()).unwrap_or(Ok(()));
            }
        }
        let _ = id;
        let pause = FIRST.saturating_mul(1 << asked.min(10)).min(LONGEST);
        let end = Instant::now() + pause;
        pause_until(deadline.map_or(end, |deadline| deadline.min(end)))
    }
}

/// Pauses. An exception ends the pause, and is returned.
fn pause_until(end: Instant) -> io::Result<()> {
    pause(end, true)
}

/// Pauses without raising anything.
pub(super) fn pause_quietly(pause_for: Duration) {
    let quiet = pause(Instant::now() + pause_for, false);
    debug_assert!(quiet.is_ok(), "the wait admits no exception");
}

fn pause(end: Instant, interruptible: bool) -> io::Result<()> {
    let nobody = WaitQueue::new();
    loop {
        match nobody.wait(|| false, Some(end), interruptible) {
            Woken::TimedOut => return Ok(()),
            Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
            Woken::Notified | Woken::Ready | Woken::Again => {}
        }
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "pidfd_open")]
mod pidfd {
    use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

    /// Opens a descriptor for the process. Returns `None` if the kernel has no such call, a filter forbids it, there
    /// is no room for a descriptor, or somebody else has waited for the process.
    pub(super) fn open(id: u32) -> Option<OwnedFd> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
        let fd = RawFd::try_from(fd).ok().filter(|&fd| fd >= 0)?;
        // SAFETY: a new descriptor, close-on-exec, that nobody else has.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}
