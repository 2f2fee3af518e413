//! The second halves of a green thread's [`join`](crate::join)s that nobody has begun. Other threads may take them.
//!
//! A second half lies in a [`Fork`] on the thread's stack. While the thread runs the first half, the fork is in
//! the list. Then the thread takes the fork out and runs the second half, unless another thread has taken it meanwhile.
//! Forks are numbered as they lie on the stack: 0 is the oldest.
//!
//! ```text
//!        taken                pushed
//!          v                    v
//! | 0 | 1 | 2 | 3 | ... | n-1 |          first -> fork 0 -> fork 1 -> ... -> fork n-1
//!  run by     in the list
//!  others
//! ```
//!
//! | word     | written by   | meaning                                                |
//! |----------|--------------|--------------------------------------------------------|
//! | `pushed` | the thread   | joins of the thread that run their first half          |
//! | `taken`  | a taker      | how many of them, the oldest, have lost their second   |
//! | `first`, | the thread   | the next younger fork; valid for fork i once `pushed`  |
//! | `next`   |              | is above i                                             |
//! | `last`   | the thread   | the link that the next fork goes into                  |
//! | `cursor` | a taker      | the link that leads to fork number `taken`             |
//!
//! A *taker* has the right to take forks. The thread itself has this right inside its carrier's door. Another thread
//! has it while it holds that carrier out of the door (`door.rs`). So there is one taker at a time.
//!
//! The thread pushes and pops without the right, because this must cost next to nothing:
//! - Push: 1. write the link; 2. `pushed` += 1, a release.
//! - Pop of fork i: 1. `pushed` = i; 2. light fence; 3. load `taken`. If it is at most i, the fork is the
//!   thread's again. Else the thread gets the right and calls [`settle`](Forks::settle), which finds out whether the
//!   fork was taken or somebody only tried to take it.
//! - Take by another thread: 1. `taken` += 1; 2. heavy fence; 3. load `pushed`. If it is below `taken`, the fork is
//!   gone, and the taker puts `taken` back.
//!
//! Steps 1 to 3 of pop and take are Dekker's handshake (the fences are those of `shim/barrier.rs`): for the
//! same fork, either the thread sees `taken` or the taker sees `pushed`.
//!
//! Invariant 1: a fork is taken once, or popped by the thread as its own, never both.
//! Invariant 2: forks are taken from the oldest on. So while fork i is in the list, all forks with numbers below `taken`
//! are taken, and all their frames are there, because they are older frames of the same stack.
//! Invariant 3: a frame goes only after its fork was popped. If the fork was taken, `settle` has also put
//! `taken` and `cursor` back to before it. So no link that `pushed` says is valid leads to a frame that is gone.
//! Invariant 4: a taker that is not the thread itself starts a taken fork before it gives up the right.
//!
//! Rejected: a deque for each worker, as in rayon. A green thread may migrate in the middle of a first half, and
//! its forks must go along. And a pop of a Chase-Lev deque has a real fence, which costs half as much as a whole
//! fork costs here.
//! Checked by `loom-tests/tests/forks.rs`.
#![allow(
    unsafe_code,
    reason = "links between frames of a stack; the right to take says who may follow them"
)]

use std::cell::Cell;
use std::ptr;

use crate::shim::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::shim::barrier;

/// A second half that waits on its thread's stack.
#[derive(Debug)]
pub(crate) struct Fork {
    /// The next younger fork.
    next: AtomicPtr<Fork>,
    /// The link that leads here; null stands for the list's `first`. Only the thread itself touches it.
    before: Cell<*const AtomicPtr<Fork>>,
}

impl Fork {
    /// Makes a fork that is in no list.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicPtr::new(ptr::null_mut()),
            before: Cell::new(ptr::null()),
        }
    }
}

/// The list of one green thread.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Forks {
    /// Null stands for `first`: the list is empty. Only the thread itself touches it.
    last: Cell<*const AtomicPtr<Fork>>,
    pushed: AtomicUsize,
    taken: AtomicUsize,
    first: AtomicPtr<Fork>,
    /// Null stands for `first`. Only the taker touches it.
    cursor: Cell<*const AtomicPtr<Fork>>,
}

