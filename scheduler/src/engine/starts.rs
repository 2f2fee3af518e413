//! Green threads that cannot start yet: there is no stack for them now, but other threads hold some.
//!
//! A thread gets its stack when a carrier first takes it out of a queue. If the system gives no more
//! stacks of its size, or in the mode `Own` no memory for its thread-locals, the thread comes here. So do later threads
//! of that size, because the first that comes is the first that starts. Each size has a queue of its own, because a
//! large stack may take long to come while there are small ones. If sizes want the same thing (all want guards), they
//! take turns.
//!
//! Carriers look here when they look at the clock and before they sleep. They start the threads for which they
//! have a stack (`Carrier::admit`). A worker that sleeps while threads
//! wait here gives its spare stacks to all workers, and looks again after a pause.
//!
//! If all threads with stacks wait for threads without one, nothing ever moves. Nobody can tell this
//! from a long wait, so after [`PATIENCE`] without a start a warning goes to standard error, once.
//!
//! A thread for which no stack can come back is never here: it ends at once, with an error.
//!
//! As in `stack`, atomics and locks are std's: no model runs out of stacks.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::green::green_thread::Task;
use crate::parts::last_words;
use crate::parts::stack;
use crate::shim::plain::{Mutex, MutexGuard};

/// After so long without a start there is a warning.
const PATIENCE: Duration = Duration::from_secs(2);

/// A worker that has nothing else to do looks again after a pause: a quarter of the time since the last start, but not
/// less than the first of these and not more than the second.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Starts {
    /// How many threads wait. Stored under the lock and read without it. A look that misses a thread is repeated.
    len: AtomicUsize,
    waiting: Mutex<Waiting>,
    /// The warning that threads wait for long was given.
    has_warned: AtomicBool,
    /// The warning that a thread can never start was given.
    warned_of_never: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the class of the stack's size.
    queues: BTreeMap<usize, Queue>,
    /// The class that was last served.
    served: usize,
}

#[derive(Debug)]
struct Queue {
    /// Empty while the last thread of the queue is tried.
    tasks: VecDeque<Task>,
    /// When a thread was last started, or came while no other waited.
    moved: Instant,
}

impl Waiting {
    fn queue(&mut self, class: usize, now: Instant) -> &mut Queue {
        self.queues.entry(class).or_insert_with(|| Queue {
            tasks: VecDeque::new(),
            moved: now,
        })
    }

    fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.tasks.len()).sum()
    }
}

impl Starts {
    pub(crate) fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            waiting: Mutex::new(Waiting::default()),
            has_warned: AtomicBool::new(false),
            warned_of_never: AtomicBool::new(false),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Threads wait for a stack of this size.
    #[inline]
    pub(crate) fn has(&self, size: usize) -> bool {
        let waits = |queue: &Queue| !queue.tasks.is_empty();
        let class = stack::class_of(size);
        !self.is_empty() && self.waiting().queues.get(&class).is_some_and(waits)
    }

    /// Adds a thread behind the others of its size. True: no other thread waits.
    pub(crate) fn push(&self, task: Task, now: Instant) -> bool {
        let mut waiting = self.waiting();
        let class = stack::class_of(task.stack_size());
        let queue = waiting.queue(class, now);
        let first = queue.tasks.is_empty();
        if first {
            queue.moved = now;
        }
        queue.tasks.push_back(task);
        self.len.store(waiting.len(), Ordering::Relaxed);
        first
    }

    /// The classes of which threads wait. The class whose turn it is comes first.
    pub(crate) fn classes(&self) -> Vec<usize> {
        let waiting = self.waiting();
        let some = waiting
            .queues
            .iter()
            .filter(|(_, queue)| !queue.tasks.is_empty());
        let mut classes: Vec<_> = some.map(|(&class, _)| class).collect();
        let served = classes.partition_point(|&class| class <= waiting.served);
        classes.rotate_left(served);
        classes
    }

    /// The thread of a class that has waited longest. Follow it with [`started`](Self::started) or
    /// [`put_back`](Self::put_back).
    pub(crate) fn pop(&self, class: usize) -> Option<Task> {
        let mut waiting = self.waiting();
        let queue = waiting.queues.get_mut(&class)?;
        let task = queue.tasks.pop_front();
        self.len.store(waiting.len(), Ordering::Relaxed);
        task
    }

    /// Takes all threads out, for a runtime that ends.
    pub(crate) fn take_all(&self) -> Vec<Task> {
        let queues = std::mem::take(&mut self.waiting().queues);
        self.len.store(0, Ordering::Relaxed);
        queues.into_values().flat_map(|queue| queue.tasks).collect()
    }

    /// A thread of that class has started.
    pub(crate) fn started(&self, class: usize, now: Instant) {
        let mut waiting = self.waiting();
        waiting.served = class;
        if let Some(queue) = waiting.queues.get_mut(&class) {
            queue.moved = now;
            if queue.tasks.is_empty() {
                waiting.queues.remove(&class);
            }
        }
    }

    /// There is still no stack for the thread, for that reason.
    pub(crate) fn put_back(&self, task: Task, now: Instant, reason: &impl Display) {
        let (count, since) = {
            let mut waiting = self.waiting();
            let class = stack::class_of(task.stack_size());
            let queue = waiting.queue(class, now);
            queue.tasks.push_front(task);
            let (count, moved) = (queue.tasks.len(), queue.moved);
            self.len.store(waiting.len(), Ordering::Relaxed);
            (count, now.saturating_duration_since(moved))
        };
        if since >= PATIENCE && !self.has_warned.swap(true, Ordering::Relaxed) {
            last_words::say(format_args!(
                "weald: {count} green threads have waited {} s for a stack: {reason}. If those that have \
                 stacks wait for those that have none, they wait for ever",
                since.as_secs()
            ));
        }
    }

    /// A thread can never start. Warns on standard error, once for a runtime, and in the log each time.
    pub(crate) fn say_never(&self, reason: &impl Display) {
        log::error!("weald: a green thread cannot start: {reason}");
        if !self.warned_of_never.swap(true, Ordering::Relaxed) {
            last_words::say(format_args!("weald: a green thread cannot start: {reason}"));
        }
    }

    /// After how long a worker that sleeps must look again; `None`: no thread waits.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let waiting = self.waiting();
        let moved = waiting.queues.values().map(|queue| queue.moved).max();
        let since = now.saturating_duration_since(moved.unwrap_or(now));
        Some((since / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }
}
