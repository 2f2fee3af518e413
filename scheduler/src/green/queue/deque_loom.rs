//! The double of `deque.rs` in a model check: a small Chase-Lev deque that loom can see into.
//!
//! Each load, store, fence and exchange is the one of crossbeam-deque 0.8.8, in its order and with
//! its ordering. That is the point of the file: a double behind a mutex would hide a missing fence
//! in the code above it, and one with other orderings would raise false alarms. What differs:
//!
//! - The ring does not grow: a push into a full one panics. So the buffer is never swapped, and
//!   the loads that look for a swap are left out.
//! - crossbeam reads and writes slots by volatile accesses, which race by design: a thief reads a
//!   slot, and only its exchange of the front index tells whether what it read was the task. Here
//!   slots are relaxed atomics, so that a thief without the right synchronisation gets a stale
//!   value or [`UNWRITTEN`], as it might in truth.
//! - crossbeam pins its epoch in a steal, which issues the `SeqCst` fence; here the fence is plain.
//!
//! `loom-tests/tests/deque.rs` holds this file and crossbeam's deque to the same assertions. A new
//! version of crossbeam-deque is compared line by line. The faults that are seeded here
//! are those that the models must find.
#![allow(
    unsafe_code,
    reason = "a task is kept as the bits of a word, whatever its type"
)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::sync::Arc;

use super::Steal;
use crate::shim::atomic::{AtomicUsize, Ordering, fence};

/// Slots of the ring. Room for the few tasks of a model; each slot more slows loom's fences. The crowds of
/// `loom-tests/shuttle` need more.
pub(crate) const CAPACITY: usize = if cfg!(shuttle) { 256 } else { 4 };

/// The most tasks a batch moves, as in crossbeam; a ring this small never reaches it.
const MAX_BATCH: usize = 32;

/// The bits of a slot that nobody wrote. No task may have these.
const UNWRITTEN: usize = usize::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavor {
    Fifo,
    Lifo,
}

/// What owner and thieves share. Indices count pushes and takes and never go back but for one
/// step; the slot of an index is its remainder by [`CAPACITY`].
#[derive(Debug)]
struct Inner<T> {
    /// The index of the oldest task. Thieves move it by an exchange, the owner too in a FIFO.
    front: AtomicUsize,
    /// The index behind the newest task. Only the owner stores it.
    back: AtomicUsize,
    /// Written by the owner only.
    slots: [AtomicUsize; CAPACITY],
    _tasks: PhantomData<T>,
}

/// The owner's end. It is `Send` but not `Sync`: one thread at a time owns a deque.
#[derive(Debug)]
pub(crate) struct Owner<T> {
    inner: Arc<Inner<T>>,
    flavor: Flavor,
    _not_sync: PhantomData<Cell<T>>,
}

/// A thief's end.
#[derive(Debug)]
pub(crate) struct Stealer<T> {
    inner: Arc<Inner<T>>,
    flavor: Flavor,
    _tasks: PhantomData<T>,
}

impl<T> Owner<T> {
    /// A deque whose owner takes the oldest task first.
    pub(crate) fn new_fifo() -> Self {
        Self::new(Flavor::Fifo)
    }

    /// A deque whose owner takes the newest task first.
    pub(crate) fn new_lifo() -> Self {
        Self::new(Flavor::Lifo)
    }

    fn new(flavor: Flavor) -> Self {
        let inner = Inner {
            front: AtomicUsize::new(0),
            back: AtomicUsize::new(0),
            slots: std::array::from_fn(|_| AtomicUsize::new(UNWRITTEN)),
            _tasks: PhantomData,
        };
        Self {
            inner: Arc::new(inner),
            flavor,
            _not_sync: PhantomData,
        }
    }

    /// Another thief's end of this deque.
    pub(crate) fn stealer(&self) -> Stealer<T> {
        Stealer {
            inner: Arc::clone(&self.inner),
            flavor: self.flavor,
            _tasks: PhantomData,
        }
    }

