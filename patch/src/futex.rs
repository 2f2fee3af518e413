//! Green threads that wait for a futex, in lists by the hash of the word's address.
//!
//! | step | a green thread that waits                  | a thread that wakes                       |
//! |------|--------------------------------------------|-------------------------------------------|
//! | 1    | counts itself in the list                  | has changed the word                      |
//! | 2    | `fence(SeqCst)`, looks at the word again   | `fence(SeqCst)`, looks at the count       |
//! | 3    | the word is as expected: enters the list   | not zero: takes waiters out of the list   |
//!
//! Steps 2 and 3 of the waiter are made under the list's lock, and so is step 3 of the waker.
//!
//! Invariant 1: either the waiter sees the changed word, or the waker sees the waiter's count. In the second case the
//! lock makes it see the waiter itself.
//! Invariant 2: a node is on its waiter's stack and is touched only under the lock. Before the waiter goes, it takes
//! the node out or finds that somebody has.
//! Invariant 3: a wake-up that took a node out belongs to this waiter, and the waiter does not report a time-out.
//!
//! Locks of libc wait here too, by their address ([`Bucket::wait_unless`]), though they are not futexes. Their waiter
//! enters the list first and then tries to get the lock. A thread that unlocks has unlocked before it looks at the
//! count. The fences are the same.
//!
//! Checked by `loom-tests/tests/futex.rs`.
#![allow(unsafe_code, reason = "nodes on the stacks of those who wait")]

use std::ptr;
use std::time::Instant;

use crate::shim::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use crate::shim::cell::UnsafeCell;
use crate::shim::{self, Parked, Wakeup};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Woken,
    /// The word has another value.
    NotAsExpected,
    TimedOut,
}

/// How many green threads are woken for one taking of a list's lock.
const BATCH: usize = 16;

#[derive(Debug)]
struct Node {
    next: *mut Node,
    prev: *mut Node,
    word: *const AtomicU32,
    bits: u32,
    /// The node is still in the list.
    listed: bool,
    wakeup: Option<Wakeup>,
}

/// The first and the last.
type Ends = (*mut Node, *mut Node);

/// The waiters for words whose addresses have the same hash.
#[derive(Debug)]
pub(crate) struct Bucket {
    locked: AtomicBool,
    /// How many waiters are in the list or about to enter it.
    count: AtomicUsize,
    ends: UnsafeCell<Ends>,
}

// SAFETY: the pointers are touched only by the thread that has set `locked` (invariant 2).
unsafe impl Sync for Bucket {}
// SAFETY: as above.
unsafe impl Send for Bucket {}

/// The lock of a list. It spins, because a lock that waits would itself be a futex. It is held for a few steps. If
/// the holder has been taken off its core, the spinning thread yields.
struct Locked<'a>(&'a Bucket);

impl<'a> Locked<'a> {
    fn of(list: &'a Bucket) -> Self {
        let mut spins = 0_u32;
        while list
            .locked
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            spins += 1;
            shim::spin(spins);
        }
        Self(list)
    }

    fn first(&self) -> *mut Node {
        // SAFETY: the lock is held.
        self.0.ends.with_mut(|ends| unsafe { (*ends).0 })
    }

    fn push(&self, node: *mut Node) {
        // SAFETY: the lock is held, the node belongs to the waiter, which is here, and the last node is live
        // (invariant 2).
        self.0.ends.with_mut(|ends| unsafe {
            let last = (*ends).1;
            (*node).prev = last;
            (*node).next = ptr::null_mut();
            (*node).listed = true;
            if last.is_null() {
                (*ends).0 = node;
            } else {
                (*last).next = node;
            }
            (*ends).1 = node;
        });
    }

    /// # Safety
    /// The node is in this list.
    unsafe fn remove(&self, node: *mut Node) {
        // SAFETY: the lock is held, so the neighbours are live (invariant 2).
        self.0.ends.with_mut(|ends| unsafe {
            let (prev, next) = ((*node).prev, (*node).next);
            if prev.is_null() {
                (*ends).0 = next;
            } else {
                (*prev).next = next;
            }
            if next.is_null() {
                (*ends).1 = prev;
            } else {
                (*next).prev = prev;
            }
            (*node).listed = false;
        });
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::Release);
    }
}

impl Bucket {
    constructor! {
        pub(crate) const fn new() -> Self {
            Self {
                locked: AtomicBool::new(false),
                count: AtomicUsize::new(0),
                ends: UnsafeCell::new((ptr::null_mut(), ptr::null_mut())),
            }
        }
    }

