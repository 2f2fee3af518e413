//! A lock of one word and a queue: the part below [`Mutex`](crate::Mutex), in the form of lock_api.
//!
//! | bit      | meaning                                                                     |
//! |----------|-----------------------------------------------------------------------------|
//! | LOCKED   | a thread has the lock                                                       |
//! | WAITERS  | a thread waits or is about to: a thread that unlocks wakes one              |
//! | STARVING | a waiter was passed over for long: a thread that unlocks hands the lock over |
//! | HANDED   | the lock, still LOCKED, is on its way to a waiter that was woken            |
//!
//! A thread that comes may take a free lock before those that wait (it *barges*), because continuing a running thread
//! is cheaper than switching to another one. A waiter that was passed over for [`PATIENCE`] sets STARVING. From then
//! on the lock is handed over in the order of the queue, until that waiter has had its turn.
//!
//! Invariant 1: WAITERS is set before a waiter enters the queue. A waiter that has been in the queue takes the lock
//! with WAITERS set, as there may be other waiters. So a thread that unlocks sees that there are waiters.
//! Invariant 2: a waiter enters the queue, then looks if the lock is still LOCKED with WAITERS. A thread that unlocks
//! changes the word, then looks into the queue. By the queue's lock one of the two sees the other.
//! Invariant 3: only a waiter that the queue has notified takes HANDED. The thread that set HANDED takes it back if
//! the queue was empty.
//! A waiter that leaves early has taken no wake-up (`WaitQueue`, invariant 3), so it need not pass one on.
//!
//! Orderings: taking the lock acquires and releasing it releases what the lock guards.
//! Checked by `loom-tests/tests/mutex.rs`.
//! Source: barging with a bound as in Go's `sync.Mutex` and WebKit's WTF::Lock.

use std::time::{Duration, Instant};

use weald_scheduler::io::{self, Awaited, Interrupt, Mark, On, Owner, WaitQueue, Woken};

use crate::shim::atomic::{AtomicU32, Ordering};
use crate::shim::clock;

const LOCKED: u32 = 1;
const WAITERS: u32 = 2;
const STARVING: u32 = 4;
const HANDED: u32 = 8;

/// Returns the ordering of taking the lock.
#[inline]
fn won() -> Ordering {
    relaxed_if!("mutex_relaxed_take", Ordering::Acquire)
}

/// Returns the ordering of releasing the lock.
#[inline]
fn let_go() -> Ordering {
    relaxed_if!("mutex_relaxed_release", Ordering::Release)
}

/// How long others may take the lock before a waiter. The bounds of parking_lot and Go are 0.5 and 1 ms.
pub(crate) const PATIENCE: Duration = Duration::from_micros(500);

/// The raw lock: for `lock_api::Mutex` and for what uses it.
///
/// # Examples
/// ```
/// type Mutex<T> = lock_api::Mutex<weald::sync::RawMutex, T>;
/// static COUNT: Mutex<u32> = Mutex::new(0);
/// *COUNT.lock() += 1;
/// assert_eq!(*COUNT.lock(), 1);
/// ```
#[derive(Debug)]
#[repr(C)]
pub struct RawMutex {
    // `dump` reads the first two.
    word: AtomicU32,
    owner: Owner,
    queue: WaitQueue,
}

/// Why a wait for a lock ended without the lock.
#[derive(Debug)]
pub(crate) enum NotLocked {
    TimedOut,
    Interrupted(Interrupt),
}

impl RawMutex {
    constructor! {
        #[doc(hidden)]
        pub const fn new() -> Self {
            Self {
                word: AtomicU32::new(0),
                owner: Owner::new(),
                queue: WaitQueue::of("a mutex"),
            }
        }
    }

