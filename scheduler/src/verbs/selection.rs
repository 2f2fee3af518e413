//! One wait for several things, of which one happens. `select!` and the channels use it.
//!
//! Two kinds of things can be waited for. A *partner* (the other end of a channel) makes the
//! selection's choice itself: it *claims* the selection for one arm, does its part and wakes it. An
//! *event* (a thread's end, a socket's readiness) only wakes it, by a [`Place`] in the event's queue;
//! the selection then looks again.
//!
//! | state   | meaning                                  | leaves by                              |
//! |---------|------------------------------------------|----------------------------------------|
//! | WAITING | no arm was chosen                        | a partner's `claim` -> that arm, or    |
//! |         |                                          | the selection's own end -> ABORTED     |
//! | an arm  | a partner has chosen it                  | never                                  |
//! | ABORTED | it waits no more: nobody may choose      | never                                  |
//!
//! Invariant 1: the step out of WAITING is one compare-and-swap, so at most one partner commits, and
//! none once the selection has given up.
//! Invariant 2: partners reach a selection only through what it has registered with them, under
//! their lock, and it takes itself out under the same lock before it is gone; so a partner that finds one
//! under the lock may use it until the lock is let go, or until it has woken the selection.
//! Invariant 3: `wake` is the last that a partner does with a selection and with what it has claimed
//! there. It gives a reason of its own ([`Why::CHOSEN`]), so a thread whose wait ended by it knows
//! without the lock that nobody uses them any more, unless it has registered elsewhere too.
//!
//! Orderings: a claim releases what the partner did before, and the selection acquires it. What the partner does
//! after the claim is ordered by its lock, and, for a selection that `wake` has woken, by the state word.
//! Checked by `loom-tests/tests/select.rs`.
#![allow(unsafe_code, reason = "the waiting thread's header, by address")]

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use crate::green::awaited::{Awaited, On};
use crate::green::green_thread::{Header, Hint};
use crate::green::wait_list::WaitQueue;
use crate::parts::state::Why;
use crate::shim::atomic::{AtomicUsize, Ordering};
use crate::shim::bypass::Bypass;
use crate::wait::waiter::{Admit, Ended, Waiting};

pub use crate::wait::wait_queue::Place;

const WAITING: usize = usize::MAX;
const ABORTED: usize = usize::MAX - 1;

/// A wait that has begun and that partners can end. It stays where it is while they may know of it.
pub struct Selection {
    state: AtomicUsize,
    header: *const Header,
    epoch: u32,
    /// While it registers, the thread may take a lock of std's. If libc is patched, it would wait for that lock as a
    /// green thread, inside of this wait and with the same epoch, and the lock's waker would end both. This prevents it.
    bypass: Cell<Option<Bypass>>,
}

// SAFETY: the header is touched only as invariant 2 allows, and `bypass` only by the thread that
// waits. The other fields are an atomic and a number.
unsafe impl Sync for Selection {}
// SAFETY: as above.
unsafe impl Send for Selection {}

/// How a selection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// A partner has chosen this arm. It may not be through yet; it holds its lock until it is.
    Arm(usize),
    /// A partner has chosen this arm and is through. What it did can be seen.
    Done(usize),
    /// The deadline passed.
    TimedOut,
    /// An exception is to be raised. It stays pending.
    Pending,
    /// An event may have happened. The caller must look again.
    Again,
}

impl Selection {
    /// Begins a wait of the running thread, for several things. It must be ended by `park` or `end`.
    #[inline]
    pub fn begin() -> Self {
        Self::begin_on(On::just(Awaited::Several))
    }

    /// As [`begin`](Self::begin), for the one thing that `on` says.
    #[inline]
    pub fn begin_on(on: On) -> Self {
        let waiting = Waiting::begin(on);
        Self {
            state: AtomicUsize::new(WAITING),
            header: waiting.header(),
            epoch: waiting.epoch(),
            // SAFETY: the running thread's header is alive.
            bypass: Cell::new(Some(Bypass::of(unsafe { &(*waiting.header()).front }))),
        }
    }

