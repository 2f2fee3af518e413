//! Which carrier has which seat. Workers are seats; carriers are OS threads that need a seat to run green threads.
//!
//! A seat is *held* by a carrier, or *free*: on its way to a carrier, or in `Seats::free`. Its holder gives it
//! up (`release`, `pass`), or the monitor takes it through the holder's `Door` while a green
//! thread of that carrier does not come back: it computes, or is in a blocking call.
//!
//! A carrier without a seat is in one of these lists, or in none while its green thread does not
//! come back: *waiting* (it has threads of its own to run), *spare* (it has nothing to do), *unborn*
//! (it has no OS thread yet, or no longer). A seat that becomes free goes to the first waiting
//! carrier, else to the spare that came last, else to an unborn one, else into `free`, where the next
//! carrier that comes back finds it, or the monitor once an OS thread can be started (`retry`).
//!
//! To start an OS thread takes long, so it is done without the lock. A carrier is *hired* under the lock, and from then
//! on it counts as if it were there: with a seat (`give`), or as a spare (`prepare`). If the system then refuses the OS thread, the carrier is unborn again, and the
//! seat that it may have been given by then goes to another one. After a refusal nobody is hired for
//! [`PAUSE`].
//!
//! If a carrier may keep its seat, `prepare` is called before it gives the seat up, or before the seat is taken. So
//! such a seat leaves its holder only if there is an OS thread for it.
//!
//! Invariant 1: a worker's core has one owner: a seat leaves its holder by the holder or, through
//! the door, by the monitor; it leaves FREE only under the lock of `Seats`.
//! Invariant 2: a free seat is found: it is put into `free` and a carrier puts itself into
//! `waiting` under the same lock, each after a look at the other.
//! Invariant 3: when the start of an OS thread has failed, its carrier owns nothing: its seat goes to another carrier,
//! or into `free`, and is counted.
//! Invariant 4: a carrier that retires is in no list and has no seat, and is hired again only when it
//! has left its index (`retired`).
//! Orderings: the door and the lock pass the core on.
//! Checked by `loom-tests/tests/seat.rs`, the door by `loom-tests/tests/door.rs`.

// By its path, as models take this file by its own.
#[path = "shortage.rs"]
mod shortage;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::shim::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::shim::clock;
use crate::shim::sync::{Arc, Condvar, Mutex, MutexGuard, wait, wait_for};

pub(crate) use self::shortage::Shortage;

/// A spare carrier that was not needed for so long ends its OS thread.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// After the system has refused an OS thread, no other one is tried during this time: a try costs some 50 us, and
/// would hardly succeed at once.
const PAUSE: Duration = Duration::from_millis(20);

/// The holder of one worker's seat, for others to see.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Index + 1 of the carrier; 0: free.
    holder: AtomicUsize,
}

impl Seat {
    pub(crate) fn new() -> Self {
        let holder = AtomicUsize::new(0);
        Self { holder }
    }

