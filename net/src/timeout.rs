//! A timeout of a socket. Its clones share it.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::shim::sync::Mutex;

/// A timeout. Most sockets have none, and seeing that takes no lock. A call sees the timeout if it was set before on
/// the same thread, or on a thread that has told this one. Others may see it later.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Timeout {
    /// Set together with the value, under the value's lock.
    is_set: AtomicBool,
    value: Mutex<Option<Duration>>,
}

impl Timeout {
    pub(crate) fn set(&self, value: Option<Duration>) {
        let mut place = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_set.store(value.is_some(), Ordering::Relaxed);
        *place = value;
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<Duration> {
        if !self.is_set.load(Ordering::Relaxed) {
            return None;
        }
        *self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
