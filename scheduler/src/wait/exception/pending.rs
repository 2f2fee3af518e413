//! Which exception a thread raises next, and when: its own deadlines, and what its inbox holds.
#![allow(unsafe_code, reason = "the thread's own part of its header")]

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::time::Instant;

use crate::engine::record::{self, Kind};
use crate::green::current;
use crate::green::exception::AlarmKey;
use crate::green::exception::{BoxError, Elapsed, Exception, Tag};
use crate::green::exception::{Local, TimeoutFrame};
use crate::green::green_thread::Header;
use crate::parts::last_words;
use crate::shim::clock;

/// Stands for an exception that stays pending.
#[derive(Debug)]
pub(super) struct Deferred;

impl fmt::Display for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an exception waits to be raised")
    }
}

impl Error for Deferred {}

/// An exception on its way into its thread.
pub(crate) struct Raise {
    pub(super) exception: Exception,
    /// It was reported before. So it unwinds, even out of a call that returns errors.
    again: bool,
}

impl fmt::Debug for Raise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exception.fmt(f)
    }
}

impl Raise {
    /// Made instead of an exception that stays pending.
    fn deferred() -> Self {
        let error = Box::new(Deferred);
        let tag = Tag::Once;
        Self {
            exception: Exception { error, tag },
            again: false,
        }
    }

    /// Unwinds. If unwinding is impossible here, ends the process.
    pub(crate) fn unwind(self) -> ! {
        if cfg!(panic = "abort") {
            self.abort();
        }
        note_exception();
        resume_unwind(Box::new(self.exception))
    }

    /// Ends the process, as a panic would, with a message that says why.
    #[cold]
    fn abort(self) -> ! {
        // SAFETY: the thread that was asked for its exceptions has a header, and runs.
        let header = unsafe { &*current::running() };
        let kind = if header.is_green() { "green" } else { "OS" };
        let (name, id) = (header.name().unwrap_or("<unnamed>"), header.id.get());
        last_words::abort(format_args!(
            "an exception was raised in {kind} thread '{name}' (id {id}): \"{}\". The program is built with \
             panic = \"abort\", so that it cannot unwind",
            self.exception
        ))
    }

    /// Becomes the error of a call that returns `io::Result`, or unwinds if it was reported before.
    pub(crate) fn into_io(self) -> io::Error {
        if self.again {
            self.unwind()
        }
        let kind = if self.exception.downcast_ref::<Elapsed>().is_some() {
            io::ErrorKind::TimedOut
        } else {
            io::ErrorKind::Other
        };
        io::Error::new(kind, self.exception.error)
    }
}

impl Local {
    /// How many of `frames` are held: the outermost ones, and everything else is held with them. `None`: nothing is held.
    pub(super) fn held(&self, header: &Header) -> Option<usize> {
        if self.hold > 0 {
            return Some(self.held);
        }
        // If an exception left a destructor of a thread-local, nothing could catch it.
        header.ending.get().then_some(0)
    }

    /// The moment until which a wait may last at most.
    pub(crate) fn earliest(&self, header: &Header) -> Option<Instant> {
        let Some(held) = self.held(header) else {
            return self.earliest;
        };
        let inner = self.frames.iter().skip(held);
        inner.filter(|s| !s.raised).filter_map(|s| s.deadline).min()
    }

    /// Adds an `exc_after` to the thread's inbox. The error comes back if the thread's body has ended: it
    /// will never be raised.
    pub(crate) fn add_alarm(
        &mut self,
        header: &Header,
        deadline: Instant,
        error: BoxError,
    ) -> (AlarmKey, Option<BoxError>) {
        let key = (deadline, self.number());
        let late = header.cold().inbox.lock().add_alarm(header, key, error);
        if late.is_none() {
            self.alarm = Some(self.alarm.map_or(deadline, |e| e.min(deadline)));
            self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        }
        (key, late)
    }

    /// The next exception to raise, in the order of rule 8.
    fn next(&mut self, header: &Header) -> Option<Raise> {
        self.reported = false;
        let held = self.held(header);
        if held.is_none() && header.state.is_pending() && header.cold().inbox.lock().is_killed() {
            let again = std::mem::replace(&mut self.kill_raised, true);
            return Some(Raise {
                exception: Exception::killed(),
                again,
            });
        }
        let now = if self.earliest.is_some() {
            Some(clock::now())
        } else {
            None
        };
        if self.timeout_raised || now.is_some() {
            let first = held.unwrap_or(0);
            let passed = self.frames.iter_mut().skip(first).find(|frame| {
                frame.raised || matches!((frame.deadline, now), (Some(d), Some(n)) if d <= n)
            });
            if let Some(frame) = passed {
                let again = std::mem::replace(&mut frame.raised, true);
                let tag = Tag::Timeout(frame.id);
                self.timeout_raised = true;
                if !again {
                    self.find_earliest();
                }
                let error = Box::new(Elapsed(()));
                return Some(Raise {
                    exception: Exception { error, tag },
                    again,
                });
            }
        }
        if held.is_some() {
            None
        } else {
            self.next_once(header, now)
        }
    }

