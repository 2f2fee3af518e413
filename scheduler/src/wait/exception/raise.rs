//! Raises exceptions in a thread (`throw`, `kill`, `exc_after`), and drops the remaining ones when the thread ends.
#![allow(
    unsafe_code,
    reason = "a thread's runtime, and the delivery of a wake-up"
)]

use std::time::Instant;

use crate::engine::carrier;
use crate::engine::inner::Inner;
use crate::green::exception::AlarmKey;
use crate::green::exception::BoxError;
use crate::green::exception::Inbox;
use crate::green::green_thread::{Cold, Header, Hint};
use crate::green::handle::GreenThread;
use crate::parts::quietly::drop_quietly;
use crate::parts::state::Wake;
use crate::shim::atomic::Ordering;
use crate::shim::clock;

impl GreenThread {
    /// Raises `exc` in the thread: at once if the thread waits in a blocking call, else in the next blocking call
    /// that it enters. Returns at once. If the thread has ended, `exc` is dropped.
    ///
    /// If an exception must unwind and cannot, it ends the process, after a message. That is so if an `extern "C"`
    /// function is on the stack, such as a callback of C's, or if the program is built with
    /// `panic = "abort"`.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// rt.run(|| {
    ///     let sleeper = weald::spawn(|| weald::park());
    ///     sleeper.thread().throw("no need any more");
    ///     let payload = sleeper.join().unwrap_err();
    ///     let exc = payload.downcast::<weald::Exception>().unwrap();
    ///     assert_eq!(exc.to_string(), "no need any more");
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn throw<E>(&self, exc: E)
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        throw(&self.0, exc.into());
    }

    /// Ends the thread: [`Killed`](crate::Killed) is raised in the blocking call in which it waits, or
    /// in the next one, and again in every later one. A thread that has not started never runs its
    /// body. Returns at once.
    ///
    /// As with [`throw`](GreenThread::throw), an exception that must unwind and cannot ends the process:
    /// if an `extern "C"` function is on the stack, or with `panic = "abort"`.
    ///
    /// # Examples
    /// ```
    /// let rt = weald::Runtime::builder().workers(1).build()?;
    /// rt.run(|| {
    ///     let server = weald::spawn(|| loop {
    ///         weald::park();
    ///     });
    ///     server.thread().kill();
    ///     assert!(server.join().is_err());
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn kill(&self) {
        kill(&self.0);
    }
}

impl Inbox {
    /// Adds an `exc_after` of the thread whose header this is. `Some`: it comes too late, and the caller must drop
    /// the error.
    pub(super) fn add_alarm(
        &mut self,
        header: &Header,
        key: AlarmKey,
        error: BoxError,
    ) -> Option<BoxError> {
        let (error, late) = if self.closed {
            (None, Some(error))
        } else {
            count_alarms(header, 1);
            (Some(error), None)
        };
        self.alarms.insert(key, error);
        late
    }

    /// Takes the earliest exception that is raised once. It was thrown; or, if `now` is given, it may be an `exc_after`
    /// that is due.
    pub(super) fn take_once(&mut self, header: &Header, now: Option<Instant>) -> Option<BoxError> {
        let due = self
            .first_alarm()
            .filter(|&deadline| now.is_some_and(|now| deadline <= now));
        let thrown = self.thrown.iter().map(|&(at, _)| at).min();
        match (thrown, due) {
            (None, None) => None,
            (Some(at), due) if due.is_none_or(|due| at <= due) => {
                let first = self.thrown.iter().position(|&(t, _)| t == at);
                let (_, error) = self.thrown.remove(first.expect("the minimum is there"));
                if !self.is_pending() {
                    header.state.clear_pending();
                }
                Some(error)
            }
            _ => {
                count_alarms(header, usize::MAX);
                self.alarms.pop_first()
            }
        }
    }

    /// The thread's body has ended. Takes the errors, which will never be raised.
    fn close(&mut self, header: &Header) -> Vec<BoxError> {
        if self.closed {
            return Vec::new();
        }
        self.closed = true;
        count_alarms(header, 0_usize.wrapping_sub(self.alarms.len()));
        let thrown = self.thrown.drain(..).map(|(_, error)| error);
        thrown.chain(self.alarms.take_errors()).collect()
    }
}

/// Adds to the number of live alarms of the thread's runtime. The caller holds the lock of the thread's inbox, and the
/// thread has not ended. So its runtime is there.
fn count_alarms(header: &Header, by: usize) {
    if by == 0 || header.runtime.is_null() {
        return;
    }
    let here = carrier::with_core(header.runtime, |worker, _| {
        worker.counters.count_alarms(by);
    });
    if here.is_none() {
        // SAFETY: a runtime outlives its green threads, and this thread needs the inbox's lock to end.
        unsafe { Inner::of(header) }
            .alarms
            .fetch_add(by, Ordering::Relaxed);
    }
}

/// Takes an `exc_after` out of its thread's inbox. False: it has fired or was cancelled.
pub(crate) fn cancel_alarm(header: &Header, key: AlarmKey) -> bool {
    let mut inbox = header.cold().inbox.lock();
    let mut error = None;
    if !inbox.alarms.remove(key, &mut error) {
        return false;
    }
    if !inbox.closed {
        count_alarms(header, usize::MAX);
    }
    drop(inbox);
    // Outside the lock: the destructor is the user's.
    drop(error);
    true
}

/// Drops the exceptions of a thread whose body has ended. From now on `throw` drops its error itself. False: nothing
/// was ever raised in the thread, and nothing is closed.
#[inline]
pub(crate) fn close(header: &Header) -> bool {
    match header.cold_if_any() {
        Some(cold) => close_inbox(header, cold),
        None => false,
    }
}

#[inline(never)]
fn close_inbox(header: &Header, cold: &Cold) -> bool {
    let left = cold.inbox.lock().close(header);
    // The errors' destructors are the user's.
    for error in left {
        drop_quietly(error);
    }
    true
}

/// See [`GreenThread::throw`].
pub(crate) fn throw(header: &Header, error: BoxError) {
    if header.state.is_done() {
        return;
    }
    let mut inbox = header.cold().inbox.lock();
    if inbox.closed {
        drop(inbox);
        // Outside the lock: the destructor is the user's.
        drop(error);
        return;
    }
    inbox.thrown.push((clock::now(), error));
    let wake = header.state.interrupt();
    // If nothing was ever raised in a thread, it ends without closing its inbox. So the thread may have ended since
    // the check above. If it ends after this step, it sees that something is pending, and closes the inbox.
    let late = if wake == Wake::Lost {
        inbox.thrown.pop()
    } else {
        None
    };
    drop(inbox);
    // SAFETY: the verdict is fresh, and the caller's handle keeps the header alive.
    unsafe { Header::deliver(header, wake, Hint::Peer) };
    drop(late);
}

/// See [`GreenThread::kill`].
pub(crate) fn kill(header: &Header) {
    if header.state.is_done() {
        return;
    }
    let mut inbox = header.cold().inbox.lock();
    inbox.killed = true;
    if fault!("exception_kills_quietly") {
        return;
    }
    let wake = header.state.interrupt();
    drop(inbox);
    // SAFETY: the verdict is fresh, and the caller's reference keeps the header alive.
    unsafe { Header::deliver(header, wake, Hint::Peer) };
}

/// True if the thread was killed (before it started: its body must not run).
#[inline]
pub(crate) fn is_killed(header: &Header) -> bool {
    header.state.is_pending() && header.cold().inbox.lock().killed
}
