//! Who waits, in what order. Nodes lie on the parked stacks: a wait allocates nothing.
//!
//! The list is circular and doubly linked; the lock holds the pointer to its first node.
//!
//! Invariant 1: a node is in the list only while its waiter is inside `wait`, and only under the
//! lock is it put in or taken out; so whoever finds a node under the lock may use it and the
//! header that it names, until the lock is let go.
//! Invariant 2: who takes a node out marks it, so the waiter knows whether it must.
//! Invariant 3: a wake-up goes to the first waiter whose wait it ends. One whose deadline or
//! exception was first is passed over, so it takes no wake-up with it; and one that *was* woken
//! reports `Notified` even if an exception waits as well.
//!
//! Orderings: the lock's. Who waits enqueues and then looks at the condition again; who wakes makes
//! the condition true and then takes the lock: one of the two sees the other.
//! Checked by `loom-tests/tests/wait_queue.rs`.
#![allow(unsafe_code, reason = "nodes on the waiters' stacks")]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomPinned;
use std::ptr;
use std::time::Instant;

use crate::exception::Raise;
use crate::green_thread::{Header, Hint, Task};
use crate::shim::sync::{Arc, Mutex};
use crate::state::{Wake, Why};
#[cfg(loom)]
use crate::thin::{Wait, Waits};
use crate::waiter::{Admit, Ended, Waiting};

/// A first-in, first-out queue of waiting threads, green or not.
pub struct WaitQueue(Mutex<First>, Kind);

/// What a queue is part of, for a model's report of a deadlock.
#[cfg(loom)]
type Kind = &'static str;
#[cfg(not(loom))]
type Kind = ();

#[derive(Clone, Copy)]
struct First(*mut Node);

// SAFETY: the pointer leads to nodes that are touched only under the lock (invariant 1).
unsafe impl Send for First {}

#[derive(Debug)]
struct Node {
    next: *mut Node,
    prev: *mut Node,
    header: *const Header,
    epoch: u32,
    queued: bool,
    /// The others in the queue have its address: a `&mut` of its owner's is not the only way to it.
    _shared: PhantomPinned,
}

/// A place in a queue for a selection, which may have several in as many queues.
#[derive(Debug)]
pub struct Place(UnsafeCell<Node>);

impl Place {
    /// In no queue.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Node {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
            header: ptr::null(),
            epoch: 0,
            queued: false,
            _shared: PhantomPinned,
        }))
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
    /// For no reason that holds any more: look again.
    Again,
}

/// An exception that ended a wait and is to be raised by the caller.
#[derive(Debug)]
pub struct Interrupt(pub(crate) Raise);

impl Interrupt {
    /// Raises it by unwinding.
    pub fn unwind(self) -> ! {
        self.0.unwind()
    }

    /// Returns it as the error of an `io::Result`; unwinds if it was reported before.
    pub fn into_io(self) -> std::io::Error {
        self.0.into_io()
    }
}

