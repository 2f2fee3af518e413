//! Storms over limits, alarms and locks.

use std::sync::{Arc, PoisonError};

use weald::Runtime;
use weald::sync::{Barrier, Condvar, Mutex, RwLock, Semaphore};

use super::{Random, crowd, each_storm};
use crate::support::{Count, Mark};

/// Limits within limits, around whatever waits.
fn limited(random: &mut Random, depth: usize, permits: &Semaphore) -> usize {
    let mut elapsed = 0;
    for _ in 0..random.below(4) {
        let limit = random.micros(400);
        let outcome = weald::timeout(limit, || {
            match random.below(5) {
                0 if depth > 0 => return limited(random, depth - 1, permits),
                1 => drop(permits.acquire()),
                2 => weald::park(),
                3 => weald::sleep(random.micros(400)),
                _ => random.pause(),
            }
            0
        });
        elapsed += outcome.unwrap_or(1);
    }
    elapsed
}

#[test]
fn timeout_storm() {
    each_storm(|rt, random| {
        let permits = Arc::new(Semaphore::new(1));
        let (fired, cancelled, set) = (Count::default(), Count::default(), Count::default());
        let dropped = Count::default();
        let own = (
            Arc::clone(&permits),
            fired.clone(),
            cancelled.clone(),
            set.clone(),
            dropped.clone(),
        );
        let body = move |_: usize, mut random: Random| {
            let (permits, fired, cancelled, set, dropped) = &own;
            let mut calls = Vec::new();
            for _ in 0..10 {
                limited(&mut random, 3, permits);
                let (fires, held) = (fired.clone(), dropped.on_drop());
                set.add();
                calls.push(weald::call_after(random.micros(2000), move || {
                    fires.add();
                    drop(held);
                }));
                // An alarm is raised where the caller waits, or cancelled, and never both.
                let raised = weald::catch::<Mark, _>(|| {
                    let alarm = weald::exc_after(random.micros(300), Mark(7));
                    random.pause();
                    random.pause();
                    // Nothing is raised after this, whatever it returns.
                    alarm.cancel()
                });
                if raised.is_ok() {
                    weald::checkpoint();
                }
                if random.one_in(2) {
                    let call = calls.swap_remove(random.below(calls.len()));
                    if call.cancel() {
                        cancelled.add();
                        assert!(!call.cancel(), "cancelled twice");
                    }
                }
            }
        };
        let size = 10 + random.below(20);
        for thread in crowd(rt, random, size, body) {
            thread.join().unwrap();
        }
        crate::support::wait_until(|| fired.get() + cancelled.get() == set.get());
        crate::support::wait_until(|| dropped.get() == set.get());
        assert_eq!(permits.available_permits(), 1);
    });
}

struct Bank {
    accounts: [Mutex<i64>; 6],
    table: RwLock<[i64; 4]>,
    permits: Semaphore,
    inside: Count,
    baton: (Mutex<usize>, Condvar),
}

impl Bank {
    fn transfer(&self, random: &mut Random) {
        let (from, to) = (random.below(6), random.below(6));
        if from == to {
            return;
        }
        // Locks are taken in the order of their numbers, or by trying.
        let (low, high) = (from.min(to), from.max(to));
        let mut low = self.accounts[low].lock().unwrap();
        random.pause();
        let high = self.accounts[high].try_lock_for(random.micros(500));
        if let Ok(mut high) = high {
            *low -= 5;
            random.pause();
            *high += 5;
        }
    }

    fn visit(&self, random: &mut Random) {
        match random.below(5) {
            0 => self.transfer(random),
            1 => {
                let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
                for place in table.iter_mut() {
                    *place += 1;
                    random.pause();
                }
            }
            2 => {
                let table = self.table.read().unwrap();
                random.pause();
                assert!(
                    table.iter().all(|place| *place == table[0]),
                    "torn: {table:?}"
                );
            }
            3 => {
                if let Some(_permit) = self.permits.acquire_timeout(random.micros(1000)) {
                    assert!(self.inside.add() < 2, "more than there are permits");
                    random.pause();
                    self.inside.sub();
                }
            }
            _ => {
                let mut held = self.baton.0.lock().unwrap();
                *held += 1;
                self.baton.1.notify_one();
                let limit = random.micros(200);
                held = self.baton.1.wait_timeout(held, limit).unwrap().0;
                *held -= 1;
            }
        }
    }
}

#[test]
fn lock_storm() {
    each_storm(|rt: &Runtime, random| {
        let bank = Arc::new(Bank {
            accounts: std::array::from_fn(|_| Mutex::new(100)),
            table: RwLock::new([0; 4]),
            permits: Semaphore::new(2),
            inside: Count::default(),
            baton: (Mutex::new(0), Condvar::new()),
        });
        let size = 10 + random.below(40);
        let barrier = Arc::new(Barrier::new(size));
        let leaders = Count::default();
        let own = (Arc::clone(&bank), barrier, leaders.clone());
        let body = move |_: usize, mut random: Random| {
            for _ in 0..3 {
                for _ in 0..10 {
                    own.0.visit(&mut random);
                }
                if own.1.wait().is_leader() {
                    own.2.add();
                }
            }
        };
        for thread in crowd(rt, random, size, body) {
            thread.join().unwrap();
        }
        assert_eq!(leaders.get(), 3);
        let sum: i64 = bank
            .accounts
            .iter()
            .map(|account| *account.lock().unwrap())
            .sum();
        assert_eq!(sum, 600);
        assert_eq!(bank.permits.available_permits(), 2);
        assert_eq!(*bank.baton.0.lock().unwrap(), 0);
    });
}
