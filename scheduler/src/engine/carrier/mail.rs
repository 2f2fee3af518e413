//! The mail of a carrier: threads that must run on its OS thread, and that other OS threads have made ready.
//!
//! | sender                                           | carrier that was given a seat               |
//! |--------------------------------------------------|---------------------------------------------|
//! | 1. puts the thread in                            | 1. says which seat it holds (`Door::sit`)   |
//! | 2. `fence(SeqCst)`                               | 2. `fence(SeqCst)` before it sleeps in that |
//! |                                                  |    worker's poller (`Idle::sleep`)          |
//! | 3. asks which seat the carrier holds: wakes that | 3. looks for mail once more                 |
//! |    worker's poller, or calls the carrier         |                                             |
//!
//! Either the carrier sees the mail, or the sender sees the seat. A carrier without a seat looks for mail while it holds
//! the lock of `Seats`. A sender that calls the carrier takes that lock after it has put the mail in.
//!
//! Invariant: what was put in is taken once, and a carrier does not sleep while there is mail.
//! Orderings: the lock passes on what was put in; `is_there` is a hint for a look without the lock.
//! Checked by `loom-tests/tests/mail.rs`.

use crate::shim::atomic::{AtomicBool, Ordering, fence};
use crate::shim::sync::Mutex;

#[derive(Debug)]
pub(crate) struct Mail<T> {
    letters: Mutex<Vec<T>>,
    /// There are letters. Written under the lock.
    is_there: AtomicBool,
}

impl<T> Mail<T> {
    pub(crate) fn new() -> Self {
        Self {
            letters: Mutex::new(Vec::new()),
            is_there: AtomicBool::new(false),
        }
    }

    /// Puts something in. The sender must look at the carrier's seat next.
    pub(crate) fn put(&self, letter: T) {
        let mut letters = self.letters.lock();
        letters.push(letter);
        self.is_there.store(true, Ordering::Relaxed);
        drop(letters);
        unless!("mail_is_put_without_fence", fence(Ordering::SeqCst));
    }

    /// Takes all there is.
    pub(crate) fn take(&self) -> Vec<T> {
        let mut letters = self.letters.lock();
        self.is_there.store(false, Ordering::Relaxed);
        std::mem::take(&mut *letters)
    }

    /// Something seems to be there; exact after the fence of a carrier with a seat.
    pub(crate) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    /// How many letters there are. Takes the lock.
    pub(crate) fn len(&self) -> usize {
        self.letters.lock().len()
    }
}
