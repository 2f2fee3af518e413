//! Pauses between the tries of a call, when nothing tells that the call may succeed now.
//!
//! Each try costs a few microseconds of CPU time. So the pauses of one waiter double up to [`LONGEST`], and grow
//! further with the number of such waiters in the process. All of them together try about a thousand times a second,
//! which is under 2 % of a core.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weald_scheduler::io::{WaitQueue, Woken};

use crate::ask::{events, is_ready};
use crate::source::{Direction, Source, Waits, WakesNext};

/// The first pause. Each pause is twice as long as the one before.
const FIRST: Duration = Duration::from_micros(100);
/// The longest pause while there are few waiters. A message or a connection may be noticed this late.
const LONGEST: Duration = Duration::from_millis(10);
/// With many waiters the longest pause is this time for each of them.
const SHARE: Duration = Duration::from_millis(1);

/// How many threads wait by pauses.
static WAITERS: AtomicUsize = AtomicUsize::new(0);

/// The pauses of one call.
#[derive(Debug)]
pub(crate) struct Pauses {
    deadline: Option<Instant>,
    pause: Duration,
}

impl Pauses {
    /// Returns the pauses of a wait that begins now. `None`: the wait has no end.
    pub(crate) fn begin(deadline: Option<Instant>) -> Self {
        // This is only a count: nothing else depends on its order.
        WAITERS.fetch_add(1, Ordering::Relaxed);
        let pause = FIRST;
        Self { deadline, pause }
    }

    /// Returns when the next pause ends, or `None` if the deadline has passed.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return None;
        }
        let end = now + self.pause;
        let waiters = u32::try_from(WAITERS.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let longest = LONGEST.max(SHARE.saturating_mul(waiters));
        self.pause = (self.pause * 2).min(longest);
        Some(self.deadline.map_or(end, |deadline| deadline.min(end)))
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        WAITERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until `end`. An exception ends the wait.
pub(crate) fn pause_until(end: Instant) -> io::Result<()> {
    let nobody = WaitQueue::new();
    loop {
        match nobody.wait(|| false, Some(end), true) {
            Woken::TimedOut => return Ok(()),
            Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
            Woken::Notified | Woken::Ready | Woken::Again => {}
        }
    }
}

/// Calls `ready` after each pause until it returns true. Returns false if the deadline has passed.
pub(crate) fn wait_until(
    deadline: Option<Instant>,
    mut ready: impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    let mut pauses = Pauses::begin(deadline);
    while !ready()? {
        match pauses.next() {
            Some(end) => pause_until(end)?,
            None => return Ok(false),
        }
    }
    Ok(true)
}

impl Source {
    /// Makes a blocking call for which the kernel may not tell when to try again, so it is also tried after pauses.
    /// Without a descriptor the kernel tells nothing at all.
    ///
    /// A try that fails may raise an event itself: a datagram that did not fit is freed, and the kernel tells that
    /// there is room. So after an event poll(2) is asked, which raises no event, and it is believed once in each
    /// pause.
    pub(crate) fn run_untold<T>(
        &self,
        fd: Option<RawFd>,
        direction: Direction,
        waits: Waits,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        weald_scheduler::io::enter()?;
        let waiters = self.queue(direction);
        let mut pauses: Option<Pauses> = None;
        // The end of the pause in which poll(2) was wrong.
        let mut deaf_until: Option<Instant> = None;
        loop {
            let next = WakesNext(waiters);
            let done = call();
            std::mem::forget(next);
            match done {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && waits != Waits::Never => {}
                done => {
                    if waits != Waits::Never || done.is_ok() {
                        waiters.wake_one();
                    }
                    if pauses.is_none() {
                        weald_scheduler::io::spend();
                    }
                    return done;
                }
            }
            if let Some(fd) = fd {
                self.ensure_registered(fd)?;
            }
            if let Some(end) = deaf_until.take() {
                // The event woke only this waiter, and this waiter does not wait for events during the pause.
                waiters.wake_one();
                pause_until(end)?;
                continue;
            }
            let pauses = pauses.get_or_insert_with(|| Pauses::begin(waits.deadline()));
            let Some(end) = pauses.next() else {
                // An event may have woken only this waiter.
                waiters.wake_one();
                return Err(io::ErrorKind::TimedOut.into());
            };
            match fd {
                Some(fd) if self.wait_for_word(fd, direction, end)? => deaf_until = Some(end),
                Some(_) => {}
                None => pause_until(end)?,
            }
        }
    }

    /// Waits until, after an event, poll(2) says that the call may succeed. Returns false if the time is over.
    fn wait_for_word(&self, fd: RawFd, direction: Direction, end: Instant) -> io::Result<bool> {
        // The first event may be the one that the try before has raised: it has come, or comes now.
        let mut seen = self.seen(direction);
        loop {
            match self.wait_for_event(direction, seen, end) {
                Woken::TimedOut => return Ok(false),
                Woken::Interrupted(interrupt) => return Err(interrupt.into_io()),
                Woken::Notified | Woken::Ready | Woken::Again => {
                    seen = self.seen(direction);
                    if is_ready(fd, events(direction))? {
                        return Ok(true);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use super::*;

    /// Returns the longest pause: the last one before they stop growing.
    fn longest(pauses: &mut Pauses) -> Duration {
        loop {
            let before = pauses.pause;
            pauses.next().unwrap();
            if pauses.pause == before {
                return before;
            }
        }
    }

    #[test]
    fn pauses_double_and_many_waiters_share_the_tries() {
        let mut few = Pauses::begin(None);
        assert_eq!(few.pause, FIRST);
        few.next().unwrap();
        assert_eq!(few.pause, 2 * FIRST);
        assert!(longest(&mut few) >= LONGEST);
        let mut many: Vec<Pauses> = (0..1000).map(|_| Pauses::begin(None)).collect();
        assert!(longest(&mut many[0]) >= 1000 * SHARE);
    }

    #[test]
    fn no_pause_goes_beyond_the_deadline() {
        let deadline = Instant::now() + FIRST / 2;
        let mut pauses = Pauses::begin(Some(deadline));
        while let Some(end) = pauses.next() {
            assert!(end <= deadline);
        }
        assert!(Instant::now() >= deadline);
    }
}
