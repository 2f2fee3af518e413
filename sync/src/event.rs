//! A flag that threads wait for.

use std::fmt;
use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Awaited, On, WaitQueue, Woken};

use crate::shim::atomic::{AtomicBool, Ordering};

/// A flag. While it is set, threads that wait for it go on, and so do threads that come later, until it is reset.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// let go = Arc::new(weald::sync::Event::new());
/// let theirs = go.clone();
/// let waiter = weald::spawn(move || theirs.wait());
/// go.set();
/// waiter.join().unwrap();
/// ```
pub struct Event {
    flag: AtomicBool,
    queue: WaitQueue,
}

impl Event {
    constructor! {
        /// Returns a flag that is not set.
        pub const fn new() -> Self {
            Self {
                flag: AtomicBool::new(false),
                queue: WaitQueue::of("an event"),
            }
        }
    }

    /// Sets the flag and wakes all threads that wait. They go on even if the flag is reset at once. Not a blocking
    /// call.
    pub fn set(&self) {
        let order = relaxed_if!("event_relaxed_set", Ordering::Release);
        self.flag.store(true, order);
        if fault!("event_wakes_one") {
            self.queue.wake_one();
            return;
        }
        self.queue.wake_all();
    }

    /// Resets the flag.
    pub fn reset(&self) {
        self.flag.store(false, Ordering::Release);
    }

    /// Tells if the flag is set.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Waits until the flag is set. A blocking call; an exception unwinds.
    pub fn wait(&self) {
        self.wait_until(None);
    }

    /// Waits as [`wait`](Self::wait) does, at most for `limit`. [`Duration::MAX`] means for ever. Returns false if
    /// the flag was not set in time.
    ///
    /// # Examples
    /// ```
    /// let never = weald::sync::Event::new();
    /// assert!(!never.wait_timeout(std::time::Duration::from_millis(1)));
    /// ```
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        self.wait_until(io::deadline(limit))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        io::enter_unwinding();
        if self.is_set() {
            io::spend();
            return true;
        }
        loop {
            let on = On::object(Awaited::Event, self);
            match self.queue.wait_on(on, || self.is_set(), deadline, true) {
                Woken::Notified | Woken::Ready => return true,
                Woken::Again => {}
                Woken::TimedOut => return self.is_set(),
                Woken::Interrupted(interrupt) => interrupt.unwind(),
            }
        }
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("set", &self.is_set())
            .finish_non_exhaustive()
    }
}
