//! A registered descriptor: its readiness word and who waits; and the one loop that all calls use.
//!
//! A [`SourceSlot`] is where the poller delivers events. Slots live for ever and are used again with the
//! next generation, so an event that is handled late meets a slot, and a slot that has a new user
//! drops it. For each direction a slot has a word and a queue of waiters:
//!
//! | part   | meaning                                                                          |
//! |--------|----------------------------------------------------------------------------------|
//! | tick   | counts events; who saw the tick before its system call can tell if one came since |
//! | READY  | the next call may succeed; cleared by who found that there is nothing (more)     |
//! | STICKY | closed, failed or out-of-band: never again taken as drained                      |
//! | WAITED | somebody has waited in this direction: there may be whom to wake. Never cleared  |
//!
//! The loop: note the tick, try the call, and on `WouldBlock` wait in the queue, which looks at the
//! tick once more when the waiter can be found. Readiness is a hint; the call decides.
//!
//! Invariant 1: READY is cleared only by who noted the tick that is still there, so an edge that
//! came after the call is not wiped out.
//! Invariant 2: if a direction is ready and somebody waits, somebody is awake who will try. An
//! event wakes one waiter (all, if it is about the end); who was woken always tries, and who
//! succeeds, fails or unwinds wakes the next, if one waits. A waiter whose deadline or exception was first
//! took no wake-up with it (`WaitQueue`, invariant 3).
//! Invariant 3: a descriptor is registered with one poller at a time, from its first wait on, and
//! taken out before it is closed. If that poller's runtime has ended, the next wait registers it
//! with another; the poller that closes wakes all who wait.
//!
//! Invariant 4: a queue without WAITED is empty. Who is about to enter it sets the bit before by a
//! read-modify-write, so an event either finds the bit or is seen by the waiter's look at the tick. A
//! call that noted the word without it was not woken, so it need not wake the next (invariant 2). Most
//! writers never wait, and each event tells of writing too.
//!
//! Where it is registered, the slot's home word tells without a lock; its generation is in it:
//!
//! | home        | meaning                        | leaves by                                      |
//! |-------------|--------------------------------|------------------------------------------------|
//! | NOWHERE     | with no poller that is open    | `register`, under its lock -> REGISTERING      |
//! | REGISTERING | on the way                     | the same -> REGISTERED, or NOWHERE if it fails |
//! | REGISTERED  | with the poller in `poller`    | `deregister` -> NOWHERE                        |
//!
//! A poller that closes sets NOWHERE in both other states, before it wakes who waits; one that closes
//! between the two steps of `register` makes its last step fail, and it begins anew.
//!
//! Checked by `loom-tests/tests/readiness.rs`.
#![allow(unsafe_code, reason = "event slots are found by their address")]

use std::io;
use std::os::fd::RawFd;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use weald_scheduler::io::{EventSlot, Readiness, WaitQueue, Woken};

use crate::shim::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::shim::poller::PollerHandle;
use crate::shim::sync::Mutex;

const READY: u64 = 1;
const STICKY: u64 = 2;
const WAITED: u64 = 4;
const TICK: u64 = 8;

/// Who is told of an end too little looks again after this: seldom enough to cost nothing, and soon enough for an end.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const NOWHERE: u32 = 0;
const REGISTERING: u32 = 1;
const REGISTERED: u32 = 2;
/// Where the generation begins in a home word.
const GENERATION: u32 = 4;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// What one attempt at a call brought.
#[derive(Debug)]
pub(crate) struct Got<T> {
    pub(crate) value: T,
    /// There is nothing more for now: the next call need not be tried before an event.
    pub(crate) drained: bool,
}

impl<T> Got<T> {
    /// There may be more.
    pub(crate) fn more(value: T) -> Self {
        Self {
            value,
            drained: false,
        }
    }
}

#[derive(Debug)]
struct Way {
    word: AtomicU64,
    waiters: WaitQueue,
}

impl Way {
    fn new() -> Self {
        Self {
            word: AtomicU64::new(READY),
            waiters: WaitQueue::new(),
        }
    }

