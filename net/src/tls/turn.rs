//! A lock for green threads and OS threads whose waiting an exception may end.
//!
//! Not `weald_sync::Mutex`, for two reasons. A call that returns `io::Result` must return its
//! exception, where `lock` unwinds; and the lock around TLS's state is taken when bytes have been
//! read from the socket, where nothing may be raised. There is no poisoning: TLS remembers itself
//! that it has failed.
//!
//! | state     | meaning                                                                       |
//! |-----------|-------------------------------------------------------------------------------|
//! | FREE      | nobody has it                                                                 |
//! | TAKEN     | somebody has it                                                               |
//! | CONTENDED | somebody has it, and others may wait: who lets go looks in the queue          |
//!
//! Invariant 1: who has changed the state from FREE touches the value, until it changes it back.
//! Invariant 2: if the lock is free and somebody waits, somebody is awake who will try. Who waits
//! sets CONTENDED, enters the queue and then looks at the state again; who lets go frees the lock
//! and, if it was CONTENDED, then looks in the queue: one of the two sees the other, by the queue's
//! own lock. Who was woken sets CONTENDED as it takes the lock, for those behind it.
#![allow(unsafe_code, reason = "a lock hands out what it guards")]

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU8, Ordering};

use weald_scheduler::io::{Interrupt, WaitQueue, Woken};

const FREE: u8 = 0;
const TAKEN: u8 = 1;
const CONTENDED: u8 = 2;

pub(super) struct Turn<T> {
    state: AtomicU8,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the value is touched by one thread at a time (invariant 1).
unsafe impl<T: Send> Sync for Turn<T> {}

impl<T> Turn<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            state: AtomicU8::new(FREE),
            waiters: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Acquires what the last holder released.
        self.state
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Guard { turn: self })
    }

    /// Waits, whatever is pending: for a lock that is held for computing only.
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        if let Some(guard) = self.try_lock() {
            return guard;
        }
        loop {
            if let Ok(guard) = self.wait(false) {
                return guard;
            }
        }
    }

    /// A blocking call: waits, and returns the exception that ends the wait.
    #[inline]
    pub(super) fn lock_io(&self) -> io::Result<Guard<'_, T>> {
        if let Some(guard) = self.try_lock() {
            return Ok(guard);
        }
        self.wait(true).map_err(Interrupt::into_io)
    }

    #[cold]
    fn wait(&self, interruptible: bool) -> Result<Guard<'_, T>, Interrupt> {
        loop {
            // Acquires as in `try_lock`.
            if self.state.swap(CONTENDED, Ordering::Acquire) == FREE {
                return Ok(Guard { turn: self });
            }
            let has_moved = || self.state.load(Ordering::Relaxed) != CONTENDED;
            match self.waiters.wait(has_moved, None, interruptible) {
                Woken::Interrupted(interrupt) => return Err(interrupt),
                Woken::Notified | Woken::Ready | Woken::TimedOut | Woken::Again => {}
            }
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> fmt::Debug for Turn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

pub(super) struct Guard<'a, T> {
    turn: &'a Turn<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a guard is made by who took the lock (invariant 1).
        unsafe { &*self.turn.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard is borrowed mutably.
        unsafe { &mut *self.turn.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Releases what was done to the value.
        if self.turn.state.swap(FREE, Ordering::Release) == CONTENDED {
            self.turn.waiters.wake_one();
        }
    }
}
