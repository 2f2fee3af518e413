//! The slots of [`crate::wait`], one for each descriptor *number*: who waits for it, what was told of it, and what is known of it. Told
//! of events by the poller, and of numbers that are closed by the hooks.
//!
//! The invariants are those of `wait.rs`.
#![allow(unsafe_code, reason = "slots by number and by address")]

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, Ordering, fence};

use weald_scheduler::io::{EventSlot, Readiness, WaitQueue};

use crate::known::{Known, Settings};
use crate::members;
use crate::raw::sys;

/// Slots are made in chunks of so many, when the first of their descriptors waits.
const CHUNK: usize = 256;
/// Descriptors from `CHUNK * CHUNKS` on (a million) block their OS thread.
const CHUNKS: usize = 4096;

/// What this process has told the kernel of its files.
pub(crate) static SETTINGS: Settings = Settings::new();

/// Something was done to the number that may have put another file there.
pub(crate) fn forget(fd: RawFd) {
    if let Some(slot) = slot_if_any(fd) {
        slot.known.forget();
    }
}

/// The file was shut down, of which the kernel does not tell all who wait. They look.
pub(crate) fn shut_down(fd: RawFd) {
    if let Some(slot) = slot_if_any(fd) {
        // Pairs with the fence of `Wait::wait`.
        fence(Ordering::SeqCst);
        if slot.is_waited_for() && is_here() {
            slot.events.fetch_add(1, Ordering::Release);
            slot.wake_all();
        }
    }
}

/// Closes a descriptor of this crate's own, which nobody waits for.
pub(crate) fn close_own(fd: RawFd) {
    forget(fd);
    // SAFETY: no pointers.
    unsafe { sys!(SYS_close, fd) };
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    /// As [`Readiness`] names it.
    pub(crate) fn bit(self) -> u8 {
        match self {
            Self::Read => Readiness::READABLE,
            Self::Write => Readiness::WRITABLE,
        }
    }
}

#[repr(C)]
pub(crate) struct Slot {
    pub(crate) event: EventSlot,
    pub(crate) read: WaitQueue,
    pub(crate) write: WaitQueue,
    /// The worker whose poller has it, for `patch::arm`.
    pub(crate) at: AtomicU32,
    /// Somebody has the [`Turn`].
    taken: AtomicBool,
    /// Counts events.
    pub(crate) events: AtomicU32,
    /// Counts how often weald's own sockets took the registration over.
    pub(crate) losses: AtomicU32,
    /// Counts how often the number was closed.
    pub(crate) closes: AtomicU32,
    /// Calls that have waited and have not ended, by direction.
    readers: AtomicU32,
    writers: AtomicU32,
    /// Calls of these that are being tried again.
    pub(crate) trying: AtomicU32,
    /// Waits for several numbers that have this one (`members.rs`).
    pub(crate) watched: AtomicU32,
    pub(crate) known: Known,
}

/// Who closes a number waits for so many turns, of some tens of milliseconds, for calls that are being tried.
/// Without a bound it would wait for ever in a signal handler that has broken such a call off.
const LONGEST_SPIN: u32 = 1 << 20;

type Chunk = [Slot; CHUNK];

static TABLE: [AtomicPtr<Chunk>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];

fn on_event(event: &'static EventSlot, _generation: u16, readiness: Readiness) {
    // SAFETY: only slots carry this function, `event` is the first field of a `repr(C)` slot, and
    // slots live for ever.
    let slot: &'static Slot = unsafe { &*ptr::from_ref(event).cast::<Slot>() };
    let has = |bits: u8| readiness.0 & bits != 0;
    slot.events.fetch_add(1, Ordering::Release);
    if has(Readiness::ERROR | Readiness::READ_CLOSED | Readiness::CLOSED) {
        slot.read.wake_all();
    } else if has(Readiness::READABLE) {
        slot.read.wake_one();
    }
    if has(Readiness::ERROR | Readiness::WRITE_CLOSED | Readiness::CLOSED | Readiness::WRITABLE) {
        slot.write.wake_all();
    }
}