    /// Something was told of this direction.
    fn note_event(&self, sticky: bool) {
        let bits = if sticky { READY | STICKY } else { READY };
        let step = |word: u64| Some((word | bits).wrapping_add(TICK));
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, step)
            .expect("the step always gives a new word");
        if before & WAITED == 0 {
            return;
        }
        if sticky {
            self.waiters.wake_all();
        } else {
            self.waiters.wake_one();
        }
    }

    /// Somebody is about to enter the queue (invariant 4).
    fn announce(&self) {
        let announced = self.word.load(Ordering::Relaxed) & WAITED != 0;
        if !announced && !fault!("source_waits_unannounced") {
            self.word.fetch_or(WAITED, Ordering::AcqRel);
        }
    }

    /// Waits until something is told that was not when the word was noted.
    fn wait(&self, seen: u64, deadline: Option<Instant>) -> Woken {
        self.announce();
        self.waiters.wait(|| self.has_ticked(seen), deadline, true)
    }

    /// After a call that did not wait any more: whoever it has left something for (invariant 2).
    fn wake_next(&self, seen: u64) {
        if seen & WAITED != 0 {
            self.waiters.wake_one();
        }
    }

    /// Nothing is there as of the noted word (invariant 1).
    fn clear(&self, seen: u64) {
        let seen = if fault!("source_clears_over_a_newer_edge") {
            self.word.load(Ordering::Acquire)
        } else {
            seen
        };
        let cleared = seen & !READY;
        let _ = self
            .word
            .compare_exchange(seen, cleared, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn is_drained(word: u64) -> bool {
        word & (READY | STICKY) == 0
    }

    fn has_ticked(&self, seen: u64) -> bool {
        !fault!("source_waits_without_a_second_look")
            && self.word.load(Ordering::Acquire) / TICK != seen / TICK
    }
}

/// Where events of a descriptor arrive.
#[derive(Debug)]
#[repr(C)]
struct SourceSlot {
    event: EventSlot,
    generation: AtomicU16,
    home: AtomicU32,
    read: Way,
    write: Way,
}

impl SourceSlot {
    /// Its poller has closed. One step for both states: `register` could go from one to the other
    /// between two steps, and both would miss it.
    fn evict(&self, generation: u16) {
        let [nowhere, registering, registered] =
            [NOWHERE, REGISTERING, REGISTERED].map(|state| home(generation, state));
        if fault!("source_evicts_in_two_steps") {
            for from in [registered, registering] {
                let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
                let _ = self.home.compare_exchange(from, nowhere, success, failure);
            }
            return;
        }
        // The poller's lock orders REGISTERING before this, so nothing older is read.
        let step = |word: u32| (word == registering || word == registered).then_some(nowhere);
        let _ = self
            .home
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, step);
    }
}

fn home(generation: u16, state: u32) -> u32 {
    u32::from(generation) * GENERATION + state
}

/// Slots without a user.
#[cfg(not(loom))]
static FREE: Mutex<Vec<&'static SourceSlot>> = Mutex::new(Vec::new());
#[cfg(loom)]
loom::lazy_static! {
    static ref FREE: Mutex<Vec<&'static SourceSlot>> = Mutex::new(Vec::new());
}

fn on_event(event: &'static EventSlot, generation: u16, readiness: Readiness) {
    // SAFETY: only slots carry this function, `event` is the first field of a `repr(C)` slot, and
    // slots live for ever.
    let slot: &'static SourceSlot = unsafe { &*std::ptr::from_ref(event).cast::<SourceSlot>() };
    if slot.generation.load(Ordering::Acquire) != generation
        && !fault!("source_takes_any_generation")
    {
        return;
    }
    let has = |bits: u8| readiness.0 & bits != 0;
    if has(Readiness::CLOSED) {
        slot.evict(generation);
    }
    let (failed, urgent) = (has(Readiness::ERROR), has(Readiness::PRIORITY));
    let (read_end, write_end) = (has(Readiness::READ_CLOSED), has(Readiness::WRITE_CLOSED));
    if failed || urgent || read_end || has(Readiness::READABLE) {
        slot.read.note_event(failed || urgent || read_end);
    }
    if failed || write_end || has(Readiness::WRITABLE) {
        slot.write.note_event(failed || write_end);
    }
}

/// A descriptor's place with a poller; made with the socket, registered at its first wait.
#[derive(Debug)]
pub(crate) struct Source {
    slot: &'static SourceSlot,
    generation: u16,
    poller: Mutex<Option<PollerHandle>>,
}

