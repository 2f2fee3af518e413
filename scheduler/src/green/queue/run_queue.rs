//! A worker's run queue: a deque if there are other workers, which may steal from it, and a plain list if there are
//! none.
//!
//! Because of thieves the owner of a deque takes a task by a read-modify-write or behind a fence. A runtime with
//! one worker has no thieves, so its queues save 6 to 10 ns for each task.
//!
//! | who                     | of a deque          | of a list      |
//! |-------------------------|---------------------|----------------|
//! | owner, by [`RunQueue`]  | push, pop           | push, pop      |
//! | others, by [`Thieves`]  | steal, the length   | the length     |
//!
//! If a second worker comes later (`Runtime::set_workers`), the owner makes deques of its lists ([`RunQueue::share`]), for good.
//!
//! Invariant 1: a list is touched by its owner alone. The owner changes with the worker's
//! seat, which passes on what the last owner wrote.
//! Invariant 2: the owner stores the length after each step. What other threads read may be out of date at
//! once; this holds for a deque too.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use super::{Owner, Steal, Stealer};
use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::sync::Arc;

/// The least that a deque has room for: crossbeam's.
const LEAST_ROOM: usize = 64;

/// A list keeps room for so many: 8 KiB.
const KEPT_ROOM: usize = 1024;

/// Which task the owner takes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Oldest,
    Newest,
}

/// The owner's end.
#[derive(Debug)]
pub(crate) enum RunQueue<T> {
    Deque {
        own: Owner<T>,
        /// For the oldest of a queue whose owner takes the newest.
        back: Stealer<T>,
        /// How many tasks it has room for, as far as can be known. It grows when it is full. It
        /// shrinks when a task is taken out and it is a quarter full.
        room: Cell<usize>,
    },
    List {
        tasks: VecDeque<T>,
        order: Order,
        /// For the others.
        len: Arc<CachePadded<AtomicUsize>>,
    },
}

/// Everybody else's end.
#[derive(Debug)]
pub(crate) enum Thieves<T> {
    Deque(Stealer<T>),
    List {
        len: Arc<CachePadded<AtomicUsize>>,
        /// Set when the list becomes a deque.
        deque: OnceLock<Stealer<T>>,
    },
}

impl<T> RunQueue<T> {
    /// A queue that can be stolen from if `shared`.
    pub(crate) fn new(order: Order, shared: bool) -> (Self, Thieves<T>) {
        if shared {
            let own = match order {
                Order::Oldest => Owner::new_fifo(),
                Order::Newest => Owner::new_lifo(),
            };
            let (back, thieves) = (own.stealer(), own.stealer());
            let room = Cell::new(LEAST_ROOM);
            return (Self::Deque { own, back, room }, Thieves::Deque(thieves));
        }
        let len = Arc::new(CachePadded::new(AtomicUsize::new(0)));
        let tasks = VecDeque::new();
        let thieves = Thieves::List {
            len: Arc::clone(&len),
            deque: OnceLock::new(),
        };
        (Self::List { tasks, order, len }, thieves)
    }

    /// Whether others may steal from it.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Deque { .. })
    }

    /// Makes a list a deque; `thieves` is its other end.
    pub(crate) fn share(&mut self, thieves: &Thieves<T>) {
        let (Self::List { tasks, order, len }, Thieves::List { deque, .. }) = (&mut *self, thieves)
        else {
            return;
        };
        let (mut shared, others) = Self::new(*order, true);
        tasks.drain(..).for_each(|task| shared.push(task));
        len.store(0, Ordering::Relaxed);
        if let Thieves::Deque(stealer) = others {
            let set = deque.set(stealer);
            debug_assert!(set.is_ok(), "a list becomes a deque once");
        }
        *self = shared;
    }

    /// Adds a task. Never waits.
    #[inline]
    pub(crate) fn push(&mut self, task: T) {
        match self {
            Self::Deque { own, room, .. } => {
                if own.len() >= room.get() {
                    room.set(2 * room.get());
                }
                own.push(task);
            }
            Self::List { tasks, len, .. } => {
                tasks.push_back(task);
                len.store(tasks.len(), Ordering::Relaxed);
            }
        }
    }

    /// Takes the task whose turn it is.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.will_shrink()
            && let Self::Deque { room, .. } = self
        {
            room.set(room.get() / 2);
        }
        match self {
            Self::Deque { own, .. } => own.pop(),
            Self::List { tasks, order, len } => {
                let task = match order {
                    Order::Oldest => tasks.pop_front()?,
                    Order::Newest => tasks.pop_back()?,
                };
                len.store(tasks.len(), Ordering::Relaxed);
                Some(task)
            }
        }
    }

    /// Whether the next [`pop`](Self::pop) will make the deque smaller, which allocates, frees, and leaves a note with
    /// the OS thread. A hint, because thieves take tasks too. If the hint was wrong, it is not given again.
    #[inline]
    pub(crate) fn will_shrink(&self) -> bool {
        match self {
            Self::Deque { own, room, .. } => {
                room.get() > LEAST_ROOM && (1..=room.get() / 4).contains(&own.len())
            }
            Self::List { .. } => false,
        }
    }

    /// Takes the oldest task, whatever the order of the queue. `None`: there is none, or a thief was faster.
    #[inline]
    pub(crate) fn pop_oldest(&mut self) -> Option<T> {
        match self {
            Self::Deque { own, back, .. } => {
                if own.is_empty() {
                    return None;
                }
                match back.steal() {
                    Steal::Success(task) => Some(task),
                    Steal::Empty | Steal::Retry => None,
                }
            }
            Self::List { tasks, len, .. } => {
                let task = tasks.pop_front()?;
                len.store(tasks.len(), Ordering::Relaxed);
                Some(task)
            }
        }
    }

    /// Gives back the room of a list that had been long. A deque does so while it is emptied.
    pub(crate) fn shrink(&mut self) {
        if let Self::List { tasks, .. } = self {
            shrink(tasks);
        }
    }

    /// The number of tasks; of a deque thieves may have taken some of them by now.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Deque { own, .. } => own.len(),
            Self::List { tasks, .. } => tasks.len(),
        }
    }
}

