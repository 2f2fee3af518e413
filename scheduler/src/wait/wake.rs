//! Ends waits of other threads: one wake-up wins (`state.rs`), and its thread is made ready.
#![allow(unsafe_code, reason = "acts on the verdict of the state word, once")]

use crate::engine::carrier;
use crate::engine::record;
use crate::green::green_thread::{Header, Hint, Task};
use crate::green::handle::GreenThread;
use crate::green::wait_list::{First, WaitQueue, pop_front};
use crate::parts::state::{Wake, Why};
use crate::shim::sync::{Arc, MutexGuard};

impl GreenThread {
    /// Ends the thread's [`park`](crate::park), or its next one if it is not parked. Never blocks.
    ///
    /// As with std's threads, several calls before one `park` count as one.
    #[inline]
    pub fn unpark(&self) {
        let wake = self.0.state.unpark();
        // SAFETY: the verdict is fresh and this handle keeps the header alive.
        unsafe { Header::deliver(&raw const *self.0, wake, Hint::Peer) };
    }
}

impl Header {
    /// Ends a wait of this thread and sees to it that it runs.
    ///
    /// It takes an address: after an early wake-up the thread goes on and may end, and a reference would have to stay
    /// valid until this returns.
    ///
    /// # Safety
    /// The header is alive until its wait has ended (a reference, or the lock of a queue it waits in).
    #[inline]
    pub(crate) unsafe fn wake(this: *const Self, epoch: u32, why: Why, hint: Hint) -> bool {
        // SAFETY: by contract; the verdict belongs to this header.
        unsafe { Self::deliver(this, (*this).state.wake(epoch, why), hint) }
    }

    /// Acts on the verdict of the state word. True unless the wake-up was lost.
    ///
    /// # Safety
    /// `wake` is the fresh verdict of this header's state word, acted on once.
    #[inline]
    pub(crate) unsafe fn deliver(this: *const Self, wake: Wake, hint: Hint) -> bool {
        match wake {
            Wake::Lost => false,
            Wake::Early => true,
            Wake::Won => {
                // SAFETY: the state word owned the running reference and has handed it to us.
                carrier::schedule(unsafe { Task::from_raw(this) }, hint);
                true
            }
            Wake::WonInPlace => {
                // SAFETY: the waiter stays until it is notified, so the header is still there; once it is
                // notified it may go, hence the clone.
                let waiter = unsafe { &*this };
                if record::is_on() {
                    record::woken(waiter);
                }
                let parker = Arc::clone(&waiter.cold().parker);
                parker.notify();
                true
            }
        }
    }
}

/// The waiters' side is in `wait_queue.rs`, the invariants in `wait_list.rs`.
impl WaitQueue {
    /// Wakes the first waiter. False: there was none.
    pub fn wake_one(&self) -> bool {
        loop {
            let mut first = self.0.lock();
            // SAFETY: the lock is held.
            let Some((waiter, epoch)) = (unsafe { pop_front(&mut first) }) else {
                return false;
            };
            let header: *const Header = waiter.cast();
            // SAFETY: the lock is held, so the waiter is still inside `wait` (invariant 1).
            let wake = unsafe { (*header).state.wake(epoch, Why::NOTIFIED) };
            // SAFETY: the verdict is fresh.
            if unsafe { finish(header, wake, first) } {
                return true;
            }
            if fault!("wait_queue_wakes_who_has_left") {
                return true;
            }
        }
    }

    /// Wakes all waiters. Returns how many.
    pub fn wake_all(&self) -> usize {
        let mut woken = 0;
        // Only those that wait now: a thread that comes back to wait again is not woken twice.
        let mut left = self.len();
        while left > 0 && self.wake_one() {
            woken += 1;
            left -= 1;
        }
        woken
    }
}

/// Acts on a verdict once the lock is no longer needed. True unless the wake-up was lost.
///
/// # Safety
/// `wake` is the fresh verdict on `header`, whose queue's lock `guard` holds.
unsafe fn finish(header: *const Header, wake: Wake, guard: MutexGuard<'_, First>) -> bool {
    match wake {
        Wake::Lost => false,
        Wake::Early => true,
        Wake::Won => {
            drop(guard);
            // SAFETY: the running reference is ours now, so the header stays.
            carrier::schedule(unsafe { Task::from_raw(header) }, Hint::Event);
            true
        }
        Wake::WonInPlace => {
            // SAFETY: the waiter stays until notified; afterwards only the clone is used.
            let waiter = unsafe { &*header };
            if record::is_on() {
                record::woken(waiter);
            }
            let parker = Arc::clone(&waiter.cold().parker);
            drop(guard);
            parker.notify();
            true
        }
    }
}
