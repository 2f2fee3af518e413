//! All pollers that are open, by their numbers: for callers that know only the number of a poller.
//!
//! Invariant: an entry is removed before its poller's descriptor is closed. By the lock it stays while somebody uses it.
//! So a descriptor that is found here is the poller's.
#![cfg_attr(
    any(target_os = "linux", target_os = "android"),
    allow(unsafe_code, reason = "epoll")
)]

use std::io;
use std::os::fd::RawFd;
use std::sync::{PoisonError, RwLock};

use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::bypass::Bypass;

/// The last poller's number.
static LAST_ID: AtomicUsize = AtomicUsize::new(0);

/// Numbers and descriptors.
static OPEN: RwLock<Vec<(u32, RawFd)>> = RwLock::new(Vec::new());

/// A poller's entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// The poller's number. No other poller of this process ever has it. Never 0.
    pub(super) id: u32,
}

impl Entry {
    /// The entry of a poller with this descriptor.
    pub(super) fn new(poller: RawFd) -> io::Result<Self> {
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let id = u32::try_from(id).map_err(io::Error::other)?;
        let _bypass = Bypass::enter();
        let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
        open.push((id, poller));
        Ok(Self { id })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _bypass = Bypass::enter();
        let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(id, _)| *id != self.id);
    }
}

/// Takes a descriptor that is about to be closed out of the poller with this number (`None`: out of each poller).
/// Otherwise the poller would keep it, and report its events, as long as a duplicate is open.
///
/// It never waits, because a signal handler may close a descriptor. While a poller is made or dropped it may do
/// nothing.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn forget(fd: RawFd, id: Option<u32>) {
    let Ok(open) = OPEN.try_read() else { return };
    let chosen = open
        .iter()
        .filter(|(other, _)| id.is_none_or(|id| id == *other));
    for (_, poller) in chosen {
        let nothing = std::ptr::null_mut();
        // SAFETY: the poller's descriptor is open (the invariant), and no memory is touched.
        unsafe { libc::epoll_ctl(*poller, libc::EPOLL_CTL_DEL, fd, nothing) };
    }
}