    /// Whether the owner would find no task. Thieves only take, so a `true` stays true until the
    /// owner pushes.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of tasks; thieves may have taken some of them by now.
    pub(crate) fn len(&self) -> usize {
        let b = self.inner.back.load(Ordering::Relaxed);
        let f = self.inner.front.load(Ordering::SeqCst);
        distance(b, f).max(0).cast_unsigned()
    }

    /// Adds a task.
    ///
    /// # Panics
    ///
    /// Panics if the ring is full: the model needs a smaller scenario or a larger [`CAPACITY`].
    pub(crate) fn push(&self, task: T) {
        let b = self.inner.back.load(Ordering::Relaxed);
        let f = self.inner.front.load(Ordering::Acquire);
        assert!(distance(b, f) < room(), "the model's deque is full");

        self.inner.write(b, encode(task));

        unless!("deque_push_without_release", fence(Ordering::Release));
        self.inner.back.store(b.wrapping_add(1), Ordering::Relaxed);
    }

    /// Takes the task whose turn it is.
    pub(crate) fn pop(&self) -> Option<T> {
        let b = self.inner.back.load(Ordering::Relaxed);
        let f = self.inner.front.load(Ordering::Relaxed);
        if distance(b, f) <= 0 {
            return None;
        }
        match self.flavor {
            Flavor::Fifo => self.pop_front(b),
            Flavor::Lifo => self.pop_back(b),
        }
    }

    fn pop_front(&self, b: usize) -> Option<T> {
        let f = if fault!("deque_fifo_pop_by_store") {
            let f = self.inner.front.load(Ordering::Acquire);
            self.inner.front.store(f.wrapping_add(1), Ordering::SeqCst);
            f
        } else {
            self.inner.front.fetch_add(1, Ordering::SeqCst)
        };

        if distance(b, f.wrapping_add(1)) < 0 {
            // A thief was faster and the index has gone one too far. It says "empty" to all in
            // the meantime, so nobody else moves it.
            unless!(
                "deque_fifo_pop_overshoots",
                self.inner.front.store(f, Ordering::Relaxed)
            );
            return None;
        }
        Some(decode(self.inner.read(f)))
    }

    fn pop_back(&self, b: usize) -> Option<T> {
        let b = b.wrapping_sub(1);
        self.inner.back.store(b, Ordering::Relaxed);

        // Pairs with the fence of `steal`: either the thief sees the lower back index, or this
        // load sees the front index that the thief has moved.
        unless!("deque_lifo_pop_without_fence", fence(Ordering::SeqCst));

        let f = self.inner.front.load(Ordering::Relaxed);
        let len = distance(b, f);
        if len < 0 {
            self.inner.back.store(b.wrapping_add(1), Ordering::Relaxed);
            return None;
        }

        let bits = self.inner.read(b);
        let mut is_mine = true;
        if len == 0 {
            // It is the last task, so thieves may be after it too.
            if fault!("deque_lifo_last_without_exchange") {
                self.inner.front.store(f.wrapping_add(1), Ordering::SeqCst);
            } else {
                is_mine = self.inner.advance_front(f, 1);
            }
            self.inner.back.store(b.wrapping_add(1), Ordering::Relaxed);
        }
        is_mine.then(|| decode(bits))
    }
}

impl<T> Stealer<T> {
    /// Whether there was nothing to steal. The test contains a `SeqCst` fence between the loads of
    /// its two indices: what this thread stored before is ordered before its answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of tasks a moment ago.
    pub(crate) fn len(&self) -> usize {
        let f = self.inner.front.load(Ordering::Acquire);
        unless!("deque_emptiness_without_fence", fence(Ordering::SeqCst));
        let b = self.inner.back.load(Ordering::Acquire);
        distance(b, f).max(0).cast_unsigned()
    }