    /// The carrier that holds it; a hint.
    pub(crate) fn holder(&self) -> Option<usize> {
        self.holder.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The holder gives it up for good.
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

/// What `Seats` need from their runtime.
pub(crate) trait House: Sized {
    /// How many workers, hence seats.
    fn workers(&self) -> usize;
    fn seat(&self, worker: usize) -> &Seat;
    /// A sleeping worker is to come and look whether somebody wants its seat.
    fn notify(&self);
    /// Starts the OS thread of a carrier.
    ///
    /// # Errors
    /// The system's.
    fn start(this: &Arc<Self>, carrier: usize) -> io::Result<()>;
}

/// All carriers without a seat and all seats without a carrier.
#[derive(Debug)]
pub(crate) struct Seats {
    lists: Mutex<Lists>,
    /// The length of `waiting`, for a look without the lock.
    waiting: AtomicUsize,
    /// The length of `free`, for a look without the lock.
    free: AtomicUsize,
    /// Seats that found no carrier, as the bound was reached or no OS thread could be started.
    pub(crate) stranded: AtomicU64,
    /// OS threads that the system has refused.
    pub(crate) refused: AtomicU64,
}

#[derive(Debug)]
struct Lists {
    free: Vec<usize>,
    waiting: VecDeque<usize>,
    spares: Vec<usize>,
    /// Those that have retired, or whose OS thread was refused.
    unborn: Vec<usize>,
    /// Of all that have ever been hired; the others are unborn as well.
    hired: Vec<Hired>,
    /// The greatest number of carriers.
    bound: usize,
    stopping: bool,
    /// When the system refused an OS thread last, and with which error.
    refused: Option<(Instant, io::Error)>,
    /// OS threads that have not ended.
    alive: usize,
}

/// A carrier, as the lists see it.
#[derive(Debug)]
struct Hired {
    /// It sleeps here without a seat.
    bell: std::sync::Arc<Condvar>,
    /// The seat that it was given and has not taken yet.
    assigned: Option<usize>,
    line: Line,
}

/// Which list a carrier is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    None,
    Waiting,
    Spares,
}

impl Lists {
    /// Takes a carrier that has an OS thread out of its line.
    fn next_idle(&mut self, seats: &Seats) -> Option<usize> {
        let next = match self.waiting.pop_front() {
            Some(carrier) => {
                seats.waiting.store(self.waiting.len(), Ordering::Relaxed);
                Some(carrier)
            }
            None => self.spares.pop(),
        };
        if let Some(carrier) = next {
            self.hired[carrier].line = Line::None;
        }
        next
    }

    fn leave_line(&mut self, seats: &Seats, carrier: usize) {
        match std::mem::replace(&mut self.hired[carrier].line, Line::None) {
            Line::None => {}
            Line::Waiting => {
                self.waiting.retain(|&c| c != carrier);
                seats.waiting.store(self.waiting.len(), Ordering::Relaxed);
            }
            Line::Spares => self.spares.retain(|&c| c != carrier),
        }
    }

    /// Why nobody can be hired now.
    fn shortage(&self) -> Option<Shortage> {
        if self.stopping {
            return Some(Shortage::Stopping);
        }
        if self.unborn.is_empty() && self.hired.len() >= self.bound {
            return Some(Shortage::Bound(self.bound));
        }
        let (at, error) = self.refused.as_ref()?;
        (clock::now().saturating_duration_since(*at) < PAUSE)
            .then(|| Shortage::Refused(error.to_string()))
    }

    /// A carrier that is to be started next, counted as there from now on.
    fn hire(&mut self) -> Result<usize, Shortage> {
        if let Some(shortage) = self.shortage() {
            return Err(shortage);
        }
        let carrier = self.unborn.pop().unwrap_or_else(|| {
            self.hired.push(Hired {
                bell: std::sync::Arc::new(Condvar::new()),
                assigned: None,
                line: Line::None,
            });
            self.hired.len() - 1
        });
        self.alive += 1;
        Ok(carrier)
    }

    fn put_free(&mut self, seats: &Seats, worker: usize) {
        seats.stranded.fetch_add(1, Ordering::Relaxed);
        if !fault!("seat_keeps_what_no_thread_took") {
            self.free.push(worker);
            seats.free.store(self.free.len(), Ordering::Relaxed);
        }
    }

