//! A worker's poller, over mio: the worker sleeps in it, and gets the events of descriptors from it.
//!
//! Descriptors are registered once, edge-triggered, for both directions. An event names an
//! [`EventSlot`] by address and generation. If it is handled late, when the slot belongs to another descriptor, the
//! slot drops it. mio's `Poll` and the event buffer lie behind a try-lock, which the owner holds while it sleeps.
//! Another worker may drain the poller of a worker that is late; it is an *adopter*, and has a small buffer of its
//! own.
//!
//! | wake word | meaning                     | leaves by                                   |
//! |-----------|-----------------------------|---------------------------------------------|
//! | EMPTY     | awake, nothing to tell      | `unpark` -> NOTIFIED, `sleep` -> ASLEEP     |
//! | NOTIFIED  | something to look at        | `sleep`, which then only polls -> EMPTY     |
//! | ASLEEP    | in the poller or on the way | `unpark` -> NOTIFIED and writes; waking up  |
//!
//! Invariant 1: a wake-up is never lost: `unpark` swaps NOTIFIED in after what it announces was
//! written; the sleeper takes it out by a swap, before it looks.
//! Invariant 2: at most one write per sleep: only the swap that finds ASLEEP writes.
//! Invariant 3: an adopter that meets the wake-up event writes it again: it was for the owner.
//!
//! mio waits in whole milliseconds, rounded up. A sleep whose deadline is under 4 ms away is
//! ended by a timerfd instead, one per poller, if the system gives one.
//! Checked by `loom-tests/tests/parker.rs` with a double of the waiting.
#![allow(
    unsafe_code,
    reason = "event slots by address, a try-lock around the kernel's poll"
)]

mod event;
#[cfg_attr(loom, path = "kernel_loom.rs")]
mod kernel;
#[cfg(not(loom))]
mod open;
#[cfg(not(loom))]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "timer_fd_none.rs"
)]
mod timer_fd;

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::shim::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::shim::cell::UnsafeCell;
use crate::shim::sync::Mutex;

use self::event::{tell, token};

pub use self::event::{EventSlot, Readiness};
#[cfg(all(not(loom), any(target_os = "linux", target_os = "android")))]
pub(crate) use self::open::forget;

const EMPTY: u64 = 0;
const NOTIFIED: u64 = 1;
const ASLEEP: u64 = 2;

/// Room for so many registered descriptors is kept.
const LEAST_ROOM: usize = 1024;

/// A worker's poller.
#[derive(Debug)]
pub(crate) struct Poller {
    /// An entry for this poller. It is declared before the poller, so that it is dropped first.
    #[cfg(not(loom))]
    entry: open::Entry,
    wake_word: AtomicU64,
    /// Set while a thread uses `polling`.
    locked: AtomicBool,
    polling: UnsafeCell<kernel::Polling>,
    waker: kernel::Waker,
    registry: kernel::Registry,
    /// The registered descriptors, so that a poller that closes can tell the waiters.
    registered: Mutex<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    tokens: HashMap<RawFd, usize>,
    /// Called with each descriptor that `arm` had and `register` has taken.
    lost: Option<fn(RawFd)>,
    closed: bool,
}

