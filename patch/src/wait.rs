//! Waiting for a descriptor, without a table of what each one is.
//!
//! There is a [`Slot`] for each descriptor *number*: who waits for it, in each direction. Nothing in
//! it is about the file behind the number, so nothing need be known of `dup` or `fork`; `close` only
//! tells those who wait. A [`Wait`] is one call of the program's, however often it waits:
//!
//! 1. The call is tried without waiting and says `EAGAIN`.
//! 2. The first wait arms the descriptor with a poller (one `epoll_ctl`), which tells at once if it is
//!    ready; the poller forgets it by itself when the descriptor is closed. Only the directions that
//!    somebody waits for are armed.
//! 3. The call is tried again. If it still says `EAGAIN`, the next wait arms nothing: it waits for an
//!    event that came after the last one. So a state that the kernel reports whenever it is asked (an
//!    error in the queue, a peer that has half-closed) wakes a call once.
//! 4. If poll(2) says "ready" and the call says `EAGAIN`, the kernel tells too little. After
//!    shutdown(2) the plain call ends at once ([`Ended::Plain`]); else the call is tried again after
//!    pauses.
//!
//! Invariant 1: a waiter is in the queue before it arms, or before it compares the number of events,
//! so no event is lost.
//! Invariant 2: who waits counts in `readers` or `writers` from its first arming to the end of its
//! call, and arming asks for all that is counted: no arming takes away what another one waits for.
//! Invariant 3: an event that only says "readable" wakes one reader, which passes it on at the end of
//! its call unless the call found nothing. All else wakes all.
//! Invariant 4: a call that waits when its number is closed fails with `EBADF`: `closes` changes before
//! the number is closed, and a call that is tried again looks at it while it counts in `trying`; who
//! closes waits until nobody does, or [`LONGEST_SPIN`] is over.
#![allow(unsafe_code, reason = "slots by number and by address")]

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use weald_scheduler::io::{EventSlot, Readiness, WaitQueue};
use weald_scheduler::patch::{self, Pending, Waited};

use crate::epoll::Set;
use crate::hooks::descriptor::is_nonblocking;
use crate::raw::{error_of, sys};

/// Slots are made in chunks of so many, when the first of their descriptors waits.
const CHUNK: usize = 256;
/// Descriptors from `CHUNK * CHUNKS` on (a million) block their OS thread.
const CHUNKS: usize = 4096;

/// The pauses of a call that the kernel tells too little of, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);
/// So many calls may look every [`LONGEST_PAUSE`]; of more, each looks less often, but not less than every
/// [`LONGEST_OF_MANY`]. A look costs some microseconds: together they use about a hundredth of a core.
const PAUSING_CALLS: u32 = 4;
const LONGEST_OF_MANY: Duration = Duration::from_millis(100);

/// Calls that pause now.
static PAUSING: AtomicU32 = AtomicU32::new(0);

/// Where a call pauses that nobody wakes.
static NOBODY: WaitQueue = WaitQueue::new();

/// The pause after this one; the first if there was none.
fn next_pause(pause: Duration) -> Duration {
    let crowd = 1 + PAUSING.load(Ordering::Relaxed) / PAUSING_CALLS;
    let longest = (LONGEST_PAUSE * crowd).min(LONGEST_OF_MANY);
    (pause * 2).clamp(FIRST_PAUSE, longest)
}

#[repr(C)]
struct Slot {
    event: EventSlot,
    read: WaitQueue,
    write: WaitQueue,
    /// The worker whose poller has it, for `patch::arm`.
    at: AtomicU32,
    /// Somebody has the [`Turn`].
    taken: AtomicBool,
    /// Counts events.
    events: AtomicU32,
    /// Counts how often weald's own sockets took the registration over.
    losses: AtomicU32,
    /// Counts how often the number was closed.
    closes: AtomicU32,
    /// Calls that have waited and have not ended, by direction.
    readers: AtomicU32,
    writers: AtomicU32,
    /// Calls of these that are being tried again.
    trying: AtomicU32,
}

