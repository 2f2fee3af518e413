//! Many readers or one writer: the part below [`RwLock`](crate::RwLock), in the form of lock_api.
//!
//! ```text
//! 63              62         61             32 31          1   0
//! +--------------+----------+-----------------+-------------+--------+
//! | READERS_WAIT | STARVING | writers waiting | readers     | WRITER |
//! +--------------+----------+-----------------+-------------+--------+
//! ```
//!
//! A reader that comes waits while a writer has the lock *or waits for it*, so readers do not starve writers. A
//! writer that leaves lets in all waiting readers, whether writers wait or not, so writers do not starve readers.
//! Otherwise a thread that comes may take a free lock before those that wait, until a waiter was passed over for long
//! and sets STARVING. From then on only threads that were woken may take the lock, until that waiter has had its
//! turn.
//!
//! Invariant 1: a waiter announces itself in the word before it enters its queue, and looks at the word once more
//! when it is in the queue. A thread that makes room changes the word, then looks into the queue.
//! Invariant 2: a writer counts as waiting from before it enters the queue until it has the lock or gives up. The
//! last writer that gives up lets in the readers that waited because of it.
//! Invariant 3: a reader that the queue has notified joins other readers even if writers wait: it was let in.
//! Invariant 4: the waiter that set STARVING clears it, when it has the lock or gives up. Then it wakes those that
//! held back because of it. It may itself take the lock at any time.
//!
//! Orderings: taking the lock acquires and releasing it releases what the lock guards.
//! Checked by `loom-tests/tests/rwlock.rs`.

use std::time::Instant;

use weald_scheduler::io::{self, Awaited, Interrupt, Mark, On, Owner, WaitQueue, Woken};

use crate::raw_mutex::{NotLocked, PATIENCE};
use crate::shim::atomic::{AtomicU64, Ordering};
use crate::shim::clock;

const WRITER: u64 = 1;
const READER: u64 = 1 << 1;
const READERS: u64 = 0xffff_fffe;
const WAITING: u64 = 1 << 32;
const WRITERS_WAITING: u64 = 0x3fff_ffff << 32;
const STARVING: u64 = 1 << 62;
const READERS_WAIT: u64 = 1 << 63;

/// Returns the ordering of taking the lock.
#[inline]
fn won() -> Ordering {
    relaxed_if!("rwlock_relaxed_take", Ordering::Acquire)
}

/// Returns the ordering of a reader that leaves.
#[inline]
fn let_go() -> Ordering {
    relaxed_if!("rwlock_relaxed_leave", Ordering::Release)
}

/// The raw lock: for `lock_api::RwLock` and for what uses it.
///
/// # Examples
/// ```
/// type RwLock<T> = lock_api::RwLock<weald::sync::RawRwLock, T>;
/// static WORD: RwLock<u32> = RwLock::new(7);
/// assert_eq!(*WORD.read() + *WORD.read(), 14);
/// ```
#[derive(Debug)]
#[repr(C)]
pub struct RawRwLock {
    // `dump` reads the first two.
    word: AtomicU64,
    /// The writer, or the last reader that has left its mark.
    owner: Owner,
    readers: WaitQueue,
    writers: WaitQueue,
}

impl RawRwLock {
    constructor! {
        pub(crate) const fn new() -> Self {
            Self {
                word: AtomicU64::new(0),
                owner: Owner::new(),
                readers: WaitQueue::of("a read lock"),
                writers: WaitQueue::of("a write lock"),
            }
        }
    }

