//! Errors raised *in* a thread by someone else: where they wait, in which order and how often they
//! are raised.
//!
//! A thread is its own alarm clock: `timeout` puts its deadline in the thread's [`Local`] and
//! `exc_after` in its [`Inbox`]; a wait ends at the earliest of them (so the wheel holds an entry
//! only while the thread waits), and a blocking call that need not wait compares the clock with the
//! earliest, if there is one. It is the same on a green and on an OS thread. What others raise
//! (`throw`, `kill`) goes through the inbox, a lock, and the state word's PENDING.
//!
//! | source       | raised                          | tag        |
//! |--------------|---------------------------------|------------|
//! | `kill`       | in every blocking call          | `Kill`     |
//! | `timeout`    | in every one inside the closure | `Scope(n)` |
//! | the others   | in one                          | `Once`     |
//!
//! Invariant 1: `Local` is touched by its own thread alone. An `exc_after` is live as long as it is
//! in the inbox: who takes it out, to raise or to cancel it, has won.
//! Invariant 2: nothing is raised while the thread unwinds; and while it holds exceptions (`hold`)
//! only the timeouts that were entered since.
//! Invariant 3: PENDING is set and cleared under the inbox's lock, so it is set whenever the inbox
//! holds something to raise.
#![allow(unsafe_code, reason = "the thread's own part of its header")]

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::time::Instant;

use crate::current;
use crate::green_thread::{Header, Hint};
use crate::locals::Locals;
use crate::shim::atomic::Ordering;
use crate::shim::clock;

/// The error of an exception.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// What an exception unwinds with, and what `join` hands on of a thread that one has ended.
///
/// # Examples
/// ```
/// use weald_scheduler::{Exception, Killed, Runtime, park, spawn};
///
/// let rt = Runtime::builder().workers(1).build()?;
/// rt.run(|| {
///     let thread = spawn(park);
///     thread.thread().kill();
///     let payload = thread.join().unwrap_err();
///     let exception = payload.downcast_ref::<Exception>().unwrap();
///     assert!(exception.downcast_ref::<Killed>().is_some());
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Exception {
    error: BoxError,
    tag: Tag,
}

/// Where an exception came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Kill,
    Scope(u64),
    Once,
}

impl Exception {
    pub(crate) fn killed() -> Self {
        Self {
            error: Box::new(Killed(())),
            tag: Tag::Kill,
        }
    }

    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// The error, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref::<E>()
    }

    /// The error itself.
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.error
    }
}

impl fmt::Debug for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exception").field(&self.error).finish()
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

/// The error that [`GreenThread::kill`](crate::GreenThread::kill) raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed(());

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the green thread was killed")
    }
}

impl Error for Killed {}

/// The error of a [`timeout`](crate::timeout) whose limit has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(pub(crate) ());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit has passed")
    }
}

impl Error for Elapsed {}

/// Tells an `exc_after` of a thread from its others; in the order in which they are due.
pub(crate) type AlarmKey = (Instant, u64);

/// What is to be raised in a thread, apart from its `timeout`s.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    killed: bool,
    thrown: Vec<(Instant, BoxError)>,
    /// `None`: the thread has ended, and its error was dropped.
    alarms: BTreeMap<AlarmKey, Option<BoxError>>,
    /// The thread has ended.
    closed: bool,
}

impl Inbox {
    /// Takes the errors that will never be raised; when the thread has ended.
    fn close(&mut self, header: &Header) -> Vec<BoxError> {
        self.closed = true;
        count_alarms(header, 0_usize.wrapping_sub(self.alarms.len()));
        let alarms = self.alarms.values_mut().filter_map(Option::take);
        let thrown = self.thrown.drain(..).map(|(_, error)| error);
        thrown.chain(alarms).collect()
    }
}

/// Adds to the number of live alarms of the thread's runtime. Under the lock of the inbox of a
/// thread that has not ended, whose runtime therefore is there.
fn count_alarms(header: &Header, by: usize) {
    if by != 0 && !header.runtime.is_null() {
        // SAFETY: a runtime outlives its green threads, and this one takes the lock to end.
        unsafe { &*header.runtime }
            .alarms
            .fetch_add(by, Ordering::Relaxed);
    }
}

