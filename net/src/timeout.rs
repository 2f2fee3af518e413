//! A timeout of a socket, which its clones share.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::shim::sync::Mutex;

/// A timeout; most sockets have none, and to see that takes no lock. Who calls after it was set, on its
/// thread or told by it, sees it; nobody else may rely on when.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Timeout {
    /// Set together with the value, under its lock.
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