    /// Tries to take the oldest task.
    pub(crate) fn steal(&self) -> Steal<T> {
        let f = self.inner.front.load(Ordering::Acquire);
        let b = self.inner.back_for_thief();
        if distance(b, f) <= 0 {
            return Steal::Empty;
        }

        let bits = self.inner.read(f);
        if fault!("deque_steal_by_store") {
            self.inner.front.store(f.wrapping_add(1), Ordering::SeqCst);
        } else if !self.inner.advance_front(f, 1) {
            return Steal::Retry;
        }
        Steal::Success(decode(bits))
    }

    /// Tries to take about half of the tasks, the oldest first: returns the first of them and
    /// puts the others into `into`, of which the caller is the owner.
    ///
    /// # Panics
    ///
    /// Panics if the ring of `into` has no room for them.
    pub(crate) fn steal_batch_and_pop(&self, into: &Owner<T>) -> Steal<T> {
        if Arc::ptr_eq(&self.inner, &into.inner) {
            return into.pop().map_or(Steal::Empty, Steal::Success);
        }

        let f = self.inner.front.load(Ordering::Acquire);
        let b = self.inner.back_for_thief();
        let len = distance(b, f);
        if len <= 0 {
            return Steal::Empty;
        }

        let batch = ((len.cast_unsigned() - 1) / 2).min(MAX_BATCH - 1);
        into.reserve(batch);
        let into_b = into.inner.back.load(Ordering::Relaxed);

        let first = self.inner.read(f);
        let moved = match self.flavor {
            Flavor::Fifo => self.move_at_once(f, batch, into, into_b),
            Flavor::Lifo if fault!("deque_lifo_batch_at_once") => {
                self.move_at_once(f, batch, into, into_b)
            }
            Flavor::Lifo => self.move_one_by_one(f, batch, into, into_b),
        };
        let Some((first, moved)) = moved.map(|(task, moved)| (task.unwrap_or(first), moved)) else {
            return Steal::Retry;
        };

        unless!("deque_batch_without_release", fence(Ordering::Release));
        into.inner
            .back
            .store(into_b.wrapping_add(moved), Ordering::Relaxed);
        Steal::Success(decode(first))
    }

    /// Copies the batch behind the task at `f` and claims all by one exchange. Returns how many
    /// were moved besides that task, and `None` if they were not this thief's.
    fn move_at_once(
        &self,
        f: usize,
        batch: usize,
        into: &Owner<T>,
        into_b: usize,
    ) -> Option<(Option<usize>, usize)> {
        for i in 0..batch {
            let bits = self.inner.read(f.wrapping_add(i + 1));
            let to = match into.flavor {
                Flavor::Fifo => i,
                Flavor::Lifo => batch - 1 - i,
            };
            into.inner.write(into_b.wrapping_add(to), bits);
        }
        self.inner
            .advance_front(f, batch + 1)
            .then_some((None, batch))
    }

    /// Claims the task at `f` and those behind it one by one, since the owner of a LIFO deque
    /// takes from the other end without an exchange. Returns the bits of the task claimed last,
    /// which is the one to return, and how many were moved; `None` if none was this thief's.
    fn move_one_by_one(
        &self,
        mut f: usize,
        batch: usize,
        into: &Owner<T>,
        into_b: usize,
    ) -> Option<(Option<usize>, usize)> {
        let mut task = self.inner.read(f);
        if !self.inner.advance_front(f, 1) {
            return None;
        }
        f = f.wrapping_add(1);

        let mut moved = 0;
        while moved < batch {
            unless!("deque_lifo_batch_without_fence", fence(Ordering::SeqCst));
            let b = self.inner.back.load(Ordering::Acquire);
            if distance(b, f) <= 0 {
                break;
            }
            let next = self.inner.read(f);
            if !self.inner.advance_front(f, 1) {
                break;
            }
            into.inner
                .write(into_b.wrapping_add(moved), mem::replace(&mut task, next));
            f = f.wrapping_add(1);
            moved += 1;
        }

        if into.flavor == Flavor::Fifo {
            let end = into_b.wrapping_add(moved);
            for i in 0..moved / 2 {
                let (i1, i2) = (end.wrapping_sub(moved - i), end.wrapping_sub(i + 1));
                let (bits1, bits2) = (into.inner.read(i1), into.inner.read(i2));
                into.inner.write(i1, bits2);
                into.inner.write(i2, bits1);
            }
        }
        Some((Some(task), moved))
    }
}

