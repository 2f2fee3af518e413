//! The slots of [`crate::wait`], one for each descriptor *number*: who waits for it, which events came, and what is
//! known of it. The poller tells slots of events, and the hooks tell them of closed numbers.
//!
//! The invariants are those of `wait.rs`.
#![allow(unsafe_code, reason = "slots by number and by address")]

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, Ordering, fence};

use weald_scheduler::io::{EventSlot, Readiness, WaitQueue};
use weald_scheduler::patch;

use crate::known::{Known, Settings};
use crate::raw::{self, sys};

/// How many slots a chunk has. A chunk is made when the first of its descriptors waits.
pub(crate) const CHUNK: usize = 256;
/// Calls on descriptors from `CHUNK * CHUNKS` on (a million) block their OS thread.
const CHUNKS: usize = 4096;

/// Counts what this process has told the kernel about its files.
pub(crate) static SETTINGS: Settings = Settings::new();

/// Wakes all that wait for the file, so that they look: it was shut down, and the kernel does not tell all of them.
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
    if let Some(slot) = slot_if_any(fd) {
        slot.known.forget();
        if slot.is_armed() && is_here() {
            slot.disarm(fd);
        }
    }
    // SAFETY: no pointers.
    unsafe { sys!(SYS_close, fd) };
}

/// The direction of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    /// Returns the direction as a bit of [`Readiness`].
    pub(crate) fn bit(self) -> u8 {
        match self {
            Self::Read => Readiness::READABLE,
            Self::Write => Readiness::WRITABLE,
        }
    }
}

#[repr(C)]
pub(crate) struct FdSlot {
    pub(crate) event: EventSlot,
    pub(crate) read: WaitQueue,
    pub(crate) write: WaitQueue,
    /// The worker whose poller has the number, for `patch::arm`.
    pub(crate) at: AtomicU32,
    /// A thread has the [`Turn`].
    taken: AtomicBool,
    /// Counts events.
    pub(crate) events: AtomicU32,
    /// Counts how often weald's own sockets have taken the registration over.
    pub(crate) losses: AtomicU32,
    /// Counts how often the number was closed.
    pub(crate) closes: AtomicU32,
    /// How many calls have waited and have not ended, by direction.
    readers: AtomicU32,
    writers: AtomicU32,
    /// How many of these calls are being tried again.
    pub(crate) trying: AtomicU32,
    /// How many waits for several numbers have this one (`members.rs`).
    pub(crate) watched: AtomicU32,
    pub(crate) known: Known,
    /// The poller that the number was armed with since its last close: 0 for none, or [`SEVERAL`].
    ///
    /// `known` has the poller too, but only while it is true of the file. This field tells what must be undone.
    poller: AtomicU32,
}

/// The value of `FdSlot::poller` when any of the pollers may have the number.
const SEVERAL: u32 = u32::MAX;

pub(crate) type Chunk = [FdSlot; CHUNK];

static TABLE: [AtomicPtr<Chunk>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];

fn on_event(event: &'static EventSlot, _generation: u16, readiness: Readiness) {
    // SAFETY: only slots carry this function, `event` is the first field of a `repr(C)` slot, and
    // slots live for ever.
    let slot: &'static FdSlot = unsafe { &*ptr::from_ref(event).cast::<FdSlot>() };
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

/// weald's own socket has taken the registration over. Calls that wait look for another way.
pub(crate) fn on_loss(fd: RawFd) {
    if let Some(slot) = slot_if_any(fd) {
        slot.losses.fetch_add(1, Ordering::Release);
        slot.known.forget();
        slot.wake_all();
    }
}

impl FdSlot {
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
            poller: AtomicU32::new(0),
        }
    }

    /// Notes that the number was armed with this poller.
    pub(crate) fn was_armed(&self, poller: u32) {
        let before = self
            .poller
            .compare_exchange(0, poller, Ordering::Relaxed, Ordering::Relaxed);
        if before.is_err_and(|before| before != poller) {
            self.poller.store(SEVERAL, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.poller.load(Ordering::Relaxed) != 0
    }

    /// Undoes the arming before the number is closed. Otherwise the kernel would tell of the file by this number as
    /// long as a duplicate is open, perhaps in a child. Then nobody could undo the arming any more.
    ///
    /// A call that begins now, beside the `close`, may arm the number again. That is not undone.
    #[cold]
    pub(crate) fn disarm(&self, fd: RawFd) {
        // C code looks at the error of an earlier call after it has closed a descriptor.
        let errno = raw::errno();
        match self.poller.swap(0, Ordering::Relaxed) {
            0 => {}
            SEVERAL => patch::forget(fd, None),
            poller => patch::forget(fd, Some(poller)),
        }
        raw::set_errno(errno);
    }

    pub(crate) fn waiters(&self, direction: Direction) -> &AtomicU32 {
        match direction {
            Direction::Read => &self.readers,
            Direction::Write => &self.writers,
        }
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        let all = [&self.readers, &self.writers, &self.watched];
        all.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Returns which directions an arming asks for (invariant 2).
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

pub(crate) fn place_of(fd: RawFd) -> Option<(&'static AtomicPtr<Chunk>, usize)> {
    let fd = usize::try_from(fd).ok()?;
    Some((TABLE.get(fd / CHUNK)?, fd % CHUNK))
}

pub(crate) fn slot(fd: RawFd) -> Option<&'static FdSlot> {
    let (place, index) = place_of(fd)?;
    let mut chunk = place.load(Ordering::Acquire);
    if chunk.is_null() {
        chunk = make_chunk(place);
    }
    // SAFETY: a chunk in the table stays for ever.
    Some(unsafe { &(&*chunk)[index] })
}

/// Returns the slot, if its chunk was made.
#[inline]
pub(crate) fn slot_if_any(fd: RawFd) -> Option<&'static FdSlot> {
    let (place, index) = place_of(fd)?;
    let chunk = place.load(Ordering::Acquire);
    // SAFETY: a chunk in the table stays for ever.
    (!chunk.is_null()).then(|| unsafe { &(&*chunk)[index] })
}

#[cold]
fn make_chunk(place: &AtomicPtr<Chunk>) -> *mut Chunk {
    // This happens before anybody can wait. Only green threads wait, and there are none in a child of vfork(2).
    // SAFETY: no pointers.
    PROCESS.store(unsafe { sys!(SYS_getpid) }, Ordering::Relaxed);
    let slots: Box<[FdSlot]> = (0..CHUNK).map(|_| FdSlot::new()).collect();
    let new: *mut Chunk = Box::into_raw(slots).cast();
    match place.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(other) => {
            // SAFETY: `new` was never shared, and is a boxed slice of `CHUNK` slots.
            drop(unsafe { Box::from_raw(new as *mut [FdSlot]) });
            other
        }
    }
}

/// The right to look at a descriptor and then make a call that may wait. One green thread has it at a time.
pub(crate) struct Turn(&'static AtomicBool);

impl Turn {
    /// Takes the turn. `None`: another has it. A descriptor beyond the table has no turns, and nobody waits for it.
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

/// The process whose threads wait. Zero: nobody has waited yet.
static PROCESS: AtomicIsize = AtomicIsize::new(0);

/// Tells if the caller is in the process whose threads wait. It is not if it is in the child of vfork(2), which has
/// the memory of its parent and descriptors of its own.
pub(crate) fn is_here() -> bool {
    // SAFETY: no pointers.
    PROCESS.load(Ordering::Relaxed) == unsafe { sys!(SYS_getpid) }
}
