//! Pauses between the tries of a call, when nothing tells that the call may succeed now; and how a wait ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weald_scheduler::io::WaitQueue;
use weald_scheduler::patch::{self, Pending, Waited};

/// The pauses of a call to which the kernel tells too little, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// This many calls may look every [`LONGEST_PAUSE`]. If there are more, each looks less often, but at least every
/// [`LONGEST_OF_MANY`]. A look costs some microseconds, so all calls together use about a hundredth of a core.
const PAUSING_CALLS: u32 = 4;
const LONGEST_OF_MANY: Duration = Duration::from_millis(100);
/// If that would be too often, a call looks once in this time multiplied by the number of calls.
const SHARE: Duration = Duration::from_micros(200);

/// How many calls pause now.
static PAUSING: AtomicU32 = AtomicU32::new(0);

/// The queue of pauses that nobody ends.
pub(crate) static NOBODY: WaitQueue = WaitQueue::new();

/// Returns the pause after this one, or the first one after zero.
pub(crate) fn next_pause(pause: Duration) -> Duration {
    let all = PAUSING.load(Ordering::Relaxed);
    let crowd = 1 + all / PAUSING_CALLS;
    let longest = LONGEST_PAUSE.saturating_mul(crowd).min(LONGEST_OF_MANY);
    let longest = longest.max(SHARE.saturating_mul(all));
    (pause * 2).clamp(FIRST_PAUSE, longest)
}

/// How a wait for a descriptor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Try again.
    Woken,
    TimedOut,
    /// The call fails with this `errno`: an exception waits to be raised, or the number was closed.
    Failed(i32),
    /// The descriptor cannot be waited for: it is an ordinary file, or not open.
    Unpollable,
    /// The plain call ends at once.
    Plain,
}

/// Returns the `errno` of a call that an exception has ended.
pub(crate) fn errno_of(pending: Pending) -> i32 {
    match pending {
        Pending::Elapsed => libc::ETIMEDOUT,
        Pending::Other => libc::ECANCELED,
    }
}

/// Counts a call in [`PAUSING`].
pub(crate) struct Pausing;

impl Pausing {
    pub(crate) fn begin() -> Self {
        PAUSING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Pausing {
    fn drop(&mut self) {
        PAUSING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Pauses between the tries of a call without events, until the deadline at most. For patched callers.
#[derive(Default)]
pub(crate) struct Pauses {
    last: Duration,
    is_firm: bool,
}

impl Pauses {
    /// Makes the call one that no exception ends.
    pub(crate) fn make_firm(&mut self) {
        self.is_firm = true;
    }

    /// Pauses. Returns `TimedOut` at the deadline, `Failed` after an exception, else `Woken`: try again.
    pub(crate) fn wait(&mut self, queue: Option<&WaitQueue>, deadline: Option<Instant>) -> Ended {
        if !self.is_firm
            && let Some(pending) = patch::pending()
        {
            return Ended::Failed(errno_of(pending));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ended::TimedOut;
        }
        self.last = next_pause(self.last);
        let pause = Instant::now() + self.last;
        let until = deadline.map_or(pause, |deadline| deadline.min(pause));
        let _pausing = Pausing::begin();
        match patch::wait(
            queue.unwrap_or(&NOBODY),
            || false,
            Some(until),
            !self.is_firm,
        ) {
            Waited::Pending(pending) => Ended::Failed(errno_of(pending)),
            Waited::Woken | Waited::TimedOut => Ended::Woken,
        }
    }
}