impl<T> Owner<T> {
    /// Where crossbeam grows its buffer for a batch, there must be room already.
    fn reserve(&self, tasks: usize) {
        if tasks > 0 {
            let b = self.inner.back.load(Ordering::Relaxed);
            let f = self.inner.front.load(Ordering::SeqCst);
            assert!(
                room() - distance(b, f) >= tasks.cast_signed(),
                "the model's deque is full"
            );
        }
    }
}

impl<T> Inner<T> {
    /// The back index for one who has just loaded the front index: the fence in between pairs
    /// with that of `pop_back`.
    fn back_for_thief(&self) -> usize {
        unless!("deque_steal_without_fence", fence(Ordering::SeqCst));
        if fault!("deque_steal_without_acquire") {
            self.back.load(Ordering::Relaxed)
        } else {
            self.back.load(Ordering::Acquire)
        }
    }

    /// Claims so many tasks from the front. `false` if somebody else has moved the index.
    fn advance_front(&self, f: usize, tasks: usize) -> bool {
        self.front
            .compare_exchange(
                f,
                f.wrapping_add(tasks),
                Ordering::SeqCst,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    fn read(&self, index: usize) -> usize {
        self.slots[index % CAPACITY].load(Ordering::Relaxed)
    }

    fn write(&self, index: usize, bits: usize) {
        self.slots[index % CAPACITY].store(bits, Ordering::Relaxed);
    }
}

/// Drops the tasks that nobody took. The last end may go anywhere, and loom does not see the
/// count that says so; hence read-modify-writes, which read the newest value.
impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        if !mem::needs_drop::<T>() || std::thread::panicking() {
            return;
        }
        let b = self.back.fetch_add(0, Ordering::AcqRel);
        let mut f = self.front.fetch_add(0, Ordering::AcqRel);
        while f != b {
            let bits = self.slots[f % CAPACITY].fetch_add(0, Ordering::AcqRel);
            drop(decode::<T>(bits));
            f = f.wrapping_add(1);
        }
    }
}

impl<T> Clone for Stealer<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            flavor: self.flavor,
            _tasks: PhantomData,
        }
    }
}

/// How far the back index is ahead; below zero for a moment while an owner takes the last task.
fn distance(b: usize, f: usize) -> isize {
    b.wrapping_sub(f).cast_signed()
}

fn room() -> isize {
    CAPACITY.cast_signed()
}

/// Keeps a task as bits; whoever claims the index that the bits lie at decodes them, once.
fn encode<T>(task: T) -> usize {
    const {
        assert!(
            size_of::<T>() <= size_of::<usize>(),
            "a task fits into a word"
        );
    }
    let task = ManuallyDrop::new(task);
    let mut bits = 0_usize;
    // SAFETY: the task is no larger than the word, both are locals, and a task is a pointer or an
    // integer: it has no padding. The original is not dropped, so the bits own it.
    unsafe {
        (&raw mut bits)
            .cast::<ManuallyDrop<T>>()
            .write_unaligned(task);
    };
    assert_ne!(
        bits, UNWRITTEN,
        "these bits mean that nobody wrote the slot"
    );
    bits
}

/// Called once for each task, by the one who claimed it.
fn decode<T>(bits: usize) -> T {
    assert_ne!(
        bits, UNWRITTEN,
        "took a task from a slot that nobody had written"
    );
    // SAFETY: every other value in a slot comes from `encode` of a `T`, since a deque has tasks of
    // one type, and who calls has claimed the index, so owns the task.
    unsafe { (&raw const bits).cast::<T>().read_unaligned() }
}
