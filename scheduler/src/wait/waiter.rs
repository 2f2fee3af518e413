//! Waiting: the one way into sleep for everything that blocks, on green and OS threads alike.
//!
//! 1. `Waiting::begin` takes the number of the wait, its *epoch*.
//! 2. The caller leaves epoch and header where its wakers will look. Then it looks once more
//!    whether it must wait at all. If not, it calls `abandon`.
//! 3. `park` leaves the stack. The carrier publishes PARKED; from then on a waker may resume the
//!    thread anywhere. A waker that came between 2 and 3 was early: the thread is queued at once.
//!
//! For a deadline there is a timer in the wheel of the worker that the thread runs on. The timer is made before the
//! switch. It is cancelled after the switch, from another worker if the thread has migrated. If there is no
//! worker (on an OS thread, inside `blocking`), the OS thread blocks instead: it waits *in place*.
#![allow(unsafe_code, reason = "the running thread's own header")]

use std::time::Instant;

use crate::engine::carrier::{self, Unwinding};
use crate::engine::inner::Inner;
use crate::engine::record::{self, Kind};
use crate::engine::share_forks;
use crate::engine::worker::millis_since;
use crate::green::awaited::{Awaited, Mark, On};
use crate::green::green_thread::{Header, Note};
use crate::green::switch_out::switch_out;
use crate::parts::os_parker::Parker;
use crate::parts::state::{WaitKind, Wake, Why};
use crate::shim::clock;
use crate::wait::exception::{self, Raise};
use crate::wait::os_header;

/// How a wait ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A waker ended it, for this reason.
    Woken(Why),
    /// The caller's deadline passed.
    TimedOut,
    /// An exception is to be raised; the wait was not satisfied.
    Raised(Raise),
    /// An exception is to be raised. It stays in the inbox ([`Admit::Reported`]).
    Pending,
    /// The wait ended for an exception that was cancelled since. The caller must look again.
    Again,
}

/// What a wait admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admit {
    /// Exceptions end it, unless the thread holds them or unwinds.
    Exceptions,
    /// Exceptions end it, as for `Exceptions`. But the wait only reports them, and a later call raises them.
    Reported,
    /// Only its wakers end it.
    NoExceptions,
}

/// A wait that has begun.
#[derive(Debug)]
pub(crate) struct Waiting {
    header: *const Header,
    epoch: u32,
}

impl Waiting {
    /// Begins a wait of the running thread. `on` says for what it waits.
    #[inline]
    pub(crate) fn begin(on: On) -> Self {
        let header = os_header::header();
        // SAFETY: the running thread's header is alive as long as it runs.
        let running = unsafe { &*header };
        running.left_at.set_on(on);
        if running.forks.is_used() {
            share_forks::share_all(running);
        }
        let epoch = running.state.next_epoch();
        Self { header, epoch }
    }

    /// Makes the value anew of a wait of the running thread that has begun and not ended.
    pub(crate) fn resume(header: *const Header, epoch: u32) -> Self {
        Self { header, epoch }
    }

