//! Waiting for a descriptor, without a table of what each one is.
//!
//! There is a [`Slot`] for each descriptor *number*: who waits for it, in each direction. Nothing in
//! it is about the file behind the number, so nothing need be known of `close`, `dup` or `fork`.
//! Each wait arms the descriptor anew with a poller (one `epoll_ctl`), which tells at once if it is
//! ready; the poller forgets it by itself when it is closed.
//!
//! Invariant 1: a waiter is in the queue before it arms, so no event is lost.
//! Invariant 2: an event wakes all who wait for the direction, and each tries its call again: an
//! event of another file that had the number before does no harm.
#![allow(unsafe_code, reason = "slots by number and by address")]

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::time::Instant;

use weald_scheduler::io::{EventSlot, Readiness, WaitQueue};
use weald_scheduler::patch::{self, Pending, Waited};

/// Slots are made in chunks of so many, when the first of their descriptors waits.
const CHUNK: usize = 256;
/// Descriptors from `CHUNK * CHUNKS` on (a million) block their OS thread.
const CHUNKS: usize = 4096;

#[repr(C)]
struct Slot {
    event: EventSlot,
    read: WaitQueue,
    write: WaitQueue,
    /// The worker whose poller has it, for `patch::arm`.
    at: AtomicU32,
    /// Somebody has the [`Turn`].
    taken: AtomicBool,
}

type Chunk = [Slot; CHUNK];

static TABLE: [AtomicPtr<Chunk>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// How a wait for a descriptor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Try again.
    Woken,
    TimedOut,
    /// An exception waits to be raised; the call fails with this `errno`.
    Cancelled(i32),
    /// It cannot be waited for: an ordinary file, or a descriptor that is none.
    Unpollable,
}

/// The `errno` of a call that an exception has ended.
pub(crate) fn errno_of(pending: Pending) -> i32 {
    match pending {
        Pending::Elapsed => libc::ETIMEDOUT,
        Pending::Other => libc::ECANCELED,
    }
}

fn on_event(event: &'static EventSlot, _generation: u16, readiness: Readiness) {
    // SAFETY: only slots carry this function, `event` is the first field of a `repr(C)` slot, and
    // slots live for ever.
    let slot: &'static Slot = unsafe { &*ptr::from_ref(event).cast::<Slot>() };
    let has = |bits: u8| readiness.0 & bits != 0;
    let both = Readiness::ERROR | Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
    if has(both | Readiness::READABLE | Readiness::PRIORITY) {
        slot.read.wake_all();
    }
    if has(both | Readiness::WRITABLE) {
        slot.write.wake_all();
    }
}

fn slot(fd: RawFd) -> Option<&'static Slot> {
    let fd = usize::try_from(fd).ok()?;
    let place = TABLE.get(fd / CHUNK)?;
    let mut chunk = place.load(Ordering::Acquire);
    if chunk.is_null() {
        chunk = make_chunk(place);
    }
    // SAFETY: a chunk in the table stays for ever.
    Some(unsafe { &(&*chunk)[fd % CHUNK] })
}

#[cold]
fn make_chunk(place: &AtomicPtr<Chunk>) -> *mut Chunk {
    let slots: Box<[Slot]> = (0..CHUNK)
        .map(|_| Slot {
            event: EventSlot { on_event },
            read: WaitQueue::new(),
            write: WaitQueue::new(),
            at: AtomicU32::new(0),
            taken: AtomicBool::new(false),
        })
        .collect();
    let new: *mut Chunk = Box::into_raw(slots).cast();
    match place.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(other) => {
            // SAFETY: `new` was never shared, and is a boxed slice of `CHUNK` slots.
            drop(unsafe { Box::from_raw(new as *mut [Slot]) });
            other
        }
    }
}

/// The right to look at a descriptor and then make a call that may wait; one green thread's at a time.
pub(crate) struct Turn(&'static AtomicBool);

impl Turn {
    /// `None`: another has it. A descriptor beyond the table has no turns, and nobody waits for it.
    pub(crate) fn take(fd: RawFd) -> Option<Self> {
        static BEYOND: AtomicBool = AtomicBool::new(false);
        let taken = slot(fd).map_or(&BEYOND, |slot| &slot.taken);
        (!taken.swap(true, Ordering::Acquire)).then_some(Self(taken))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Waits until the descriptor may be ready, at most until the deadline. For patched callers.
pub(crate) fn wait(fd: RawFd, direction: Direction, deadline: Option<Instant>) -> Ended {
    if let Some(pending) = patch::pending() {
        return Ended::Cancelled(errno_of(pending));
    }
    let Some(slot) = slot(fd) else {
        return Ended::Unpollable;
    };
    let queue = match direction {
        Direction::Read => &slot.read,
        Direction::Write => &slot.write,
    };
    let mut armed: io::Result<()> = Ok(());
    let arm = || {
        armed = patch::arm(&slot.at, fd, &slot.event);
        armed.is_err()
    };
    let waited = patch::wait(queue, arm, deadline);
    if armed.is_err() {
        return Ended::Unpollable;
    }
    match waited {
        Waited::Woken => Ended::Woken,
        Waited::TimedOut => Ended::TimedOut,
        Waited::Pending(pending) => Ended::Cancelled(errno_of(pending)),
    }
}
