//! Which carrier has which seat. Workers are seats; carriers are OS threads that need a seat to run green threads.
//!
//! A seat is *held* by a carrier, or *free*: on its way to a carrier, or in `Lines::free`. Its holder gives it
//! up (`release`, `pass`). Or the monitor takes it through the holder's `Door`, while a green
//! thread of that carrier does not come back, because it computes or is in a blocking call.
//!
//! A carrier without a seat stands in one of these lines: *waiting* (it has threads of its own to run), *spare* (it
//! has nothing to do), *unborn* (it has no OS thread yet, or no longer). While its green thread does not come back
//! it stands in none. A seat that becomes free goes to the first waiting
//! carrier, else to the spare that came last, else to an unborn carrier. If there is no carrier it goes into `free`.
//! There the next carrier that comes back finds it, or the monitor once an OS thread can be started (`retry`).
//!
//! It takes long to start an OS thread, so this is done without the lock. A carrier is *hired* under the lock. From
//! then on it counts as if it were there: with a seat (`give`), or as a spare (`prepare`). If the system then refuses
//! the OS thread, the carrier is unborn again. If it was given a seat by then, the seat goes to another carrier. After
//! a refusal nobody is hired for some time (`lines::PAUSE`).
//!
//! A carrier may be allowed to keep its seat. Then `prepare` is called before the carrier gives the seat up, or before
//! the monitor takes it. So such a seat leaves its holder only if there is an OS thread for it.
//!
//! Invariant 1: a worker's core has one owner. Only its holder gives a seat up, or the monitor takes it through the
//! door. A free seat gets a holder only under the lock of `Seats`.
//! Invariant 2: a free seat is found. A seat is put into `free`, and a carrier puts itself into
//! `waiting`, under the same lock, and each has looked at the other before.
//! Invariant 3: if the start of an OS thread has failed, its carrier owns nothing. Its seat goes to another carrier,
//! or into `free`, and is counted as stranded.
//! Invariant 4: a carrier that retires stands in no line and has no seat. It is hired again only after it
//! has given its index back (`retired`).
//! Orderings: the door and the lock pass the core on.
//! Checked by `loom-tests/tests/seat.rs`, the door by `loom-tests/tests/door.rs`.

// By their paths, because models take this file by its path.
#[path = "lines.rs"]
mod lines;
#[path = "shortage.rs"]
mod shortage;

use std::io;
use std::time::Duration;

use crate::shim::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::shim::clock;
use crate::shim::sync::{Arc, Condvar, Mutex, MutexGuard, wait, wait_for};

use self::lines::{Counts, Line, Lines};
pub(crate) use self::shortage::Shortage;

/// A spare carrier that was not needed for so long retires: it ends its OS thread.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

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

    /// The carrier that holds the seat. A hint: it may have changed.
    pub(crate) fn holder(&self) -> Option<usize> {
        self.holder.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The holder gives it up for good.
    fn release(&self) {
        self.holder.store(0, Ordering::Relaxed);
    }

    /// Gives the seat to a carrier. Under the lock of `Seats`.
    fn seat(&self, carrier: usize) {
        self.holder.store(carrier + 1, Ordering::Relaxed);
    }
}

/// What became of a carrier that waited for a seat.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waited {
    /// It has the seat of that worker.
    Seated(usize),
    /// The runtime stops.
    Stopping,
    /// It was spare for [`KEEP_ALIVE`]. It is counted out already, and its OS thread must end.
    Retired,
}

/// What `Seats` need from their runtime.
pub(crate) trait House: Sized {
    /// How many workers there are. Each is a seat.
    fn workers(&self) -> usize;
    fn seat(&self, worker: usize) -> &Seat;
    /// Wakes a sleeping worker, which looks whether a carrier waits for its seat.
    fn notify(&self);
    /// Starts the OS thread of a carrier.
    ///
    /// # Errors
    /// The system's.
    fn start(this: &Arc<Self>, carrier: usize) -> io::Result<()>;
}

/// All carriers without a seat, and all seats without a carrier.
#[derive(Debug)]
pub(crate) struct Seats {
    lines: Mutex<Lines>,
    pub(crate) counts: Counts,
    /// OS threads that the system has refused.
    pub(crate) refused: AtomicU64,
}

impl Seats {
    /// Makes room for at most so many carriers.
    pub(crate) fn new(carriers: usize) -> Self {
        Self {
            lines: Mutex::new(Lines::new(carriers)),
            counts: Counts::new(),
            refused: AtomicU64::new(0),
        }
    }

