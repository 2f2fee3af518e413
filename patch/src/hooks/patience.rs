//! When a green thread that others always beat to a read-write lock of libc's goes into libc's own queue.
//!
//! A green thread tries when it is told that the lock was unlocked, and others may have it again by then: an OS thread that
//! locks and unlocks in a loop is always quicker. libc promises more. A writer that waits there gets the lock at the
//! first moment without a reader, or keeps new readers out, and a reader gets it when the writer unlocks
//! (`pthread_rwlockattr_setkind_np`(3)). So who was told [`BEATEN`] times in vain and has waited for [`PATIENCE`]
//! waits as any thread of libc's does, and keeps its OS thread for that time.
//!
//! Of one lock one green thread does so at a time: the others try when it unlocks. Where it would take the last OS
//! thread that the runtime may have it goes on trying. A lock that is held for long tells nobody, so nobody
//! that waits for it goes there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libc::c_int;
use weald_scheduler::patch;

use crate::futex::Waited;
use crate::hooks::sync::{BUCKETS, index_of};

/// A guess: who shares a lock with some threads that use it briefly is told in vain a few times.
const BEATEN: u32 = 64;
/// A guess: longer than most holders, and short for who waits for ever otherwise.
const PATIENCE: Duration = Duration::from_millis(20);

/// A green thread waits in libc's queue of a lock, by the hash of the lock's address.
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

    /// After a wait that has not got the lock.
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

/// Waits in libc's queue by this call. `Err`: not now.
pub(super) fn queue<T, F: FnOnce() -> c_int>(lock: *const T, plain: F) -> Result<c_int, F> {
    let queued = &QUEUED[index_of(lock.cast())];
    if queued.swap(true, Ordering::Acquire) {
        return Err(plain);
    }
    let _queued = Queued(queued);
    patch::blocking_if_spare(plain)
}
