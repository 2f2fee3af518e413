//! `weald::sync`'s locks: one thread at a time has the lock, nobody starves, and a thread that leaves early takes
//! nothing with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use weald::sync::{
    Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock, RwLockWriteGuard, TryLockError,
};

use crate::support::{
    Count, Flag, HOUR, MS, Mark, OnDrop, caught, each_mode, each_mode_on, everywhere, in_each_mode,
    mark_in, settle, wait_until, was_killed,
};

#[test]
fn green_and_os_threads_exclude_each_other() {
    each_mode(|rt| {
        let sum = Arc::new(Mutex::new(0_u64));
        let add = |sum: Arc<Mutex<u64>>| {
            move || {
                for _ in 0..500 {
                    let mut sum = sum.lock().unwrap();
                    let seen = *sum;
                    weald::checkpoint();
                    *sum = seen + 1;
                }
            }
        };
        let green: Vec<_> = (0..20).map(|_| rt.spawn(add(sum.clone()))).collect();
        let os: Vec<_> = (0..3)
            .map(|_| std::thread::spawn(add(sum.clone())))
            .collect();
        for t in green {
            t.join().unwrap();
        }
        for t in os {
            t.join().unwrap();
        }
        assert_eq!(*sum.lock().unwrap(), 23 * 500);
    });
}

#[test]
fn a_lock_that_is_held_is_given_up_in_time() {
    everywhere(|| {
        let lock = Mutex::new(7);
        let held = lock.lock().unwrap();
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        let start = Instant::now();
        let is_busy = matches!(lock.try_lock_for(5 * MS), Err(TryLockError::WouldBlock));
        assert!(is_busy);
        assert!(start.elapsed() >= 5 * MS);
        assert!(lock.try_lock_until(Instant::now() + MS).is_err());
        drop(held);
        assert_eq!(*lock.try_lock_for(HOUR).unwrap(), 7);
        assert_eq!(lock.into_inner().unwrap(), 7);
    });
}

#[test]
fn waiters_that_leave_take_no_wake_up_with_them() {
    in_each_mode(|| {
        let lock = Arc::new(Mutex::new(0));
        for round in 0..200_u32 {
            let held = lock.lock().unwrap();
            let waiters: Vec<_> = (0..6)
                .map(|n| {
                    let lock = lock.clone();
                    weald::spawn(move || match n % 3 {
                        0 => *lock.lock().unwrap() += 1,
                        1 => drop(lock.try_lock_for(Duration::from_micros(u64::from(round % 40)))),
                        _ => {
                            weald::exc_after(Duration::from_micros(u64::from(round % 40)), Mark(1));
                            drop(lock.lock());
                            weald::park();
                        }
                    })
                })
                .collect();
            for waiter in waiters.iter().skip(2).step_by(3) {
                weald::yield_now();
                waiter.thread().kill();
            }
            drop(held);
            for (n, waiter) in waiters.into_iter().enumerate() {
                assert_eq!(waiter.join().is_err(), n % 3 == 2, "waiter {n}");
            }
        }
        assert_eq!(*lock.lock().unwrap(), 400);
    });
}

#[test]
fn one_who_takes_the_lock_again_and_again_starves_nobody() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let (lock, stop) = (Arc::new(Mutex::new(())), Flag::default());
            let (theirs, until) = (lock.clone(), stop.clone());
            let greedy = weald::spawn(move || {
                let mut guard = theirs.lock().unwrap();
                while !until.is_set() {
                    weald::yield_now();
                    drop(guard);
                    guard = theirs.lock().unwrap();
                }
            });
            weald::yield_now();
            for _ in 0..10 {
                drop(lock.lock().unwrap());
            }
            stop.set();
            greedy.join().unwrap();
        });
    });
}

