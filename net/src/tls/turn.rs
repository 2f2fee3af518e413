//! A lock for green threads and OS threads whose waiting an exception may end.
//!
//! Not `weald_sync::Mutex`, for two reasons. A call that returns `io::Result` must return its
//! exception, where `lock` unwinds; and the lock around TLS's state is taken when bytes have been
//! read from the socket, where nothing may be raised. There is no poisoning: TLS remembers itself
//! that it has failed.
//!
//! Invariant 1: who has changed `taken` from false to true touches the value, until it changes it
//! back.
//! Invariant 2: if the lock is free and somebody waits, somebody is awake who will try: who lets
//! go frees the lock and then looks in the queue, who waits enters the queue and then looks at the
//! lock, and who was woken tries, or if it leaves instead wakes the next.
#![allow(unsafe_code, reason = "a lock hands out what it guards")]

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use weald_scheduler::io::{Interrupt, WaitQueue, Woken};

pub(super) struct Turn<T> {
    taken: AtomicBool,
    waiters: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the value is touched by one thread at a time (invariant 1).
unsafe impl<T: Send> Sync for Turn<T> {}

impl<T> Turn<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            waiters: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }

    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Pairs with the store that frees it.
        let free = !self.taken.swap(true, Ordering::Acquire);
        // Not `then_some`: a guard that is made and dropped would free the other's lock.
        free.then(|| Guard { turn: self })
    }

    /// Waits, whatever is pending: for a lock that is held for computing only.
    pub(super) fn lock(&self) -> Guard<'_, T> {
        loop {
            if let Ok(Some(guard)) = self.attempt(false) {
                return guard;
            }
        }
    }

    /// A blocking call: waits, and returns the exception that ends the wait.
    pub(super) fn lock_io(&self) -> io::Result<Guard<'_, T>> {
        loop {
            match self.attempt(true) {
                Ok(Some(guard)) => return Ok(guard),
                Ok(None) => {}
                Err(interrupt) => {
                    self.waiters.wake_one();
                    return Err(interrupt.into_io());
                }
            }
        }
    }

    #[inline]
    fn attempt(&self, interruptible: bool) -> Result<Option<Guard<'_, T>>, Interrupt> {
        if let Some(guard) = self.try_lock() {
            return Ok(Some(guard));
        }
        let is_free = || !self.taken.load(Ordering::Relaxed);
        match self.waiters.wait(is_free, None, interruptible) {
            Woken::Interrupted(interrupt) => Err(interrupt),
            Woken::Notified | Woken::Ready | Woken::TimedOut | Woken::Again => Ok(None),
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
    fn drop(&mut self) {
        // Releases what was done to the value. The queue's own lock, which `wake_one` takes, orders
        // it before the look that a waiter takes once it is in the queue (invariant 2).
        self.turn.taken.store(false, Ordering::Release);
        self.turn.waiters.wake_one();
    }
}
