//! Waiting for a descriptor.
//!
//! There is an [`FdSlot`] for each descriptor *number*: who waits for it, in each direction. `close` tells
//! those who wait. What is remembered of the file behind the number (`known.rs`) only saves system calls:
//! nothing need be known of `dup` or `fork`. A [`Wait`] is one call of the program's, however often it waits:
//!
//! 1. The call is tried without waiting and says `EAGAIN`.
//! 2. The first wait arms the descriptor with a poller (one `epoll_ctl`), which tells at once if it is
//!    ready; the poller forgets it by itself when the descriptor is closed. Only the directions that
//!    somebody waits or has waited for are armed. If this poller is known to be armed (`known.rs`), and
//!    the descriptor is of a kind whose events are true, the wait arms nothing: it waits for an event that
//!    came after the first try began.
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
//! closes waits until nobody does, or `LONGEST_SPIN` (`closing.rs`) is over.
use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use weald_scheduler::patch::{self, Home, Pending, Waited};

use crate::ask::{events_now, has_true_events, is_nonblocking, is_reset, option, socket_limit};
use crate::epoll::Set;
use crate::firm;
use crate::known::{BLOCKS, READS_WITHOUT_LIMIT, Stamp, WRITES_WITHOUT_LIMIT};
use crate::members::Members;
use crate::pauses::{Ended, NOBODY, Pausing, errno_of, next_pause};
use crate::slot::{Direction, FdSlot, SETTINGS, on_loss, slot, slot_if_any};

/// A wait rests for so long on what is known of its descriptor, then it asks. A guess: nobody notices a call that is late by
/// so much, and a descriptor that is idle for longer is asked once, which costs next to nothing.
const TRUST: Duration = Duration::from_millis(100);

/// A call that writes looks again after this, whatever was told.
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
    /// The user has asked for a descriptor that does not block; asked for once a call, and again when it doubts.
    nonblocking: Option<bool>,
    /// When the call ends by `SO_RCVTIMEO` or `SO_SNDTIMEO`; asked for as `nonblocking`.
    #[allow(clippy::option_option, reason = "not asked; no limit; until then")]
    limit: Option<Option<Instant>>,
    /// When the first wait began.
    began: Option<Instant>,
    trust: Trust,
    /// Only its events say anything: an epoll instance of our own.
    is_set: bool,
    /// No exception ends it.
    is_firm: bool,
    /// The call has done a part of its work.
    has_part: bool,
    state: Option<Waiting>,
}

