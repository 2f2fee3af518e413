//! The end of descriptor numbers: calls that wait for a number that is closed are told, and its poller forgets the
//! number.
//!
//! The invariants are those of `wait.rs`.
#![allow(unsafe_code, reason = "slots that live for ever")]

use std::os::fd::RawFd;
use std::sync::atomic::{Ordering, fence};

use crate::members;
use crate::slot::{CHUNK, FdSlot, is_here, place_of};

/// A thread that closes a number waits for at most this many turns, some tens of milliseconds, for calls that are
/// being tried. Without a bound it would wait for ever if it runs in a signal handler that has interrupted such a
/// call.
const LONGEST_SPIN: u32 = 1 << 20;

/// Notes that these numbers are about to be closed. Dropping the returned value notes that they are closed.
#[must_use = "who waits is told when it is dropped"]
pub(crate) struct Closing(RawFd, RawFd);

impl Closing {
    /// From the first number to the last one.
    #[inline]
    pub(crate) fn begin(first: RawFd, last: RawFd) -> Self {
        let closing = Self(first, last);
        closing.each(|fd, slot| {
            slot.known.forget();
            let (armed, waited_for) = (slot.is_armed(), slot.is_waited_for());
            let here = (armed || waited_for) && is_here();
            if here && armed {
                slot.disarm(fd);
            }
            let tell = here && waited_for;
            if tell {
                slot.closes.fetch_add(1, Ordering::Relaxed);
            }
            tell
        });
        closing
    }

    /// Calls `f` for each slot that exists, until all are done. If `f` returns true, waits until no call is being
    /// tried again (invariant 4).
    fn each(&self, f: impl Fn(RawFd, &'static FdSlot) -> bool) {
        let mut fd = self.0.max(0);
        while fd <= self.1 {
            let Some((place, index)) = place_of(fd) else {
                return;
            };
            let chunk = place.load(Ordering::Acquire);
            if chunk.is_null() {
                let rest = RawFd::try_from(CHUNK - index).unwrap_or(RawFd::MAX);
                let Some(next) = fd.checked_add(rest) else {
                    return;
                };
                fd = next;
                continue;
            }
            // SAFETY: a chunk in the table stays for ever.
            let slot: &'static FdSlot = unsafe { &(&*chunk)[index] };
            if f(fd, slot) {
                // Pairs with the fence of `wait::Wait::attempt`.
                fence(Ordering::SeqCst);
                let mut turns = 0_u32;
                while slot.trying.load(Ordering::Acquire) > 0 && turns < LONGEST_SPIN {
                    turns += 1;
                    crate::shim::spin(turns);
                }
            }
            let Some(next) = fd.checked_add(1) else {
                return;
            };
            fd = next;
        }
    }
}

impl Drop for Closing {
    #[inline]
    fn drop(&mut self) {
        // Pairs with the fence of `Members::new`: either this thread sees that the number is watched, or the watched
        // file is not the one that was closed.
        fence(Ordering::SeqCst);
        self.each(|fd, slot| {
            slot.known.forget();
            if slot.is_waited_for() && is_here() {
                // A call that began to wait beside the close has armed the file that is gone. It arms anew.
                slot.losses.fetch_add(1, Ordering::Release);
                slot.wake_all();
                if slot.watched.load(Ordering::Relaxed) > 0 {
                    members::tell(fd);
                }
            }
            false
        });
    }
}
