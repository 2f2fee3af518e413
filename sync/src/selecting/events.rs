//! Arms without a channel: the end of a thread, and readiness.
#![allow(unsafe_code, reason = "places in the arms, which others find")]

use weald_scheduler::io::{Place, Pollable, Selection, WaitQueue, Waitable};

use super::arm::Arm;

/// The arm `join(&h) -> _`.
#[derive(Debug)]
pub struct JoinArm<'a, W: ?Sized> {
    thread: &'a W,
    place: Place,
}

impl<'a, W: Waitable + ?Sized> JoinArm<'a, W> {
    /// Returns an arm that waits for a thread's end.
    pub fn new(thread: &'a W) -> Self {
        Self {
            thread,
            place: Place::new(),
        }
    }

    /// Does nothing: `join` takes the result.
    #[allow(clippy::unused_self, reason = "as the other arms")]
    pub fn finish(&mut self) {}
}

// SAFETY: the place stays in the arm, which the selection borrows from registering to forgetting.
unsafe impl<W: Waitable + ?Sized> Arm for JoinArm<'_, W> {
    unsafe fn try_commit(&mut self) -> bool {
        self.thread.has_ended()
    }

    fn try_alone(&mut self) -> bool {
        self.thread.has_ended()
    }

    unsafe fn is_ready(&self) -> bool {
        self.thread.has_ended()
    }

    unsafe fn register(&mut self, selection: &Selection, _index: usize) {
        // SAFETY: the place stays until `forget`.
        unsafe { selection.enter(&mut self.place, self.thread.joiners()) };
        self.thread.announce();
    }

    unsafe fn watch(&mut self, selection: &Selection, index: usize) {
        // SAFETY: by contract.
        unsafe { self.register(selection, index) };
    }

    unsafe fn forget(&mut self) {
        // The end wakes all, so there is no wake-up to pass on.
        self.thread.joiners().leave(&mut self.place);
    }
}

/// The arms `readable(&s) -> p` and `writable(&s) -> p`.
#[derive(Debug)]
pub struct PollArm<'a, P: ?Sized> {
    socket: &'a P,
    writes: bool,
    place: Place,
    found: Option<std::io::Result<()>>,
}

impl<'a, P: Pollable + ?Sized> PollArm<'a, P> {
    /// Returns an arm that waits for readiness.
    pub fn new(socket: &'a P, writes: bool) -> Self {
        Self {
            socket,
            writes,
            place: Place::new(),
            found: None,
        }
    }

    /// Returns what was found, after the arm was chosen.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(&mut self) -> std::io::Result<()> {
        self.found.take().unwrap_or(Ok(()))
    }

    /// Returns the queue in which the arm waits.
    fn waiters(&self) -> &'a WaitQueue {
        let writes = self.writes && !fault!("select_waits_to_read");
        self.socket.waiters(writes)
    }
}

// SAFETY: as for `JoinArm`.
unsafe impl<P: Pollable + ?Sized> Arm for PollArm<'_, P> {
    unsafe fn try_commit(&mut self) -> bool {
        if self.found.is_none() {
            self.found = match self.socket.poll_now(self.writes) {
                Ok(false) => None,
                Ok(true) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            };
        }
        self.found.is_some()
    }

    fn try_alone(&mut self) -> bool {
        // SAFETY: an event has no lock.
        unsafe { self.try_commit() }
    }

    unsafe fn is_ready(&self) -> bool {
        self.found.is_some() || self.socket.poll_now(self.writes).unwrap_or(true)
    }

    unsafe fn register(&mut self, selection: &Selection, _index: usize) {
        let queue = self.waiters();
        // SAFETY: the place stays until `forget`.
        unsafe { selection.enter(&mut self.place, queue) };
        if fault!("select_watches_nothing") {
            return;
        }
        if let Err(error) = self.socket.watch() {
            self.found = Some(Err(error));
        }
    }

    unsafe fn watch(&mut self, selection: &Selection, index: usize) {
        // SAFETY: by contract.
        unsafe { self.register(selection, index) };
    }

    unsafe fn forget(&mut self) {
        let queue = self.waiters();
        if queue.leave(&mut self.place) && !fault!("select_keeps_the_wake_up_of_an_event") {
            // Telling of readiness does not use it up: somebody else may wait for it too.
            queue.wake_one();
        }
    }
}