    /// A carrier seems to wait for a seat.
    #[inline]
    pub(crate) fn somebody_waits(&self) -> bool {
        self.counts.waiting.load(Ordering::Relaxed) != 0
    }

    /// There seems to be a carrier for one more seat, or one could be started.
    pub(crate) fn has_taker(&self) -> bool {
        let lines = self.lines.lock();
        let somebody = !(lines.waiting.is_empty() && lines.spares.is_empty());
        (somebody && !lines.stopping) || lines.shortage().is_none()
    }

    /// How many OS threads drive a worker, or could drive one.
    pub(crate) fn carriers(&self) -> usize {
        self.lines.lock().alive
    }

    /// Why no OS thread can be started now; `None`: one can.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        self.lines.lock().shortage()
    }

    /// From now on there may be so many carriers; there may not be fewer than before.
    pub(crate) fn allow(&self, carriers: usize) {
        let mut lines = self.lines.lock();
        lines.bound = lines.bound.max(carriers);
    }

    /// Sees to it that there is a carrier for one more seat, and starts one if need be.
    pub(crate) fn prepare(&self, house: &Arc<impl House>) -> Result<(), Shortage> {
        let mut lines = self.lines.lock();
        if lines.stopping {
            return Err(Shortage::Stopping);
        }
        if !(lines.waiting.is_empty() && lines.spares.is_empty()) {
            return Ok(());
        }
        let carrier = lines.hire()?;
        lines.hired[carrier].line = Line::Spares;
        lines.spares.push(carrier);
        drop(lines);
        self.start(house, carrier)
    }

    /// Gives a seat to a carrier. The caller has taken the seat from its holder.
    pub(crate) fn give(&self, house: &Arc<impl House>, worker: usize) {
        let mut lines = self.lines.lock();
        if let Some(carrier) = lines.next_idle(&self.counts) {
            Self::assign(&**house, &mut lines, carrier, worker);
            return;
        }
        let Ok(carrier) = lines.hire() else {
            lines.put_free(&self.counts, worker);
            return;
        };
        house.seat(worker).seat(carrier);
        lines.hired[carrier].assigned = Some(worker);
        drop(lines);
        let _ = self.start(house, carrier);
    }

    /// Starts the OS thread of a carrier that was hired.
    fn start(&self, house: &Arc<impl House>, carrier: usize) -> Result<(), Shortage> {
        let Err(error) = House::start(house, carrier) else {
            return Ok(());
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        let shortage = Shortage::Refused(error.to_string());
        let mut lines = self.lines.lock();
        lines.refused = Some((clock::now(), error));
        lines.take_out_of_line(&self.counts, carrier);
        lines.alive -= 1;
        lines.unborn.push(carrier);
        // Invariant 3.
        if !fault!("seat_stays_with_a_refused_spare")
            && let Some(worker) = lines.hired[carrier].assigned.take()
        {
            house.seat(worker).release();
            match lines.next_idle(&self.counts) {
                Some(other) => Self::assign(&**house, &mut lines, other, worker),
                None => lines.put_free(&self.counts, worker),
            }
        }
        Err(shortage)
    }

    fn assign(house: &impl House, lines: &mut Lines, carrier: usize, worker: usize) {
        house.seat(worker).seat(carrier);
        let its = &mut lines.hired[carrier];
        its.assigned = Some(worker);
        its.bell.notify_one();
    }

    /// Tries again to find a carrier for a seat in `free`. The monitor calls this now and then.
    #[inline]
    pub(crate) fn retry(&self, house: &Arc<impl House>) {
        if self.counts.free.load(Ordering::Relaxed) != 0 && !fault!("seat_is_not_tried_again") {
            self.retry_now(house);
        }
    }

    #[cold]
    fn retry_now(&self, house: &Arc<impl House>) {
        if self.prepare(house).is_err() {
            return;
        }
        let worker = self.lines.lock().take_free(&self.counts);
        if let Some(worker) = worker {
            self.give(house, worker);
        }
    }

    /// Starts the first carrier of each worker.
    pub(crate) fn open(&self, house: &Arc<impl House>) -> io::Result<()> {
        for worker in 0..house.workers() {
            self.give(house, worker);
        }
        let mut lines = self.lines.lock();
        if lines.free.is_empty() {
            return Ok(());
        }
        let cause = lines.refused.take().map(|(_, error)| error);
        let kind = cause.as_ref().map_or(io::ErrorKind::Other, io::Error::kind);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Err(io::Error::new(
            kind,
            format!("an OS thread for a worker could not be started{cause}"),
        ))
    }

    /// The holder passes its seat to a carrier that waits, if one does.
    pub(crate) fn pass(&self, house: &impl House, worker: usize) -> bool {
        let mut lines = self.lines.lock();
        if lines.waiting.is_empty() {
            return false;
        }
        let Some(carrier) = lines.next_idle(&self.counts) else {
            return false;
        };
        house.seat(worker).release();
        Self::assign(house, &mut lines, carrier, worker);
        true
    }

    /// The holder gives up its seat, for any carrier.
    pub(crate) fn release(&self, house: &Arc<impl House>, worker: usize) {
        house.seat(worker).release();
        self.give(house, worker);
    }

    /// Sleeps until the carrier is given a seat. `needs` says whether the carrier has threads of its own to run; if so
    /// it asks for a seat. `keep`: it does not retire.
    pub(crate) fn wait(
        &self,
        house: &Arc<impl House>,
        carrier: usize,
        needs: impl Fn() -> bool,
        keep: bool,
    ) -> Waited {
        let mut lines = self.lines.lock();
        let bell = std::sync::Arc::clone(&lines.hired[carrier].bell);
        loop {
            if let Some(worker) = lines.hired[carrier].assigned.take() {
                return Waited::Seated(worker);
            }
            if lines.stopping {
                return Waited::Stopping;
            }
            if !fault!("seat_waits_without_a_look_at_free")
                && let Some(worker) = lines.take_free(&self.counts)
            {
                house.seat(worker).seat(carrier);
                lines.take_out_of_line(&self.counts, carrier);
                return Waited::Seated(worker);
            }
            if needs() {
                lines = self.ask(&**house, lines, carrier, &bell);
            } else {
                if lines.hired[carrier].line == Line::None {
                    lines.hired[carrier].line = Line::Spares;
                    lines.spares.push(carrier);
                }
                let started = clock::now();
                lines = wait_for(&bell, lines, KEEP_ALIVE);
                let seated =
                    lines.hired[carrier].assigned.is_some() && !fault!("seat_retires_with_a_seat");
                let idle = !lines.stopping && !needs() && !seated;
                let waited = clock::now().saturating_duration_since(started);
                if idle && !keep && waited >= KEEP_ALIVE {
                    unless!(
                        "seat_leaves_a_retired_spare",
                        lines.take_out_of_line(&self.counts, carrier)
                    );
                    lines.alive -= 1;
                    return Waited::Retired;
                }
            }
        }
    }

    /// A carrier that has threads of its own to run asks for a seat: it enters the waiting line, wakes a worker, and
    /// returns at once, so that the caller looks again. If it stands in that line already, it sleeps.
    fn ask<'a>(
        &'a self,
        house: &impl House,
        mut lines: MutexGuard<'a, Lines>,
        carrier: usize,
        bell: &Condvar,
    ) -> MutexGuard<'a, Lines> {
        if lines.hired[carrier].line == Line::Waiting {
            return wait(bell, lines);
        }
        lines.take_out_of_line(&self.counts, carrier);
        lines.hired[carrier].line = Line::Waiting;
        lines.waiting.push_back(carrier);
        if fault!("seat_asks_before_it_is_counted") {
            house.notify();
        }
        self.counts
            .waiting
            .store(lines.waiting.len(), Ordering::Relaxed);
        drop(lines);
        // A worker that sleeps must wake and pass its seat.
        unless!("seat_asks_before_it_is_counted", house.notify());
        self.lines.lock()
    }

    /// A carrier that has retired gives its index back: a carrier with this index can be hired again.
    pub(crate) fn retired(&self, carrier: usize) {
        self.lines.lock().unborn.push(carrier);
    }

    /// Another OS thread has made a thread of this carrier ready. If the carrier has no seat, it must ask for one.
    pub(crate) fn call(&self, carrier: usize) {
        let lines = self.lines.lock();
        let bell = std::sync::Arc::clone(&lines.hired[carrier].bell);
        // The carrier wakes and asks `needs` again. If it has a seat or is in a blocking call, it sees the thread in
        // its next turn.
        drop(lines);
        bell.notify_one();
    }

    /// From now on no seat is given. All carriers that wait for one end.
    pub(crate) fn stop(&self) {
        let mut lines = self.lines.lock();
        lines.stopping = true;
        for its in &lines.hired {
            its.bell.notify_one();
        }
    }

    /// The OS thread of a carrier ends because the runtime stops.
    pub(crate) fn ended(&self) {
        self.lines.lock().alive -= 1;
    }
}