impl Forks {
    pub(crate) fn new() -> Self {
        Self {
            last: Cell::new(ptr::null()),
            pushed: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            first: AtomicPtr::new(ptr::null_mut()),
            cursor: Cell::new(ptr::null()),
        }
    }

    /// Whether the thread is in the first half of a join. Only the thread itself may ask.
    #[inline(always)]
    pub(crate) fn is_used(&self) -> bool {
        !self.last.get().is_null()
    }

    /// Whether forks are left that nobody has taken. Only the thread itself may ask.
    pub(crate) fn has_any(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.pushed.load(Ordering::Relaxed)
    }

    /// Puts a fork in and returns its number.
    ///
    /// # Safety
    /// The caller is the thread. The fork stays where it is until `pop`, and, if that says that it was
    /// taken, until `settle` has returned.
    #[inline(always)]
    pub(crate) unsafe fn push(&self, fork: *const Fork) -> usize {
        let number = self.pushed.load(Ordering::Relaxed);
        let link = self.last.get();
        // SAFETY: by contract the fork is there. The link is one of ours or of a fork that is still in the
        // list, whose frame is there (invariant 3).
        unsafe {
            (*fork).before.set(link);
            self.link(link).store(fork.cast_mut(), Ordering::Relaxed);
            self.last.set(&raw const (*fork).next);
        }
        let order = relaxed_if!("forks_push_without_release", Ordering::Release);
        self.pushed.store(number + 1, order);
        number
    }

    /// Takes the youngest fork out of the list. True: nobody has taken it. False: the thread must call `settle`.
    ///
    /// # Safety
    /// The caller is the thread, and the fork is the youngest, with this number.
    #[inline(always)]
    pub(crate) unsafe fn pop(&self, fork: *const Fork, number: usize) -> bool {
        self.pushed.store(number, Ordering::Relaxed);
        // SAFETY: by contract the fork is there.
        self.last.set(unsafe { (*fork).before.get() });
        unless!("forks_pop_without_fence", barrier::light());
        self.taken.load(Ordering::Relaxed) <= number
    }

    /// Says whether a fork that was popped had been taken.
    ///
    /// # Safety
    /// The caller is the thread and has the right to take; `pop` was called for this fork, and nothing since.
    #[cold]
    pub(crate) unsafe fn settle(&self, fork: *const Fork, number: usize) -> bool {
        if self.taken.load(Ordering::Relaxed) <= number {
            // A taker has tried to take it, has seen that it was gone, and has put `taken` back.
            return false;
        }
        debug_assert_eq!(self.taken.load(Ordering::Relaxed), number + 1);
        self.taken.store(number, Ordering::Relaxed);
        if !fault!("forks_leaves_the_cursor") {
            // SAFETY: by contract the fork is there.
            self.cursor.set(unsafe { (*fork).before.get() });
        }
        true
    }

    /// Takes the oldest fork that is left.
    ///
    /// # Safety
    /// The caller is the thread and has the right to take.
    #[cold]
    pub(crate) unsafe fn take_own(&self) -> Option<*const Fork> {
        let number = self.taken.load(Ordering::Relaxed);
        if number >= self.pushed.load(Ordering::Relaxed) {
            return None;
        }
        self.taken.store(number + 1, Ordering::Relaxed);
        // SAFETY: the right is the caller's, and the fork is in the list: only the thread pops.
        Some(unsafe { self.advance() })
    }

