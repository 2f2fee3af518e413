//! A ring of messages: they go from senders to receivers without a lock, as long as nobody waits. It is
//! crossbeam-channel's array (Dmitry Vyukov's bounded queue) with one bit more, the *frost*.
//!
//! `tail` and `head` are positions: the next message to send has the position `tail`, the next one to
//! receive has `head`. A position is a lap and an index. Bit 0 of both words is the *frost*: a thread that finds
//! it there leaves the ring as it is, and takes the channel's lock.
//!
//! | stamp of a slot | meaning                          | whose slot                                   | leaves by        |
//! |-----------------|----------------------------------|----------------------------------------------|------------------|
//! | p               | free for the message of p        | the sender that moves `tail` from p          | `push` -> p + 1  |
//! | p + 1           | it has the message of p          | the receiver that moves `head` from p        | `pop` -> p + lap |
//!
//! A position is even, so the stamps p and p + 1 are never those of another position.
//!
//! | word   | without frost                        | with frost                                    |
//! |--------|--------------------------------------|-----------------------------------------------|
//! | `tail` | any sender moves it, by a compare-and-swap | only the holder of the channel's lock writes it |
//! | `head` | any receiver moves it, in the same way | the same                                      |
//!
//! Invariant 1: a slot's message is touched only by the side that the table names: the sender or the
//! receiver whose compare-and-swap has moved the word past the slot's position.
//! Invariant 2: only the holder of the lock lays frost on a word or takes it off. Frost is laid by a
//! read-modify-write. So each earlier move of the word is seen by it, and each later move fails.
//! Invariant 3: a thread that has moved a word does nothing that can wait or unwind before it writes the stamp. So
//! another thread that needs the slot may wait for the stamp, even if it holds the lock.
//! Invariant 4: `head <= tail <= head + capacity`, in positions.
//!
//! What frost is for: a thread that is going to wait lays frost, looks once more, and enters the queue of
//! waiters, all under the lock. Each later sender (or receiver) finds the frost and takes the lock, and each
//! earlier one has moved the word before the look. So on the usual path nobody looks for waiters: the word
//! that a thread must move anyway says whether there are any. `state.rs` says when a word must have frost. Frost
//! without need does no harm. It stays until a thread takes the lock, finds no waiter and takes the frost off.
//!
//! Orderings: the stamps release and acquire what lies in the slots. The words are `SeqCst`, because
//! threads learn "full", "empty" and the length without the lock. Think of two threads and two channels: each thread
//! sends to one channel and then looks at the other. One of the two must see a message. Frost needs no
//! ordering: a thread that reads it only takes the lock.
//!
//! Checked by `loom-tests/tests/ring.rs`; `channel.rs` and `select.rs` there check channels on rings.
#![allow(
    unsafe_code,
    reason = "slots are shared; the stamps say whose they are"
)]

use std::collections::VecDeque;
use std::mem::MaybeUninit;

use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::cell::UnsafeCell;
use crate::shim::thread;

/// The bit of `head` or `tail` that means: take the lock.
const FROST: usize = 1;

/// The bit of a stamp that means: the slot has the message of the position.
const FULL: usize = 1;

/// From one position to the next of the same lap.
const STEP: usize = 2;

/// On a cache line of its own, and on that line's neighbour, which processors fetch along with it.
#[repr(align(128))]
struct Apart<T>(T);

struct Slot<T> {
    stamp: AtomicUsize,
    message: UnsafeCell<MaybeUninit<T>>,
}

/// The result of a `pop`.
pub(super) enum Popped<T> {
    Message(T),
    Empty,
    /// Only the lock's holder can know.
    Frozen,
}

/// Whether there is something to pop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Message,
    /// There is no message in the ring, nor elsewhere in the channel.
    Empty,
    /// There is no message in the ring, and `tail` has frost.
    Frozen,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    /// Only the lock's holder can know.
    Frozen,
}

pub(super) struct Ring<T> {
    tail: Apart<AtomicUsize>,
    head: Apart<AtomicUsize>,
    slots: Box<[Slot<T>]>,
    /// The distance from a position to that of the same slot in the next lap. A power of two.
    lap: usize,
}

