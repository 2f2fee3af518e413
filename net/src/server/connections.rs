//! The connections of a server: how many there are, and which green threads handle them.
//!
//! Each connection belongs to one of several shards, in turn. So handlers that begin and end on different cores seldom
//! write to the same cache lines.
//!
//! Invariant 1: `connections` of a shard counts its entries. An entry is made before its thread is spawned and is a part
//! of the thread's closure. It counts itself out when it is dropped, also if the closure never runs. Only the acceptor
//! makes entries. So while it adds none, the sum over the shards is never less than what there is at the end of the look.
//! Invariant 2: a handler that runs is in `threads` of its shard. It puts itself there before it begins. If the shard is
//! `closing`, it ends at once instead. So whoever has set `closing` finds in `threads` all handlers that will run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use weald_scheduler::GreenThread;
use weald_scheduler::io::{Interrupt, WaitQueue, Woken};

use crate::shim::sync::{Mutex, MutexGuard};

/// The handlers that run. A place keeps its number as long as its thread runs.
#[derive(Debug, Default)]
struct Threads {
    places: Vec<Option<GreenThread>>,
    free: Vec<usize>,
    /// No handler may begin any more.
    closing: bool,
}

/// More do not help: each connection has some ten microseconds of system calls beside its lock.
const SHARDS: usize = 16;

/// It lies on cache lines of its own. 128 bytes, as processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    connections: AtomicUsize,
    threads: Mutex<Threads>,
}

impl Shard {
    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    shards: [Shard; SHARDS],
    /// The acceptor waits here for room, and `shutdown` for the last connection.
    pub(super) ended: WaitQueue,
    pub(super) stops: AtomicBool,
}

impl Shared {
    pub(super) fn connections(&self) -> usize {
        // Pairs with the release of an entry that counts itself out.
        let counts = self
            .shards
            .iter()
            .map(|shard| shard.connections.load(Ordering::Acquire));
        counts.sum()
    }

    /// From now on no handler begins. Returns those that run.
    pub(super) fn close(&self) -> Vec<GreenThread> {
        let mut left = Vec::new();
        for shard in &self.shards {
            let mut threads = shard.threads();
            threads.closing = true;
            left.extend(threads.places.iter().flatten().cloned());
        }
        left
    }

    /// Panics if a handler calls this.
    pub(super) fn refuse_handlers(&self) {
        let me = weald_scheduler::current().id();
        let is_handler = self.shards.iter().any(|shard| {
            let threads = shard.threads();
            threads.places.iter().flatten().any(|one| one.id() == me)
        });
        assert!(
            !is_handler,
            "a server cannot be shut down by one of its own handlers"
        );
    }

    /// Waits until there are fewer connections than `bound`. Returns false if an exception ends the server.
    pub(super) fn wait_for_room(&self, bound: usize) -> bool {
        while bound < usize::MAX && self.connections() >= bound {
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
    /// The index of its shard.
    shard: usize,
    /// The index of its thread in `places`, once it runs.
    place: Option<usize>,
}

impl Entry {
    /// Makes the entry of the acceptor's connection of this number.
    pub(super) fn new(shared: &Arc<Shared>, number: usize) -> Self {
        let entry = Self {
            shared: Arc::clone(shared),
            shard: number % SHARDS,
            place: None,
        };
        entry.shard().connections.fetch_add(1, Ordering::Relaxed);
        entry
    }

    fn shard(&self) -> &Shard {
        &self.shared.shards[self.shard]
    }

    /// Notes that the running thread is the handler. Returns false if the handler must not begin.
    pub(super) fn begin(&mut self) -> bool {
        let me = weald_scheduler::current();
        let mut threads = self.shared.shards[self.shard].threads();
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
            let mut threads = self.shard().threads();
            // The thread that comes out is dropped after the lock.
            let thread = threads.places[place].take();
            threads.free.push(place);
            drop(threads);
            drop(thread);
        }
        // Pairs with the load in `Shared::connections` of a thread that waits for the end.
        self.shard().connections.fetch_sub(1, Ordering::Release);
        self.shared.ended.wake_all();
    }
}

/// Ends the server by an exception, also in programs that do not unwind.
pub(super) fn end_by(interrupt: Interrupt) {
    if cfg!(panic = "unwind") {
        interrupt.unwind();
    }
}