    /// Takes the oldest fork that is left, from another thread.
    ///
    /// # Safety
    /// The caller has the right to take. As long as it has the right, the list's thread is alive.
    #[cold]
    pub(crate) unsafe fn take(&self) -> Option<*const Fork> {
        let number = self.taken.load(Ordering::Relaxed);
        if number >= self.pushed.load(Ordering::Relaxed) {
            return None;
        }
        self.taken.store(number + 1, Ordering::Relaxed);
        let fenced = fault!("forks_take_without_fence") || barrier::heavy();
        // Acquires the link.
        if !fenced || self.pushed.load(Ordering::Acquire) <= number {
            self.taken.store(number, Ordering::Relaxed);
            return None;
        }
        // SAFETY: the right is the caller's, and the fork is taken (invariant 1), so its frame stays.
        Some(unsafe { self.advance() })
    }

    /// Follows the cursor over the fork that was taken.
    ///
    /// # Safety
    /// The caller has the right to take and has just taken that fork.
    unsafe fn advance(&self) -> *const Fork {
        // SAFETY: the cursor is `first` or a link in a frame that was taken and is there (invariants 2, 3).
        let fork = unsafe { self.link(self.cursor.get()) }.load(Ordering::Relaxed);
        debug_assert!(!fork.is_null(), "a fork in the list has a link to it");
        // SAFETY: `pushed` was above its number, so the link is valid, and the frame stays until it is
        // settled.
        self.cursor.set(unsafe { &raw const (*fork).next });
        fork
    }

    /// # Safety
    /// The link is null or in a frame that is there.
    #[inline(always)]
    unsafe fn link(&self, link: *const AtomicPtr<Fork>) -> &AtomicPtr<Fork> {
        // SAFETY: by contract.
        unsafe { link.as_ref() }.unwrap_or(&self.first)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// First halves down to a depth; `plan`: how many forks are taken at each level on the way down.
    /// Returns the numbers of those that were taken, as their own frames learn it.
    fn descend(
        forks: &Forks,
        depth: usize,
        plan: &[usize],
        taken: &mut Vec<*const Fork>,
    ) -> Vec<usize> {
        let Some((&count, rest)) = plan.split_first() else {
            return Vec::new();
        };
        let fork = Fork::new();
        let fork = &raw const fork;
        // SAFETY: one thread does it all; the fork is there until it was popped and settled.
        unsafe {
            let number = forks.push(fork);
            assert_eq!(number, depth);
            assert!(forks.is_used());
            for _ in 0..count {
                taken.extend(forks.take_own());
            }
            let mut lost = descend(forks, depth + 1, rest, taken);
            let is_mine = forks.pop(fork, number) || !forks.settle(fork, number);
            assert_eq!(is_mine, !taken.contains(&fork));
            if !is_mine {
                taken.retain(|&other| other != fork);
                lost.push(number);
            }
            lost
        }
    }

    #[test]
    fn forks_are_taken_from_the_oldest_on_and_all_others_are_popped() {
        let forks = Forks::new();
        for (plan, lost) in [
            (&[0, 0, 0][..], &[][..]),
            (&[1, 0, 0], &[0]),
            (&[0, 0, 1], &[0]),
            (&[0, 2, 0], &[1, 0]),
            (&[1, 1, 1, 1], &[3, 2, 1, 0]),
            (&[0, 0, 9], &[2, 1, 0]),
            (&[2, 0, 0, 1], &[1, 0]),
        ] {
            // Each time in a list that others have used.
            for _ in 0..2 {
                let mut taken = Vec::new();
                assert_eq!(descend(&forks, 0, plan, &mut taken), lost, "{plan:?}");
                assert_eq!(taken, []);
                assert!(!forks.is_used() && !forks.has_any());
            }
        }
    }

    #[test]
    fn who_takes_from_another_thread_finds_nothing_in_an_empty_list() {
        let forks = Forks::new();
        let fork = Fork::new();
        // SAFETY: one thread does it all.
        unsafe {
            assert_eq!(forks.take(), None);
            let number = forks.push(&raw const fork);
            assert_eq!(forks.take(), Some(&raw const fork));
            assert_eq!(forks.take(), None);
            assert!(!forks.pop(&raw const fork, number));
            assert!(forks.settle(&raw const fork, number));
            assert_eq!(forks.take(), None);
        }
    }
}