/// Who closes a number waits for so many turns, of some tens of milliseconds, for calls that are being tried.
/// Without a bound it would wait for ever in a signal handler that has broken such a call off.
const LONGEST_SPIN: u32 = 1 << 20;

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
    /// The call fails with this `errno`: an exception waits to be raised, or the number was closed.
    Failed(i32),
    /// It cannot be waited for: an ordinary file, or a descriptor that is none.
    Unpollable,
    /// The plain call ends at once.
    Plain,
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
fn on_loss(fd: RawFd) {
    if let Some(slot) = slot_if_any(fd) {
        slot.losses.fetch_add(1, Ordering::Release);
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
        }
    }

    fn waiters(&self, direction: Direction) -> &AtomicU32 {
        match direction {
            Direction::Read => &self.readers,
            Direction::Write => &self.writers,
        }
    }

    fn is_waited_for(&self) -> bool {
        self.readers.load(Ordering::Relaxed) + self.writers.load(Ordering::Relaxed) > 0
    }

    /// What an arming asks for (invariant 2).
    fn interest(&self) -> u8 {
        let mut interest = 0;
        if self.readers.load(Ordering::Relaxed) > 0 {
            interest |= Readiness::READABLE;
        }
        if self.writers.load(Ordering::Relaxed) > 0 {
            interest |= Readiness::WRITABLE;
        }
        interest
    }

    fn wake_all(&self) {
        self.read.wake_all();
        self.write.wake_all();
    }
}

fn place_of(fd: RawFd) -> Option<(&'static AtomicPtr<Chunk>, usize)> {
    let fd = usize::try_from(fd).ok()?;
    Some((TABLE.get(fd / CHUNK)?, fd % CHUNK))
}

