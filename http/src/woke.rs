//! The waker of a green thread that waits for futures: a flag and a queue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Instant;

use weald_scheduler::io::{Pollable, WaitQueue, Woken};

/// The thread's end of a waker. The flag is set before the queue is woken, and the waiting thread takes it.
#[derive(Debug, Default)]
pub(crate) struct Woke {
    flag: AtomicBool,
    queue: WaitQueue,
}

impl Woke {
    /// Wakes the thread that waits, or the next one that will wait.
    pub(crate) fn set(&self) {
        // Pairs with the swap in `take`.
        self.flag.store(true, Ordering::Release);
        self.queue.wake_one();
    }

    /// Returns true if this was woken since the last call.
    pub(crate) fn take(&self) -> bool {
        self.flag.swap(false, Ordering::Acquire)
    }

    /// Waits until woken or until the deadline. Returns true if it was woken.
    ///
    /// # Errors
    /// An exception has ended the wait.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            if self.take() {
                return Ok(true);
            }
            let is_set = || self.flag.load(Ordering::Acquire);
            match self.queue.wait(is_set, deadline, true) {
                Woken::TimedOut => return Ok(self.take()),
                Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
                Woken::Notified | Woken::Ready | Woken::Again => {}
            }
        }
    }
}

impl Wake for Woke {
    fn wake(self: Arc<Self>) {
        self.set();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
    }
}

impl Pollable for Woke {
    fn poll_now(&self, _writes: bool) -> io::Result<bool> {
        Ok(self.flag.load(Ordering::Acquire))
    }

    fn waiters(&self, _writes: bool) -> &WaitQueue {
        &self.queue
    }

    fn watch(&self) -> io::Result<()> {
        Ok(())
    }
}
