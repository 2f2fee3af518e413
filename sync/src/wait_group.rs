//! Waiting until all members of a group are done.

use std::fmt;
use std::sync::Arc;

use weald_scheduler::io::{self, Awaited, On, WaitQueue, Woken};

/// Waits until all its clones are gone. Each thread of a group holds one clone.
///
/// # Examples
/// ```
/// let all = weald::sync::WaitGroup::new();
/// for _ in 0..10 {
///     let one = all.clone();
///     weald::spawn(move || drop(one));
/// }
/// all.wait();
/// ```
pub struct WaitGroup(Arc<Group>);

struct Group {
    members: crate::shim::atomic::AtomicUsize,
    queue: WaitQueue,
}

use crate::shim::atomic::Ordering;

impl WaitGroup {
    /// Returns a group whose only member is this value.
    pub fn new() -> Self {
        Self(Arc::new(Group {
            members: crate::shim::atomic::AtomicUsize::new(1),
            queue: WaitQueue::of("a wait group"),
        }))
    }

    /// Drops this value and waits until all others of the group are gone. A blocking call; an exception unwinds.
    pub fn wait(self) {
        let group = Arc::clone(&self.0);
        drop(self);
        io::enter_unwinding();
        let none = || group.members.load(Ordering::Acquire) == 0;
        if none() {
            io::spend();
        }
        while !none() {
            let offset = std::mem::offset_of!(Group, members);
            let on = On::counted(Awaited::WaitGroup, &raw const *group, offset);
            if let Woken::Interrupted(interrupt) = group.queue.wait_on(on, none, None, true) {
                interrupt.unwind();
            }
        }
    }
}

impl Clone for WaitGroup {
    fn clone(&self) -> Self {
        self.0.members.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for WaitGroup {
    fn drop(&mut self) {
        let order = relaxed_if!("wait_group_relaxed_leave", Ordering::AcqRel);
        if self.0.members.fetch_sub(1, order) == 1 {
            if fault!("wait_group_wakes_one") {
                self.0.queue.wake_one();
                return;
            }
            self.0.queue.wake_all();
        }
    }
}

impl Default for WaitGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroup").finish_non_exhaustive()
    }
}