/// Gives back the room of a list that is mostly empty and had been long.
pub(crate) fn shrink<T>(tasks: &mut VecDeque<T>) {
    if tasks.capacity() > KEPT_ROOM && tasks.len() < tasks.capacity() / 8 {
        tasks.shrink_to(KEPT_ROOM.max(2 * tasks.len()));
    }
}

impl<T> Thieves<T> {
    /// Whether others may steal. A hint, unless the caller is the owner or holds the owner out.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::Deque(_) => true,
            Self::List { deque, .. } => deque.get().is_some(),
        }
    }

    /// Tries to take the oldest task.
    pub(crate) fn steal(&self) -> Steal<T> {
        match self {
            Self::Deque(stealer) => stealer.steal(),
            Self::List { deque, .. } => deque.get().map_or(Steal::Empty, Stealer::steal),
        }
    }

    /// Tries to take about half of the tasks, the oldest first: returns the first of them and puts
    /// the others into `into`, of which the caller is the owner.
    pub(crate) fn steal_batch_and_pop(&self, into: &RunQueue<T>) -> Steal<T> {
        let stealer = match self {
            Self::Deque(stealer) => Some(stealer),
            Self::List { deque, .. } => deque.get(),
        };
        match (stealer, into) {
            (Some(stealer), RunQueue::Deque { own, .. }) => stealer.steal_batch_and_pop(own),
            _ => Steal::Empty,
        }
    }

    /// The number of tasks a moment ago.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Deque(stealer) => stealer.len(),
            Self::List { len, deque } => {
                len.load(Ordering::Relaxed) + deque.get().map_or(0, Stealer::len)
            }
        }
    }

    /// Whether there was no task. Of a deque, what the caller stored before is ordered before the
    /// answer ([`Stealer::is_empty`]).
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Deque(stealer) => stealer.is_empty(),
            Self::List { len, deque } => {
                len.load(Ordering::Relaxed) == 0 && deque.get().is_none_or(Stealer::is_empty)
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn check_order(order: Order, shared: bool) {
        let (mut own, others) = RunQueue::new(order, shared);
        assert!(others.is_empty());
        assert_eq!((own.pop(), own.pop_oldest()), (None, None));
        (1..=4).for_each(|task| own.push(task));
        assert_eq!((own.len(), others.len()), (4, 4));
        assert_eq!(own.pop_oldest(), Some(1));
        let next = own.pop();
        assert_eq!(next, Some(if order == Order::Oldest { 2 } else { 4 }));
        assert_eq!((own.len(), others.len()), (2, 2));
        let stolen = others.steal();
        assert_eq!(matches!(stolen, Steal::Success(_)), shared);
        while own.pop().is_some() {}
        assert!(others.is_empty());
    }

    #[test]
    fn both_kinds_keep_the_order() {
        for order in [Order::Oldest, Order::Newest] {
            // crossbeam-epoch, behind what thieves find, breaks the rules of Stacked Borrows.
            if !cfg!(miri) {
                check_order(order, true);
            }
            check_order(order, false);
        }
    }
}