fn slot(fd: RawFd) -> Option<&'static Slot> {
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
fn slot_if_any(fd: RawFd) -> Option<&'static Slot> {
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
        closing.each(|slot| {
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
    fn each(&self, f: impl Fn(&'static Slot) -> bool) {
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
            if f(slot) {
                // Pairs with the fence of `Wait::attempt`.
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
        self.each(|slot| {
            if slot.is_waited_for() && is_here() {
                slot.wake_all();
            }
            false
        });
    }
}

/// Counts in [`PAUSING`].
struct Pausing;

impl Pausing {
    fn begin() -> Self {
        PAUSING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Pausing {
    fn drop(&mut self) {
        PAUSING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Pauses between the tries of a call that nothing tells of, until the deadline at most. For patched
/// callers.
#[derive(Default)]
pub(crate) struct Pauses(Duration);

impl Pauses {
    /// `TimedOut`, `Failed` by an exception, else `Woken`: try again.
    pub(crate) fn wait(&mut self, queue: Option<&WaitQueue>, deadline: Option<Instant>) -> Ended {
        if let Some(pending) = patch::pending() {
            return Ended::Failed(errno_of(pending));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ended::TimedOut;
        }
        self.0 = next_pause(self.0);
        let pause = Instant::now() + self.0;
        let until = deadline.map_or(pause, |deadline| deadline.min(pause));
        let _pausing = Pausing::begin();
        match patch::wait(queue.unwrap_or(&NOBODY), || false, Some(until), true) {
            Waited::Pending(pending) => Ended::Failed(errno_of(pending)),
            Waited::Woken | Waited::TimedOut => Ended::Woken,
        }
    }
}

/// One call of the program's on a descriptor.
pub(crate) struct Wait {
    fd: RawFd,
    direction: Direction,
    /// How often the number had been closed when the call began.
    closes: u32,
    /// The user has asked for a descriptor that does not block; asked for once a call.
    nonblocking: Option<bool>,
    /// Only its events say anything: an epoll instance of our own.
    is_set: bool,
    /// No exception ends it.
    is_firm: bool,
    state: Option<Waiting>,
}

/// A call that has waited.
struct Waiting {
    fd: RawFd,
    slot: &'static Slot,
    direction: Direction,
    armed: bool,
    /// `Slot::losses` when it was armed.
    losses: u32,
    /// `Slot::events` before the call was tried last.
    events: u32,
    /// It was woken and has not waited since: it passes the event on (invariant 3).
    owes: bool,
    /// The call has done something since it was woken.
    progressed: bool,
    /// The next pause, of a call that the kernel tells too little of.
    pause: Duration,
    /// Whether an exception may end it; not known before one is pending.
    firm: Option<bool>,
    /// In place of a registration that weald's own socket has. The wait ends before its set is closed.
    instead: Option<Box<(Wait, Set)>>,
}

impl Waiting {
    /// Wakes another reader, if the event that woke this one is still to be used (invariant 3).
    fn pass_on(&mut self) {
        if std::mem::take(&mut self.owes)
            && self.direction == Direction::Read
            && !self.slot.read.is_empty()
            && told(self.fd, libc::POLLIN | libc::POLLRDHUP) != 0
        {
            self.slot.read.wake_one();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.slot
            .waiters(self.direction)
            .fetch_sub(1, Ordering::Relaxed);
        self.pass_on();
    }
}

/// Says that a call is no longer being tried.
struct Trying(&'static AtomicU32);

impl Drop for Trying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Wait {
    /// At the beginning of the call.
    #[inline]
    pub(crate) fn new(fd: RawFd, direction: Direction) -> Self {
        let closes = slot_if_any(fd).map_or(0, |slot| slot.closes.load(Ordering::Relaxed));
        Self {
            fd,
            direction,
            closes,
            nonblocking: None,
            is_set: false,
            is_firm: false,
            state: None,
        }
    }

    /// For the members of an epoll instance of our own.
    pub(crate) fn on_set(set: &Set) -> Self {
        Self {
            is_set: true,
            ..Self::new(set.fd(), Direction::Read)
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// The call that says `EAGAIN` is to return it.
    pub(crate) fn is_nonblocking(&mut self) -> bool {
        let fd = self.fd;
        *self.nonblocking.get_or_insert_with(|| is_nonblocking(fd))
    }

    /// No exception ends the call from now on.
    pub(crate) fn make_firm(&mut self) {
        self.is_firm = true;
        if let Some(state) = &mut self.state {
            state.firm = Some(true);
            if let Some(instead) = &mut state.instead {
                instead.0.make_firm();
            }
        }
    }

    /// Before the call waits for something else: another reader may use the event that woke this one.
    pub(crate) fn pass_on(&mut self) {
        if let Some(state) = &mut self.state {
            state.pass_on();
        }
    }

    /// The call has done a part of its work.
    pub(crate) fn progressed(&mut self) {
        if let Some(state) = &mut self.state {
            state.progressed = true;
        }
    }

    /// Tries the call, which must not wait. After a wait it is not tried on another file that has got
    /// the number.
    #[inline]
    pub(crate) fn attempt(&self, call: impl FnOnce() -> isize) -> isize {
        let Some(state) = &self.state else {
            return call();
        };
        let slot = state.slot;
        slot.trying.fetch_add(1, Ordering::Relaxed);
        let _trying = Trying(&slot.trying);
        // Pairs with the fence of `Closing::each`.
        fence(Ordering::SeqCst);
        if slot.closes.load(Ordering::Relaxed) != self.closes {
            return -(libc::EBADF as isize);
        }
        call()
    }

    /// Waits until the descriptor may be ready, at most until the deadline. For patched callers.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Ended {
        if self.state.is_none() {
            let Some(slot) = slot(self.fd) else {
                return Ended::Unpollable;
            };
            slot.waiters(self.direction).fetch_add(1, Ordering::Relaxed);
            self.state = Some(Waiting {
                fd: self.fd,
                slot,
                direction: self.direction,
                armed: false,
                losses: 0,
                events: 0,
                owes: false,
                progressed: false,
                pause: Duration::ZERO,
                firm: self.is_firm.then_some(true),
                instead: None,
            });
        } else if let Some(ended) = self.look() {
            return ended;
        }
        let closes = self.closes;
        let state = self.state.as_mut().expect("it was just made");
        state.wait(closes, deadline)
    }

    /// After a wake-up that was for nothing: does the kernel say what is true?
    fn look(&mut self) -> Option<Ended> {
        let state = self.state.as_mut()?;
        state.owes = false;
        if std::mem::take(&mut state.progressed) || self.is_set {
            state.pause = Duration::ZERO;
            return None;
        }
        let asked = match self.direction {
            Direction::Read => libc::POLLIN | libc::POLLRDHUP,
            Direction::Write => libc::POLLOUT,
        };
        let told = told(self.fd, asked);
        let ready = told & (libc::POLLIN | libc::POLLOUT) != 0;
        state.pause = if ready {
            next_pause(state.pause)
        } else {
            Duration::ZERO
        };
        let is_over = told & (libc::POLLRDHUP | libc::POLLHUP) != 0;
        (ready && is_over && self.direction == Direction::Read).then_some(Ended::Plain)
    }
}

/// What poll(2) says of a descriptor, without waiting.
pub(crate) fn told(fd: RawFd, events: libc::c_short) -> libc::c_short {
    let mut one = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let zero = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: one descriptor; pointers to locals.
    let found = unsafe { sys!(SYS_ppoll, &raw mut one, 1, &raw const zero, 0_usize, 8) };
    if error_of(found).is_some() {
        return 0;
    }
    one.revents
}

impl Waiting {
    fn wait(&mut self, closes: u32, deadline: Option<Instant>) -> Ended {
        if let Some(pending) = self.pending() {
            return Ended::Failed(errno_of(pending));
        }
        let pause = (!self.pause.is_zero()).then(|| Instant::now() + self.pause);
        let until = match (deadline, pause) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let _pausing = pause.map(|_| Pausing::begin());
        let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if let Some(instead) = &mut self.instead {
            return match instead.0.wait(until) {
                Ended::TimedOut if is_over() => Ended::TimedOut,
                Ended::TimedOut | Ended::Plain => Ended::Woken,
                ended => ended,
            };
        }
        if pause.is_some() {
            // Events say nothing here: a `sendto` that finds a queue full raises one itself.
            return match patch::wait(&NOBODY, || false, until, self.firm != Some(true)) {
                Waited::TimedOut if is_over() => Ended::TimedOut,
                Waited::Woken | Waited::TimedOut => Ended::Woken,
                Waited::Pending(_) => match self.pending() {
                    Some(pending) => Ended::Failed(errno_of(pending)),
                    None => Ended::Woken,
                },
            };
        }
        let (fd, direction, slot) = (self.fd, self.direction, self.slot);
        let queue = match direction {
            Direction::Read => &slot.read,
            Direction::Write => &slot.write,
        };
        let mut armed: io::Result<()> = Ok(());
        let ready = || {
            if slot.closes.load(Ordering::Acquire) != closes {
                return true;
            }
            let losses = slot.losses.load(Ordering::Acquire);
            if self.armed && losses == self.losses {
                return slot.events.load(Ordering::Acquire) != self.events;
            }
            self.losses = losses;
            armed = patch::arm(&slot.at, fd, &slot.event, || slot.interest(), on_loss);
            self.armed = armed.is_ok();
            armed.is_err()
        };
        let waited = patch::wait(queue, ready, deadline, self.firm != Some(true));
        self.events = slot.events.load(Ordering::Acquire);
        if slot.closes.load(Ordering::Acquire) != closes {
            return Ended::Failed(libc::EBADF);
        }
        if let Err(error) = armed {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Ended::Unpollable;
            }
            // An epoll instance of this call's own, in the poller as any descriptor.
            let events = match direction {
                Direction::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
                Direction::Write => libc::EPOLLOUT,
            };
            let Some(mut set) = Set::new() else {
                return Ended::Unpollable;
            };
            if !set.add(fd, events.cast_unsigned()) {
                return Ended::Unpollable;
            }
            let wait = Wait::on_set(&set);
            self.instead = Some(Box::new((wait, set)));
            return Ended::Woken;
        }
        match waited {
            Waited::Woken => {
                self.owes = true;
                Ended::Woken
            }
            Waited::TimedOut if is_over() => Ended::TimedOut,
            Waited::TimedOut => Ended::Woken,
            Waited::Pending(_) => match self.pending() {
                Some(pending) => Ended::Failed(errno_of(pending)),
                None => Ended::Woken,
            },
        }
    }

    /// An exception that is to end the call.
    fn pending(&mut self) -> Option<Pending> {
        let pending = patch::pending()?;
        let (fd, direction) = (self.fd, self.direction);
        let firm = *self
            .firm
            .get_or_insert_with(|| crate::firm::is_firm(fd, direction));
        (!firm).then_some(pending)
    }
}
