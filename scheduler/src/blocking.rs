//! `blocking`: a call that blocks the OS thread, in place, while the others go on.
//!
//! If others wait, the worker goes to a spare carrier at once; else its carrier keeps it until
//! somebody does, which the monitor sees within two looks. At most as many calls as there are spare
//! carriers run at a time; one more waits as a green thread.
#![allow(unsafe_code, reason = "the running thread's own part")]

use crate::carrier::Away;
use crate::current;
use crate::exception::Hold;
use crate::green_thread::Header;
use crate::shim::atomic::{AtomicU64, Ordering};
use crate::wait_queue::{WaitQueue, Woken};
use crate::waiter;

/// How many more may block, and who waits to be one of them.
#[derive(Debug)]
pub(crate) struct Permits {
    /// Free permits, and in units of [`WAITER`] how many threads wait or are about to.
    word: AtomicU64,
    queue: WaitQueue,
}

/// One who waits counts before it enters the queue and looks for a permit once it is there; who gives
/// one back adds it and reads the count in one step. Whichever step of the word is the later one sees
/// the other, so without a waiter nobody needs the queue's lock.
const WAITER: u64 = 1 << 32;

impl Permits {
    pub(crate) fn new(free: usize) -> Self {
        let free = u64::try_from(free).unwrap_or(u64::MAX);
        Self {
            word: AtomicU64::new(free.min(WAITER / 2)),
            queue: WaitQueue::new(),
        }
    }

    fn free(word: u64) -> u64 {
        word % WAITER
    }

    #[inline]
    fn try_take(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while Self::free(word) > 0 {
            match self.word.compare_exchange_weak(
                word,
                word - 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[inline]
    fn take(&self) {
        if !self.try_take() {
            self.wait();
        }
    }

    #[cold]
    fn wait(&self) {
        while !self.try_take() {
            self.word.fetch_add(WAITER, Ordering::AcqRel);
            let is_free = || Self::free(self.word.load(Ordering::Acquire)) > 0;
            let woken = self.queue.wait(is_free, None, true);
            self.word.fetch_sub(WAITER, Ordering::AcqRel);
            match woken {
                Woken::Interrupted(interrupt) => {
                    // A permit that was given meanwhile goes to the next.
                    self.queue.wake_one();
                    interrupt.unwind()
                }
                Woken::Notified | Woken::Ready | Woken::TimedOut | Woken::Again => {}
            }
        }
    }

    #[inline]
    fn give(&self) {
        if self.word.fetch_add(1, Ordering::AcqRel) >= WAITER {
            self.queue.wake_one();
        }
    }
}

/// Undoes what `blocking` set up, in the right order, also when `f` panics.
struct Inside<'a> {
    header: &'a Header,
    away: Option<Away>,
    permits: &'a Permits,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        // SAFETY: the running thread's own part, held for this statement.
        unsafe { self.header.local() }.blocking -= 1;
        // May leave the OS thread: the seat may be gone.
        drop(self.away.take());
        self.permits.give();
    }
}

/// Runs `f`, which may block its OS thread: a call into C, a file, a foreign lock. The other green
/// threads go on meanwhile.
///
/// `f` runs in place, on the same OS thread from beginning to end, so it needs neither `Send` nor
/// `'static`. Weald's calls work inside it as outside; an exception is raised before it begins or
/// after it has ended, inside only that of a [`timeout`](crate::timeout()) that `f` has entered. How soon the others go on: at once if some were waiting, else
/// within some milliseconds. In a runtime that pins ([`ThreadLocals::Pinned`](crate::ThreadLocals))
/// the green threads that were started on this OS thread wait until `f` has ended.
///
/// On a plain OS thread it just calls `f`.
///
/// # Examples
/// ```
/// let text = weald_scheduler::blocking(|| std::fs::read_to_string("Cargo.toml"));
/// assert!(text?.contains("[package]"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn blocking<T>(f: impl FnOnce() -> T) -> T {
    let header = waiter::enter();
    // SAFETY: the running thread's header is alive.
    let header = unsafe { &*header };
    if !header.is_green() || current::carrier().is_null() {
        return f();
    }
    // SAFETY: the running thread's own part, held for this statement.
    if unsafe { header.local() }.blocking > 0 {
        return f();
    }
    // SAFETY: a green thread that runs keeps its runtime.
    let permits = unsafe { &(*header.runtime).blocking };
    permits.take();
    let hold = Hold::new();
    // SAFETY: as above.
    unsafe { header.local() }.blocking += 1;
    let inside = Inside {
        header,
        away: Away::begin(),
        permits,
    };
    // What `f` calls is meant for the system.
    #[cfg(not(loom))]
    let bypass = crate::patch::Bypass::enter();
    let value = f();
    #[cfg(not(loom))]
    drop(bypass);
    drop(inside);
    drop(hold);
    value
}