// SAFETY: a message is touched by one thread at a time (invariant 1), and goes from thread to thread.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    /// How many bytes a ring needs for each message of its capacity.
    pub(super) const BYTES_EACH: usize = size_of::<Slot<T>>();

    /// A ring with frost on both words. It takes as many of these messages as it has room for, the oldest first.
    pub(super) fn frozen(capacity: usize, messages: &mut VecDeque<T>) -> Self {
        debug_assert!(capacity != 0, "positions have a slot");
        let lap = capacity.next_power_of_two() * STEP;
        let mut tail = 0;
        let slots = (0..capacity).map(|index| {
            let free = index * STEP;
            let message = messages.pop_front();
            let stamp = free | if message.is_some() { FULL } else { 0 };
            if message.is_some() {
                tail = if index + 1 < capacity {
                    free + STEP
                } else {
                    lap
                };
            }
            Slot {
                stamp: AtomicUsize::new(stamp),
                message: UnsafeCell::new(message.map_or(MaybeUninit::uninit(), MaybeUninit::new)),
            }
        });
        let slots = slots.collect();
        Self {
            tail: Apart(AtomicUsize::new(tail | FROST)),
            head: Apart(AtomicUsize::new(FROST)),
            slots,
            lap,
        }
    }

    #[inline(always)]
    fn index(&self, position: usize) -> usize {
        (position & (self.lap - 1)) / STEP
    }

    #[inline(always)]
    fn slot(&self, position: usize) -> &Slot<T> {
        let index = self.index(position);
        debug_assert!(index < self.slots.len(), "`after` leaves out the others");
        // SAFETY: positions start at index 0, and `after` goes back to it before the end.
        unsafe { self.slots.get_unchecked(index) }
    }

    /// The position behind this one.
    #[inline(always)]
    fn after(&self, position: usize) -> usize {
        if self.index(position) + 1 < self.slots.len() {
            position + STEP
        } else {
            (position & !(self.lap - 1)).wrapping_add(self.lap)
        }
    }

    /// Writes a message into a slot that is the caller's by invariant 1.
    #[inline(always)]
    fn fill(slot: &Slot<T>, position: usize, message: T) {
        // SAFETY: the caller has moved `tail` past the position, and the stamp was the position.
        slot.message
            .with_mut(|place| unsafe { (*place).write(message) });
        let release = relaxed_if!("ring_fills_relaxed", Ordering::Release);
        slot.stamp.store(position | FULL, release);
    }

    /// Takes the message out of a slot that is the caller's by invariant 1.
    #[inline(always)]
    fn empty(&self, slot: &Slot<T>, position: usize) -> T {
        // SAFETY: the caller has moved `head` past the position, and the stamp was that of a message.
        let message = slot
            .message
            .with_mut(|place| unsafe { (*place).assume_init_read() });
        let release = relaxed_if!("ring_empties_relaxed", Ordering::Release);
        slot.stamp.store(position.wrapping_add(self.lap), release);
        message
    }

    #[inline(always)]
    fn stamp(slot: &Slot<T>) -> usize {
        slot.stamp
            .load(relaxed_if!("ring_looks_relaxed", Ordering::Acquire))
    }

    /// Sends a message, if there is room and no frost on `tail`.
    #[inline]
    pub(super) fn push(&self, message: T) -> Result<(), (Refused, T)> {
        let mut tail = self.tail.0.load(Ordering::Relaxed);
        let mut pause = Pause::new();
        loop {
            if tail & FROST != 0 {
                return Err((Refused::Frozen, message));
            }
            let slot = self.slot(tail);
            let stamp = Self::stamp(slot);
            if stamp == tail {
                let moved = self.tail.0.compare_exchange_weak(
                    tail,
                    self.after(tail),
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                );
                match moved {
                    Ok(_) => {
                        Self::fill(slot, tail, message);
                        return Ok(());
                    }
                    Err(now) => tail = now,
                }
                pause.after_a_loss();
                continue;
            }
            // The slot still has the message of the last lap, and `head` is at it: the ring is full. `tail` is not
            // an old value then (invariant 4).
            let last = tail.wrapping_sub(self.lap);
            if stamp == last | FULL && self.head.0.load(Ordering::SeqCst) & !FROST == last {
                return Err((Refused::Full, message));
            }
            // A receiver is between its two steps, or `tail` was an old value.
            pause.for_another();
            tail = self.tail.0.load(Ordering::Relaxed);
        }
    }

    /// Receives a message, if there is one and no frost on `head`.
    #[inline]
    pub(super) fn pop(&self) -> Popped<T> {
        let mut head = self.head.0.load(Ordering::Relaxed);
        let mut pause = Pause::new();
        loop {
            if head & FROST != 0 {
                return Popped::Frozen;
            }
            let slot = self.slot(head);
            let stamp = Self::stamp(slot);
            if stamp == head | FULL {
                let moved = self.head.0.compare_exchange_weak(
                    head,
                    self.after(head),
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                );
                match moved {
                    Ok(_) => return Popped::Message(self.empty(slot, head)),
                    Err(now) => head = now,
                }
                pause.after_a_loss();
                continue;
            }
            if stamp == head {
                let tail = self.tail.0.load(Ordering::SeqCst);
                if tail == head {
                    return Popped::Empty;
                }
                if tail & !FROST == head {
                    return Popped::Frozen;
                }
            }
            // A sender is between its two steps, or `head` was an old value.
            pause.for_another();
            head = self.head.0.load(Ordering::Relaxed);
        }
    }

    /// Sends a message. The caller holds the lock, `tail` has frost, and there is room.
    pub(super) fn push_frozen(&self, message: T) {
        // Nobody else writes it (invariant 2).
        let tail = self.tail.0.load(Ordering::Relaxed);
        debug_assert_eq!(tail & FROST, FROST, "only the lock's holder moves it");
        let tail = tail & !FROST;
        let slot = self.slot(tail);
        let mut pause = Pause::new();
        // A receiver has moved `head` past the slot and may still be at it (invariant 3).
        while Self::stamp(slot) != tail && !fault!("ring_fills_what_is_not_empty") {
            pause.for_another();
        }
        self.tail
            .0
            .store(self.after(tail) | FROST, Ordering::SeqCst);
        Self::fill(slot, tail, message);
    }

    /// Receives a message, with frost on `head` or without. The caller holds the lock, or nobody else receives.
    /// `None`: there was none when `tail` was looked at. If `tail` has frost, there is none now either.
    pub(super) fn pop_held(&self) -> Option<T> {
        let mut word = self.head.0.load(Ordering::Relaxed);
        let mut pause = Pause::new();
        loop {
            let (head, frost) = (word & !FROST, word & FROST);
            let slot = self.slot(head);
            let stamp = Self::stamp(slot);
            if stamp == head | FULL {
                let moved = self.head.0.compare_exchange(
                    word,
                    self.after(head) | frost,
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                );
                match moved {
                    Ok(_) => return Some(self.empty(slot, head)),
                    Err(now) => word = now,
                }
                continue;
            }
            if stamp == head
                && (self.tail.0.load(Ordering::SeqCst) & !FROST == head
                    || fault!("ring_passes_by_what_is_coming"))
            {
                return None;
            }
            // A sender is between its two steps (invariant 3), or `head` was an old value.
            pause.for_another();
            word = self.head.0.load(Ordering::Relaxed);
        }
    }

    /// Keeps senders off. Under the lock.
    #[inline]
    pub(super) fn freeze_tail(&self) {
        freeze(&self.tail.0);
    }

    /// Keeps receivers off. Under the lock.
    #[inline]
    pub(super) fn freeze_head(&self) {
        freeze(&self.head.0);
    }

    /// Lets senders in again, if they were kept off. Under the lock.
    #[inline]
    pub(super) fn thaw_tail(&self) {
        thaw(&self.tail.0);
    }

    /// Lets receivers in again, if they were kept off. Under the lock.
    #[inline]
    pub(super) fn thaw_head(&self) {
        thaw(&self.head.0);
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Would `pop` give a message?
    #[inline]
    pub(super) fn look(&self) -> Look {
        // If both are the same, the ring was empty when `tail` was looked at (invariant 4).
        let head = self.head.0.load(Ordering::SeqCst) & !FROST;
        let tail = self.tail.0.load(Ordering::SeqCst);
        if tail & !FROST != head {
            Look::Message
        } else if tail & FROST == 0 {
            Look::Empty
        } else {
            Look::Frozen
        }
    }

    /// The number of messages. If a word has frost, threads without the lock cannot change the number from its side.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.tail_and_len().1
    }

    /// The number of messages. `None`: there may be more in the deque, and only the lock's holder can count those.
    pub(super) fn len_without_frost(&self) -> Option<usize> {
        let (tail, len) = self.tail_and_len();
        (tail & FROST == 0).then_some(len)
    }

    /// The word `tail`, and the number of messages at a moment at which `tail` had that value.
    #[inline]
    fn tail_and_len(&self) -> (usize, usize) {
        let mut tail = self.tail.0.load(Ordering::SeqCst);
        loop {
            let head = self.head.0.load(Ordering::SeqCst);
            let now = self.tail.0.load(Ordering::SeqCst);
            if now == tail {
                return (tail, self.between(head & !FROST, tail & !FROST));
            }
            tail = now;
        }
    }

    fn between(&self, head: usize, tail: usize) -> usize {
        let (first, end) = (self.index(head), self.index(tail));
        if first < end {
            end - first
        } else if first > end || head != tail {
            self.slots.len() - first + end
        } else {
            0
        }
    }
}