    /// Steps the word while `next` gives a new one.
    #[inline]
    fn step(&self, next: impl Fn(u64) -> Option<u64>) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while let Some(new) = next(word) {
            match self
                .word
                .compare_exchange_weak(word, new, won(), Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[inline]
    pub(crate) fn try_read(&self) -> bool {
        self.step(|word| {
            let shut =
                word & (WRITER | WRITERS_WAITING | STARVING) != 0 || word & READERS == READERS;
            (!shut).then_some(word + READER)
        })
    }

    #[inline]
    pub(crate) fn try_write(&self) -> bool {
        self.step(|word| (word & (WRITER | READERS) == 0).then_some(word | WRITER))
    }

    /// Takes the lock to read. A blocking call; an exception unwinds. Returns `None` if the deadline has passed, else the
    /// caller's mark, which `mark_reader` leaves in the lock.
    #[inline]
    pub(crate) fn read(&self, deadline: Option<Instant>) -> Option<Mark> {
        // A thread whose turn is over gives way here, before it has the lock.
        let me = io::enter_and_spend();
        if self.try_read() {
            return Some(me);
        }
        outcome(self.wait_to_read(deadline)).then_some(me)
    }

    /// Leaves the mark of a reader in the lock, until that reader calls `release_marked_read`.
    #[inline]
    pub(crate) fn mark_reader(&self, me: Mark) {
        self.owner.set(me);
    }

    /// Releases a reader's lock. `mark_reader` may have left the reader's mark in it.
    #[inline]
    pub(crate) fn release_marked_read(&self, me: Mark) {
        self.owner.clear_own(me);
        self.release_read();
    }

    /// Takes the lock to write. A blocking call; an exception unwinds. Returns false if the deadline has passed.
    #[inline]
    pub(crate) fn write(&self, deadline: Option<Instant>) -> bool {
        let me = io::enter_and_spend();
        if self
            .word
            .compare_exchange(0, WRITER, won(), Ordering::Relaxed)
            .is_ok()
        {
            self.owner.set(me);
            return true;
        }
        outcome(self.wait_to_write(me, deadline))
    }

    #[cold]
    fn wait_to_read(&self, deadline: Option<Instant>) -> Result<(), NotLocked> {
        let mut patience = Patience::new(self);
        let mut let_in = false;
        loop {
            let held_back = if patience.is_over() { 0 } else { STARVING };
            let shut = |word: u64| {
                let others = WRITERS_WAITING | held_back;
                word & WRITER != 0 || (!let_in && word & others != 0)
            };
            if self.step(|word| (!shut(word)).then_some(word + READER)) {
                return Ok(());
            }
            self.word.fetch_or(READERS_WAIT, Ordering::Relaxed);
            let changed = || {
                let word = self.word.load(Ordering::Relaxed);
                !fault!("rwlock_reads_without_a_second_look")
                    && (word & READERS_WAIT == 0 || !shut(word))
            };
            let on = On::object(Awaited::ReadLock, self);
            let woken = self.readers.wait_on(on, changed, deadline, true);
            let_in |= matches!(woken, Woken::Notified);
            goes_on(woken)?;
            patience.wears();
        }
    }

    #[cold]
    fn wait_to_write(&self, me: Mark, deadline: Option<Instant>) -> Result<(), NotLocked> {
        let mut patience = Patience::new(self);
        self.word.fetch_add(WAITING, Ordering::Relaxed);
        let counted = Counted(self);
        let mut notified = false;
        loop {
            let held_back = if notified || patience.is_over() {
                0
            } else {
                STARVING
            };
            let free = |word: u64| word & (WRITER | READERS | held_back) == 0;
            if self.step(|word| free(word).then(|| (word | WRITER) - WAITING)) {
                std::mem::forget(counted);
                self.owner.set(me);
                return Ok(());
            }
            let on = On::object(Awaited::WriteLock, self);
            let is_free = || free(self.word.load(Ordering::Relaxed));
            let woken = self.writers.wait_on(on, is_free, deadline, true);
            notified = matches!(woken, Woken::Notified);
            goes_on(woken)?;
            patience.wears();
        }
    }

    /// Releases a reader's lock.
    #[inline]
    pub(crate) fn release_read(&self) {
        let before = self.word.fetch_sub(READER, let_go());
        if before & READERS == READER
            && before & WRITERS_WAITING != 0
            && !fault!("rwlock_leaves_quietly")
        {
            self.writers.wake_one();
        }
    }

    /// Releases the writer's lock.
    #[inline]
    pub(crate) fn release(&self) {
        self.owner.clear();
        if self
            .word
            .compare_exchange(WRITER, 0, Ordering::Release, Ordering::Relaxed)
            .is_err()
        {
            self.release_slow();
        }
    }

    #[cold]
    fn release_slow(&self) {
        let before = self
            .word
            .fetch_and(!(WRITER | READERS_WAIT), Ordering::Release);
        let let_in = before & READERS_WAIT != 0 && self.readers.wake_all() > 0;
        // If readers were let in, the last of them wakes a writer.
        if !let_in && before & WRITERS_WAITING != 0 {
            self.writers.wake_one();
        }
    }

    /// Makes the writer a reader, without a moment in between.
    pub(crate) fn downgrade(&self) {
        self.owner.clear();
        let before = self.word.fetch_add(READER - WRITER, Ordering::Release);
        if before & READERS_WAIT != 0 {
            self.word.fetch_and(!READERS_WAIT, Ordering::Relaxed);
            unless!("rwlock_downgrades_quietly", self.readers.wake_all());
        }
    }

    #[cfg_attr(loom, allow(dead_code, reason = "only `lock_api` asks"))]
    fn is_held(&self) -> bool {
        self.word.load(Ordering::Relaxed) & (WRITER | READERS) != 0
    }

    #[cfg_attr(loom, allow(dead_code, reason = "only `lock_api` asks"))]
    fn is_written(&self) -> bool {
        self.word.load(Ordering::Relaxed) & WRITER != 0
    }
}

/// Measures how long a waiter lets others pass. When it is dropped, the waiter has the lock or has given up
/// (invariant 4).
struct Patience<'a> {
    lock: &'a RawRwLock,
    since: Option<Instant>,
    over: bool,
}

impl<'a> Patience<'a> {
    fn new(lock: &'a RawRwLock) -> Self {
        Self {
            lock,
            since: None,
            over: false,
        }
    }