    #[doc(hidden)]
    #[inline]
    pub fn try_take(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & LOCKED == 0 {
            match self
                .word
                .compare_exchange_weak(word, word | LOCKED, won(), Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[inline]
    fn take_if_idle(&self) -> bool {
        self.word
            .compare_exchange(0, LOCKED, won(), Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the lock. A blocking call; an exception unwinds.
    #[doc(hidden)]
    #[inline]
    pub fn take(&self) {
        // A thread whose turn is over gives way here, before it has the lock.
        let me = io::enter_and_spend();
        if self.take_if_idle() {
            self.owner.set(me);
        } else if let Err(NotLocked::Interrupted(interrupt)) = self.wait(me, None, true) {
            interrupt.unwind();
        }
    }

    /// Takes the lock as `take` does, for a call that returns `io::Result` and has looked for exceptions already.
    /// Returns an exception that ends the wait. For `weald-net`.
    ///
    /// # Errors
    /// The exception that ended the wait.
    #[doc(hidden)]
    #[inline]
    pub fn take_io(&self) -> std::io::Result<()> {
        self.take_io_until(None)
    }

    /// Takes the lock as `take_io` does, with a deadline (`None`: no deadline).
    ///
    /// # Errors
    /// The exception that ended the wait; `TimedOut` after the deadline.
    #[doc(hidden)]
    #[inline]
    pub fn take_io_until(&self, deadline: Option<Instant>) -> std::io::Result<()> {
        let me = io::mark();
        if self.take_if_idle() {
            self.owner.set(me);
            return Ok(());
        }
        self.wait(me, deadline, true)
            .map_err(|not_locked| match not_locked {
                NotLocked::TimedOut => std::io::ErrorKind::TimedOut.into(),
                NotLocked::Interrupted(interrupt) => interrupt.into_io(),
            })
    }

    /// Takes the lock without raising anything, after a wait that is over already.
    #[doc(hidden)]
    #[inline]
    pub fn take_quietly(&self) {
        let me = io::mark();
        if self.take_if_idle() {
            self.owner.set(me);
        } else {
            let taken = self.wait(me, None, false);
            debug_assert!(taken.is_ok(), "the wait ends by nothing else");
        }
    }

    /// Takes the lock, with a deadline (`None`: no deadline). A blocking call. Returns false if the deadline has
    /// passed.
    pub(crate) fn take_until(&self, deadline: Option<Instant>) -> bool {
        let me = io::enter_and_spend();
        if self.take_if_idle() {
            self.owner.set(me);
            return true;
        }
        match self.wait(me, deadline, true) {
            Ok(()) => true,
            Err(NotLocked::TimedOut) => false,
            Err(NotLocked::Interrupted(interrupt)) => interrupt.unwind(),
        }
    }

    #[cold]
    fn wait(
        &self,
        me: Mark,
        deadline: Option<Instant>,
        interruptible: bool,
    ) -> Result<(), NotLocked> {
        let mut since: Option<Instant> = None;
        let mut mine = 0;
        let mut notified = false;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            // The bits that this waiter's turn ends: its own STARVING, and HANDED if it was given the lock.
            let next = if notified && word & HANDED != 0 {
                word & !(HANDED | mine)
            } else if word & LOCKED == 0 {
                let others = since.is_some() && !fault!("mutex_forgets_the_others");
                (word | LOCKED | if others { WAITERS } else { 0 }) & !mine
            } else {
                word | WAITERS
            };
            if next != word
                && self
                    .word
                    .compare_exchange(word, next, won(), Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            if word & LOCKED == 0 || (notified && word & HANDED != 0) {
                self.owner.set(me);
                return Ok(());
            }
            let now = clock::now();
            if mine == 0 && now.duration_since(*since.get_or_insert(now)) > PATIENCE {
                mine = STARVING;
                self.word.fetch_or(STARVING, Ordering::Relaxed);
            }
            let changed = || {
                let word = self.word.load(Ordering::Relaxed);
                !fault!("mutex_waits_without_a_second_look")
                    && word & (LOCKED | WAITERS) != LOCKED | WAITERS
            };
            notified = false;
            let on = On::object(Awaited::Mutex, self);
            match self.queue.wait_on(on, changed, deadline, interruptible) {
                Woken::Notified => notified = true,
                Woken::Ready | Woken::Again => {}
                Woken::TimedOut => return Err(NotLocked::TimedOut),
                Woken::Interrupted(interrupt) => return Err(NotLocked::Interrupted(interrupt)),
            }
        }
    }

    /// Releases the lock. The caller has it.
    #[doc(hidden)]
    #[inline]
    pub fn release(&self) {
        self.owner.clear();
        if self
            .word
            .compare_exchange(LOCKED, 0, let_go(), Ordering::Relaxed)
            .is_err()
        {
            self.release_slow(false);
        }
    }

    /// Releases the lock to a waiter, if there is one.
    pub(crate) fn release_to_next(&self) {
        self.owner.clear();
        if self
            .word
            .compare_exchange(LOCKED, 0, let_go(), Ordering::Relaxed)
            .is_err()
        {
            self.release_slow(true);
        }
    }

    #[cold]
    fn release_slow(&self, hand_over: bool) {
        let word = self.word.load(Ordering::Relaxed);
        if word & STARVING != 0 || hand_over {
            self.word.fetch_or(HANDED, let_go());
            if self.queue.wake_one() {
                return;
            }
            // Nobody was in the queue, so nobody takes HANDED: this thread still has the lock.
            if fault!("mutex_leaves_the_lock_handed") {
                return;
            }
            self.word.store(0, Ordering::Release);
        } else {
            self.word.fetch_and(!(LOCKED | WAITERS), let_go());
        }
        unless!("mutex_wakes_nobody", self.queue.wake_one());
    }

    #[cfg_attr(loom, allow(dead_code, reason = "only `lock_api` asks"))]
    pub(crate) fn is_taken(&self) -> bool {
        self.word.load(Ordering::Relaxed) & LOCKED != 0
    }
}
