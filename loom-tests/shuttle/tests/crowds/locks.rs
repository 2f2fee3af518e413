//! Locks, rounds, and what many wait for and comes once.

use shuttle::sync::Arc;
use weald::sync::{Barrier, Condvar, Event, Mutex, Promise, RwLock, WaitGroup, oneshot};
use weald_shuttle_tests::check;
use weald_shuttle_tests::random::{below, one_in};

use crate::support::{Count, MS, crowd, pause, runtime, was_killed};

struct Bank {
    accounts: [Mutex<i64>; 4],
    table: RwLock<[i64; 3]>,
    baton: (Mutex<usize>, Condvar),
}

impl Bank {
    fn visit(&self) {
        match below(4) {
            0 => {
                let (from, to) = (below(4), below(4));
                if from == to {
                    return;
                }
                // In the order of their numbers, or by trying.
                let mut low = self.accounts[from.min(to)].lock().unwrap();
                pause();
                if let Ok(mut high) = self.accounts[from.max(to)].try_lock_for(MS) {
                    *low -= 5;
                    pause();
                    *high += 5;
                }
            }
            1 => {
                let mut table = self.table.write().unwrap();
                for place in table.iter_mut() {
                    *place += 1;
                    pause();
                }
            }
            2 => {
                let table = self.table.read().unwrap();
                pause();
                assert!(
                    table.iter().all(|place| *place == table[0]),
                    "torn: {table:?}"
                );
            }
            _ => {
                let mut held = self.baton.0.lock().unwrap();
                *held += 1;
                self.baton.1.notify_one();
                held = self.baton.1.wait_timeout(held, MS).unwrap().0;
                *held -= 1;
            }
        }
    }
}

/// Green threads and OS threads share locks, and meet in rounds.
#[test]
fn locks() {
    check("locks", || {
        let rt = runtime();
        let bank = Arc::new(Bank {
            accounts: std::array::from_fn(|_| Mutex::new(100)),
            table: RwLock::new([0; 3]),
            baton: (Mutex::new(0), Condvar::new()),
        });
        let (size, others) = (8 + below(8), 2);
        let barrier = Arc::new(Barrier::new(size + others));
        let leaders = Count::default();
        let own = (bank.clone(), barrier, leaders.clone());
        let body = move |_: usize| {
            for _ in 0..2 {
                for _ in 0..2 {
                    own.0.visit();
                }
                if own.1.wait().is_leader() {
                    own.2.add();
                }
            }
        };
        let os_threads: Vec<_> = (0..others)
            .map(|number| {
                let body = body.clone();
                shuttle::thread::spawn(move || body(number))
            })
            .collect();
        for thread in crowd(&rt, size, body) {
            thread.join().unwrap();
        }
        for thread in os_threads {
            thread.join().unwrap();
        }
        assert_eq!(leaders.get(), 2);
        let balance = |account: &Mutex<i64>| *account.lock().unwrap();
        assert_eq!(bank.accounts.iter().map(balance).sum::<i64>(), 400);
        assert_eq!(*bank.baton.0.lock().unwrap(), 0);
    });
}

/// Many wait for what comes once; some are killed, some are OS threads.
#[test]
fn promises_and_events() {
    check("promises_and_events", || {
        let rt = runtime();
        let (event, promise) = (Arc::new(Event::new()), Arc::new(Promise::new()));
        let group = WaitGroup::new();
        let (came, first) = (Count::default(), oneshot::channel());
        let own = (event.clone(), promise.clone(), came.clone());
        let body = move |number: usize| {
            match number % 3 {
                0 => own.0.wait(),
                1 => assert_eq!(own.1.wait().unwrap(), 7),
                _ => while !own.0.wait_timeout(MS) {},
            }
            own.2.add();
        };
        let os_thread = shuttle::thread::spawn({
            let body = body.clone();
            move || body(1)
        });
        let waiting = crowd(&rt, 15, body);
        let members: Vec<_> = (0..4)
            .map(|_| {
                let group = group.clone();
                rt.spawn(move || {
                    pause();
                    drop(group);
                })
            })
            .collect();
        let (tell, told) = first;
        let teller = rt.spawn(move || {
            pause();
            tell.send(3).unwrap();
        });
        let mut killed = 0;
        for thread in &waiting {
            if one_in(5) {
                thread.thread().kill();
                killed += 1;
            }
        }
        event.set();
        assert!(promise.set(7).is_ok());
        group.wait();
        assert_eq!(told.recv(), Ok(3));
        let mut ended = 0;
        for thread in waiting {
            let outcome = thread.join();
            ended += usize::from(outcome.is_ok());
            assert!(outcome.is_ok() || was_killed(&outcome));
        }
        os_thread.join().unwrap();
        teller.join().unwrap();
        for member in members {
            member.join().unwrap();
        }
        assert_eq!(came.get(), ended + 1);
        assert!(ended + killed >= 15);
    });
}