impl WaitQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self::of("a wait queue")
    }

    /// An empty queue of such a thing: "a mutex".
    #[cfg(not(loom))]
    pub const fn of(_kind: &'static str) -> Self {
        Self(Mutex::new(First(ptr::null_mut())), ())
    }

    /// An empty queue of such a thing: "a mutex".
    #[cfg(loom)]
    pub const fn of(kind: &'static str) -> Self {
        Self(Mutex::new(First(ptr::null_mut())), kind)
    }

    /// Waits at the end of the queue until woken or until the deadline. `ready` is asked once the
    /// waiter can be found: if it says true, there is no waiting. It must not wait for anything of
    /// weald's itself: the thread is in a wait already, and its waker would end both.
    ///
    /// Exceptions end the wait only if `interruptible`.
    pub fn wait(
        &self,
        ready: impl FnOnce() -> bool,
        deadline: Option<Instant>,
        interruptible: bool,
    ) -> Woken {
        let admit = if interruptible {
            Admit::Exceptions
        } else {
            Admit::NoExceptions
        };
        match self.wait_for(ready, deadline, admit) {
            Ok(woken) => woken,
            Err(Ended::TimedOut) => Woken::TimedOut,
            Err(Ended::Raised(raise)) => Woken::Interrupted(Interrupt(raise)),
            Err(Ended::Woken(_) | Ended::Again | Ended::Pending) => Woken::Again,
        }
    }

    /// As `wait`. `Err`: neither notified nor ready.
    pub(crate) fn wait_for(
        &self,
        ready: impl FnOnce() -> bool,
        deadline: Option<Instant>,
        admit: Admit,
    ) -> Result<Woken, Ended> {
        let waiting = Waiting::begin();
        let mut node = Node {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
            header: waiting.header(),
            epoch: waiting.epoch(),
            queued: false,
            _shared: PhantomPinned,
        };
        let node: *mut Node = &raw mut node;
        let late = cfg!(weald_fault = "wait_queue_looks_before_it_enters");
        if !late {
            // SAFETY: the node is on this stack and leaves the list before this function returns: by
            // the waker (invariant 2) or by `Leave`, also if `ready` unwinds.
            unsafe { self.push_back(node) };
        }
        let leave = Leave { queue: self, node };
        let is_ready = {
            // A wait for a lock there would be one inside of this one, with the same epoch: its waker
            // would end both, and the node would stay.
            // SAFETY: the running thread's header is alive.
            #[cfg(not(loom))]
            let _bypass = crate::patch::Bypass::of(unsafe { &*waiting.header() });
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
        #[cfg(loom)]
        let _waits = Waits::begin(Wait::Queue(ptr::from_ref(self) as usize, self.1));
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
            (*node).header = header;
            (*node).epoch = epoch;
            self.push_back(node);
        }
    }

    /// Takes a place out. True: a waker has done so already; unless what it announced was used, it
    /// must be passed on.
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

    /// Wakes the first waiter. False: there was none.
    pub fn wake_one(&self) -> bool {
        loop {
            let mut first = self.0.lock();
            // SAFETY: the lock is held.
            let Some((header, epoch)) = (unsafe { pop_front(&mut first) }) else {
                return false;
            };
            // SAFETY: the lock is held, so the waiter is still inside `wait` (invariant 1).
            let wake = unsafe { (*header).state.wake(epoch, Why::NOTIFIED) };
            // SAFETY: the verdict is fresh.
            if unsafe { finish(header, wake, first) } {
                return true;
            }
            if cfg!(weald_fault = "wait_queue_wakes_who_has_left") {
                return true;
            }
        }
    }

    /// Wakes all waiters. Returns how many.
    pub fn wake_all(&self) -> usize {
        let mut woken = 0;
        // Only those that wait now: one that comes back to wait again is not met twice.
        let mut left = self.len();
        while left > 0 && self.wake_one() {
            woken += 1;
            left -= 1;
        }
        woken
    }

    /// How many wait.
    fn len(&self) -> usize {
        let first = self.0.lock();
        let mut count = 0;
        let mut node = first.0;
        while !node.is_null() {
            count += 1;
            // SAFETY: the lock is held (invariant 1).
            node = unsafe { (*node).next };
            if node == first.0 {
                break;
            }
        }
        count
    }

    /// Nobody waits (now).
    pub fn is_empty(&self) -> bool {
        self.0.lock().0.is_null()
    }

    /// # Safety
    /// The node stays where it is until it has left the list.
    unsafe fn push_back(&self, node: *mut Node) {
        let mut first = self.0.lock();
        // SAFETY: by contract for the new node, by invariant 1 for the others.
        unsafe {
            (*node).queued = true;
            if first.0.is_null() {
                (*node).next = node;
                (*node).prev = node;
                first.0 = node;
            } else {
                let head = first.0;
                let last = (*head).prev;
                (*node).prev = last;
                (*node).next = head;
                (*last).next = node;
                (*head).prev = node;
            }
        }
    }
}

/// Acts on a verdict once the lock is no longer needed. True unless the wake-up was lost.
///
/// # Safety
/// `wake` is the fresh verdict on `header`, whose queue's lock `guard` holds.
unsafe fn finish(
    header: *const Header,
    wake: Wake,
    guard: crate::shim::sync::MutexGuard<'_, First>,
) -> bool {
    match wake {
        Wake::Lost => false,
        Wake::Early => true,
        Wake::Won => {
            drop(guard);
            // SAFETY: the running reference is ours now, so the header stays.
            crate::carrier::schedule(unsafe { Task::from_raw(header) }, Hint::Event);
            true
        }
        Wake::WonInPlace => {
            // SAFETY: the waiter stays until notified; afterwards only the clone is used.
            let parker = Arc::clone(&unsafe { &*header }.cold().parker);
            drop(guard);
            parker.notify();
            true
        }
    }
}

/// # Safety
/// The queue's lock is held.
unsafe fn pop_front(first: &mut First) -> Option<(*const Header, u32)> {
    let node = first.0;
    if node.is_null() {
        return None;
    }
    // SAFETY: the lock is held, so the node is live (invariant 1).
    unsafe {
        unlink(first, node);
        Some(((*node).header, (*node).epoch))
    }
}

/// # Safety
/// The queue's lock is held and the node is in the list.
unsafe fn unlink(first: &mut First, node: *mut Node) {
    // SAFETY: by contract; neighbours are live by invariant 1.
    unsafe {
        let (next, prev) = ((*node).next, (*node).prev);
        if next == node {
            first.0 = ptr::null_mut();
        } else {
            (*prev).next = next;
            (*next).prev = prev;
            if first.0 == node {
                first.0 = next;
            }
        }
        (*node).queued = false;
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
        // SAFETY: the node is on the stack below; whether it is in the list is read under the lock.
        unsafe {
            if (*self.node).queued && !cfg!(weald_fault = "wait_queue_leaves_its_node") {
                unlink(&mut first, self.node);
            }
        }
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").finish_non_exhaustive()
    }
}
