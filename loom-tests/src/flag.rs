//! A flag that OS threads wait for.

use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex};

/// A flag that is set once. A thread that waits for it blocks its OS thread, in a way that weald knows nothing of.
#[derive(Debug)]
pub struct Flag {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Flag {
    /// Not set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            set: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Sets it. One thread may wait.
    pub fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits until it is set, and takes it back.
    pub fn wait(&self) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            set = self
                .changed
                .wait(set)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *set = false;
    }
}

impl Default for Flag {
    fn default() -> Self {
        Self::new()
    }
}
