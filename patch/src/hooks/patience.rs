//! When a green thread that always loses a read-write lock of libc's to others enters libc's own queue.
//!
//! A green thread tries when it is told that the lock was unlocked. By then others may have the lock again: an OS
//! thread that locks and unlocks in a loop is always quicker. libc promises more to those in its own queue. There a
//! writer gets the lock at the first moment without a reader, or keeps new readers out, and a reader gets it when the
//! writer unlocks (`pthread_rwlockattr_setkind_np`(3)). So a green thread that was told [`BEATEN`] times in vain and
//! has waited for [`PATIENCE`] waits as any thread of libc's does, and keeps its OS thread for that time.
//!
//! For each lock only one green thread does so at a time; the others try when it unlocks. If it would take the last
//! OS thread that the runtime may have, it goes on trying. A lock that is held for long tells nobody, so no green
//! thread enters the queue for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libc::c_int;
use weald_scheduler::patch;

use crate::futex::Waited;
use crate::hooks::sync::{BUCKETS, index_of};

/// A guess: a green thread that shares a lock with some threads that hold it briefly is told in vain a few times.
const BEATEN: u32 = 64;
/// A guess: longer than most holders have the lock, and short for a thread that would otherwise wait for ever.
const PATIENCE: Duration = Duration::from_millis(20);

/// Whether a green thread waits in libc's queue of a lock, by the hash of the lock's address.
static QUEUED: [AtomicBool; BUCKETS] = [const { AtomicBool::new(false) }; BUCKETS];

/// One wait for a lock.
pub(super) struct Patience {
    began: Instant,
    beaten: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            beaten: 0,
        }
    }

    /// Tells if the patience is over, after a wait that has not got the lock.
    pub(super) fn is_over(&mut self, waited: Waited) -> bool {
        self.beaten += u32::from(waited == Waited::Woken);
        self.beaten >= BEATEN && self.began.elapsed() >= PATIENCE
    }
}

/// The right to wait in libc's queue.
struct Queued(&'static AtomicBool);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Waits in libc's queue by this call. Gives the call back if that is not possible now.
pub(super) fn queue<T, F: FnOnce() -> c_int>(lock: *const T, plain: F) -> Result<c_int, F> {
    let queued = &QUEUED[index_of(lock.cast())];
    if queued.swap(true, Ordering::Acquire) {
        return Err(plain);
    }
    let _queued = Queued(queued);
    patch::blocking_if_spare(plain)
}
