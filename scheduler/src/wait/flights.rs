//! Jobs of the offload pool that several threads wait for together: one job for all that ask the same at the same time.
//!
//! A job that runs, or waits for its turn to run, is a *flight*. All threads that ask for its key wait for it together.
//! A thread whose time is up, or that is interrupted, leaves. If all have left before the job began, it never runs. If
//! it runs already, it makes room for other jobs on the pool, and the next thread that asks for the key boards it.
//!
//! Invariant 1: a flight is in the table from the time somebody asks until just before its answer is
//! set, or until it has run for longer than [`STALE`]; so a thread that finds one there will be woken by it. Nothing is
//! cached: a later question starts a new job.
//! Invariant 2: the number of waiters of a flight is written under the table's lock. The last thread that leaves
//! gives the job up, and takes the flight out of the table if the job will never run.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::green::wait_list::WaitQueue;
use crate::parts::offload::{Lane, Offloaded, offload};
use crate::shim::sync::{Mutex, MutexGuard};

/// A job that has run for so long will hardly succeed: the next thread that asks begins a new one.
const STALE: Duration = Duration::from_secs(60);

/// The flights, each under what was asked.
#[derive(Debug)]
pub struct Flights<K: 'static, V: 'static> {
    table: Mutex<BTreeMap<K, Entry<V>>>,
}

#[derive(Debug)]
struct Entry<V: 'static> {
    flight: Arc<Flight<V>>,
    job: Offloaded,
    /// How many threads wait for it.
    aboard: usize,
}

#[derive(Debug)]
struct Flight<V> {
    /// Set when the job begins: a job that waits for its turn is never stale.
    began: OnceLock<Instant>,
    landed: OnceLock<V>,
    waiters: WaitQueue,
}

impl<V> Flight<V> {
    fn is_stale(&self) -> bool {
        let began = self.began.get();
        began.is_some_and(|began| began.elapsed() >= STALE)
    }
}

/// The right to a flight's answer; dropping it leaves the flight.
#[derive(Debug)]
#[must_use = "dropping it leaves the flight"]
pub struct Passenger<K: Ord + 'static, V: 'static> {
    flights: &'static Flights<K, V>,
    key: K,
    flight: Arc<Flight<V>>,
}

impl<K: Ord, V> Passenger<K, V> {
    /// The answer, as soon as there is one.
    pub fn landed(&self) -> Option<&V> {
        self.flight.landed.get()
    }

    /// All of it are woken when the answer is there.
    pub fn waiters(&self) -> &WaitQueue {
        &self.flight.waiters
    }
}

impl<K: Ord, V> Drop for Passenger<K, V> {
    fn drop(&mut self) {
        let mut table = self.flights.table();
        let Some(entry) = table.get_mut(&self.key) else {
            return;
        };
        if !Arc::ptr_eq(&entry.flight, &self.flight) {
            return;
        }
        entry.aboard -= 1;
        let never_runs = entry.aboard == 0 && entry.job.give_up();
        let gone = if never_runs {
            table.remove(&self.key)
        } else {
            None
        };
        drop(table);
        drop(gone);
    }
}

impl<K: Ord, V> Flights<K, V> {
    /// Makes a table without flights.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self {
            table: Mutex::new(BTreeMap::new()),
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<K, Entry<V>>> {
        self.table.lock()
    }

    /// How many threads wait for flights.
    pub fn aboard(&self) -> usize {
        self.table().values().map(|entry| entry.aboard).sum()
    }

    /// There is no flight.
    pub fn is_empty(&self) -> bool {
        self.table().is_empty()
    }
}

impl<K: Clone + Ord + Send, V: Send + Sync> Flights<K, V> {
    /// Boards the flight of this key. If there is none it starts one, on this pool, that asks by `ask`.
    ///
    /// # Errors
    /// As [`offload`].
    pub fn board(
        &'static self,
        key: K,
        lane: Lane,
        ask: impl FnOnce(&K) -> V + Send + 'static,
    ) -> io::Result<Passenger<K, V>> {
        let mut table = self.table();
        if let Some(entry) = table.get_mut(&key)
            && !entry.flight.is_stale()
        {
            if entry.aboard == 0 {
                entry.job.want_again();
            }
            entry.aboard += 1;
            let flight = Arc::clone(&entry.flight);
            drop(table);
            return Ok(Passenger {
                flights: self,
                key,
                flight,
            });
        }
        let flight = Arc::new(Flight {
            began: OnceLock::new(),
            landed: OnceLock::new(),
            waiters: WaitQueue::new(),
        });
        let (asked, flown) = (key.clone(), Arc::clone(&flight));
        let entry = Entry {
            job: offload(lane, move || self.fly(&asked, &flown, ask))?,
            flight: Arc::clone(&flight),
            aboard: 1,
        };
        let stale = table.insert(key.clone(), entry);
        drop(table);
        drop(stale);
        Ok(Passenger {
            flights: self,
            key,
            flight,
        })
    }

    /// The job on the pool.
    fn fly(&self, key: &K, flight: &Arc<Flight<V>>, ask: impl FnOnce(&K) -> V) {
        let set = flight.began.set(Instant::now());
        debug_assert!(set.is_ok(), "a flight begins once");
        let landed = ask(key);
        let mut table = self.table();
        let is_this = |entry: &Entry<V>| Arc::ptr_eq(&entry.flight, flight);
        let entry = if table.get(key).is_some_and(is_this) {
            table.remove(key)
        } else {
            None
        };
        drop(table);
        drop(entry);
        let set = flight.landed.set(landed);
        debug_assert!(set.is_ok(), "a flight lands once");
        flight.waiters.wake_all();
    }
}
