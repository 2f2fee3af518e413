//! A registered descriptor: its readiness and its waiters; and the one loop that all calls use.
//!
//! A [`SourceSlot`] is where the poller delivers events. Slots live for ever. When a slot gets a new user, its generation
//! changes. An event that is handled late names the old generation, so the slot drops the event. For each direction
//! a slot has a word and a queue of waiters ([`Way`]):
//!
//! | part   | meaning                                                                               |
//! |--------|---------------------------------------------------------------------------------------|
//! | tick   | counts events; a call notes the tick before its system call, to see if an event came since |
//! | READY  | the next call may succeed; a call that finds nothing (more) clears it                 |
//! | STICKY | closed, failed or out-of-band: the direction is never again taken as drained          |
//! | WAITED | somebody has waited in this direction, so there may be somebody to wake. Never cleared |
//!
//! The loop: note the tick, try the call, and on `WouldBlock` wait in the queue. The queue looks at the tick once more
//! when the waiter can be found. Readiness is a hint; the call decides.
//!
//! Invariant 1: a call clears READY only if the word still has the tick that the call has noted. So an edge that came
//! after the call is not wiped out.
//! Invariant 2: if a direction is ready and somebody waits, then somebody is awake and will try. An event wakes one
//! waiter, or all of them if it is about the end. A waiter that was woken always tries. A call that succeeds, fails or
//! unwinds wakes the next waiter. A waiter that was ended by its deadline or by an exception has taken no wake-up
//! (`WaitQueue`, invariant 3).
//! Invariant 3: a descriptor is registered with one poller at a time, from its first wait on, and is taken out before
//! it is closed. If that poller's runtime has ended, the next wait registers the descriptor with another poller. A
//! poller that closes wakes all waiters.
//! Invariant 4: a queue without WAITED is empty. A waiter sets the bit before it enters the queue, by a
//! read-modify-write. So an event either finds the bit, or the waiter sees the event when it looks at the tick. A call
//! that has noted the word without the bit was not woken, so it need not wake the next waiter (invariant 2). The bit is
//! there because most writers never wait, and each event tells of writing too.
//!
//! The slot's home word tells without a lock where the descriptor is registered. The generation is a part of it:
//!
//! | home        | meaning                        | leaves by                                            |
//! |-------------|--------------------------------|------------------------------------------------------|
//! | NOWHERE     | with no poller that is open    | `register`, under its lock -> REGISTERING            |
//! | REGISTERING | on the way to a poller         | `register` -> REGISTERED, or NOWHERE if it fails     |
//! | REGISTERED  | with the poller in `poller`    | `deregister` -> NOWHERE                              |
//!
//! A poller that closes sets NOWHERE in both other states, before it wakes the waiters. If it closes between the two
//! steps of `register`, the second step fails, and `register` begins anew.
//!
//! Checked by `loom-tests/tests/readiness.rs`.

mod slot;
mod way;

use std::io;
use std::os::fd::RawFd;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use weald_scheduler::io::{WaitQueue, Woken};

use self::slot::{NOWHERE, REGISTERED, REGISTERING, SourceSlot, home};
use self::way::{READY, STICKY, Way};
use crate::shim::atomic::Ordering;
use crate::shim::poller::PollerHandle;
use crate::shim::sync::Mutex;

/// A call to which the kernel may not tell an end looks again after this time: seldom enough to cost nothing, and
/// soon enough for an end.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The direction of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// The result of one attempt at a call.
#[derive(Debug)]
pub(crate) struct Got<T> {
    pub(crate) value: T,
    /// There is nothing more for now: the next call need not be tried before an event.
    pub(crate) drained: bool,
}

impl<T> Got<T> {
    /// Returns a result after which there may be more.
    pub(crate) fn more(value: T) -> Self {
        Self {
            value,
            drained: false,
        }
    }
}

/// A descriptor's place with a poller. It is made with the socket and registered at its first wait.
#[derive(Debug)]
pub(crate) struct Source {
    slot: &'static SourceSlot,
    generation: u16,
    poller: Mutex<Option<PollerHandle>>,
}

impl Source {
    pub(crate) fn new() -> Self {
        let slot = SourceSlot::take();
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

    /// Returns the queue of a direction, for a `select!` that may enter it.
    pub(crate) fn waiters(&self, direction: Direction) -> &WaitQueue {
        let way = self.way(direction);
        way.announce();
        &way.waiters
    }

    /// Returns the queue of a direction, only to wake those in it.
    pub(crate) fn queue(&self, direction: Direction) -> &'static WaitQueue {
        &self.way(direction).waiters
    }

    /// Wakes all that wait in that direction, so that they look: there is an end of which the kernel tells nothing.
    pub(crate) fn tell_of_end(&self, direction: Direction) {
        self.way(direction).note_event(true);
    }

    /// Makes the next call in that direction try, whatever was told before.
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
        // Only the thread that holds the lock steps out of NOWHERE.
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

    /// Takes the descriptor out of its poller, before it is closed or given away.
    pub(crate) fn deregister(&self, fd: RawFd) {
        let poller = self
            .poller
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(poller) = poller {
            // The call may fail only for a descriptor that somebody else has closed.
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

    /// Runs a call as [`run`](Self::run) does. It is for a call whose end the kernel does not tell at all, so the
    /// call is also tried again now and then.
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

    /// Runs a call as [`run`](Self::run) does. It is for a call to which the kernel tells the end only if it may
    /// wait. `ended` looks for the end when the call says `WouldBlock` though an end was told. `until` is called when
    /// the call begins to wait.
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
                // Something that is there by now may not have been told yet, if the limit is short or the worker
                // late.
                Woken::TimedOut => time_is_up = true,
                Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
            }
        }
    }
}

impl Source {
    /// Returns the word of a direction as it is now, for [`wait_for_event`](Self::wait_for_event).
    pub(crate) fn seen(&self, direction: Direction) -> u64 {
        self.way(direction).word.load(Ordering::Acquire)
    }

    /// Waits until an event comes that had not come when the word was noted, or until `end`.
    pub(crate) fn wait_for_event(&self, direction: Direction, seen: u64, end: Instant) -> Woken {
        self.way(direction).wait(seen, Some(end))
    }

    /// A blocking call that waits until `ready` returns true. `ready` is called first and after each event.
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
                // `ready` takes nothing away, so the next waiter finds the same.
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
        // From here on the slot drops events of the old generation.
        let next = self.generation.wrapping_add(1);
        self.slot.generation.store(next, Ordering::Release);
        self.slot.give_back();
    }
}

/// Wakes the next waiter when a call unwinds. A call may unwind if it was made inside `blocking`.
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
    /// Not at all: `set_nonblocking(true)`.
    Never,
}

impl Waits {
    /// Returns the end of a wait that begins now; `None` if it has no end.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Self::AtMost(limit) => weald_scheduler::io::deadline(limit),
            Self::Forever | Self::Never => None,
        }
    }
}
