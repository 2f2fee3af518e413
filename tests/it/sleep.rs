//! `sleep` and `sleep_until`: never early, in the order of the deadlines, and no worker is held.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{
    Count, Flag, MS, each_mode_on, everywhere, in_each_mode, settle, spin, wait_until, was_killed,
};

#[test]
fn sleep_is_never_early() {
    everywhere(|| {
        for micros in [1, 10, 100, 250, 999, 1000, 1001, 3999, 4000, 4001, 25_000] {
            let time = Duration::from_micros(micros);
            let start = Instant::now();
            weald::sleep(time);
            assert!(
                start.elapsed() >= time,
                "{time:?} took {:?}",
                start.elapsed()
            );
        }
    });
}

#[test]
fn a_thousand_sleeps_of_mixed_lengths_are_never_early() {
    in_each_mode(|| {
        let sleeper = |i: u64| {
            weald::spawn(move || {
                let time = Duration::from_micros(i * 7919 % 60_000);
                let start = Instant::now();
                weald::sleep(time);
                assert!(start.elapsed() >= time);
            })
        };
        let handles: Vec<_> = (0..1000).map(sleeper).collect();
        for h in handles {
            h.join().unwrap();
        }
    });
}

#[test]
fn sleep_until_wakes_at_the_instant_and_not_before() {
    everywhere(|| {
        let deadline = Instant::now() + 20 * MS;
        weald::sleep_until(deadline);
        assert!(Instant::now() >= deadline);
    });
}

#[test]
fn sleep_until_the_past_and_sleep_of_nothing_return() {
    everywhere(|| {
        let past = Instant::now();
        spin(MS);
        for _ in 0..1000 {
            weald::sleep_until(past);
            weald::sleep(Duration::ZERO);
        }
    });
}

#[test]
fn sleepers_hold_no_worker() {
    each_mode_on(1, |rt| {
        // One after another they would take 100 seconds.
        let start = Instant::now();
        let handles: Vec<_> = (0..1000)
            .map(|_| rt.spawn(|| weald::sleep(100 * MS)))
            .collect();
        for h in handles {
            h.join().unwrap();
        }
        assert!(start.elapsed() >= 100 * MS);
        assert!(start.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let order = Arc::new(Mutex::new(Vec::new()));
            let start = Instant::now();
            let sleeper = |i: u32| {
                let order = Arc::clone(&order);
                weald::spawn(move || {
                    weald::sleep_until(start + i * 20 * MS);
                    order.lock().unwrap().push(i);
                })
            };
            let handles: Vec<_> = [5, 1, 4, 2, 3].map(sleeper).into_iter().collect();
            for h in handles {
                h.join().unwrap();
            }
            assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4, 5]);
        });
    });
}

#[test]
fn the_longest_sleep_lasts_until_it_is_interrupted() {
    in_each_mode(|| {
        let woke = Flag::default();
        let tells = woke.clone();
        let forever = weald::spawn(move || {
            weald::sleep(Duration::MAX);
            tells.set();
        });
        settle();
        assert!(!forever.is_finished());
        forever.thread().kill();
        assert!(was_killed(&forever.join()));
        assert!(!woke.is_set());
    });
}

#[test]
fn long_and_short_sleeps_live_side_by_side() {
    // Deadlines far apart lie on different levels of the wheel; the far ones must not delay the near, nor fire with them.
    in_each_mode(|| {
        let woken = Count::default();
        let far: Vec<_> = [1, 60, 3600, 86_400, 86_400 * 400]
            .map(|secs| {
                let woken = woken.clone();
                weald::spawn(move || {
                    weald::sleep(Duration::from_secs(30 * secs));
                    woken.add();
                })
            })
            .into_iter()
            .collect();
        for _ in 0..50 {
            let start = Instant::now();
            weald::sleep(MS);
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        assert_eq!(woken.get(), 0);
        for h in &far {
            h.thread().kill();
        }
        for h in far {
            assert!(was_killed(&h.join()));
        }
    });
}

#[test]
fn sleeping_threads_are_woken_while_their_worker_is_otherwise_idle_and_while_it_is_busy() {
    each_mode_on(1, |rt| {
        rt.run(|| weald::sleep(5 * MS));
        let stop = Flag::default();
        let until = stop.clone();
        let busy = rt.spawn(move || {
            while !until.is_set() {
                weald::yield_now();
            }
        });
        let woken = Count::default();
        let counts = woken.clone();
        let sleeper = rt.spawn(move || {
            for _ in 0..20 {
                weald::sleep(MS);
                counts.add();
            }
        });
        wait_until(|| woken.get() == 20);
        stop.set();
        busy.join().unwrap();
        sleeper.join().unwrap();
    });
}
