//! Pauses between the tries of a call when nothing tells that it may succeed now; and how a wait ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weald_scheduler::io::WaitQueue;
use weald_scheduler::patch::{self, Pending, Waited};

/// The pauses of a call that the kernel tells too little of, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// So many calls may look every [`LONGEST_PAUSE`]; of more, each looks less often, but not less than every
/// [`LONGEST_OF_MANY`]. A look costs some microseconds: together they use about a hundredth of a core.
const PAUSING_CALLS: u32 = 4;
const LONGEST_OF_MANY: Duration = Duration::from_millis(100);
/// Where that would be too often, each looks once in so long for each of them.
const SHARE: Duration = Duration::from_micros(200);

/// Calls that pause now.
static PAUSING: AtomicU32 = AtomicU32::new(0);

/// Where a call pauses that nobody wakes.
pub(crate) static NOBODY: WaitQueue = WaitQueue::new();

/// The pause after this one; the first if there was none.
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
    /// It cannot be waited for: an ordinary file, or a descriptor that is none.
    Unpollable,
    /// The plain call ends at once.
    Plain,
}

/// The `errno` of a call that an exception has ended.
pub(crate) fn errno_of(pending: Pending) -> i32 {
    match pending {
        Pending::Elapsed => libc::ETIMEDOUT,
        Pending::Other => libc::ECANCELED,
    }
}

/// Counts in [`PAUSING`].
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

/// Pauses between the tries of a call that nothing tells of, until the deadline at most. For patched
/// callers.
#[derive(Default)]
pub(crate) struct Pauses {
    last: Duration,
    is_firm: bool,
}

impl Pauses {
    /// No exception ends the call from now on.
    pub(crate) fn make_firm(&mut self) {
        self.is_firm = true;
    }

    /// `TimedOut`, `Failed` by an exception, else `Woken`: try again.
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
