//! The connections of a server: how many there are, and which green threads handle them.
//!
//! Invariant 1: `connections` counts the entries. An entry is made before its thread is spawned and is a part of the
//! thread's closure. It counts itself out when it is dropped, also if the closure never runs.
//! Invariant 2: a handler that runs is in `threads`. It puts itself there before it begins. If the server is `closing`,
//! it ends at once instead. So whoever has set `closing` finds in `threads` all handlers that will run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use weald_scheduler::GreenThread;
use weald_scheduler::io::{Interrupt, WaitQueue, Woken};

use crate::shim::sync::{Mutex, MutexGuard};

/// The handlers that run. A place keeps its number as long as its thread runs.
#[derive(Debug, Default)]
pub(super) struct Threads {
    pub(super) places: Vec<Option<GreenThread>>,
    free: Vec<usize>,
    /// No handler may begin any more.
    pub(super) closing: bool,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    connections: AtomicUsize,
    threads: Mutex<Threads>,
    /// The acceptor waits here for room, and `shutdown` for the last connection.
    pub(super) ended: WaitQueue,
    pub(super) stops: AtomicBool,
}

impl Shared {
    pub(super) fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Panics if a handler calls this.
    pub(super) fn refuse_handlers(&self) {
        let me = weald_scheduler::current().id();
        let is_handler = self
            .threads()
            .places
            .iter()
            .flatten()
            .any(|one| one.id() == me);
        assert!(
            !is_handler,
            "a server cannot be shut down by one of its own handlers"
        );
    }

    /// Waits until there are fewer connections than `bound`. Returns false if an exception ends the server.
    pub(super) fn wait_for_room(&self, bound: usize) -> bool {
        while self.connections() >= bound {
            let room = || self.connections() < bound;
            if let Woken::Interrupted(interrupt) = self.ended.wait(room, None, true) {
                end_by(interrupt);
                return false;
            }
        }
        true
    }
}

/// A connection that counts.
pub(super) struct Entry {
    shared: Arc<Shared>,
    /// The index of its thread in `places`, once it runs.
    place: Option<usize>,
}

impl Entry {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: Arc::clone(shared),
            place: None,
        }
    }

    /// Notes that the running thread is the handler. Returns false if the handler must not begin.
    pub(super) fn begin(&mut self) -> bool {
        let me = weald_scheduler::current();
        let mut threads = self.shared.threads();
        if threads.closing {
            return false;
        }
        let place = threads.free.pop().unwrap_or_else(|| {
            threads.places.push(None);
            threads.places.len() - 1
        });
        threads.places[place] = Some(me);
        self.place = Some(place);
        true
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let mut threads = self.shared.threads();
            // The thread that comes out is dropped after the lock.
            let thread = threads.places[place].take();
            threads.free.push(place);
            drop(threads);
            drop(thread);
        }
        // Pairs with the load in `Shared::connections` of a thread that waits for the end.
        self.shared.connections.fetch_sub(1, Ordering::Release);
        self.shared.ended.wake_all();
    }
}

/// Ends the server by an exception, also in programs that do not unwind.
pub(super) fn end_by(interrupt: Interrupt) {
    if cfg!(panic = "unwind") {
        interrupt.unwind();
    }
}