    /// Waits while the word has the expected value.
    ///
    /// # Safety
    /// `word` can be read for the time of the call.
    pub(crate) unsafe fn wait(
        &self,
        word: *const AtomicU32,
        expected: u32,
        bits: u32,
        until: Option<Instant>,
    ) -> Waited {
        let mut node = Node {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
            word,
            bits,
            listed: false,
            wakeup: None,
        };
        let node: *mut Node = &raw mut node;
        let late = fault!("futex_counts_late");
        if !late {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        loop {
            let mut is_as_expected = true;
            let parked = shim::wait_for_wakeup(word, until, |wakeup| {
                let locked = Locked::of(self);
                unless!("futex_waiter_without_fence", fence(Ordering::SeqCst));
                // SAFETY: by contract.
                is_as_expected = unsafe { (*word).load(Ordering::Relaxed) } == expected;
                if late {
                    self.count.fetch_add(1, Ordering::Relaxed);
                }
                if is_as_expected {
                    // SAFETY: the node is ours, and in no list.
                    unsafe { (*node).wakeup = Some(wakeup) };
                    locked.push(node);
                }
                is_as_expected
            });
            if !is_as_expected {
                self.count.fetch_sub(1, Ordering::Relaxed);
                return Waited::NotAsExpected;
            }
            let locked = Locked::of(self);
            // SAFETY: under the lock; the node is in the list until somebody takes it out.
            unsafe {
                if !(*node).listed {
                    // The waker has counted this thread out.
                    let wins = fault!("futex_time_out_wins");
                    if wins && parked == Parked::TimedOut {
                        return Waited::TimedOut;
                    }
                    return Waited::Woken;
                }
                locked.remove(node);
            }
            if parked == Parked::TimedOut {
                self.count.fetch_sub(1, Ordering::Relaxed);
                return Waited::TimedOut;
            }
        }
    }

    /// Waits until woken or until the deadline, unless `done` says that there is nothing to wait for. `done` is
    /// called once the waiter can be found, in the middle of the wait, so it must not wait itself.
    ///
    /// Returns `NotAsExpected` if `done` said so. `Woken` may come without a reason.
    pub(crate) fn wait_unless(
        &self,
        word: *const AtomicU32,
        until: Option<Instant>,
        done: impl FnOnce() -> bool,
    ) -> Waited {
        let mut node = Node {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
            word,
            bits: u32::MAX,
            listed: false,
            wakeup: None,
        };
        let node: *mut Node = &raw mut node;
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut is_done = false;
        let parked = shim::wait_for_wakeup(word, until, |wakeup| {
            {
                let locked = Locked::of(self);
                // SAFETY: the node is ours, and in no list.
                unsafe { (*node).wakeup = Some(wakeup) };
                locked.push(node);
            }
            // Pairs with the fence of a thread that wakes, after it has unlocked.
            unless!("futex_lock_waiter_without_fence", fence(Ordering::SeqCst));
            is_done = done();
            !is_done
        });
        let locked = Locked::of(self);
        // SAFETY: under the lock; the node is in the list until somebody takes it out.
        let listed = unsafe { (*node).listed };
        if listed {
            // SAFETY: as above.
            unsafe { locked.remove(node) };
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        if is_done {
            Waited::NotAsExpected
        } else if listed && parked == Parked::TimedOut {
            Waited::TimedOut
        } else {
            Waited::Woken
        }
    }

    /// Tells if somebody waits, or is about to look at the word. It is for a thread that has changed the word.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        fence(Ordering::SeqCst);
        self.count.load(Ordering::Relaxed) != 0
    }

    /// Wakes the waiters for whose word the function returns true. The function may touch the word.
    pub(crate) fn wake_if(&self, mut ready: impl FnMut(*const AtomicU32) -> bool) {
        while self.has_waiters() {
            let mut taken = [const { None }; BATCH];
            let count = self.take(&mut taken, BATCH, |node| ready(node.word));
            taken.into_iter().flatten().for_each(Wakeup::wake);
            if count < BATCH {
                break;
            }
        }
    }

    /// Takes out at most `limit` nodes for which the function returns true, with their wake-ups. Returns how many.
    fn take(
        &self,
        taken: &mut [Option<Wakeup>; BATCH],
        limit: usize,
        mut wanted: impl FnMut(&Node) -> bool,
    ) -> usize {
        let mut count = 0;
        let locked = Locked::of(self);
        let mut node = locked.first();
        while !node.is_null() && count < limit.min(BATCH) {
            // SAFETY: the lock is held, so the nodes are live (invariant 2).
            unsafe {
                let next = (*node).next;
                if wanted(&*node) {
                    locked.remove(node);
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    taken[count] = (*node).wakeup.take();
                    count += 1;
                }
                node = next;
            }
        }
        count
    }

    /// Wakes at most `limit` green threads that wait for the word with one of the bits. Returns how many.
    ///
    /// They are taken out under the lock and woken after it: the scheduler has locks too, and this may be called
    /// under one of them.
    pub(crate) fn wake(&self, word: *const AtomicU32, limit: usize, bits: u32) -> usize {
        unless!("futex_waker_without_fence", fence(Ordering::SeqCst));
        let mut woken = 0;
        while self.count.load(Ordering::Relaxed) != 0 && woken < limit {
            let mut taken = [const { None }; BATCH];
            let count = self.take(&mut taken, limit - woken, |node| {
                ptr::eq(node.word, word) && node.bits & bits != 0
            });
            if count == 0 {
                break;
            }
            woken += count;
            taken.into_iter().flatten().for_each(Wakeup::wake);
        }
        woken
    }
}