/// Takes an `exc_after` out of its thread's inbox. False: it has fired or was cancelled.
pub(crate) fn cancel_alarm(header: &Header, key: AlarmKey) -> bool {
    let mut inbox = header.cold().inbox.lock();
    let Some(error) = inbox.alarms.remove(&key) else {
        return false;
    };
    if !inbox.closed {
        count_alarms(header, usize::MAX);
    }
    drop(inbox);
    // Outside the lock: the destructor is the user's.
    drop(error);
    true
}

/// Drops what was to be raised in a thread that ends: nobody will see it.
pub(crate) fn close(header: &Header) {
    if let Some(cold) = header.cold_if_any() {
        let left = cold.inbox.lock().close(header);
        // The errors' destructors are the user's.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(left)));
    }
}

/// One `timeout` on the thread's stack.
#[derive(Debug)]
struct Scope {
    id: u64,
    /// `None`: it never passes.
    deadline: Option<Instant>,
    /// Its exception was raised.
    raised: bool,
}

/// A thread's own part: its deadlines, how its exceptions stand, its locals.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// The `timeout`s around the running code, outermost first.
    scopes: Vec<Scope>,
    /// The earliest deadline of the inbox's alarms when it was last looked at; it may be too early.
    alarm: Option<Instant>,
    /// The earlier of `alarm` and of the scopes' deadlines that were not raised.
    earliest: Option<Instant>,
    /// Numbers scopes and alarms.
    next: u64,
    kill_raised: bool,
    /// Some scope's exception was raised and the scope is still there.
    scope_raised: bool,
    /// While above zero nothing is raised but the timeouts entered since.
    hold: u32,
    /// How many of `scopes` are held: those that were there when the hold began.
    held: usize,
    /// Above zero while a `blocking` closure runs.
    pub(crate) blocking: u32,
    /// Above zero while `defer` runs: what is to be raised stays where it is.
    defers: u32,
    /// An exception of ours may be unwinding; `own_unwinding` says when that counts.
    raising: bool,
    pub(crate) locals: Locals,
}

/// An exception on its way into its thread.
pub(crate) struct Raise {
    exception: Exception,
    /// It was reported before: it unwinds, whatever the call would return.
    again: bool,
}

impl fmt::Debug for Raise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exception.fmt(f)
    }
}

impl Raise {
    /// In place of one that stays pending.
    fn deferred() -> Self {
        let error = Box::new(Deferred);
        let tag = Tag::Once;
        Self {
            exception: Exception { error, tag },
            again: false,
        }
    }

