//! What is counted: events since the start, and things that exist as long as their counter says.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use weald::sync::channel::{Receiver, Sender};
use weald::sync::{Event, Mutex, Semaphore};

use super::world::{World, lock};

/// How often each thing has happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) operations: AtomicU64,
    pub(crate) spawned: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) returned: AtomicU64,
    pub(crate) killed: AtomicU64,
    pub(crate) marked: AtomicU64,
    pub(crate) made: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) timers_set: AtomicU64,
    pub(crate) timers_fired: AtomicU64,
    pub(crate) timers_cancelled: AtomicU64,
    pub(crate) echoed: AtomicU64,
    pub(crate) handlers: AtomicU64,
    pub(crate) wills: AtomicU64,
    pub(crate) wills_done: AtomicU64,
    pub(crate) hogs: AtomicU64,
    pub(crate) hogs_gone: AtomicU64,
}

impl Counts {
    /// Changes whenever something has happened.
    pub(crate) fn sum(&self) -> u64 {
        let counters = [
            &self.operations,
            &self.spawned,
            &self.ended,
            &self.made,
            &self.dropped,
            &self.sent,
            &self.received,
            &self.timers_set,
            &self.timers_fired,
            &self.timers_cancelled,
            &self.echoed,
            &self.handlers,
            &self.wills,
            &self.wills_done,
            &self.hogs,
            &self.hogs_gone,
        ];
        counters.map(|counter| counter.load(SeqCst)).iter().sum()
    }
}

/// Lets operations begin, or not.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) under_way: AtomicUsize,
    pub(crate) shut: AtomicBool,
    pub(crate) opened: Event,
}

/// An operation that has begun and not ended.
#[derive(Debug)]
pub(crate) struct UnderWay(pub(crate) Arc<World>);

impl Gate {
    pub(crate) fn shut(&self) {
        self.opened.reset();
        self.shut.store(true, SeqCst);
    }

    pub(crate) fn open(&self) {
        self.shut.store(false, SeqCst);
        self.opened.set();
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.under_way.load(SeqCst) == 0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.gate.under_way.fetch_sub(1, SeqCst);
    }
}

/// A message that is counted as long as there is one.
#[derive(Debug)]
pub(crate) struct Message(Arc<World>);

impl Message {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        world.counts.made.fetch_add(1, SeqCst);
        Self(Arc::clone(world))
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.0.counts.dropped.fetch_add(1, SeqCst);
    }
}

/// Belongs to the closure of a thread and is dropped with it, whether the closure ever ran or not.
pub(crate) struct Ticket {
    pub(crate) world: Arc<World>,
    /// Which seat it leaves, if it has one.
    slot: Option<usize>,
}

impl Ticket {
    pub(crate) fn new(world: &Arc<World>, slot: Option<usize>) -> Self {
        world.counts.spawned.fetch_add(1, SeqCst);
        Self {
            world: Arc::clone(world),
            slot,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.world.counts.ended.fetch_add(1, SeqCst);
        if let Some(slot) = self.slot {
            lock(&self.world.free).push(slot);
        }
    }
}

/// A few permits, and how many are held.
#[derive(Debug)]
pub(crate) struct Permits {
    pub(crate) semaphore: Semaphore,
    pub(crate) size: usize,
    pub(crate) held: AtomicUsize,
}

/// Money under a lock, and whether somebody is inside.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) money: Mutex<i64>,
    pub(crate) taken: AtomicBool,
}

pub(crate) type Ends = (Sender<Message>, Receiver<Message>);

/// Counts a connection's thread while it lives.
pub(crate) struct Handler(Arc<World>);

impl Handler {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        world.counts.handlers.fetch_add(1, SeqCst);
        Self(Arc::clone(world))
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.counts.handlers.fetch_sub(1, SeqCst);
    }
}
