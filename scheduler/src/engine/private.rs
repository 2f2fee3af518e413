//! A carrier's private queues: started threads that must stay on its OS thread.

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;

use crate::green::green_thread::{Hint, Task};
use crate::green::queue::shrink;
use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::sync::Arc;

/// How many threads in a row may run from `RunNext`. Two threads that wake each other leave the worker to others after
/// so many dispatches. tokio has 3, which is low for a request and its answer; Go has 10 ms. A guess.
pub(crate) const SLOT_STREAK: u32 = 16;

/// A carrier's own queue of threads that stay with it.
#[derive(Debug, Default)]
pub(crate) struct Private {
    next: Option<Task>,
    woken: VecDeque<Task>,
    yielded: VecDeque<Task>,
    streak: u32,
    count: usize,
    /// How many threads are queued here, for other OS threads.
    len: Arc<CachePadded<AtomicUsize>>,
}

impl Private {
    /// How many threads are queued here, for other OS threads. It may be out of date when it is read.
    pub(crate) fn shown_len(&self) -> Arc<CachePadded<AtomicUsize>> {
        Arc::clone(&self.len)
    }

    #[inline]
    fn tell(&mut self) {
        self.count = usize::from(self.next.is_some()) + self.woken.len() + self.yielded.len();
        self.len.store(self.count, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn push(&mut self, task: Task, hint: Hint) {
        match hint {
            Hint::Event => self.woken.push_back(task),
            Hint::Peer => {
                if let Some(old) = self.next.replace(task) {
                    self.woken.push_back(old);
                }
            }
        }
        self.tell();
    }

    #[inline]
    pub(crate) fn push_yielded(&mut self, task: Task) {
        self.yielded.push_back(task);
        self.tell();
    }

    /// The next of the threads that were woken.
    #[inline]
    pub(crate) fn pop_woken(&mut self) -> Option<Task> {
        if let Some(task) = self.next.take() {
            if self.streak < SLOT_STREAK {
                self.streak += 1;
                self.tell();
                return Some(task);
            }
            self.woken.push_back(task);
        }
        self.streak = 0;
        let task = self.woken.pop_front()?;
        self.tell();
        Some(task)
    }

    #[inline]
    pub(crate) fn pop_yielded(&mut self) -> Option<Task> {
        let task = self.yielded.pop_front()?;
        self.tell();
        Some(task)
    }

    /// Only threads that gave way are here, and the first of them was a hog the last time.
    pub(crate) fn is_hogs_turn(&self) -> bool {
        self.next.is_none()
            && self.woken.is_empty()
            && self.yielded.front().is_some_and(|task| task.hog.get())
    }

    /// Gives back the room of a queue that has been long.
    pub(crate) fn shrink(&mut self) {
        shrink(&mut self.woken);
        shrink(&mut self.yielded);
    }

    /// How many threads were woken. They run before those that gave way.
    pub(crate) fn woken(&self) -> usize {
        self.woken.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}
