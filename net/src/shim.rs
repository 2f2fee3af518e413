//! What `source/` shares between threads comes from here. A model check has a double of this file.

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
}

pub(crate) mod sync {
    #[cfg(not(weald_sanitizer = "thread"))]
    pub(crate) use std::sync::{Mutex, MutexGuard};
    #[cfg(weald_sanitizer = "thread")]
    pub(crate) use weald_scheduler::in_sight::{Mutex, MutexGuard};
}

pub(crate) mod poller {
    pub(crate) use weald_scheduler::io::PollerHandle;
}
