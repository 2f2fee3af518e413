//! Waiting in a queue: `wait`, and the places of selections.
//!
//! `wait_list.rs` has the list and its invariants 1 and 2, `wake.rs` wakes the waiters.
//!
//! Invariant 3: a wake-up goes to the first waiter whose wait it ends. A waiter whose deadline or
//! exception came first is passed over, so it takes no wake-up with it. A waiter that *was* woken
//! reports `Notified` even if an exception is pending too.
//!
//! Orderings: the lock's. A waiter enters the queue and then looks at the condition again. A waker makes
//! the condition true and then takes the lock. One of the two sees the other.
//! Checked by `loom-tests/tests/wait_queue.rs`.
#![allow(unsafe_code, reason = "nodes on the waiters' stacks")]

use std::cell::UnsafeCell;
use std::time::Instant;

use crate::green::awaited::{Awaited, On};
use crate::green::green_thread::Header;
use crate::green::wait_list::{Node, WaitQueue, unlink};
use crate::parts::state::Why;
use crate::shim::bypass::Bypass;
use crate::wait::exception::Raise;
use crate::wait::waiter::{Admit, Ended, Waiting};

/// A place in a queue, for a selection. A selection may have places in several queues.
#[derive(Debug)]
pub struct Place(UnsafeCell<Node>);

impl Place {
    /// Makes a place that is in no queue.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Node::new()))
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// How a wait in a queue ended.
#[derive(Debug)]
pub enum Woken {
    /// A `wake_one` or `wake_all` was meant for this waiter.
    Notified,
    /// The second look said that there is nothing to wait for.
    Ready,
    /// The deadline passed.
    TimedOut,
    /// An exception is to be raised.
    Interrupted(Interrupt),
    /// The reason to end the wait is gone. The caller must look again.
    Again,
}

/// An exception that ended a wait and is to be raised by the caller.
#[derive(Debug)]
pub struct Interrupt(pub(crate) Raise);

impl Interrupt {
    /// Raises the exception by unwinding.
    pub fn unwind(self) -> ! {
        self.0.unwind()
    }

    /// Returns the exception as the error of an `io::Result`. Unwinds if it was reported before.
    pub fn into_io(self) -> std::io::Error {
        self.0.into_io()
    }
}

impl WaitQueue {
    /// Waits at the end of the queue until woken or until the deadline. `ready` is called when wakers can find the
    /// waiter: if it returns true, there is no wait. `ready` must not wait for anything of
    /// weald's itself: the thread is in a wait already, and a waker would end both.
    ///
    /// Exceptions end the wait only if `interruptible`.
    #[inline]
    pub fn wait(
        &self,
        ready: impl FnOnce() -> bool,
        deadline: Option<Instant>,
        interruptible: bool,
    ) -> Woken {
        let on = On::object(Awaited::Other, self);
        self.wait_on(on, ready, deadline, interruptible)
    }

    /// As [`wait`](Self::wait), and says what for: see [`On`].
    pub fn wait_on(
        &self,
        on: On,
        ready: impl FnOnce() -> bool,
        deadline: Option<Instant>,
        interruptible: bool,
    ) -> Woken {
        let admit = if interruptible {
            Admit::Exceptions
        } else {
            Admit::NoExceptions
        };
        match self.wait_for(on, ready, deadline, admit) {
            Ok(woken) => woken,
            Err(Ended::TimedOut) => Woken::TimedOut,
            Err(Ended::Raised(raise)) => Woken::Interrupted(Interrupt(raise)),
            Err(Ended::Woken(_) | Ended::Again | Ended::Pending) => Woken::Again,
        }
    }

    /// As `wait`. `Err`: neither notified nor ready.
    pub(crate) fn wait_for(
        &self,
        on: On,
        ready: impl FnOnce() -> bool,
        deadline: Option<Instant>,
        admit: Admit,
    ) -> Result<Woken, Ended> {
        let waiting = Waiting::begin(on);
        let mut node = Node::new();
        node.waiter = waiting.header().cast();
        node.epoch = waiting.epoch();
        let node: *mut Node = &raw mut node;
        let late = fault!("wait_queue_looks_before_it_enters");
        if !late {
            // SAFETY: the node is on this stack and leaves the list before this function returns: by
            // the waker (invariant 2) or by `Leave`, also if `ready` unwinds.
            unsafe { self.push_back(node) };
        }
        let leave = Leave { queue: self, node };
        let is_ready = {
            // A wait for a lock in `ready` would have the same epoch as this wait: its waker would end both, and
            // the node would stay in the list.
            // SAFETY: the running thread's header is alive.
            let _bypass = Bypass::of(unsafe { &(*waiting.header()).front });
            ready()
        };
        if is_ready {
            let early = waiting.abandon();
            drop(leave);
            return Ok(if early == Some(Why::NOTIFIED) {
                Woken::Notified
            } else {
                Woken::Ready
            });
        }
        if late {
            // SAFETY: as above.
            unsafe { self.push_back(node) };
        }
        waits_for!(Queue(std::ptr::from_ref(self) as usize, self.1));
        let ended = waiting.park(deadline, false, admit);
        if let Ended::Woken(Why::NOTIFIED) = ended {
            // The waker took the node out.
            std::mem::forget(leave);
            return Ok(Woken::Notified);
        }
        drop(leave);
        Err(ended)
    }

    /// Puts a place of a selection in.
    ///
    /// # Safety
    /// The place stays where it is until it has left, and the header's thread does not end before.
    pub(crate) unsafe fn enter(&self, place: &mut Place, header: *const Header, epoch: u32) {
        let node = place.0.get();
        // SAFETY: by contract; nobody else knows of a place that is in no queue.
        unsafe {
            debug_assert!(!(*node).queued, "a place is in one queue at a time");
            (*node).waiter = header.cast();
            (*node).epoch = epoch;
            self.push_back(node);
        }
    }

    /// Takes a place out. True: a waker has done so already. If the selection does not use what the waker announced,
    /// it must wake the next waiter.
    pub fn leave(&self, place: &mut Place) -> bool {
        let node = place.0.get();
        let mut first = self.0.lock();
        // SAFETY: the lock is held, and a place that is queued is in this queue.
        unsafe {
            if (*node).queued {
                unlink(&mut first, node);
                return false;
            }
        }
        true
    }
}

/// Takes a node out when its waiter goes, if no waker did.
struct Leave<'a> {
    queue: &'a WaitQueue,
    node: *mut Node,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut first = self.queue.0.lock();
        // SAFETY: the node is on the stack of this function's caller. Under the lock it says whether it is in the list.
        unsafe {
            if (*self.node).queued && !fault!("wait_queue_leaves_its_node") {
                unlink(&mut first, self.node);
            }
        }
    }
}
