//! Who sits where: workers are seats, carriers are OS threads that need one to run green threads.
//!
//! A seat is *held* by a carrier, or *free*: in somebody's hand, or in `Seats::free`. Its holder lets
//! go of it (`release`, `pass`), or the monitor takes it through the holder's `Door` while a green
//! thread of that carrier does not come back, from a blocking call or at all.
//!
//! A carrier without a seat is in one of these lists, or in none while its green thread does not
//! come back: *waiting* (it has threads of its own to run), *spare* (it has nothing to do), *unborn*
//! (it has no OS thread yet, or no longer). A seat that becomes free goes to the first waiting
//! carrier, else to a spare one, else to an unborn one, else into `free`, where the next carrier
//! that comes back finds it.
//!
//! Invariant 1: a worker's core has one owner: a seat leaves its holder by the holder or, through
//! the door, by the monitor; it leaves FREE only under the lock of `Seats`.
//! Invariant 2: a free seat is found: it is put into `free` and a carrier puts itself into
//! `waiting` under the same lock, each after a look at the other.
//! Invariant 3: a seat whose spare could not be started goes back into `free` and is counted;
//! nothing is ever owned by a thread that does not exist.
//! Orderings: the door and the lock pass the core on.
//! Checked by `loom-tests/tests/seat.rs`, the door by `loom-tests/tests/door.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::runtime::Inner;
use crate::shim::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::shim::sync::{Arc, Condvar, Mutex, wait, wait_for};

/// A spare carrier that nobody needs for so long lets its OS thread go.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Who holds the seat of one worker, for others to see.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Index + 1 of the carrier; 0: free.
    holder: AtomicUsize,
}

impl Seat {
    pub(crate) fn new() -> Self {
        Self {
            holder: AtomicUsize::new(0),
        }
    }

    /// The carrier that holds it; a hint.
    pub(crate) fn holder(&self) -> Option<usize> {
        self.holder.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The holder lets go of it for good.
    fn release(&self) {
        self.holder.store(0, Ordering::Relaxed);
    }

    /// Seats a carrier; under the lock of `Seats`.
    fn seat(&self, carrier: usize) {
        self.holder.store(carrier + 1, Ordering::Relaxed);
    }
}

/// What became of a carrier that waited for a seat.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waited {
    /// It has that worker's.
    Seated(usize),
    /// The runtime stops.
    Stopping,
    /// It was spare for long: it is counted out, and its OS thread ends.
    Retired,
}

/// All carriers without a seat and all seats without a carrier.
#[derive(Debug)]
pub(crate) struct Seats {
    lists: Mutex<Lists>,
    /// One for each carrier: it sleeps here without a seat.
    doors: Box<[Condvar]>,
    /// The length of `waiting`, for a look without the lock.
    waiting: AtomicUsize,
    /// Seats that found no carrier, as the bound was reached or no OS thread could be started.
    pub(crate) stranded: AtomicU64,
}

#[derive(Debug)]
struct Lists {
    free: Vec<usize>,
    waiting: VecDeque<usize>,
    spares: Vec<usize>,
    unborn: Vec<usize>,
    /// The seat that a carrier was given and has not taken yet.
    assigned: Box<[Option<usize>]>,
    stopping: bool,
    /// Why the last OS thread that was wanted could not be started.
    refused: Option<std::io::Error>,
    /// OS threads that have not ended.
    alive: usize,
}

impl Seats {
    pub(crate) fn new(carriers: usize) -> Self {
        Self {
            lists: Mutex::new(Lists {
                free: Vec::new(),
                waiting: VecDeque::new(),
                spares: Vec::new(),
                unborn: (0..carriers).rev().collect(),
                assigned: vec![None; carriers].into_boxed_slice(),
                stopping: false,
                refused: None,
                alive: 0,
            }),
            doors: (0..carriers).map(|_| Condvar::new()).collect(),
            waiting: AtomicUsize::new(0),
            stranded: AtomicU64::new(0),
        }
    }

    /// A carrier wants a seat.
    #[inline]
    pub(crate) fn somebody_waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// There is a carrier for one more seat.
    pub(crate) fn has_taker(&self) -> bool {
        let lists = self.lists.lock();
        let somebody = !(lists.waiting.is_empty() && lists.spares.is_empty());
        (somebody || !lists.unborn.is_empty()) && !lists.stopping
    }

    /// OS threads that drive a worker, or could.
    pub(crate) fn carriers(&self) -> usize {
        self.lists.lock().alive
    }

    /// Gives on a seat that is in the caller's hand.
    pub(crate) fn give(&self, inner: &Arc<Inner>, worker: usize) {
        let mut lists = self.lists.lock();
        self.give_locked(inner, &mut lists, worker);
    }