    /// Unwinds.
    pub(crate) fn unwind(self) -> ! {
        // SAFETY: the thread raises in itself.
        unsafe { (*current::header()).local().raising = true };
        resume_unwind(Box::new(self.exception))
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
    fn find_earliest(&mut self) {
        let scope = self
            .scopes
            .iter()
            .filter(|s| !s.raised)
            .filter_map(|s| s.deadline)
            .min();
        self.earliest = match (scope, self.alarm) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// A wait may last until here at most.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        if self.hold == 0 {
            return self.earliest;
        }
        let inner = self.scopes.iter().skip(self.held);
        inner.filter(|s| !s.raised).filter_map(|s| s.deadline).min()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Enters a `timeout`.
    pub(crate) fn push_scope(&mut self, deadline: Option<Instant>) -> u64 {
        let id = self.number();
        self.scopes.push(Scope {
            id,
            deadline,
            raised: false,
        });
        if let Some(deadline) = deadline {
            self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        }
        id
    }

    /// Leaves the innermost `timeout`. True: its exception was raised.
    pub(crate) fn pop_scope(&mut self, id: u64) -> bool {
        let scope = self.scopes.pop().expect("timeouts nest");
        debug_assert_eq!(scope.id, id, "timeouts nest");
        if scope.deadline.is_some() {
            self.find_earliest();
        }
        if self.scope_raised {
            self.scope_raised = self.scopes.iter().any(|s| s.raised);
        }
        scope.raised
    }

    /// Adds an `exc_after` to the thread's inbox.
    pub(crate) fn add_alarm(
        &mut self,
        header: &Header,
        deadline: Instant,
        error: BoxError,
    ) -> AlarmKey {
        let key = (deadline, self.number());
        let mut inbox = header.cold().inbox.lock();
        inbox.alarms.insert(key, Some(error));
        count_alarms(header, 1);
        drop(inbox);
        self.alarm = Some(self.alarm.map_or(deadline, |e| e.min(deadline)));
        self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        key
    }

    /// An alarm of the thread's own is gone, and `next` is the earliest one now.
    pub(crate) fn set_alarm(&mut self, next: Option<Instant>) {
        if self.alarm != next {
            self.alarm = next;
            self.find_earliest();
        }
    }

    /// Something to look at before or after a wait?
    #[inline]
    fn is_quiet(&self) -> bool {
        self.earliest.is_none() && !self.kill_raised && !self.scope_raised
    }

    /// The next exception to raise, in the order of rule 8.
    fn next(&mut self, header: &Header) -> Option<Raise> {
        let held = self.hold > 0;
        if !held && header.state.is_pending() && header.cold().inbox.lock().killed {
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
        if self.scope_raised || now.is_some() {
            let first = if held { self.held } else { 0 };
            let passed = self.scopes.iter_mut().skip(first).find(|scope| {
                scope.raised || matches!((scope.deadline, now), (Some(d), Some(n)) if d <= n)
            });
            if let Some(scope) = passed {
                let again = std::mem::replace(&mut scope.raised, true);
                let tag = Tag::Scope(scope.id);
                self.scope_raised = true;
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
        if held {
            None
        } else {
            self.next_once(header, now)
        }
    }

    /// Of what is due, is the exception of a `timeout` the first?
    #[cfg(not(loom))]
    fn is_timeout_due(&self, header: &Header) -> bool {
        let held = self.hold > 0;
        if !held && header.state.is_pending() && header.cold().inbox.lock().killed {
            return false;
        }
        let now = self.earliest.map(|_| clock::now());
        let first = if held { self.held } else { 0 };
        self.scopes.iter().skip(first).any(|scope| {
            scope.raised || matches!((scope.deadline, now), (Some(d), Some(n)) if d <= n)
        })
    }

    /// True if `next` would find something. Takes nothing out.
    fn is_due(&mut self, header: &Header) -> bool {
        let held = self.hold > 0;
        let now = self.earliest.map(|_| clock::now());
        let first = if held { self.held } else { 0 };
        let passed = |scope: &Scope| {
            scope.raised || matches!((scope.deadline, now), (Some(d), Some(n)) if d <= n)
        };
        if self.scopes.iter().skip(first).any(passed) {
            return true;
        }
        if held || (now.is_none() && !header.state.is_pending()) {
            return false;
        }
        let inbox = header.cold().inbox.lock();
        let alarm = inbox.alarms.keys().next().map(|&(deadline, _)| deadline);
        let others = inbox.killed || !inbox.thrown.is_empty();
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
        let first = inbox.alarms.keys().next().map(|&(deadline, _)| deadline);
        let due = first.filter(|&deadline| now.is_some_and(|now| deadline <= now));
        let thrown = inbox.thrown.iter().map(|&(at, _)| at).min();
        let error = match (thrown, due) {
            (None, None) => None,
            (Some(at), due) if due.is_none_or(|due| at <= due) => {
                let first = inbox.thrown.iter().position(|&(t, _)| t == at);
                let (_, error) = inbox.thrown.remove(first.expect("the minimum is there"));
                if inbox.thrown.is_empty() && !inbox.killed {
                    header.state.clear_pending();
                }
                Some(error)
            }
            _ => {
                count_alarms(header, usize::MAX);
                inbox.alarms.pop_first().and_then(|(_, error)| error)
            }
        };
        let next = inbox.alarms.keys().next().map(|&(deadline, _)| deadline);
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

/// True while the calling thread unwinds, whoever else may be unwinding on this OS thread.
pub(crate) fn own_unwinding(header: &Header) -> bool {
    if header.ending.get() {
        // As in a `Drop` that unwinding runs: nothing could catch it.
        return true;
    }
    let panicking = std::thread::panicking();
    #[cfg(loom)]
    if !panicking {
        crate::thin::nobody_unwinds();
    }
    // SAFETY: the thread asks about itself.
    let Some(local) = (unsafe { header.local_if_any() }) else {
        return panicking && current::foreign_unwinding() == 0;
    };
    if !panicking {
        local.raising = false;
        return false;
    }
    current::foreign_unwinding() == 0 || local.raising
}

/// Says that the thread is known to unwind, before it waits and others run on its OS thread.
pub(crate) fn note_unwinding(header: &Header) {
    // SAFETY: the thread speaks of itself.
    unsafe { header.local().raising = true };
}

/// May exceptions be raised in the calling thread now?
#[inline]
pub(crate) fn admits(header: &Header) -> bool {
    !own_unwinding(header)
}

/// The thread holds exceptions: only the timeouts that it entered since may end a wait.
#[inline]
pub(crate) fn holds(header: &Header) -> bool {
    // SAFETY: the thread asks about itself.
    unsafe { header.local_if_any() }.is_some_and(|local| local.hold > 0)
}

/// What every blocking call does first: is there an exception to raise?
#[inline]
pub(crate) fn check(header: &Header) -> Option<Raise> {
    match header.cold_if_any() {
        None if !header.state.is_pending() => None,
        _ => check_slow(header),
    }
}

#[cold]
#[inline(never)]
fn check_slow(header: &Header) -> Option<Raise> {
    // SAFETY: the thread asks about itself.
    let local = unsafe { header.local() };
    if local.is_quiet() && !header.state.is_pending() {
        return None;
    }
    if own_unwinding(header) {
        return None;
    }
    // SAFETY: as above; taken anew because `own_unwinding` looked at it.
    let local = unsafe { header.local() };
    if local.defers > 0 {
        return local.is_due(header).then(Raise::deferred);
    }
    local.next(header)
}

/// An exception that waits to be raised.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// That of a `timeout`.
    Elapsed,
    /// Any other.
    Other,
}

/// What a blocking call would raise now; it stays.
#[cfg(not(loom))]
pub(crate) fn peek(header: &Header) -> Option<Pending> {
    if !is_due(header) {
        return None;
    }
    // SAFETY: the thread asks about itself.
    let local = unsafe { header.local() };
    Some(if local.is_timeout_due(header) {
        Pending::Elapsed
    } else {
        Pending::Other
    })
}

/// True if a blocking call would raise something now; it stays.
pub(crate) fn is_due(header: &Header) -> bool {
    match header.cold_if_any() {
        None if !header.state.is_pending() => false,
        // SAFETY: the thread asks about itself; nothing of it is held over `own_unwinding`.
        _ => !own_unwinding(header) && unsafe { header.local() }.is_due(header),
    }
}

/// Runs a call that an exception is to end but that must not be where it is raised: the call ends
/// with an error that [`is_deferred`] knows, and the exception stays pending, to be raised in the
/// thread's next blocking call. For calls that have already done something that they must report.
///
/// # Errors
/// Those of `f`.
pub fn defer<T>(f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let defers = Defers::new();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    drop(defers);
    match result {
        Ok(result) => result,
        Err(payload) => match take::<Deferred>(payload) {
            Ok(deferred) => Err(io::Error::other(*deferred)),
            Err(payload) => go_on(payload),
        },
    }
}

/// True for the error of a call inside [`defer`] that an exception ended.
pub fn is_deferred(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(<dyn Error + Send + Sync>::is::<Deferred>)
}

/// Stands for an exception that stays pending.
#[derive(Debug)]
struct Deferred;

impl fmt::Display for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an exception waits to be raised")
    }
}

impl Error for Deferred {}

/// While this value lives, nothing is raised in its thread but `Deferred`.
struct Defers(*const Header);

impl Defers {
    fn new() -> Self {
        let header = current::header();
        // SAFETY: the thread speaks of itself.
        unsafe { (*header).local().defers += 1 };
        Self(header)
    }
}

impl Drop for Defers {
    fn drop(&mut self) {
        // SAFETY: a `Defers` is neither `Send` nor does it leave its thread's stack.
        unsafe { (*self.0).local().defers -= 1 };
    }
}

/// While this value lives nothing is raised in the thread that made it, but for the timeouts that
/// it enters meanwhile.
#[derive(Debug)]
pub(crate) struct Hold(*const Header);

impl Hold {
    pub(crate) fn new() -> Self {
        let header = current::header();
        // SAFETY: the thread speaks of itself.
        let local = unsafe { (*header).local() };
        if local.hold == 0 {
            local.held = local.scopes.len();
        }
        local.hold += 1;
        Self(header)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // SAFETY: a `Hold` is neither `Send` nor does it leave its thread's stack.
        unsafe { (*self.0).local().hold -= 1 };
    }
}

/// `GreenThread::throw`.
pub(crate) fn throw(header: &Header, error: BoxError) {
    if header.state.is_done() {
        return;
    }
    let mut inbox = header.cold().inbox.lock();
    inbox.thrown.push((clock::now(), error));
    let wake = header.state.interrupt();
    drop(inbox);
    // SAFETY: the verdict is fresh, and the caller's handle keeps the header alive.
    unsafe { header.deliver(wake, Hint::Peer) };
}

/// `GreenThread::kill`.
pub(crate) fn kill(header: &Header) {
    if header.state.is_done() {
        return;
    }
    let mut inbox = header.cold().inbox.lock();
    inbox.killed = true;
    let wake = header.state.interrupt();
    drop(inbox);
    // SAFETY: the verdict is fresh, and the caller's reference keeps the header alive.
    unsafe { header.deliver(wake, Hint::Peer) };
}

/// True if the thread was killed (before it started: its body must not run).
pub(crate) fn is_killed(header: &Header) -> bool {
    header.state.is_pending() && header.cold().inbox.lock().killed
}

/// Runs `f` and catches the exceptions raised in it whose error is an `E`.
///
/// Everything else, panics and other exceptions, goes on unwinding.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use weald_scheduler::{catch, exc_after, park};
///
/// #[derive(Debug)]
/// struct TooLate;
/// impl std::fmt::Display for TooLate {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("too late")
///     }
/// }
/// impl std::error::Error for TooLate {}
///
/// let caught = catch::<TooLate, _>(|| {
///     exc_after(Duration::from_millis(1), TooLate);
///     park();
/// });
/// assert!(caught.is_err());
/// ```
///
/// # Errors
/// The error of the exception that was caught.
pub fn catch<E: Error + 'static, T>(f: impl FnOnce() -> T) -> Result<T, E> {
    let payload = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        Ok(value) => return Ok(value),
        Err(payload) => payload,
    };
    match take::<E>(payload) {
        Ok(error) => Err(*error),
        Err(payload) => go_on(payload),
    }
}

fn take<E: Error + 'static>(payload: Box<dyn Any + Send>) -> Result<Box<E>, Box<dyn Any + Send>> {
    let exception = payload.downcast::<Exception>()?;
    let tag = exception.tag;
    match exception.error.downcast::<E>() {
        Ok(error) => Ok(error),
        Err(error) => Err(Box::new(Exception { error, tag })),
    }
}

/// Unwinds on with a payload that was caught.
pub(crate) fn go_on(payload: Box<dyn Any + Send>) -> ! {
    if payload.is::<Exception>() {
        // SAFETY: the thread speaks of itself.
        unsafe { (*current::header()).local().raising = true };
    }
    resume_unwind(payload)
}