    fn is_over(&self) -> bool {
        self.over
    }

    /// Notes that the waiter was woken, and may be passed over again.
    fn wears(&mut self) {
        let now = clock::now();
        if !self.over && now.duration_since(*self.since.get_or_insert(now)) > PATIENCE {
            self.over = true;
            self.lock.word.fetch_or(STARVING, Ordering::Relaxed);
        }
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if self.over {
            if !fault!("rwlock_starves_for_ever") {
                self.lock.word.fetch_and(!STARVING, Ordering::AcqRel);
            }
            self.lock.readers.wake_all();
            self.lock.writers.wake_one();
        }
    }
}

/// Counts a waiting writer. When it is dropped, the writer has given up (invariant 2).
struct Counted<'a>(&'a RawRwLock);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let word = &self.0.word;
        let before = word.fetch_sub(WAITING, Ordering::AcqRel);
        if before & WRITERS_WAITING == WAITING && before & READERS_WAIT != 0 {
            word.fetch_and(!READERS_WAIT, Ordering::AcqRel);
            unless!("rwlock_gives_up_quietly", self.0.readers.wake_all());
        }
    }
}

fn goes_on(woken: Woken) -> Result<(), NotLocked> {
    match woken {
        Woken::Notified | Woken::Ready | Woken::Again => Ok(()),
        Woken::TimedOut => Err(NotLocked::TimedOut),
        Woken::Interrupted(interrupt) => Err(NotLocked::Interrupted(interrupt)),
    }
}

fn outcome(result: Result<(), NotLocked>) -> bool {
    match result {
        Ok(()) => true,
        Err(NotLocked::TimedOut) => false,
        Err(NotLocked::Interrupted(interrupt)) => unwind(interrupt),
    }
}

#[cold]
fn unwind(interrupt: Interrupt) -> ! {
    interrupt.unwind()
}

#[cfg(not(loom))]
mod api {
    #![allow(unsafe_code, reason = "lock_api's traits are promises")]

    use std::time::Duration;

    use super::{Instant, RawRwLock, io};

    // SAFETY: the word admits readers or one writer, each by one exchange. Guards are not `Send`.
    unsafe impl lock_api::RawRwLock for RawRwLock {
        type GuardMarker = lock_api::GuardNoSend;

        #[allow(
            clippy::declare_interior_mutable_const,
            reason = "lock_api's way to make one"
        )]
        const INIT: Self = RawRwLock::new();

        fn lock_shared(&self) {
            self.read(None);
        }

        fn try_lock_shared(&self) -> bool {
            self.try_read()
        }

        unsafe fn unlock_shared(&self) {
            self.release_read();
        }

        fn lock_exclusive(&self) {
            self.write(None);
        }

        fn try_lock_exclusive(&self) -> bool {
            self.try_write()
        }

        unsafe fn unlock_exclusive(&self) {
            self.release();
        }

        fn is_locked(&self) -> bool {
            self.is_held()
        }

        fn is_locked_exclusive(&self) -> bool {
            self.is_written()
        }
    }

    // SAFETY: as above; a thread that leaves wakes the waiters in turn.
    unsafe impl lock_api::RawRwLockFair for RawRwLock {
        unsafe fn unlock_shared_fair(&self) {
            self.release_read();
        }

        unsafe fn unlock_exclusive_fair(&self) {
            self.release();
        }
    }

    // SAFETY: as above.
    unsafe impl lock_api::RawRwLockDowngrade for RawRwLock {
        unsafe fn downgrade(&self) {
            RawRwLock::downgrade(self);
        }
    }

    // SAFETY: as above; it returns true only with the lock taken.
    unsafe impl lock_api::RawRwLockTimed for RawRwLock {
        type Duration = Duration;
        type Instant = Instant;

        fn try_lock_shared_for(&self, limit: Duration) -> bool {
            self.read(io::deadline(limit)).is_some()
        }

        fn try_lock_shared_until(&self, deadline: Instant) -> bool {
            self.read(Some(deadline)).is_some()
        }

        fn try_lock_exclusive_for(&self, limit: Duration) -> bool {
            self.write(io::deadline(limit))
        }

        fn try_lock_exclusive_until(&self, deadline: Instant) -> bool {
            self.write(Some(deadline))
        }
    }
}
