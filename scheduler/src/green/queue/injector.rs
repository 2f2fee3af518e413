//! The shared queue for work that does not come from a worker: a list behind a short lock, and its
//! length beside it so that looking for work takes no lock.
//!
//! Invariant 1: after `close` nothing gets in, so the last drain is the last.
//! Invariant 2: the length is stored under the lock; without the lock one may see an old length. A worker
//! that goes to sleep looks after its own fence (`idle.rs`), and a pusher fences after its push. So one of
//! them sees the other.
//! Checked by `loom-tests/tests/idle.rs`.

use std::collections::VecDeque;

use super::shrink;
use crate::green::green_thread::Task;
use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::sync::Mutex;

#[derive(Debug)]
pub(crate) struct Injector {
    contents: Mutex<Contents>,
    len: AtomicUsize,
}

#[derive(Debug)]
struct Contents {
    tasks: VecDeque<Task>,
    closed: bool,
}

impl Injector {
    pub(crate) fn new() -> Self {
        Self {
            contents: Mutex::new(Contents {
                tasks: VecDeque::new(),
                closed: false,
            }),
            len: AtomicUsize::new(0),
        }
    }

    /// Appends; gives the thread back if the injector is closed.
    pub(crate) fn push(&self, task: Task) -> Result<(), Task> {
        let mut contents = self.contents.lock();
        if contents.closed {
            return Err(task);
        }
        contents.tasks.push_back(task);
        self.len.store(contents.tasks.len(), Ordering::Release);
        Ok(())
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<Task> {
        if self.is_empty() {
            return None;
        }
        let mut contents = self.contents.lock();
        let task = contents.tasks.pop_front();
        self.len.store(contents.tasks.len(), Ordering::Release);
        task
    }

    /// Takes a fair share for one of `workers`: the first to run now, the others into `rest`.
    pub(crate) fn pop_batch(&self, workers: usize, mut rest: impl FnMut(Task)) -> Option<Task> {
        if self.is_empty() {
            return None;
        }
        let mut contents = self.contents.lock();
        let share = (contents.tasks.len() / workers + 1).min(MOST_AT_ONCE);
        let first = contents.tasks.pop_front();
        for _ in 1..share {
            match contents.tasks.pop_front() {
                Some(task) => rest(task),
                None => break,
            }
        }
        self.len.store(contents.tasks.len(), Ordering::Release);
        first
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Gives back the room of a list that had been long.
    pub(crate) fn shrink(&self) {
        if self.is_empty() {
            shrink(&mut self.contents.lock().tasks);
        }
    }

    /// Nothing gets in any more. Returns what was there.
    pub(crate) fn close(&self) -> VecDeque<Task> {
        let mut contents = self.contents.lock();
        contents.closed = true;
        self.len.store(0, Ordering::Release);
        std::mem::take(&mut contents.tasks)
    }
}

/// A worker takes no more than this at once; tokio and Go take half a ring of 256.
#[cfg(not(loom))]
const MOST_AT_ONCE: usize = 128;
#[cfg(loom)]
const MOST_AT_ONCE: usize = 2;