    pub(crate) fn header(&self) -> *const Header {
        self.header
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Ends the wait before the thread has parked. `Some`: a waker was first.
    #[inline]
    pub(crate) fn abandon(self) -> Option<Why> {
        // SAFETY: as in `begin`.
        unsafe { (*self.header).state.abandon(self.epoch) }
    }

    /// Leaves the stack until a waker, the deadline or an exception ends the wait.
    #[inline]
    pub(crate) fn park(self, deadline: Option<Instant>, by_token: bool, admit: Admit) -> Ended {
        // SAFETY: as in `begin`.
        let header = unsafe { &*self.header };
        let (admitted, kind, until) = terms(header, deadline, by_token, admit);
        let why = match until {
            None if carrier::can_suspend(header) && !std::thread::panicking() => {
                switch_out(
                    header,
                    Note::Park {
                        epoch: self.epoch,
                        kind,
                    },
                );
                header.state.why()
            }
            _ => park_slow(header, self.epoch, kind, until),
        };
        match why {
            Why::TIMED_OUT | Why::EXCEPTION => {
                ended_early(header, why, deadline, admitted.then_some(admit))
            }
            why => Ended::Woken(why),
        }
    }

    /// As [`park`](Self::park), for a thread that cannot leave its stack. It blocks its OS thread by `block`, which
    /// returns true when the parker is notified, and false when something else ends its wait. It returns at the
    /// moment that it is given, at the latest.
    #[cold]
    #[cfg(not(loom))]
    pub(crate) fn block(
        self,
        deadline: Option<Instant>,
        block: &mut dyn FnMut(&Parker, Option<Instant>) -> bool,
    ) -> Ended {
        // SAFETY: as in `begin`.
        let header = unsafe { &*self.header };
        let (admitted, kind, until) = terms(header, deadline, false, Admit::Exceptions);
        match park_in_place(header, self.epoch, kind, until, block) {
            why @ (Why::TIMED_OUT | Why::EXCEPTION) => {
                let admitted = admitted.then_some(Admit::Exceptions);
                ended_early(header, why, deadline, admitted)
            }
            why => Ended::Woken(why),
        }
    }
}

/// The terms of a wait: whether exceptions end it, its kind for the state word, and when it ends at the latest.
#[inline(always)]
fn terms(
    header: &Header,
    deadline: Option<Instant>,
    by_token: bool,
    admit: Admit,
) -> (bool, WaitKind, Option<Instant>) {
    let admitted = admit != Admit::NoExceptions && exception::admits();
    let interruptible = admitted && !exception::holds(header);
    let alarm = if admitted {
        // SAFETY: the thread asks about itself.
        unsafe { header.local_if_any() }.and_then(|local| local.earliest(header))
    } else {
        None
    };
    let until = match (deadline, alarm) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let kind = WaitKind {
        by_token,
        interruptible,
        in_place: false,
    };
    (admitted, kind, until)
}

/// A deadline or an exception has ended the wait. Finds out whether it was the caller's deadline, or an `exc_after`.
#[cold]
fn ended_early(
    header: &Header,
    why: Why,
    deadline: Option<Instant>,
    admitted: Option<Admit>,
) -> Ended {
    match admitted {
        Some(Admit::Exceptions) => {
            if let Some(raise) = exception::check(header) {
                return Ended::Raised(raise);
            }
        }
        Some(Admit::Reported) => {
            if exception::is_due(header) {
                return Ended::Pending;
            }
        }
        Some(Admit::NoExceptions) | None => {}
    }
    if why == Why::TIMED_OUT && deadline.is_some_and(|deadline| clock::now() >= deadline) {
        return Ended::TimedOut;
    }
    Ended::Again
}

/// Parks a thread that has a deadline, unwinds, or must not leave its OS thread.
#[inline(never)]
fn park_slow(header: &Header, epoch: u32, kind: WaitKind, until: Option<Instant>) -> Why {
    if until.is_some() {
        header.left_at.set_on(header.left_at.on().limited());
    }
    let unwinding = if carrier::can_suspend(header) {
        Unwinding::set_aside(header)
    } else {
        None
    };
    let Some(unwinding) = unwinding else {
        return park_in_place(header, epoch, kind, until, &mut Parker::wait);
    };
    let armed = until.map(|until| carrier::arm(header, epoch, until));
    switch_out(header, Note::Park { epoch, kind });
    drop(unwinding);
    let why = header.state.why();
    if why != Why::TIMED_OUT
        && !fault!("waiter_leaves_its_timer")
        && let Some(armed) = armed
    {
        armed.cancel(header);
    }
    why
}

/// Blocks the OS thread.
#[cold]
fn park_in_place(
    header: &Header,
    epoch: u32,
    kind: WaitKind,
    until: Option<Instant>,
    block: &mut dyn FnMut(&Parker, Option<Instant>) -> bool,
) -> Why {
    if record::is_on() {
        record::in_place(Kind::Park, header);
    }
    let parker = crate::shim::sync::Arc::clone(&header.cold().parker);
    let away = carrier::away_in_place(header);
    note_in_place(header);
    let kind = WaitKind {
        in_place: true,
        ..kind
    };
    let why = match header.state.park(epoch, kind) {
        Err(why) => why,
        Ok(()) => {
            if block(&parker, until) {
                header.state.why()
            } else {
                // The deadline came, or something else that `block` waits for. If a waker was first all the same, it
                // will notify the parker. Wait for that, or the next wait would take it for its own.
                if header.state.wake(epoch, Why::TIMED_OUT) != Wake::WonInPlace {
                    parker.wait(None);
                }
                header.state.why()
            }
        }
    };
    drop(away);
    if record::is_on() {
        record::in_place(Kind::Run, header);
    }
    why
}

/// Notes for `dump` what a thread that blocks in place would note when it leaves its stack.
#[inline(always)]
fn note_in_place(header: &Header) {
    header.left_at.note();
    // SAFETY: a runtime is there as long as its threads; an OS thread has no runtime.
    if let Some(inner) = unsafe { Inner::of_any(header) } {
        header
            .left_at
            .set_time(millis_since(inner.start, clock::now()));
        #[cfg(not(loom))]
        if inner.settings.on_silence.is_some() {
            inner.monitor.waits_in_place();
        }
    }
}

/// A limit may end what the running thread does now: its own, or that of a thread which would then kill it.
pub(crate) fn has_limit() -> bool {
    let header = os_header::header();
    // SAFETY: the running thread's header is alive, and the thread asks about itself.
    unsafe { (*header).has_limit() }
}

/// Every blocking call that unwinds with its exceptions begins with this.
#[inline]
pub(crate) fn enter() -> *const Header {
    let header = os_header::header();
    // SAFETY: the running thread's header is alive.
    if let Some(raise) = exception::check(unsafe { &*header }) {
        raise.unwind();
    }
    header
}

/// A blocking call that did not wait ends with this. It spends from the thread's budget. When the budget is used up,
/// the thread gives way.
#[inline]
pub(crate) fn spend() {
    carrier::spend(share_forks::share_all);
}

/// `enter` and `spend` at once, for a call that will mostly not wait. Returns the caller's mark.
#[inline]
pub(crate) fn enter_and_spend() -> Mark {
    enter_and_spend_after(|| {})
}

/// As `enter_and_spend`. Calls `first` before anything that may suspend the thread. Returns the caller's mark.
#[inline]
pub(crate) fn enter_and_spend_after(first: impl FnOnce()) -> Mark {
    let (carrier, header) = carrier::here_and_thread();
    // SAFETY: what runs here is alive, and a carrier outlives what runs on its OS thread.
    let quick = unsafe {
        !carrier.is_null()
            && !header.is_null()
            && exception::is_quiet(&*header)
            && carrier::spend_from(&*carrier)
    };
    if !quick {
        first();
        enter_and_spend_slow();
    }
    // SAFETY: as above; nothing else runs as this thread.
    unsafe { header.as_ref() }.map_or(Mark::NONE, Header::mark)
}

/// The mark that stands for the running thread in a lock that it holds.
pub(crate) fn mark() -> Mark {
    let (_, header) = carrier::here_and_thread();
    // SAFETY: what runs here is alive.
    unsafe { header.as_ref() }.map_or(Mark::NONE, Header::mark)
}

#[cold]
#[inline(never)]
fn enter_and_spend_slow() {
    enter();
    spend();
}

/// Sleeps until the deadline (`None`: for ever); exceptions unwind.
pub(crate) fn sleep_until(deadline: Option<Instant>) {
    enter();
    loop {
        if deadline.is_some_and(|deadline| clock::now() >= deadline) {
            return;
        }
        waits_for!(Time);
        match Waiting::begin(On::just(Awaited::Time)).park(deadline, false, Admit::Exceptions) {
            Ended::TimedOut => return,
            Ended::Raised(raise) => raise.unwind(),
            Ended::Woken(_) | Ended::Again | Ended::Pending => {}
        }
    }
}

/// Waits for the user's token, at most until the deadline.
#[inline]
pub(crate) fn park_until(deadline: Option<Instant>) {
    let header = enter();
    // SAFETY: the running thread's header is alive.
    if unsafe { (*header).state.take_token() } {
        spend();
        return;
    }
    waits_for!(Unpark);
    loop {
        match Waiting::begin(On::just(Awaited::Unpark)).park(deadline, true, Admit::Exceptions) {
            Ended::Woken(_) | Ended::TimedOut => return,
            Ended::Raised(raise) => raise.unwind(),
            Ended::Again | Ended::Pending => {}
        }
    }
}