/// Lays frost. Under the lock, so nobody else lays frost or takes it off.
#[inline]
fn freeze(word: &AtomicUsize) {
    let now = word.load(Ordering::Relaxed);
    if now & FROST != 0 {
        return;
    }
    if fault!("ring_freezes_by_store") {
        word.store(now | FROST, Ordering::SeqCst);
        return;
    }
    word.fetch_or(FROST, Ordering::SeqCst);
}

/// Takes frost off. Under the lock: nobody else writes a word with frost (invariant 2).
#[inline]
fn thaw(word: &AtomicUsize) {
    let now = word.load(Ordering::Relaxed);
    if now & FROST != 0 {
        word.store(now & !FROST, Ordering::SeqCst);
    }
}

/// Waits before another look, longer each time.
struct Pause(u32);

/// A pause spins at most two to the power of this times. crossbeam's figure.
const SPINS: u32 = 6;

impl Pause {
    #[inline(always)]
    fn new() -> Self {
        Self(0)
    }

    /// Somebody else has moved the word.
    #[inline]
    fn after_a_loss(&mut self) {
        for _ in 0..1 << self.0.min(SPINS) {
            thread::spin();
            if cfg!(loom) {
                break;
            }
        }
        self.0 += 1;
    }

    /// Somebody else is about to write a stamp. Its OS thread may have lost its CPU.
    #[cold]
    fn for_another(&mut self) {
        if self.0 <= SPINS {
            self.after_a_loss();
        } else {
            thread::yield_now();
        }
    }
}
