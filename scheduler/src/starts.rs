//! Green threads that cannot start yet: there is no stack for them now, but others hold some.
//!
//! A thread gets its stack when a carrier first takes it out of a queue. If the system gives no more
//! stacks, or in the mode `Own` no memory for its thread-locals, the thread comes here, and so do those that
//! would start after it: first come, first served. Carriers look here when they look at the clock and before they sleep, start whom they
//! have a stack for (`Carrier::admit`), and leave the others. A worker that sleeps while threads
//! wait here leaves its own stacks to all, and looks again after a pause.
//!
//! If all who hold stacks wait for those who have none, nothing ever moves. Nobody can tell that
//! from a long wait, so after [`PATIENCE`] without a start it is said on standard error, once.
//!
//! A thread for which no stack can come back is never here: it ends at once, with an error.
//!
//! As in `stack`, atomics and locks are std's: no model runs out of stacks.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::green_thread::Task;
use crate::last_words;
use crate::shim::plain::{Mutex, MutexGuard};

/// Without a start for so long, it is said.
const PATIENCE: Duration = Duration::from_secs(2);

/// The pauses between two looks of a worker that has nothing else to do: a quarter of the time since
/// the last start, within these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Starts {
    /// How many wait. Stored under the lock, read without: a look that misses one is repeated.
    len: AtomicUsize,
    waiting: Mutex<Waiting>,
    /// It has been said that some wait for long.
    told: AtomicBool,
    /// It has been said that one can never start.
    told_never: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    tasks: VecDeque<Task>,
    /// When one was last taken out, or came when nobody waited.
    moved: Option<Instant>,
}

impl Starts {
    pub(crate) fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            waiting: Mutex::new(Waiting::default()),
            told: AtomicBool::new(false),
            told_never: AtomicBool::new(false),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Adds a thread behind the others. True: it is the only one.
    pub(crate) fn push(&self, task: Task, now: Instant) -> bool {
        let mut waiting = self.waiting();
        let first = waiting.tasks.is_empty();
        if first {
            waiting.moved = Some(now);
        }
        waiting.tasks.push_back(task);
        self.len.store(waiting.tasks.len(), Ordering::Relaxed);
        first
    }

    /// The thread that has waited longest. Follow it with [`started`](Self::started) or
    /// [`put_back`](Self::put_back).
    pub(crate) fn pop(&self) -> Option<Task> {
        let mut waiting = self.waiting();
        let task = waiting.tasks.pop_front();
        self.len.store(waiting.tasks.len(), Ordering::Relaxed);
        if waiting.tasks.is_empty() {
            // It may have been long.
            waiting.tasks.shrink_to(64);
        }
        task
    }

    pub(crate) fn started(&self, now: Instant) {
        self.waiting().moved = Some(now);
    }

    /// There is no stack for it still, for that reason.
    pub(crate) fn put_back(&self, task: Task, now: Instant, reason: &impl Display) {
        let (count, since) = {
            let mut waiting = self.waiting();
            waiting.tasks.push_front(task);
            self.len.store(waiting.tasks.len(), Ordering::Relaxed);
            let moved = *waiting.moved.get_or_insert(now);
            (waiting.tasks.len(), now.saturating_duration_since(moved))
        };
        if since >= PATIENCE && !self.told.swap(true, Ordering::Relaxed) {
            last_words::say(format_args!(
                "weald: {count} green threads have waited {} s for a stack: {reason}. If those that have \
                 stacks wait for those that have none, they wait for ever",
                since.as_secs()
            ));
        }
    }

    /// A thread can never start. Said once for a runtime on standard error; to the log always.
    pub(crate) fn say_never(&self, reason: &impl Display) {
        log::error!("weald: a green thread cannot start: {reason}");
        if !self.told_never.swap(true, Ordering::Relaxed) {
            last_words::say(format_args!("weald: a green thread cannot start: {reason}"));
        }
    }

    /// After how long a worker that sleeps looks again; `None`: nobody waits.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let moved = self.waiting().moved.unwrap_or(now);
        let since = now.saturating_duration_since(moved);
        Some((since / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }
}
