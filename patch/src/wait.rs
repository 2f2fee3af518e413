//! Waiting for a descriptor.
//!
//! There is an [`FdSlot`] for each descriptor *number*: who waits for the number, in each direction. `close` tells those
//! that wait. What is remembered of the file behind the number (`known.rs`) only saves system calls, so nothing need
//! be known of `dup` or `fork`. A [`Wait`] is one call of the program's, however often it waits:
//!
//! 1. The call is tried without waiting and says `EAGAIN`.
//! 2. The first wait arms the descriptor with a poller (one `epoll_ctl`), which tells at once if the descriptor is
//!    ready. The poller forgets the descriptor by itself when it is closed. Only the directions are armed that somebody
//!    waits for or has waited for. The wait arms nothing if this poller is known to be armed (`known.rs`) and the
//!    descriptor is of a kind whose events are true. It then waits for an event that came after the first try began.
//! 3. The call is tried again. If it still says `EAGAIN`, the next wait arms nothing: it waits for an event that came
//!    after the last one. So a state that the kernel reports whenever it is asked (an error in the queue, a peer that
//!    has half-closed) wakes a call once.
//! 4. If poll(2) says "ready" and the call says `EAGAIN`, the kernel tells too little. After shutdown(2) the plain call
//!    ends at once ([`Ended::Plain`]). Otherwise the call is tried again after pauses.
//!
//! | file              | holds                                                                  |
//! |-------------------|------------------------------------------------------------------------|
//! | `wait.rs`         | a call and its states                                                  |
//! | `wait/facts.rs`   | whether a call goes by what is known, or asks the kernel               |
//! | `wait/waiting.rs` | arms the poller and waits                                              |
//!
//! Invariant 1: a waiter is in the queue before it arms, or before it compares the number of events. So no event is
//! lost.
//! Invariant 2: a waiter counts in `readers` or `writers` from its first arming to the end of its call, and arming asks
//! for all that is counted. So no arming takes away what another call waits for.
//! Invariant 3: an event that only says "readable" wakes one reader. The reader passes the event on at the end of its
//! call, unless the call found nothing. All other events wake all.
//! Invariant 4: a call that waits when its number is closed fails with `EBADF`. `closes` changes before the number is
//! closed, and a call that is tried again looks at `closes` while it counts in `trying`. The closing thread waits until
//! nobody counts there, or until `LONGEST_SPIN` (`closing.rs`) is over.

mod facts;
mod waiting;

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use crate::ask::{events_now, is_reset, option};
use crate::epoll::Set;
use crate::members::Members;
use crate::pauses::{Ended, next_pause};
use crate::slot::{Direction, FdSlot, slot, slot_if_any};

/// How long a wait relies on what is known of its descriptor before it asks. It is a guess: nobody notices a call
/// that is late by this much, and an idle descriptor is asked once in this time, which costs next to nothing.
const TRUST: Duration = Duration::from_millis(100);

/// A call that writes looks again after this time, whatever events came.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const BROKEN: isize = -(libc::EPIPE as isize);

/// One call of the program's on a descriptor.
pub(crate) struct Wait {
    fd: RawFd,
    direction: Direction,
    /// `None`: nobody has waited for a number near this one.
    slot: Option<&'static FdSlot>,
    /// How often the number had been closed when the call began.
    closes: u32,
    /// `FdSlot::events` before the first try.
    tried_at: Cell<Option<u32>>,
    /// The user has set the descriptor not to block. Asked for once a call, and again when the call doubts.
    nonblocking: Option<bool>,
    /// When the call ends by `SO_RCVTIMEO` or `SO_SNDTIMEO`. Asked for as `nonblocking` is.
    #[allow(clippy::option_option, reason = "not asked; no limit; until then")]
    limit: Option<Option<Instant>>,
    /// When the first wait began.
    began: Option<Instant>,
    trust: Trust,
    /// Only events tell of the descriptor: it is an epoll instance of weald's own.
    is_set: bool,
    /// No exception ends the call.
    is_firm: bool,
    /// The call has done a part of its work.
    has_part: bool,
    state: Option<Waiting>,
}

/// What a call relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// So far only on what the kernel has said during this call.
    Asked,
    /// In part on what is known.
    Known,
    /// To its end only on what the kernel has said during this call.
    Doubts,
}

/// A call that has waited.
struct Waiting {
    fd: RawFd,
    slot: &'static FdSlot,
    direction: Direction,
    armed: bool,
    /// `FdSlot::losses` when it was armed.
    losses: u32,
    /// `FdSlot::events` before the call was tried last.
    events: u32,
    /// The call was woken and has not waited since. It must pass the event on (invariant 3).
    owes: bool,
    /// The call has done something since it was woken.
    progressed: bool,
    /// The next pause, if the kernel tells too little.
    pause: Duration,
    /// Whether an exception may end the call; `None` before one is pending.
    firm: Option<bool>,
    /// The last pause of a call without events: weald's own socket has the registration, and there is no set for this
    /// call.
    untold: Option<Duration>,
    /// Used in place of a registration that weald's own socket has. The parts are dropped in this order.
    instead: Option<Box<(Wait, Members, Set)>>,
}

