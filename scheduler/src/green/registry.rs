//! The green threads that have left their stack at least once, so that shutdown finds them.
//!
//! A thread that runs to its end without leaving its stack is never entered. There is an intrusive list behind a
//! lock for each of the first carriers.
//!
//! Invariant: a thread is in a list from its first suspension to its end. So a header that is found under the lock
//! is alive.
#![allow(unsafe_code, reason = "intrusive lists")]

use std::ptr;

use crossbeam_utils::CachePadded;

use crate::green::green_thread::{Header, Task};
use crate::shim::sync::Mutex;

#[derive(Debug)]
pub(crate) struct Registry(Box<[CachePadded<Mutex<Head>>]>);

#[derive(Debug)]
struct Head(*const Header);

// SAFETY: the pointer is followed only under the lock, where the header is alive.
unsafe impl Send for Head {}

impl Registry {
    pub(crate) fn new(shards: usize) -> Self {
        Self(
            (0..shards)
                .map(|_| CachePadded::new(Mutex::new(Head(ptr::null()))))
                .collect(),
        )
    }

    /// Enters a thread; by its carrier, whose number is the shard's, modulo how many there are.
    #[inline(never)]
    pub(crate) fn insert(&self, task: &Task, shard: usize) {
        let shard = shard % self.0.len();
        let shard_id = u16::try_from(shard).expect("shards are few");
        task.shard.set(shard_id);
        task.registered.set(true);
        let header: *const Header = &raw const **task;
        let mut head = self.0[shard].lock();
        // SAFETY: links are touched only under the lock of the thread's shard.
        unsafe {
            *(*header).links.get() = crate::green::green_thread::Links {
                next: head.0,
                prev: ptr::null(),
            };
            if let Some(next) = head.0.as_ref() {
                (*next.links.get()).prev = header;
            }
        }
        head.0 = header;
    }

    /// Removes a thread; by its carrier.
    pub(crate) fn remove(&self, task: &Task) {
        let mut head = self.0[usize::from(task.shard.get())].lock();
        // SAFETY: links are touched only under the lock of the thread's shard; neighbours are in
        // the list, so they are alive.
        unsafe {
            let links = &*task.links.get();
            if let Some(next) = links.next.as_ref() {
                (*next.links.get()).prev = links.prev;
            }
            match links.prev.as_ref() {
                Some(prev) => (*prev.links.get()).next = links.next,
                None => head.0 = links.next,
            }
        }
    }

    /// For debuggers: the address of the pointer to the first thread of the first shard, the bytes from one shard to the next,
    /// and how many shards there are.
    #[cfg(not(loom))]
    pub(crate) fn places(&self) -> [usize; 3] {
        let head = self.0[0].lock();
        let first: *const Head = &raw const *head;
        let stride = size_of::<CachePadded<Mutex<Head>>>();
        [first.addr(), stride, self.0.len()]
    }

    /// References to all threads entered now.
    pub(crate) fn all(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for shard in &self.0 {
            let head = shard.lock();
            let mut next = head.0;
            // SAFETY: the lock is held, so what is in the list is alive.
            while let Some(header) = unsafe { next.as_ref() } {
                tasks.push(Task::from_header(header));
                // SAFETY: as above.
                next = unsafe { (*header.links.get()).next };
            }
        }
        tasks
    }
}