impl Source {
    pub(crate) fn new() -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = free.unwrap_or_else(|| {
            Box::leak(Box::new(SourceSlot {
                event: EventSlot { on_event },
                generation: AtomicU16::new(0),
                home: AtomicU32::new(NOWHERE),
                read: Way::new(),
                write: Way::new(),
            }))
        });
        let generation = slot.generation.load(Ordering::Relaxed).wrapping_add(1);
        slot.read.word.store(READY, Ordering::Relaxed);
        slot.write.word.store(READY, Ordering::Relaxed);
        slot.home
            .store(home(generation, NOWHERE), Ordering::Relaxed);
        slot.generation.store(generation, Ordering::Release);
        Self {
            slot,
            generation,
            poller: Mutex::new(None),
        }
    }

    /// Who waits for a direction; for a `select!`, which may enter.
    pub(crate) fn waiters(&self, direction: Direction) -> &WaitQueue {
        let way = self.way(direction);
        way.announce();
        &way.waiters
    }

    /// Who waits for a direction; to wake them only.
    pub(crate) fn queue(&self, direction: Direction) -> &'static WaitQueue {
        &self.way(direction).waiters
    }

    /// Who waits in that direction looks: there is an end, of which the kernel tells nothing.
    pub(crate) fn tell_of_end(&self, direction: Direction) {
        self.way(direction).note_event(true);
    }

    /// The next call in that direction is tried, whatever was told.
    pub(crate) fn try_next(&self, direction: Direction) {
        self.way(direction).word.fetch_or(READY, Ordering::AcqRel);
    }

    fn way(&self, direction: Direction) -> &'static Way {
        match direction {
            Direction::Read => &self.slot.read,
            Direction::Write => &self.slot.write,
        }
    }

    fn is_home(&self, state: u32) -> bool {
        self.slot.home.load(Ordering::Acquire) == home(self.generation, state)
    }

    #[inline]
    pub(crate) fn ensure_registered(&self, fd: RawFd) -> io::Result<()> {
        if self.is_home(REGISTERED) {
            return Ok(());
        }
        self.register(fd)
    }

    #[cold]
    fn register(&self, fd: RawFd) -> io::Result<()> {
        let mut poller = self.poller.lock().unwrap_or_else(PoisonError::into_inner);
        let word = &self.slot.home;
        let [nowhere, registering, registered] =
            [NOWHERE, REGISTERING, REGISTERED].map(|state| home(self.generation, state));
        // Only who holds the lock takes it out of NOWHERE.
        while !self.is_home(REGISTERED) {
            word.store(registering, Ordering::Relaxed);
            let new = PollerHandle::here();
            if let Err(error) = new.register(fd, &self.slot.event, self.generation) {
                word.store(nowhere, Ordering::Relaxed);
                return Err(error);
            }
            *poller = Some(new);
            let _ =
                word.compare_exchange(registering, registered, Ordering::AcqRel, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes the descriptor out of its poller; before it is closed or given away.
    pub(crate) fn deregister(&self, fd: RawFd) {
        let poller = self
            .poller
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(poller) = poller {
            // It may fail only for a descriptor that somebody else has closed.
            let _ = poller.deregister(fd, &self.slot.event, self.generation);
            let nowhere = home(self.generation, NOWHERE);
            self.slot.home.store(nowhere, Ordering::Relaxed);
        }
    }

    /// A blocking call: tries `call` until it does not say `WouldBlock`, and waits in between.
    #[inline]
    pub(crate) fn run<T>(
        &self,
        fd: RawFd,
        direction: Direction,
        waits: Waits,
        call: impl FnMut() -> io::Result<Got<T>>,
    ) -> io::Result<T> {
        self.run_or_end(fd, direction, waits, || waits.deadline(), call, || None)
    }

    /// As [`run`](Self::run), of a call whose end the kernel does not tell of at all: it is also tried again now and then.
    #[inline]
    pub(crate) fn run_looking_again<T>(
        &self,
        fd: RawFd,
        direction: Direction,
        waits: Waits,
        call: impl FnMut() -> io::Result<Got<T>>,
    ) -> io::Result<T> {
        self.run_with::<true, T>(fd, direction, waits, || waits.deadline(), call, || None)
    }

    /// As [`run`](Self::run), of a call that the kernel does not tell of its end if it must not wait:
    /// `ended` looks for it when the call says `WouldBlock` though an end was told. `until` is asked
    /// when the call begins to wait.
    #[inline]
    pub(crate) fn run_or_end<T>(
        &self,
        fd: RawFd,
        direction: Direction,
        waits: Waits,
        until: impl Fn() -> Option<Instant>,
        call: impl FnMut() -> io::Result<Got<T>>,
        ended: impl FnMut() -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        self.run_with::<false, T>(fd, direction, waits, until, call, ended)
    }

    fn run_with<const LOOKS_AGAIN: bool, T>(
        &self,
        fd: RawFd,
        direction: Direction,
        waits: Waits,
        until: impl Fn() -> Option<Instant>,
        mut call: impl FnMut() -> io::Result<Got<T>>,
        mut ended: impl FnMut() -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        weald_scheduler::io::enter()?;
        let way = self.way(direction);
        let mut deadline: Option<Option<Instant>> = None;
        let (mut time_is_up, mut looks_again) = (false, false);
        loop {
            let seen = way.word.load(Ordering::Acquire);
            if time_is_up || looks_again || waits == Waits::Never || !Way::is_drained(seen) {
                let next = WakesNext(&way.waiters);
                let got = call();
                std::mem::forget(next);
                match got {
                    Ok(got) => {
                        if got.drained {
                            way.clear(seen);
                        }
                        unless!("source_wakes_no_other_reader", way.wake_next(seen));
                        if deadline.is_none() {
                            weald_scheduler::io::spend();
                        }
                        return Ok(got.value);
                    }
                    Err(error) => match error.kind() {
                        io::ErrorKind::Interrupted => continue,
                        io::ErrorKind::WouldBlock if waits != Waits::Never => {
                            if seen & STICKY != 0
                                && let Some(end) = ended()
                            {
                                way.waiters.wake_one();
                                return end;
                            }
                            way.clear(seen);
                            if time_is_up {
                                return Err(io::ErrorKind::TimedOut.into());
                            }
                        }
                        kind => {
                            if kind != io::ErrorKind::WouldBlock {
                                way.waiters.wake_one();
                            }
                            if deadline.is_none() {
                                weald_scheduler::io::spend();
                            }
                            return Err(error);
                        }
                    },
                }
            }
            self.ensure_registered(fd)?;
            let limit = *deadline.get_or_insert_with(&until);
            let next_look = LOOKS_AGAIN.then(|| Instant::now() + LOOK_AGAIN);
            let end = match (limit, next_look) {
                (Some(limit), Some(next_look)) => Some(limit.min(next_look)),
                (limit, next_look) => limit.or(next_look),
            };
            looks_again = false;
            match way.wait(seen, end) {
                Woken::Notified | Woken::Ready | Woken::Again => {}
                Woken::TimedOut if end != limit => looks_again = true,
                // What is there by now may not have been told yet, be the limit short or the worker late.
                Woken::TimedOut => time_is_up = true,
                Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
            }
        }
    }
}

impl Source {
    /// The word of a direction as it is now, for [`wait_for_event`](Self::wait_for_event).
    pub(crate) fn seen(&self, direction: Direction) -> u64 {
        self.way(direction).word.load(Ordering::Acquire)
    }

    /// Waits until something is told that was not when the word was noted, or until then.
    pub(crate) fn wait_for_event(&self, direction: Direction, seen: u64, end: Instant) -> Woken {
        self.way(direction).wait(seen, Some(end))
    }

    /// A blocking call: waits until `ready` says true; it is asked at first and after each event.
    pub(crate) fn wait_until(
        &self,
        fd: RawFd,
        direction: Direction,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> io::Result<bool>,
    ) -> io::Result<bool> {
        let way = self.way(direction);
        loop {
            let seen = way.word.load(Ordering::Acquire);
            if ready()? {
                // It takes nothing away: the next one who waits finds it as well.
                way.wake_next(seen);
                return Ok(true);
            }
            self.ensure_registered(fd)?;
            match way.wait(seen, deadline) {
                Woken::Notified | Woken::Ready | Woken::Again => {}
                Woken::TimedOut => return ready(),
                Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // From here on events of the old generation are dropped.
        let next = self.generation.wrapping_add(1);
        self.slot.generation.store(next, Ordering::Release);
        FREE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self.slot);
    }
}

/// Wakes the next waiter when a call unwinds, which it may where it was made inside `blocking`.
pub(crate) struct WakesNext<'a>(pub(crate) &'a WaitQueue);

impl Drop for WakesNext<'_> {
    fn drop(&mut self) {
        self.0.wake_one();
    }
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    Forever,
    AtMost(Duration),
    /// `set_nonblocking(true)`.
    Never,
}

impl Waits {
    /// The end of a wait that begins now; `None`: never.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Self::AtMost(limit) => weald_scheduler::io::deadline(limit),
            Self::Forever | Self::Never => None,
        }
    }
}