    fn take_free(&mut self, seats: &Seats) -> Option<usize> {
        let worker = self.free.pop();
        seats.free.store(self.free.len(), Ordering::Relaxed);
        worker
    }
}

impl Seats {
    /// For so many carriers at most.
    pub(crate) fn new(carriers: usize) -> Self {
        Self {
            lists: Mutex::new(Lists {
                free: Vec::new(),
                waiting: VecDeque::new(),
                spares: Vec::new(),
                unborn: Vec::new(),
                hired: Vec::new(),
                bound: carriers,
                stopping: false,
                refused: None,
                alive: 0,
            }),
            waiting: AtomicUsize::new(0),
            free: AtomicUsize::new(0),
            stranded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// A carrier wants a seat.
    #[inline]
    pub(crate) fn somebody_waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// There seems to be a carrier for one more seat, or it could be started.
    pub(crate) fn has_taker(&self) -> bool {
        let lists = self.lists.lock();
        let somebody = !(lists.waiting.is_empty() && lists.spares.is_empty());
        (somebody && !lists.stopping) || lists.shortage().is_none()
    }

    /// OS threads that drive a worker, or could.
    pub(crate) fn carriers(&self) -> usize {
        self.lists.lock().alive
    }

    /// Why no OS thread could be started now, if so.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        self.lists.lock().shortage()
    }

    /// From now on there may be so many carriers; there may not be fewer than before.
    pub(crate) fn allow(&self, carriers: usize) {
        let mut lists = self.lists.lock();
        lists.bound = lists.bound.max(carriers);
    }

    /// Sees to it that there is a carrier for one more seat, and starts one if need be.
    pub(crate) fn prepare(&self, house: &Arc<impl House>) -> Result<(), Shortage> {
        let mut lists = self.lists.lock();
        if lists.stopping {
            return Err(Shortage::Stopping);
        }
        if !(lists.waiting.is_empty() && lists.spares.is_empty()) {
            return Ok(());
        }
        let carrier = lists.hire()?;
        lists.hired[carrier].line = Line::Spares;
        lists.spares.push(carrier);
        drop(lists);
        self.start(house, carrier)
    }

    /// Gives a seat that the caller has taken to another carrier.
    pub(crate) fn give(&self, house: &Arc<impl House>, worker: usize) {
        let mut lists = self.lists.lock();
        if let Some(carrier) = lists.next_idle(self) {
            Self::assign(&**house, &mut lists, carrier, worker);
            return;
        }
        let Ok(carrier) = lists.hire() else {
            lists.put_free(self, worker);
            return;
        };
        house.seat(worker).seat(carrier);
        lists.hired[carrier].assigned = Some(worker);
        drop(lists);
        let _ = self.start(house, carrier);
    }

    /// Starts the OS thread of a carrier that was hired.
    fn start(&self, house: &Arc<impl House>, carrier: usize) -> Result<(), Shortage> {
        let Err(error) = House::start(house, carrier) else {
            return Ok(());
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        let shortage = Shortage::Refused(error.to_string());
        let mut lists = self.lists.lock();
        lists.refused = Some((clock::now(), error));
        lists.leave_line(self, carrier);
        lists.alive -= 1;
        lists.unborn.push(carrier);
        // Invariant 3.
        if !fault!("seat_stays_with_a_refused_spare")
            && let Some(worker) = lists.hired[carrier].assigned.take()
        {
            house.seat(worker).release();
            match lists.next_idle(self) {
                Some(other) => Self::assign(&**house, &mut lists, other, worker),
                None => lists.put_free(self, worker),
            }
        }
        Err(shortage)
    }

    fn assign(house: &impl House, lists: &mut Lists, carrier: usize, worker: usize) {
        house.seat(worker).seat(carrier);
        let its = &mut lists.hired[carrier];
        its.assigned = Some(worker);
        its.bell.notify_one();
    }

    /// Tries again to find a carrier for a seat that found none; the monitor does so now and then.
    #[inline]
    pub(crate) fn retry(&self, house: &Arc<impl House>) {
        if self.free.load(Ordering::Relaxed) != 0 && !fault!("seat_is_not_tried_again") {
            self.retry_now(house);
        }
    }

    #[cold]
    fn retry_now(&self, house: &Arc<impl House>) {
        if self.prepare(house).is_err() {
            return;
        }
        let worker = self.lists.lock().take_free(self);
        if let Some(worker) = worker {
            self.give(house, worker);
        }
    }

    /// Starts the first carrier of each worker.
    pub(crate) fn open(&self, house: &Arc<impl House>) -> io::Result<()> {
        for worker in 0..house.workers() {
            self.give(house, worker);
        }
        let mut lists = self.lists.lock();
        if lists.free.is_empty() {
            return Ok(());
        }
        let cause = lists.refused.take().map(|(_, error)| error);
        let kind = cause.as_ref().map_or(io::ErrorKind::Other, io::Error::kind);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Err(io::Error::new(
            kind,
            format!("an OS thread for a worker could not be started{cause}"),
        ))
    }

    /// The holder passes its seat to a carrier that waits, if one does.
    pub(crate) fn pass(&self, house: &impl House, worker: usize) -> bool {
        let mut lists = self.lists.lock();
        if lists.waiting.is_empty() {
            return false;
        }
        let Some(carrier) = lists.next_idle(self) else {
            return false;
        };
        house.seat(worker).release();
        Self::assign(house, &mut lists, carrier, worker);
        true
    }

    /// The holder gives up its seat, for any carrier.
    pub(crate) fn release(&self, house: &Arc<impl House>, worker: usize) {
        house.seat(worker).release();
        self.give(house, worker);
    }

    /// Sleeps until the carrier is given a seat. `needs`: it has threads of its own to run, so it
    /// asks for one. `keep`: it does not retire.
    pub(crate) fn wait(
        &self,
        house: &Arc<impl House>,
        carrier: usize,
        needs: impl Fn() -> bool,
        keep: bool,
    ) -> Waited {
        let mut lists = self.lists.lock();
        let bell = std::sync::Arc::clone(&lists.hired[carrier].bell);
        loop {
            if let Some(worker) = lists.hired[carrier].assigned.take() {
                return Waited::Seated(worker);
            }
            if lists.stopping {
                return Waited::Stopping;
            }
            if !fault!("seat_waits_without_a_look_at_free")
                && let Some(worker) = lists.take_free(self)
            {
                house.seat(worker).seat(carrier);
                lists.leave_line(self, carrier);
                return Waited::Seated(worker);
            }
            if needs() {
                lists = self.ask(&**house, lists, carrier, &bell);
            } else {
                if lists.hired[carrier].line == Line::None {
                    lists.hired[carrier].line = Line::Spares;
                    lists.spares.push(carrier);
                }
                let started = clock::now();
                lists = wait_for(&bell, lists, KEEP_ALIVE);
                let seated =
                    lists.hired[carrier].assigned.is_some() && !fault!("seat_retires_with_a_seat");
                let idle = !lists.stopping && !needs() && !seated;
                let waited = clock::now().saturating_duration_since(started);
                if idle && !keep && waited >= KEEP_ALIVE {
                    unless!(
                        "seat_leaves_a_retired_spare",
                        lists.leave_line(self, carrier)
                    );
                    lists.alive -= 1;
                    return Waited::Retired;
                }
            }
        }
    }

    /// A carrier that has threads of its own to run waits for a seat, after a look around if it has
    /// only just asked.
    fn ask<'a>(
        &'a self,
        house: &impl House,
        mut lists: MutexGuard<'a, Lists>,
        carrier: usize,
        bell: &Condvar,
    ) -> MutexGuard<'a, Lists> {
        if lists.hired[carrier].line == Line::Waiting {
            return wait(bell, lists);
        }
        lists.leave_line(self, carrier);
        lists.hired[carrier].line = Line::Waiting;
        lists.waiting.push_back(carrier);
        if fault!("seat_asks_before_it_is_counted") {
            house.notify();
        }
        self.waiting.store(lists.waiting.len(), Ordering::Relaxed);
        drop(lists);
        // A sleeping worker must come and pass its seat.
        unless!("seat_asks_before_it_is_counted", house.notify());
        self.lists.lock()
    }

    /// A carrier that retires has left its index: it can be hired again.
    pub(crate) fn retired(&self, carrier: usize) {
        self.lists.lock().unborn.push(carrier);
    }

    /// A thread of a carrier was made ready from elsewhere: if it has no seat it must ask for one.
    pub(crate) fn call(&self, carrier: usize) {
        let lists = self.lists.lock();
        let bell = std::sync::Arc::clone(&lists.hired[carrier].bell);
        // It looks again at what it needs; if it is seated or in a blocking call, at its next turn.
        drop(lists);
        bell.notify_one();
    }

    /// No seat is given any more; all who wait for one end.
    pub(crate) fn stop(&self) {
        let mut lists = self.lists.lock();
        lists.stopping = true;
        for its in &lists.hired {
            its.bell.notify_one();
        }
    }

    /// A carrier's OS thread ends as the runtime stops.
    pub(crate) fn ended(&self) {
        self.lists.lock().alive -= 1;
    }
}