    /// Whether `next` would find something. Takes nothing out.
    fn is_due(&mut self, header: &Header) -> bool {
        let held = self.held(header);
        let now = self.earliest.map(|_| clock::now());
        let first = held.unwrap_or(0);
        let passed = |frame: &TimeoutFrame| {
            frame.raised || matches!((frame.deadline, now), (Some(d), Some(n)) if d <= n)
        };
        if self.frames.iter().skip(first).any(passed) {
            return true;
        }
        if held.is_some() || (now.is_none() && !header.state.is_pending()) {
            return false;
        }
        let inbox = header.cold().inbox.lock();
        let alarm = inbox.first_alarm();
        let others = inbox.is_pending();
        drop(inbox);
        self.set_alarm(alarm);
        others || matches!((alarm, now), (Some(alarm), Some(now)) if alarm <= now)
    }

    /// The next one-shot exception: the earliest of those thrown and those due by themselves.
    fn next_once(&mut self, header: &Header, now: Option<Instant>) -> Option<Raise> {
        if now.is_none() && !header.state.is_pending() {
            return None;
        }
        let mut inbox = header.cold().inbox.lock();
        let error = inbox.take_once(header, now);
        let next = inbox.first_alarm();
        drop(inbox);
        self.set_alarm(next);
        let exception = Exception {
            error: error?,
            tag: Tag::Once,
        };
        Some(Raise {
            exception,
            again: false,
        })
    }
}

/// True while the calling thread unwinds.
#[inline]
pub(crate) fn is_unwinding() -> bool {
    // Threads that wait while they unwind have taken their panics off the count (`carrier/unwinding.rs`).
    let panicking = std::thread::panicking();
    #[cfg(loom)]
    return crate::thin::unwinds(panicking);
    #[cfg(not(loom))]
    panicking
}

/// Notes that an exception is about to unwind. No panic hook is called for it.
pub(crate) fn note_exception() {
    #[cfg(loom)]
    crate::thin::exception_unwinds();
}

/// Whether exceptions may be raised in the calling thread now.
#[inline]
pub(crate) fn admits() -> bool {
    !is_unwinding()
}

/// Whether the thread holds exceptions: then only timeouts that it entered since may end a wait.
#[inline]
pub(crate) fn holds(header: &Header) -> bool {
    // SAFETY: the thread asks about itself.
    header.ending.get() || unsafe { header.local_if_any() }.is_some_and(|local| local.hold > 0)
}

/// A few instructions that find out, in the common case, that there is nothing to raise.
#[inline]
pub(crate) fn is_quiet(header: &Header) -> bool {
    header.cold_if_any().is_none() && !header.state.is_pending()
}

/// Every blocking call does this first: it looks whether there is an exception to raise.
#[inline]
pub(crate) fn check(header: &Header) -> Option<Raise> {
    if is_quiet(header) {
        None
    } else {
        check_slow(header)
    }
}

#[cold]
#[inline(never)]
fn check_slow(header: &Header) -> Option<Raise> {
    // SAFETY: the thread asks about itself.
    let local = unsafe { header.local() };
    if local.never_waits > 0 {
        refuse_to_wait();
    }
    if local.is_quiet() && !header.state.is_pending() {
        return None;
    }
    if is_unwinding() {
        return None;
    }
    if local.defers > 0 {
        return local.is_due(header).then(Raise::deferred);
    }
    let raise = local.next(header);
    if raise.is_some() && record::is_on() {
        record::note(Kind::Exception, header.id.get(), 0);
    }
    raise
}

#[cold]
fn refuse_to_wait() -> ! {
    panic!("a blocking call of weald in `on_os_thread`, whose closure must not wait");
}

/// Panics in `on_os_thread`. Called before a wait that no exception can interrupt, because such a wait does not ask for
/// exceptions.
pub(crate) fn check_may_wait() {
    // SAFETY: the running thread's header is alive, and it asks about itself. An OS thread without one holds nothing.
    let local = unsafe { current::running().as_ref().and_then(|it| it.local_if_any()) };
    if local.is_some_and(|local| local.never_waits > 0) {
        refuse_to_wait();
    }
}

/// Whether a blocking call would raise something now. It stays pending.
pub(crate) fn is_due(header: &Header) -> bool {
    match header.cold_if_any() {
        None if !header.state.is_pending() => false,
        // SAFETY: the thread asks about itself.
        _ => !is_unwinding() && unsafe { header.local() }.is_due(header),
    }
}