    fn give_locked(&self, inner: &Arc<Inner>, lists: &mut Lists, worker: usize) {
        let next = match lists.waiting.pop_front() {
            Some(carrier) => {
                self.waiting.store(lists.waiting.len(), Ordering::Relaxed);
                Some(carrier)
            }
            None => lists.spares.pop(),
        };
        if let Some(carrier) = next {
            self.assign(inner, lists, carrier, worker);
            return;
        }
        if let Some(carrier) = lists.unborn.pop() {
            inner.workers[worker].seat.seat(carrier);
            lists.assigned[carrier] = Some(worker);
            match crate::carrier::start(inner, carrier) {
                Ok(()) => {
                    lists.alive += 1;
                    return;
                }
                Err(error) => {
                    log::error!("weald could not start a carrier: {error}");
                    lists.refused = Some(error);
                    lists.assigned[carrier] = None;
                    lists.unborn.push(carrier);
                    inner.workers[worker].seat.release();
                }
            }
        }
        self.stranded.fetch_add(1, Ordering::Relaxed);
        if !cfg!(weald_fault = "seat_keeps_what_no_thread_took") {
            lists.free.push(worker);
        }
    }

    fn assign(&self, inner: &Inner, lists: &mut Lists, carrier: usize, worker: usize) {
        inner.workers[worker].seat.seat(carrier);
        lists.assigned[carrier] = Some(worker);
        self.doors[carrier].notify_one();
    }

    /// Starts the first carrier of each worker.
    pub(crate) fn open(&self, inner: &Arc<Inner>) -> std::io::Result<()> {
        for worker in 0..inner.workers.len() {
            self.give(inner, worker);
        }
        let mut lists = self.lists.lock();
        if lists.free.is_empty() {
            return Ok(());
        }
        let cause = lists.refused.take();
        let kind = cause
            .as_ref()
            .map_or(std::io::ErrorKind::Other, std::io::Error::kind);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Err(std::io::Error::new(
            kind,
            format!("an OS thread for a worker could not be started{cause}"),
        ))
    }

    /// The holder passes its seat to a carrier that waits, if one does.
    pub(crate) fn pass(&self, inner: &Inner, worker: usize) -> bool {
        let mut lists = self.lists.lock();
        let Some(carrier) = lists.waiting.pop_front() else {
            return false;
        };
        self.waiting.store(lists.waiting.len(), Ordering::Relaxed);
        inner.workers[worker].seat.release();
        self.assign(inner, &mut lists, carrier, worker);
        true
    }

    /// The holder lets go of its seat for whoever comes.
    pub(crate) fn release(&self, inner: &Arc<Inner>, worker: usize) {
        inner.workers[worker].seat.release();
        self.give(inner, worker);
    }

    /// Sleeps until the carrier is given a seat. `needs`: it has threads of its own to run, so it
    /// asks for one. `keep`: it does not retire.
    pub(crate) fn wait(
        &self,
        inner: &Arc<Inner>,
        carrier: usize,
        needs: impl Fn() -> bool,
        keep: bool,
    ) -> Waited {
        let mut lists = self.lists.lock();
        loop {
            if let Some(worker) = lists.assigned[carrier].take() {
                return Waited::Seated(worker);
            }
            if lists.stopping {
                return Waited::Stopping;
            }
            if !cfg!(weald_fault = "seat_waits_without_a_look_at_free")
                && let Some(worker) = lists.free.pop()
            {
                inner.workers[worker].seat.seat(carrier);
                lists.spares.retain(|&c| c != carrier);
                lists.waiting.retain(|&c| c != carrier);
                self.waiting.store(lists.waiting.len(), Ordering::Relaxed);
                return Waited::Seated(worker);
            }
            if needs() {
                if !lists.waiting.contains(&carrier) {
                    lists.spares.retain(|&c| c != carrier);
                    lists.waiting.push_back(carrier);
                    if cfg!(weald_fault = "seat_asks_before_it_is_counted") {
                        inner.notify();
                    }
                    self.waiting.store(lists.waiting.len(), Ordering::Relaxed);
                    drop(lists);
                    // A sleeping worker must come and pass its seat.
                    if !cfg!(weald_fault = "seat_asks_before_it_is_counted") {
                        inner.notify();
                    }
                    lists = self.lists.lock();
                    continue;
                }
                lists = wait(&self.doors[carrier], lists);
            } else {
                if !lists.spares.contains(&carrier) {
                    lists.spares.push(carrier);
                }
                let started = crate::shim::clock::now();
                lists = wait_for(&self.doors[carrier], lists, KEEP_ALIVE);
                let seated = lists.assigned[carrier].is_some()
                    && !cfg!(weald_fault = "seat_retires_with_a_seat");
                let idle = !lists.stopping && !needs() && !seated;
                let waited = crate::shim::clock::now().saturating_duration_since(started);
                if idle && !keep && waited >= KEEP_ALIVE {
                    if !cfg!(weald_fault = "seat_leaves_a_retired_spare") {
                        lists.spares.retain(|&c| c != carrier);
                    }
                    lists.unborn.push(carrier);
                    lists.alive -= 1;
                    return Waited::Retired;
                }
            }
        }
    }

    /// A thread of a carrier was made ready from elsewhere: if it has no seat it must ask for one.
    pub(crate) fn call(&self, carrier: usize) {
        let lists = self.lists.lock();
        // It looks again at what it needs; if it is seated or in a blocking call, at its next turn.
        drop(lists);
        self.doors[carrier].notify_one();
    }

    /// No seat is given any more; all who wait for one end.
    pub(crate) fn stop(&self) {
        self.lists.lock().stopping = true;
        for door in &self.doors {
            door.notify_one();
        }
    }

    /// A carrier's OS thread ends as the runtime stops.
    pub(crate) fn ended(&self) {
        self.lists.lock().alive -= 1;
    }
}