// SAFETY: `polling` is touched only by the thread that has set `locked`.
unsafe impl Sync for Poller {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Poller {}

struct Unlock<'a>(&'a AtomicBool);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let (turn, waker, registry) = kernel::new()?;
        Ok(Self {
            #[cfg(not(loom))]
            entry: open::Entry::new(registry.descriptor())?,
            wake_word: AtomicU64::new(EMPTY),
            locked: AtomicBool::new(false),
            polling: UnsafeCell::new(turn),
            waker,
            registry,
            registered: Mutex::new(Registered::default()),
        })
    }

    fn try_lock(&self) -> Option<Unlock<'_>> {
        let acquire = relaxed_if!("poller_relaxed_lock", Ordering::Acquire);
        let free = self
            .locked
            .compare_exchange(false, true, acquire, Ordering::Relaxed)
            .is_ok();
        free.then(|| Unlock(&self.locked))
    }

    /// Hands on what has happened, without waiting. Returns the number of events.
    pub(crate) fn poll(&self) -> usize {
        let Some(_unlock) = self.try_lock() else {
            return 0;
        };
        // SAFETY: `locked` is ours.
        self.polling
            .with_mut(|turn| unsafe { (*turn).wait(Some(Duration::ZERO), false) })
    }

    /// As `poll`, for another worker than the owner. Returns the number of events.
    pub(crate) fn adopt(&self) -> usize {
        let Some(_unlock) = self.try_lock() else {
            return 0;
        };
        // SAFETY: `locked` is ours.
        let (events, woken) = self.polling.with_mut(|turn| unsafe { (*turn).adopt() });
        if woken && !fault!("poller_adopter_keeps_the_wake_up") {
            self.waker.wake();
        }
        events
    }

    /// Whether events wait to be handled. A hint: it takes none of them.
    pub(crate) fn has_events(&self) -> bool {
        self.registry.has_events()
    }

    /// Sleeps until an event, an `unpark` or the limit comes. Only the owner calls this.
    pub(crate) fn sleep(&self, limit: Option<Duration>) -> usize {
        let asleep = self
            .wake_word
            .compare_exchange(EMPTY, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        let limit = if asleep { limit } else { Some(Duration::ZERO) };
        // If an adopter has the lock, it is quick. The owner must wait for it, and sleep nowhere else.
        let unlock = loop {
            match self.try_lock() {
                Some(unlock) => break unlock,
                None => crate::shim::thread::yield_now(),
            }
        };
        // SAFETY: `locked` is ours.
        let events = self
            .polling
            .with_mut(|turn| unsafe { (*turn).wait(limit, true) });
        drop(unlock);
        let order = relaxed_if!("poller_wakes_relaxed", Ordering::AcqRel);
        self.wake_word.swap(EMPTY, order);
        events
    }

    /// Whether the owner's next sleep would end at once, as things stand.
    pub(crate) fn is_notified(&self) -> bool {
        self.wake_word.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Ends the owner's sleep, or keeps it from the next one.
    pub(crate) fn unpark(&self) {
        let before = if fault!("poller_store_for_swap") {
            let before = self.wake_word.load(Ordering::Relaxed);
            self.wake_word.store(NOTIFIED, Ordering::Release);
            before
        } else {
            self.wake_word.swap(NOTIFIED, Ordering::AcqRel)
        };
        if before == ASLEEP {
            self.waker.wake();
        }
    }

    /// Registers a descriptor for all its events. If `arm` has the descriptor, the threads that wait there get no
    /// more events from this poller, and are informed.
    ///
    /// # Errors
    /// The system's, so `AlreadyExists` if it is registered; `NotConnected` if the poller has closed.
    pub(crate) fn register(
        &self,
        fd: RawFd,
        slot: &'static EventSlot,
        generation: u16,
    ) -> io::Result<()> {
        let token = token(slot, generation);
        let mut registered = self.registered.lock();
        if registered.closed && !fault!("poller_registers_after_its_end") {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let may_be_armed = !registered.tokens.contains_key(&fd);
        let was_armed = self.registry.register(fd, token, may_be_armed)?;
        registered.tokens.insert(fd, token);
        let lost = registered.lost;
        drop(registered);
        if was_armed && let Some(lost) = lost {
            lost(fd);
        }
        Ok(())
    }

    /// From now on the slot gets the readiness of the descriptor, at once and whenever it changes. Nobody need
    /// undo this: the system forgets the descriptor when it is closed.
    ///
    /// `interest` says which of [`Readiness::READABLE`] and [`Readiness::WRITABLE`] is waited for. It is
    /// asked under the lock, so of several threads that arm one descriptor the last one asks for all of them.
    /// `armed` is called under the lock with what the descriptor is armed for. `lost` is called if `register` takes
    /// the descriptor.
    ///
    /// # Errors
    /// The system's. `AlreadyExists` if somebody has the descriptor by `register`, because its slot would
    /// get no more events.
    #[cfg(not(loom))]
    pub(crate) fn arm(
        &self,
        fd: RawFd,
        slot: &'static EventSlot,
        interest: impl FnOnce() -> u8,
        armed: impl FnOnce(u8),
        lost: fn(RawFd),
    ) -> io::Result<()> {
        let mut registered = self.registered.lock();
        if registered.tokens.contains_key(&fd) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        registered.lost = Some(lost);
        let interest = interest();
        self.registry.arm(fd, token(slot, 0), interest)?;
        armed(interest);
        Ok(())
    }

    /// The poller's number. No other poller of this process ever has it. Never 0.
    #[cfg(not(loom))]
    pub(crate) fn id(&self) -> u32 {
        self.entry.id
    }

    /// Undoes `register`, for a descriptor that is still open. If somebody has closed it, another file may have its
    /// number, and may be registered since. That registration stays.
    pub(crate) fn deregister(
        &self,
        fd: RawFd,
        slot: &'static EventSlot,
        generation: u16,
    ) -> io::Result<()> {
        let mut registered = self.registered.lock();
        if registered.tokens.get(&fd) != Some(&token(slot, generation)) {
            return Ok(());
        }
        registered.tokens.remove(&fd);
        // A burst of descriptors is over. Over all descriptors that went, this costs constant time for each.
        let (len, room) = (registered.tokens.len(), registered.tokens.capacity());
        if room > LEAST_ROOM && len < room / 8 {
            registered.tokens.shrink_to(LEAST_ROOM.max(2 * len));
        }
        self.registry.deregister(fd)
    }

    /// From now on the poller takes no descriptors. Tells all waiters to look again, with another poller.
    pub(crate) fn close(&self) {
        let tokens = {
            let mut registered = self.registered.lock();
            registered.closed = true;
            std::mem::take(&mut registered.tokens)
        };
        for (fd, token) in tokens {
            let _ = self.registry.deregister(fd);
            // SAFETY: it was made by `token`.
            unsafe { tell(token, Readiness(Readiness::ALL)) };
        }
    }

    /// Tells all waiters that have registered here to register again, with the poller of the worker on which they are
    /// then.
    ///
    /// The poller stays in use. Meanwhile descriptors may be closed, and others with the same numbers registered. So each descriptor
    /// leaves the list and the system's poller at once, under the lock.
    pub(crate) fn move_out(&self) {
        let tokens = self.registered.lock().tokens.clone();
        for (fd, token) in tokens {
            let mut registered = self.registered.lock();
            if registered.tokens.get(&fd) != Some(&token) && !fault!("poller_moves_out_unseen") {
                continue;
            }
            registered.tokens.remove(&fd);
            let _ = self.registry.deregister(fd);
            drop(registered);
            // SAFETY: it was made by `token`.
            unsafe { tell(token, Readiness(Readiness::ALL)) };
        }
    }

    /// The double of the system has the descriptor.
    #[cfg(loom)]
    #[allow(dead_code, reason = "for models of descriptors")]
    pub(crate) fn has(&self, fd: RawFd) -> bool {
        self.registry.has(fd)
    }

    /// Undoes `arm`, if nobody has registered the descriptor. The slot may hear no more from here.
    #[cfg(not(loom))]
    pub(crate) fn disarm(&self, fd: RawFd) {
        let registered = self.registered.lock();
        if !registered.tokens.contains_key(&fd) {
            let _ = self.registry.deregister(fd);
        }
    }
}
