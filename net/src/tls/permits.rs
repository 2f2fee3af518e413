//! Bounds how many handshakes compute at once.
//!
//! A permit is held while TLS computes, about a millisecond, and not while a handshake waits for its peer. So a slow
//! or silent peer takes no permit from others.
//!
//! Invariant, as in `turn.rs`: if a permit is free and somebody waits, somebody is awake who will try.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weald_scheduler::io::{WaitQueue, Woken};

use super::errors::timed_out;

#[derive(Debug)]
pub(super) struct Permits {
    free: AtomicUsize,
    waiters: WaitQueue,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: AtomicUsize::new(count),
            waiters: WaitQueue::new(),
        }
    }

    /// Takes a permit. A blocking call. Returns `TimedOut` after the limit (`None`: no limit). With a limit of zero
    /// it does not wait, and returns `WouldBlock`.
    pub(super) fn take(&self, limit: Option<Duration>) -> io::Result<Permit<'_>> {
        let deadline = limit.and_then(weald_scheduler::io::deadline);
        let less = |free: usize| free.checked_sub(1);
        loop {
            // A permit guards no data, so the order of other accesses does not depend on it.
            if self
                .free
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                .is_ok()
            {
                return Ok(Permit(self));
            }
            let is_free = || self.free.load(Ordering::Relaxed) > 0;
            if limit == Some(Duration::ZERO) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let failed = match self.waiters.wait(is_free, deadline, true) {
                Woken::Interrupted(interrupt) => interrupt.into_io(),
                Woken::TimedOut => {
                    timed_out("no turn to compute came in time for the TLS handshake")
                }
                Woken::Notified | Woken::Ready | Woken::Again => continue,
            };
            // This thread may have been woken for a permit as well. Another waiter gets that permit.
            self.waiters.wake_one();
            return Err(failed);
        }
    }
}

#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::Relaxed);
        self.0.waiters.wake_one();
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use super::Permits;

    #[test]
    fn a_limit_bounds_the_wait_for_a_permit_and_without_time_there_is_none() {
        let permits = Permits::new(1);
        let permit = permits.take(Some(Duration::ZERO)).expect("one is free");
        let kind = |limit| permits.take(Some(limit)).expect_err("none is free").kind();
        assert_eq!(kind(Duration::ZERO), ErrorKind::WouldBlock);
        assert_eq!(kind(Duration::from_millis(1)), ErrorKind::TimedOut);
        drop(permit);
        assert!(permits.take(None).is_ok());
    }
}