/// What a call goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// What the kernel has said during this call, so far.
    Asked,
    /// What is known, in part.
    Known,
    /// What the kernel has said during this call, to the end.
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
    /// It was woken and has not waited since: it passes the event on (invariant 3).
    owes: bool,
    /// The call has done something since it was woken.
    progressed: bool,
    /// The next pause, of a call that the kernel tells too little of.
    pause: Duration,
    /// Whether an exception may end it; not known before one is pending.
    firm: Option<bool>,
    /// The last pause of a call that no events tell of: weald's own socket has the registration, and there is no set for this call.
    untold: Option<Duration>,
    /// In place of a registration that weald's own socket has. They end in this order.
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

    /// For a call that also waits elsewhere, where nothing tells it to doubt: it goes by nothing that is known.
    pub(crate) fn that_asks(fd: RawFd, direction: Direction) -> Self {
        Self {
            trust: Trust::Doubts,
            ..Self::new(fd, direction)
        }
    }

    /// For the members of an epoll instance of our own.
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

    /// The call that says `EAGAIN` is to return it.
    pub(crate) fn is_nonblocking(&mut self) -> bool {
        if let Some(nonblocking) = self.nonblocking {
            return nonblocking;
        }
        let mut nonblocking = false;
        if !self.knows(BLOCKS) {
            let stamp = self.slot.map(|slot| slot.known.stamp(&SETTINGS));
            nonblocking = is_nonblocking(self.fd);
            if !nonblocking {
                self.learn(stamp, BLOCKS);
            }
        }
        self.nonblocking = Some(nonblocking);
        nonblocking
    }

    /// When the call ends by `SO_RCVTIMEO` or `SO_SNDTIMEO`, which count from its first wait.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        if let Some(limit) = self.limit {
            return limit;
        }
        let fact = match self.direction {
            Direction::Read => READS_WITHOUT_LIMIT,
            Direction::Write => WRITES_WITHOUT_LIMIT,
        };
        let mut limit = None;
        if !self.knows(fact) {
            let stamp = self.slot.map(|slot| slot.known.stamp(&SETTINGS));
            match socket_limit(self.fd, self.direction) {
                Some(duration) => {
                    limit = self
                        .began
                        .get_or_insert_with(Instant::now)
                        .checked_add(duration);
                }
                None => self.learn(stamp, fact),
            }
        }
        self.limit = Some(limit);
        limit
    }

    /// It is known to be a stream or a pipe, whose events are true.
    #[inline]
    pub(crate) fn has_true_events(&self) -> bool {
        self.slot
            .is_some_and(|slot| slot.known.has_true_events() == Some(true))
    }

    fn knows(&mut self, fact: u64) -> bool {
        let knows = self.trust != Trust::Doubts
            && self
                .slot
                .is_some_and(|slot| slot.known.knows(&SETTINGS, fact));
        if knows {
            self.trust = Trust::Known;
        }
        knows
    }

    fn learn(&self, stamp: Option<Stamp>, fact: u64) {
        if let (Some(slot), Some(stamp)) = (self.slot, stamp) {
            slot.known.learn(stamp, fact);
        }
    }

    /// From now on the call goes by what the kernel says.
    #[cold]
    fn doubt(&mut self) {
        self.trust = Trust::Doubts;
        self.nonblocking = None;
        self.limit = None;
        if let Some(state) = &mut self.state {
            state.armed = false;
            state.slot.known.forget();
        }
    }

    /// This poller tells of the direction already, and its events are true.
    fn may_skip_arming(&self, slot: &FdSlot) -> bool {
        let Some(home) = Home::of(&slot.at) else {
            return false;
        };
        if self.trust == Trust::Doubts
            || self.tried_at.get().is_none()
            || slot.known.armed(home.id()) & self.direction.bit() == 0
        {
            return false;
        }
        // Asked for at the second wait: a short connection has one.
        slot.known.has_true_events().unwrap_or_else(|| {
            let changes = slot.known.changes();
            let is_true = has_true_events(self.fd);
            slot.known.learn_kind(changes, is_true);
            is_true
        })
    }

    /// No exception ends the call.
    pub(crate) fn is_firm(&self) -> bool {
        self.is_firm
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

    /// A part of the call's work, a stream's bytes, is done.
    pub(crate) fn has_part(&mut self) {
        self.has_part = true;
    }

    /// A call that has done a part is over: one more try would take the error away that the next call is to
    /// return, as libc's does.
    pub(crate) fn is_over(&self) -> bool {
        self.has_part && is_reset(self.fd, self.direction)
    }

    /// Tries the call, which must not wait. After a wait it is not tried on another file that has got
    /// the number.
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

    /// Who waits inside the kernel while the peer of a Unix stream goes is told of the reset; a call that begins then is told `EPIPE`.
    #[cold]
    fn why_broken(&self) -> isize {
        match option(self.fd, libc::SO_ERROR) {
            Some(error) if error > 0 => -(error as isize),
            _ => BROKEN,
        }
    }

    /// Makes a call that may wait, unless the number was closed while this one has waited, perhaps for the right to make it. Not
    /// inside of `attempt`, as whoever closes a number waits for those.
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
            // Pairs with the fence of `FdSlot::interest`: if this call finds the poller armed, whoever arms it anew finds this call.
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

impl Waiting {
    /// `skips`: the number of events when the call was first tried, if the poller need not be armed.
    fn wait(&mut self, closes: u32, skips: Option<u32>, deadline: Option<Instant>) -> Ended {
        if let Some(pending) = self.pending() {
            return Ended::Failed(errno_of(pending));
        }
        if let Some(pause) = &mut self.untold {
            *pause = next_pause(*pause);
            self.pause = *pause;
        }
        let pause = (!self.pause.is_zero()).then(|| Instant::now() + self.pause);
        let until = match (deadline, pause) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let _pausing = pause.map(|_| Pausing::begin());
        let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if let Some(ended) = self.wait_for_set(closes, until) {
            return match ended {
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
            let Some(home) = Home::of(&slot.at) else {
                armed = Err(io::ErrorKind::NotConnected.into());
                return true;
            };
            let (poller, changes) = (home.id(), slot.known.changes());
            if let Some(events) = skips
                && slot.known.armed(poller) & direction.bit() != 0
            {
                self.armed = true;
                return slot.events.load(Ordering::Acquire) != events;
            }
            armed = home.arm(
                fd,
                &slot.event,
                || slot.interest() | slot.known.armed(poller),
                |interest| {
                    slot.known.arm(changes, poller, interest);
                    slot.was_armed(poller);
                },
                on_loss,
            );
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
            return self.wait_instead();
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

    /// Weald's own socket has the registration: from now on an epoll instance of this call's own tells, in the poller as any descriptor;
    /// or the clock, if there is none.
    #[cold]
    fn wait_instead(&mut self) -> Ended {
        let events = match self.direction {
            Direction::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Direction::Write => libc::EPOLLOUT,
        };
        let Some(mut set) = Set::new() else {
            self.untold = Some(Duration::ZERO);
            return Ended::Woken;
        };
        let mut wait = Wait::on_set(&set);
        if self.firm == Some(true) {
            wait.make_firm();
        }
        let members = Members::of_set(set.fd(), std::iter::once(self.fd));
        if !set.add(self.fd, events.cast_unsigned()) {
            return Ended::Unpollable;
        }
        self.instead = Some(Box::new((wait, members, set)));
        Ended::Woken
    }

    /// Waits for the epoll instance that is there in place of a registration, if one is.
    fn wait_for_set(&mut self, closes: u32, until: Option<Instant>) -> Option<Ended> {
        let ended = self.instead.as_mut()?.0.wait(until);
        let is_open = self.slot.closes.load(Ordering::Acquire) == closes;
        if ended == Ended::Failed(libc::EBADF) && is_open {
            // The close was that of the file that had the number before, and had begun before this wait. The next wait makes a new set.
            self.instead = None;
            return Some(Ended::Woken);
        }
        Some(ended)
    }

    /// An exception that is to end the call.
    fn pending(&mut self) -> Option<Pending> {
        let pending = patch::pending()?;
        let (fd, direction) = (self.fd, self.direction);
        let firm = *self
            .firm
            .get_or_insert_with(|| firm::is_firm(fd, direction));
        (!firm).then_some(pending)
    }
}