#[test]
fn a_holder_that_unwinds_poisons_and_another_that_waits_unwinding_does_not() {
    in_each_mode(|| {
        let lock = Arc::new(Mutex::new(1));
        let theirs = lock.clone();
        let panicked = weald::spawn(move || {
            let _guard = theirs.lock().unwrap();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert!(lock.is_poisoned());
        assert_eq!(*lock.lock().unwrap_err().into_inner(), 1);
        assert!(matches!(lock.try_lock(), Err(TryLockError::Poisoned(_))));
        lock.clear_poison();
        drop(lock.lock().unwrap());

        // An exception unwinds as well.
        let theirs = lock.clone();
        let killed = weald::spawn(move || {
            let _guard = theirs.lock().unwrap();
            weald::park();
        });
        settle();
        killed.thread().kill();
        assert!(was_killed(&killed.join()));
        assert!(lock.is_poisoned());
        lock.clear_poison();

        // One waits in the middle of unwinding, while another uses the lock.
        let (unwinds, used) = (Flag::default(), Flag::default());
        let (tells, until) = (unwinds.clone(), used.clone());
        let unwinder = weald::spawn(move || {
            let _late = OnDrop(|| {
                tells.set();
                until.wait();
            });
            panic!("on purpose");
        });
        unwinds.wait();
        drop(lock.lock().unwrap());
        assert!(!lock.is_poisoned());
        used.set();
        assert!(unwinder.join().is_err());
    });
}

#[test]
fn a_condition_wakes_one_or_all() {
    each_mode(|rt| {
        let pair = Arc::new((Mutex::new((0, 0)), Condvar::new()));
        let waiter = |pair: Arc<(Mutex<(u32, u32)>, Condvar)>| {
            move || {
                let mut state = pair.0.lock().unwrap();
                state.0 += 1;
                let mut state = pair.1.wait_while(state, |s| s.1 == 0).unwrap();
                state.1 -= 1;
                state.0 -= 1;
            }
        };
        let green: Vec<_> = (0..5).map(|_| rt.spawn(waiter(pair.clone()))).collect();
        let os = std::thread::spawn(waiter(pair.clone()));
        wait_until(|| pair.0.lock().unwrap().0 == 6);
        pair.0.lock().unwrap().1 = 1;
        pair.1.notify_one();
        wait_until(|| pair.0.lock().unwrap().0 == 5);
        pair.0.lock().unwrap().1 = 5;
        pair.1.notify_all();
        for t in green {
            t.join().unwrap();
        }
        os.join().unwrap();
    });
}

#[test]
fn a_wait_for_a_condition_that_is_interrupted_holds_no_lock_and_poisons_nothing() {
    everywhere(|| {
        let (lock, condition) = (Mutex::new(()), Condvar::new());
        weald::exc_after(2 * MS, Mark(4));
        let result = caught(|| drop(condition.wait(lock.lock().unwrap())));
        assert_eq!(mark_in(&result), Some(4));
        assert!(!lock.is_poisoned());
        drop(lock.try_lock().unwrap());
        let limited = condition.wait_timeout(lock.lock().unwrap(), MS).unwrap();
        assert!(limited.1.timed_out());
        let timed = condition.wait_timeout_while(limited.0, Duration::from_micros(50), |()| true);
        assert!(timed.unwrap().1.timed_out());
        // An exception that is due already is raised at once, and releases the lock too.
        let timer = weald::exc_after(Duration::ZERO, Mark(5));
        let guard = lock.try_lock().unwrap();
        let result = caught(|| drop(condition.wait(guard)));
        assert_eq!(mark_in(&result), Some(5));
        assert!(!timer.cancel());
        assert!(!lock.is_poisoned());
        drop(lock.try_lock().unwrap());
    });
}

#[test]
fn notifications_and_kills_at_the_same_time_lose_neither() {
    each_mode_on(2, |rt| {
        rt.run(|| {
            for round in 0..300_u64 {
                let pair = Arc::new((Mutex::new(0), Condvar::new()));
                let took = Count::default();
                let waiters: Vec<_> = (0..2)
                    .map(|_| {
                        let (pair, took) = (pair.clone(), took.clone());
                        weald::spawn(move || {
                            let state = pair.0.lock().unwrap();
                            let mut state = pair.1.wait_while(state, |n| *n == 0).unwrap();
                            *state -= 1;
                            took.add();
                        })
                    })
                    .collect();
                if round % 2 == 0 {
                    weald::yield_now();
                }
                *pair.0.lock().unwrap() += 1;
                let (first, second) = (&waiters[0], &waiters[1]);
                pair.1.notify_one();
                first.thread().kill();
                // The thread that was not killed in its wait takes it.
                if round % 3 == 0 {
                    second.thread().kill();
                } else {
                    wait_until(|| took.get() == 1);
                    second.thread().kill();
                }
                for waiter in waiters {
                    let _ = waiter.join();
                }
                let left = *pair
                    .0
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                assert_eq!(took.get() + left, 1);
            }
        });
    });
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    each_mode(|rt| {
        let lock = Arc::new(RwLock::new((0_u64, 0_u64)));
        let write = |lock: Arc<RwLock<(u64, u64)>>| {
            move || {
                for _ in 0..200 {
                    let mut pair = lock.write().unwrap();
                    pair.0 += 1;
                    weald::checkpoint();
                    pair.1 += 1;
                }
            }
        };
        let read = |lock: Arc<RwLock<(u64, u64)>>| {
            move || {
                for _ in 0..200 {
                    let pair = lock.read().unwrap();
                    let first = pair.0;
                    weald::checkpoint();
                    assert_eq!((first, first), *pair);
                }
            }
        };
        let mut green = Vec::new();
        for _ in 0..5 {
            green.push(rt.spawn(write(lock.clone())));
            green.push(rt.spawn(read(lock.clone())));
        }
        let os = [
            std::thread::spawn(write(lock.clone())),
            std::thread::spawn(read(lock.clone())),
        ];
        for t in green {
            t.join().unwrap();
        }
        for t in os {
            t.join().unwrap();
        }
        assert_eq!(*lock.read().unwrap(), (1200, 1200));
    });
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_in_that_waited_for_it() {
    in_each_mode(|| {
        let lock = Arc::new(RwLock::new(0));
        let held = lock.read().unwrap();
        let theirs = lock.clone();
        let writer = weald::spawn(move || drop(theirs.write()));
        wait_until(|| lock.try_read().is_err());
        let theirs = lock.clone();
        let reader = weald::spawn(move || *theirs.read().unwrap());
        settle();
        assert!(!reader.is_finished());
        writer.thread().kill();
        assert!(was_killed(&writer.join()));
        assert_eq!(reader.join().unwrap(), 0);
        assert!(lock.try_write_for(MS).is_err());
        assert_eq!(*lock.try_read_for(MS).unwrap(), 0);
        drop(held);
        drop(lock.try_write_until(Instant::now() + HOUR).unwrap());
    });
}

#[test]
fn neither_readers_nor_writers_starve() {
    each_mode(|rt| {
        let (lock, stop) = (Arc::new(RwLock::new(0)), Flag::default());
        let busy: Vec<_> = (0..4)
            .map(|n| {
                let (lock, stop) = (lock.clone(), stop.clone());
                rt.spawn(move || {
                    while !stop.is_set() {
                        if n == 0 {
                            *lock.write().unwrap() += 1;
                        } else {
                            let read = lock.read().unwrap();
                            weald::yield_now();
                            drop(read);
                        }
                    }
                })
            })
            .collect();
        rt.run(|| {
            for _ in 0..20 {
                *lock.write().unwrap() += 1;
                drop(lock.read().unwrap());
            }
        });
        stop.set();
        for t in busy {
            t.join().unwrap();
        }
    });
}

#[test]
fn a_writer_becomes_a_reader_and_waiting_readers_come_in() {
    in_each_mode(|| {
        let lock = Arc::new(RwLock::new(1));
        let mut writer = lock.write().unwrap();
        let theirs = lock.clone();
        let reader = weald::spawn(move || *theirs.read().unwrap());
        settle();
        *writer = 2;
        let read = RwLockWriteGuard::downgrade(writer);
        assert_eq!(reader.join().unwrap(), 2);
        assert!(lock.try_write().is_err());
        assert_eq!(*read, 2);
    });
}

#[test]
fn a_barrier_lets_all_go_at_once_and_one_leads() {
    each_mode(|rt| {
        let barrier = Arc::new(Barrier::new(10));
        let leaders = Count::default();
        let come = |barrier: Arc<Barrier>, leaders: Count| {
            move || {
                for _ in 0..20 {
                    if barrier.wait().is_leader() {
                        leaders.add();
                    }
                }
            }
        };
        let green: Vec<_> = (0..9)
            .map(|_| rt.spawn(come(barrier.clone(), leaders.clone())))
            .collect();
        let os = std::thread::spawn(come(barrier, leaders.clone()));
        for t in green {
            t.join().unwrap();
        }
        os.join().unwrap();
        assert_eq!(leaders.get(), 20);
    });
}

#[test]
fn a_once_runs_one_of_many_and_the_others_wait_for_it() {
    each_mode(|rt| {
        let (once, cell) = (Arc::new(Once::new()), Arc::new(OnceLock::new()));
        let (ran, made) = (Count::default(), Count::default());
        let threads: Vec<_> = (0..10)
            .map(|n| {
                let (once, cell) = (once.clone(), cell.clone());
                let (ran, made) = (ran.clone(), made.clone());
                rt.spawn(move || {
                    once.call_once(|| {
                        weald::sleep(MS);
                        ran.add();
                    });
                    assert_eq!(ran.get(), 1);
                    *cell.get_or_init(|| {
                        weald::sleep(MS);
                        made.add();
                        n
                    })
                })
            })
            .collect();
        let seen: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(seen.iter().all(|n| n == &seen[0]));
        assert_eq!((ran.get(), made.get()), (1, 1));
        assert_eq!(cell.wait(), &seen[0]);
        once.wait();
    });
}

#[test]
fn what_is_made_once_survives_who_fails_to_make_it() {
    everywhere(|| {
        let once = Once::new();
        assert!(caught(|| once.call_once(|| panic!("on purpose"))).is_err());
        assert!(caught(|| once.call_once(|| ())).is_err());
        assert!(caught(|| once.wait()).is_err());
        once.call_once_force(|state| assert!(state.is_poisoned()));
        once.wait_force();
        let cell = OnceLock::new();
        assert!(caught(|| *cell.get_or_init(|| panic!("on purpose"))).is_err());
        assert_eq!(cell.get_or_init(|| 3), &3);
        let mut cell = cell.clone();
        assert_eq!(cell.take(), Some(3));
        assert_eq!((cell.get(), cell.set(4)), (None, Ok(())));
        let mut lazy = LazyLock::new(|| 5);
        assert_eq!(LazyLock::get(&lazy), None);
        *LazyLock::force_mut(&mut lazy) += 1;
        assert_eq!((*lazy, LazyLock::get(&lazy)), (6, Some(&6)));
        let broken = LazyLock::<u8>::new(|| panic!("on purpose"));
        assert!(caught(|| *broken).is_err());
        assert!(caught(|| *broken).is_err());
    });
}

#[test]
fn one_who_waits_for_another_to_make_it_can_be_interrupted() {
    in_each_mode(|| {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let cell = Arc::new(OnceLock::new());
        let (theirs, go) = (cell.clone(), Flag::default());
        let until = go.clone();
        let maker = weald::spawn(move || {
            theirs.get_or_init(|| {
                until.wait();
                MADE.fetch_add(1, SeqCst)
            });
        });
        weald::yield_now();
        let theirs = cell.clone();
        let waiter = weald::spawn(move || {
            theirs.wait();
        });
        settle();
        waiter.thread().throw(Mark(8));
        assert_eq!(mark_in(&waiter.join()), Some(8));
        go.set();
        maker.join().unwrap();
        assert!(cell.get().is_some());
    });
}