impl Waiting {
    /// Wakes another reader, if the event that woke this one is still to be used (invariant 3).
    fn pass_on(&mut self) {
        if std::mem::take(&mut self.owes)
            && self.direction == Direction::Read
            && !self.slot.read.is_empty()
            && events_now(self.fd, libc::POLLIN | libc::POLLRDHUP) != 0
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

/// Counts a call as being tried until it is dropped.
struct Trying(&'static AtomicU32);

impl Drop for Trying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl Wait {
    /// Called at the beginning of the call.
    #[inline]
    pub(crate) fn new(fd: RawFd, direction: Direction) -> Self {
        let slot = slot_if_any(fd);
        Self {
            fd,
            direction,
            slot,
            closes: slot.map_or(0, |slot| slot.closes.load(Ordering::Relaxed)),
            tried_at: Cell::new(None),
            nonblocking: None,
            limit: None,
            began: None,
            trust: Trust::Asked,
            is_set: false,
            is_firm: false,
            has_part: false,
            state: None,
        }
    }

    /// Returns a wait of a call that also waits elsewhere, where nothing makes it doubt. It relies on nothing that is
    /// known.
    pub(crate) fn that_asks(fd: RawFd, direction: Direction) -> Self {
        Self {
            trust: Trust::Doubts,
            ..Self::new(fd, direction)
        }
    }

    /// Returns a wait for the members of an epoll instance of weald's own.
    pub(crate) fn on_set(set: &Set) -> Self {
        Self {
            is_set: true,
            ..Self::that_asks(set.fd(), Direction::Read)
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// Tells if no exception ends the call.
    pub(crate) fn is_firm(&self) -> bool {
        self.is_firm
    }

    /// Makes the call one that no exception ends.
    pub(crate) fn make_firm(&mut self) {
        self.is_firm = true;
        if let Some(state) = &mut self.state {
            state.firm = Some(true);
            if let Some(instead) = &mut state.instead {
                instead.0.make_firm();
            }
        }
    }

    /// Called before the call waits for something else: another reader may use the event that woke this call.
    pub(crate) fn pass_on(&mut self) {
        if let Some(state) = &mut self.state {
            state.pass_on();
        }
    }

    /// Notes that the call has done a part of its work.
    pub(crate) fn progressed(&mut self) {
        if let Some(state) = &mut self.state {
            state.progressed = true;
        }
    }

    /// Notes that a part of the call's work is done: bytes of a stream.
    pub(crate) fn has_part(&mut self) {
        self.has_part = true;
    }

    /// Tells if a call that has done a part must end: one more try would take the error that the next call has to
    /// return, as with libc.
    pub(crate) fn is_over(&self) -> bool {
        self.has_part && is_reset(self.fd, self.direction)
    }

    /// Tries the call, which must not wait. After a wait, a number that belongs to another file by now is not tried.
    #[inline]
    pub(crate) fn attempt(&self, call: impl FnOnce() -> isize) -> isize {
        let Some(state) = &self.state else {
            if let Some(slot) = self.slot {
                self.tried_at.set(Some(slot.events.load(Ordering::Acquire)));
            }
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
        let result = call();
        if result == BROKEN && self.direction == Direction::Write {
            return self.why_broken();
        }
        result
    }

    /// Returns the error of a write. A call that waits inside the kernel while the peer of a Unix stream goes away is
    /// told of the reset; a call that begins afterwards is told `EPIPE`.
    #[cold]
    fn why_broken(&self) -> isize {
        match option(self.fd, libc::SO_ERROR) {
            Some(error) if error > 0 => -(error as isize),
            _ => BROKEN,
        }
    }

    /// Makes a call that may wait, unless the number was closed while this call has waited, perhaps for the right to
    /// make it. This is not done inside `attempt`, because a thread that closes a number waits for calls in
    /// `attempt`.
    pub(crate) fn unless_closed(&self, call: impl FnOnce() -> isize) -> isize {
        let is_open = self.attempt(|| 0);
        if is_open < 0 { is_open } else { call() }
    }

    /// Waits until the descriptor may be ready, at most until the deadline. For patched callers.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Ended {
        let mut skips = None;
        if self.state.is_none() {
            let Some(slot) = slot(self.fd) else {
                return Ended::Unpollable;
            };
            if self.may_skip_arming(slot) {
                skips = self.tried_at.get();
                self.trust = Trust::Known;
            }
            slot.waiters(self.direction).fetch_add(1, Ordering::Relaxed);
            // Pairs with the fence of `FdSlot::interest`: if this call finds that the poller is armed, a call that arms
            // it anew finds this call.
            fence(Ordering::SeqCst);
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
                untold: None,
                instead: None,
            });
        } else if let Some(ended) = self.look() {
            return ended;
        }
        let doubts = match self.trust {
            Trust::Known => {
                let began = *self.began.get_or_insert_with(Instant::now);
                Some(began + TRUST)
            }
            // The kernel wakes no writer of a Unix stream whose own writing side was shut down.
            Trust::Asked | Trust::Doubts => (self.direction == Direction::Write && !self.is_set)
                .then(|| Instant::now() + LOOK_AGAIN),
        };
        let until = match (deadline, doubts) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let closes = self.closes;
        let state = self.state.as_mut().expect("it was just made");
        let ended = state.wait(closes, skips, until);
        let is_over = |deadline: Instant| Instant::now() >= deadline;
        if ended == Ended::TimedOut && !deadline.is_some_and(is_over) {
            self.doubt();
            return Ended::Woken;
        }
        ended
    }

    /// Looks, after a wake-up without a reason, if what the kernel tells is true.
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
        let events = events_now(self.fd, asked);
        let ready = events & (libc::POLLIN | libc::POLLOUT) != 0;
        state.pause = if ready {
            next_pause(state.pause)
        } else {
            Duration::ZERO
        };
        let is_over = events & (libc::POLLRDHUP | libc::POLLHUP) != 0;
        (ready && is_over && self.direction == Direction::Read).then_some(Ended::Plain)
    }
}