/// Weald's own socket has taken the registration over: who waits looks for another way.
pub(crate) fn on_loss(fd: RawFd) {
    if let Some(slot) = slot_if_any(fd) {
        slot.losses.fetch_add(1, Ordering::Release);
        slot.known.forget();
        slot.wake_all();
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            event: EventSlot { on_event },
            read: WaitQueue::new(),
            write: WaitQueue::new(),
            at: AtomicU32::new(0),
            taken: AtomicBool::new(false),
            events: AtomicU32::new(0),
            losses: AtomicU32::new(0),
            closes: AtomicU32::new(0),
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            trying: AtomicU32::new(0),
            watched: AtomicU32::new(0),
            known: Known::new(),
        }
    }

    pub(crate) fn waiters(&self, direction: Direction) -> &AtomicU32 {
        match direction {
            Direction::Read => &self.readers,
            Direction::Write => &self.writers,
        }
    }

    fn is_waited_for(&self) -> bool {
        let all = [&self.readers, &self.writers, &self.watched];
        all.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// What an arming asks for (invariant 2).
    pub(crate) fn interest(&self) -> u8 {
        // Pairs with the fence of `Wait::wait`.
        fence(Ordering::SeqCst);
        let mut interest = 0;
        if self.readers.load(Ordering::Relaxed) > 0 {
            interest |= Readiness::READABLE;
        }
        if self.writers.load(Ordering::Relaxed) > 0 {
            interest |= Readiness::WRITABLE;
        }
        interest
    }

    pub(crate) fn wake_all(&self) {
        self.read.wake_all();
        self.write.wake_all();
    }
}

fn place_of(fd: RawFd) -> Option<(&'static AtomicPtr<Chunk>, usize)> {
    let fd = usize::try_from(fd).ok()?;
    Some((TABLE.get(fd / CHUNK)?, fd % CHUNK))
}

pub(crate) fn slot(fd: RawFd) -> Option<&'static Slot> {
    let (place, index) = place_of(fd)?;
    let mut chunk = place.load(Ordering::Acquire);
    if chunk.is_null() {
        chunk = make_chunk(place);
    }
    // SAFETY: a chunk in the table stays for ever.
    Some(unsafe { &(&*chunk)[index] })
}

/// The slot, if its chunk was made.
#[inline]
pub(crate) fn slot_if_any(fd: RawFd) -> Option<&'static Slot> {
    let (place, index) = place_of(fd)?;
    let chunk = place.load(Ordering::Acquire);
    // SAFETY: a chunk in the table stays for ever.
    (!chunk.is_null()).then(|| unsafe { &(&*chunk)[index] })
}

#[cold]
fn make_chunk(place: &AtomicPtr<Chunk>) -> *mut Chunk {
    // Before anybody can wait. Who waits is a green thread, and there are none in a child of vfork(2).
    // SAFETY: no pointers.
    PROCESS.store(unsafe { sys!(SYS_getpid) }, Ordering::Relaxed);
    let slots: Box<[Slot]> = (0..CHUNK).map(|_| Slot::new()).collect();
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

/// Says that these numbers are about to be closed; the value that it returns says, when dropped, that
/// they are.
#[must_use = "who waits is told when it is dropped"]
pub(crate) struct Closing(RawFd, RawFd);

impl Closing {
    /// From the first number to the last one.
    #[inline]
    pub(crate) fn begin(first: RawFd, last: RawFd) -> Self {
        let closing = Self(first, last);
        closing.each(|_, slot| {
            slot.known.forget();
            let tell = slot.is_waited_for() && is_here();
            if tell {
                slot.closes.fetch_add(1, Ordering::Relaxed);
            }
            tell
        });
        closing
    }

    /// Calls `f` for each slot that there is until all are done; where it says so, waits until no call
    /// is being tried again (invariant 4).
    fn each(&self, f: impl Fn(RawFd, &'static Slot) -> bool) {
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
            let slot: &'static Slot = unsafe { &(&*chunk)[index] };
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

/// The process whose threads wait. Zero: nobody has waited yet.
static PROCESS: AtomicIsize = AtomicIsize::new(0);

/// The caller is in the process whose threads wait. It is not in the child of vfork(2), which has the
/// memory of its parent and descriptors of its own.
fn is_here() -> bool {
    // SAFETY: no pointers.
    PROCESS.load(Ordering::Relaxed) == unsafe { sys!(SYS_getpid) }
}

impl Drop for Closing {
    #[inline]
    fn drop(&mut self) {
        // Pairs with the fence of `Members::new`: either this sees the number watched, or what is watched is not the file that was closed.
        fence(Ordering::SeqCst);
        self.each(|fd, slot| {
            slot.known.forget();
            if slot.is_waited_for() && is_here() {
                slot.wake_all();
                if slot.watched.load(Ordering::Relaxed) > 0 {
                    members::tell(fd);
                }
            }
            false
        });
    }
}
