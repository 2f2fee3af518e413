//! How many handshakes may compute at once.
//!
//! A seat is held while TLS computes, a millisecond or so, and not while a handshake waits for its
//! peer: a peer that is slow or silent takes no seat from others.
//!
//! Invariant: as in `turn.rs`: if a seat is free and somebody waits, somebody is awake who will try.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use weald_scheduler::io::{WaitQueue, Woken};

#[derive(Debug)]
pub(super) struct Seats {
    free: AtomicUsize,
    waiters: WaitQueue,
}

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: AtomicUsize::new(count),
            waiters: WaitQueue::new(),
        }
    }

    /// A blocking call.
    pub(super) fn take(&self) -> io::Result<Seat<'_>> {
        let less = |free: usize| free.checked_sub(1);
        loop {
            // A seat guards no data: the order of anything else does not hang on it.
            if self
                .free
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                .is_ok()
            {
                return Ok(Seat(self));
            }
            let is_free = || self.free.load(Ordering::Relaxed) > 0;
            if let Woken::Interrupted(interrupt) = self.waiters.wait(is_free, None, true) {
                self.waiters.wake_one();
                return Err(interrupt.into_io());
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Seat<'a>(&'a Seats);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::Relaxed);
        self.0.waiters.wake_one();
    }
}
