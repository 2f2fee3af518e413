//! The list of waiters of a queue, in their order. Nodes lie on the parked stacks: a wait allocates nothing.
//!
//! The list is circular and doubly linked; the lock holds the pointer to its first node. A header has such a list,
//! so a node knows its waiter's header by its first field only.
//!
//! Invariant 1: a node is in the list only while its waiter is inside `wait`, and it is put in and taken out only
//! under the lock. So a thread that finds a node under the lock may use it and the header that it names until it
//! lets the lock go.
//! Invariant 2: a waker that takes a node out marks it, so the waiter knows whether it must take it out itself.
//!
//! `wait_queue.rs` waits in it, `wake.rs` wakes the waiters.
#![allow(unsafe_code, reason = "nodes on the waiters' stacks")]

use std::fmt;
use std::marker::PhantomPinned;
use std::ptr;

use crate::shim::here::Front;
use crate::shim::sync::Mutex;

/// A first-in, first-out queue of waiting threads, green or not.
pub struct WaitQueue(pub(crate) Mutex<First>, pub(crate) Label);

/// What a queue is part of, for a model's report of a deadlock.
#[cfg(loom)]
pub(crate) type Label = &'static str;
#[cfg(not(loom))]
pub(crate) type Label = ();

#[derive(Clone, Copy)]
pub(crate) struct First(pub(crate) *mut Node);

// SAFETY: the pointer leads to nodes that are touched only under the lock (invariant 1).
unsafe impl Send for First {}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) next: *mut Node,
    pub(crate) prev: *mut Node,
    /// The waiter's header.
    pub(crate) waiter: *const Front,
    pub(crate) epoch: u32,
    pub(crate) queued: bool,
    /// Its neighbours in the queue have its address, so a `&mut` of its owner's is not unique.
    pub(crate) _shared: PhantomPinned,
}

impl Node {
    /// In no queue, and nobody's.
    pub(crate) const fn new() -> Self {
        Self {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
            waiter: ptr::null(),
            epoch: 0,
            queued: false,
            _shared: PhantomPinned,
        }
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

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
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
    pub(crate) unsafe fn push_back(&self, node: *mut Node) {
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

/// # Safety
/// The queue's lock is held.
pub(crate) unsafe fn pop_front(first: &mut First) -> Option<(*const Front, u32)> {
    let node = first.0;
    if node.is_null() {
        return None;
    }
    // SAFETY: the lock is held, so the node is live (invariant 1).
    unsafe {
        unlink(first, node);
        Some(((*node).waiter, (*node).epoch))
    }
}

/// # Safety
/// The queue's lock is held and the node is in the list.
pub(crate) unsafe fn unlink(first: &mut First, node: *mut Node) {
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