    /// A partner chooses an arm. False: a choice was made before, or the selection has given up. The partner holds its
    /// lock. If it gets true, it does its part and then calls `wake`, in this hold of the lock or in a later one.
    #[inline]
    pub fn claim(&self, arm: usize) -> bool {
        if fault!("selection_claims_by_store") && self.state.load(Ordering::Acquire) == WAITING {
            self.state.store(arm, Ordering::Release);
            return true;
        }
        self.state
            .compare_exchange(WAITING, arm, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Wakes the thread of a selection that was claimed. The partner holds its lock, and does nothing more with the
    /// selection: the thread may be gone as soon as it is woken. This takes an address, because a
    /// reference would have to be valid until the call returns.
    ///
    /// # Safety
    /// The caller has claimed it, and has not woken it yet.
    #[inline]
    pub unsafe fn wake(this: *const Self) {
        // SAFETY: by invariant 2 the selection is still registered or waits for this lock or to be
        // woken, so it and its thread are alive.
        unsafe { Header::wake((*this).header, (*this).epoch, Why::CHOSEN, Hint::Peer) };
    }

    /// Enters the queue of an event.
    ///
    /// # Safety
    /// The place stays where it is until it has left the queue.
    pub unsafe fn enter(&self, place: &mut Place, queue: &WaitQueue) {
        // SAFETY: by contract.
        unsafe { queue.enter(place, self.header, self.epoch) };
    }

    fn waiting(&self) -> Waiting {
        Waiting::resume(self.header, self.epoch)
    }

    /// Gives up. `Some`: a partner was first, with this arm.
    #[inline]
    fn give_up(&self) -> Option<usize> {
        let state = self.state.load(Ordering::Acquire);
        if state != WAITING {
            return Some(state);
        }
        if fault!("selection_gives_up_by_store") && self.state.load(Ordering::Acquire) == WAITING {
            self.state.store(ABORTED, Ordering::Release);
            return None;
        }
        self.state
            .compare_exchange(WAITING, ABORTED, Ordering::AcqRel, Ordering::Acquire)
            .err()
    }

    /// Ends the selection without waiting. `Some`: a partner was first, with this arm.
    pub fn end(&self) -> Option<usize> {
        let first = self.give_up();
        self.waiting().abandon();
        drop(self.bypass.take());
        first
    }

    /// Waits. When this returns, nobody can claim the selection.
    #[inline]
    pub fn park(&self, deadline: Option<Instant>) -> Selected {
        waits_for!(Selection);
        let ended = self.waiting().park(deadline, false, Admit::Reported);
        drop(self.bypass.take());
        match self.give_up() {
            Some(arm)
                if matches!(ended, Ended::Woken(Why::CHOSEN))
                    || fault!("selection_takes_any_end_for_its_partners") =>
            {
                Selected::Done(arm)
            }
            Some(arm) => Selected::Arm(arm),
            None => match ended {
                Ended::TimedOut => Selected::TimedOut,
                Ended::Pending => Selected::Pending,
                Ended::Woken(_) | Ended::Again | Ended::Raised(_) => Selected::Again,
            },
        }
    }
}

/// A thread whose end can be waited for: what `join` of a `select!` takes.
pub trait Waitable {
    /// The thread has ended.
    fn has_ended(&self) -> bool;
    /// The queue of threads that wait for the end. All of them are woken then.
    fn joiners(&self) -> &WaitQueue;
    /// Announces that a thread waits. True: the thread has ended meanwhile.
    fn announce(&self) -> bool;
}

impl<T> Waitable for crate::JoinHandle<T> {
    fn has_ended(&self) -> bool {
        self.is_finished()
    }

    fn joiners(&self) -> &WaitQueue {
        &self.thread().0.joiners
    }

    fn announce(&self) -> bool {
        self.thread().0.state.announce_joiner()
    }
}

impl<T> Waitable for crate::ScopedJoinHandle<'_, T> {
    fn has_ended(&self) -> bool {
        self.is_finished()
    }

    fn joiners(&self) -> &WaitQueue {
        &self.thread().0.joiners
    }

    fn announce(&self) -> bool {
        self.thread().0.state.announce_joiner()
    }
}

/// A socket whose readiness can be waited for: what `readable` and `writable` of a `select!` take.
pub trait Pollable {
    /// Whether the socket is ready now, as the kernel says.
    ///
    /// # Errors
    /// The system's.
    fn poll_now(&self, writes: bool) -> std::io::Result<bool>;
    /// The queue of threads that wait for that direction.
    fn waiters(&self, writes: bool) -> &WaitQueue;
    /// Sees to it that a change wakes one of these threads.
    ///
    /// # Errors
    /// The system's.
    fn watch(&self) -> std::io::Result<()>;
}

macro_rules! by_reference {
    ($($pointer:ty),*) => {$(
        impl<W: Waitable + ?Sized> Waitable for $pointer {
            fn has_ended(&self) -> bool {
                (**self).has_ended()
            }

            fn joiners(&self) -> &WaitQueue {
                (**self).joiners()
            }

            fn announce(&self) -> bool {
                (**self).announce()
            }
        }
    )*};
}
by_reference!(&W, std::sync::Arc<W>);

impl<P: Pollable + ?Sized> Pollable for &P {
    fn poll_now(&self, writes: bool) -> std::io::Result<bool> {
        (**self).poll_now(writes)
    }

    fn waiters(&self, writes: bool) -> &WaitQueue {
        (**self).waiters(writes)
    }

    fn watch(&self) -> std::io::Result<()> {
        (**self).watch()
    }
}

impl<P: Pollable + ?Sized> Pollable for std::sync::Arc<P> {
    fn poll_now(&self, writes: bool) -> std::io::Result<bool> {
        (**self).poll_now(writes)
    }

    fn waiters(&self, writes: bool) -> &WaitQueue {
        (**self).waiters(writes)
    }

    fn watch(&self) -> std::io::Result<()> {
        (**self).watch()
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection").finish_non_exhaustive()
    }
}
