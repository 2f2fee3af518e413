//! A run queue for one owner and many thieves: crossbeam's Chase-Lev deque under our names.
//!
//! Source: D. Chase, Y. Lev, "Dynamic circular work-stealing deque", SPAA 2005; orderings as in
//! N. M. Lê et al., "Correct and efficient work-stealing for weak memory models", ACM PPOPP 2013.
//! In a model check `deque_loom.rs` takes this file's place, with the same items. `loom-tests/tests/deque.rs` runs the
//! same scenarios with both. A deque that is dropped drops its tasks.

use super::Steal;

/// The owner's end. It is `Send` but not `Sync`: one thread at a time owns a deque.
#[derive(Debug)]
pub(crate) struct Owner<T>(crossbeam_deque::Worker<T>);

/// A thief's end.
#[derive(Debug)]
pub(crate) struct Stealer<T>(crossbeam_deque::Stealer<T>);

impl<T> Owner<T> {
    /// A deque whose owner takes the oldest task first.
    #[inline]
    pub(crate) fn new_fifo() -> Self {
        Self(crossbeam_deque::Worker::new_fifo())
    }

    /// A deque whose owner takes the newest task first.
    #[inline]
    pub(crate) fn new_lifo() -> Self {
        Self(crossbeam_deque::Worker::new_lifo())
    }

    /// Another thief's end of this deque.
    #[inline]
    pub(crate) fn stealer(&self) -> Stealer<T> {
        Stealer(self.0.stealer())
    }

    /// Adds a task. It grows the deque when that is full, and never waits.
    #[inline]
    pub(crate) fn push(&self, task: T) {
        self.0.push(task);
    }

    /// Takes the task whose turn it is.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        self.0.pop()
    }

    /// Whether the owner would find no task. Thieves only take, so a `true` stays true until the
    /// owner pushes.
    #[allow(
        dead_code,
        reason = "for the scenarios that this and the double are held to"
    )]
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of tasks; thieves may have taken some of them by now.
    #[allow(
        dead_code,
        reason = "for the scenarios that this and the double are held to"
    )]
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Stealer<T> {
    /// Tries to take the oldest task.
    #[inline]
    pub(crate) fn steal(&self) -> Steal<T> {
        self.0.steal().into()
    }

    /// Tries to take about half of the tasks, the oldest first: returns the first of them and
    /// puts the others into `into`, of which the caller is the owner.
    #[inline]
    pub(crate) fn steal_batch_and_pop(&self, into: &Owner<T>) -> Steal<T> {
        self.0.steal_batch_and_pop(&into.0).into()
    }

    /// Whether there was nothing to steal. The test contains a `SeqCst` fence between the loads of
    /// its two indices: what this thread stored before is ordered before its answer.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of tasks a moment ago.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Clone for Stealer<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> From<crossbeam_deque::Steal<T>> for Steal<T> {
    #[inline]
    fn from(steal: crossbeam_deque::Steal<T>) -> Self {
        match steal {
            crossbeam_deque::Steal::Empty => Self::Empty,
            crossbeam_deque::Steal::Success(task) => Self::Success(task),
            crossbeam_deque::Steal::Retry => Self::Retry,
        }
    }
}
