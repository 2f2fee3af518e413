//! What a remote promises: one of cancel and fire wins, and nothing is left behind.
#![cfg(not(loom))]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use weald_timer::{Key, Tick, Wheel};

fn tick(n: u64) -> Tick {
    Tick::from_nanos_floor(n * Tick::NANOS)
}

/// A value that counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn ten_thousand_remote_cancels_leave_nothing_behind() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let deadline = Tick::from_nanos_ceil(60_000_000_000);
    let drops = Arc::new(AtomicUsize::new(0));
    let mut places = HashSet::new();
    let (rounds, timers) = if cfg!(miri) { (2, 50) } else { (10, 1000) };
    for round in 1..=rounds {
        let keys: Vec<Key> = (0..timers)
            .map(|_| wheel.insert(deadline, Counted(Arc::clone(&drops))))
            .collect();
        // The lower half of a key is its place in memory.
        places.extend(keys.iter().map(|key| key.to_bits() & 0xffff_ffff));
        let remote = wheel.remote();
        thread::spawn(move || {
            for key in keys {
                assert!(remote.cancel(key).is_some());
                assert!(remote.cancel(key).is_none());
            }
        })
        .join()
        .expect("no panic");
        assert_eq!(
            drops.load(Ordering::Relaxed),
            round * timers,
            "values go at once"
        );
        assert_eq!(wheel.len(), 0, "and are counted down at once");
    }
    assert_eq!(places.len(), timers, "memory was used again");
    wheel.drain();
    assert_eq!(wheel.next_deadline(), None, "nothing is linked any more");
}

#[test]
fn cancelled_timers_are_drained_by_an_advance_and_by_an_insert() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let remote = wheel.remote();
    let key = wheel.insert(tick(500), 'a');
    assert_eq!(remote.cancel(key), Some('a'));
    assert_eq!(wheel.advance(tick(1), |_| panic!("cancelled")), 0);
    assert_eq!(wheel.next_deadline(), None);

    let key = wheel.insert(tick(500), 'b');
    assert_eq!(remote.cancel(key), Some('b'));
    wheel.insert(tick(1000), 'c');
    assert_eq!(wheel.next_deadline(), Some(tick(1000)));
}

#[test]
fn each_timer_goes_to_one_of_fire_owner_and_two_remotes() {
    const ROUNDS: u64 = match () {
        () if cfg!(miri) => 1,
        () if cfg!(debug_assertions) => 50,
        () => 500,
    };
    const TIMERS: u64 = 200;

    let drops = Arc::new(AtomicUsize::new(0));
    let taken = Arc::new(AtomicUsize::new(0));
    let mut wheel = Wheel::new(Tick::ZERO);
    let start = Arc::new(Barrier::new(3));
    let end = Arc::new(Barrier::new(3));
    let mut senders = Vec::new();
    let mut cancellers = Vec::new();
    for backwards in [false, true] {
        let (sender, keys) = mpsc::channel::<Vec<Key>>();
        senders.push(sender);
        let (start, end, taken, remote) = (
            Arc::clone(&start),
            Arc::clone(&end),
            Arc::clone(&taken),
            wheel.remote(),
        );
        cancellers.push(thread::spawn(move || {
            while let Ok(mut keys) = keys.recv() {
                if backwards {
                    keys.reverse();
                }
                start.wait();
                for key in keys {
                    if remote.cancel(key).is_some() {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
                end.wait();
            }
        }));
    }
    for round in 0..ROUNDS {
        let now = round * 10_000;
        let keys: Vec<Key> = (0..TIMERS)
            .map(|n| wheel.insert(tick(now + 1 + n * 37), Counted(Arc::clone(&drops))))
            .collect();
        for sender in &senders {
            sender.send(keys.clone()).expect("the canceller lives");
        }
        start.wait();
        let mut fired = 0;
        for step in 0..100 {
            fired += wheel.advance(tick(now + step * 100), drop);
            let n = usize::try_from(step * 2).expect("small");
            wheel.reset(keys[n], tick(now + 9000));
            fired += usize::from(wheel.cancel(keys[n + 1]).is_some());
        }
        end.wait();
        fired += wheel.advance(tick(now + 9999), drop);
        taken.fetch_add(fired, Ordering::Relaxed);
        let timers = usize::try_from((round + 1) * TIMERS).expect("small");
        assert_eq!(
            taken.load(Ordering::Relaxed),
            timers,
            "each went to exactly one"
        );
        assert_eq!(drops.load(Ordering::Relaxed), timers);
        assert_eq!(wheel.len(), 0);
        assert_eq!(wheel.next_deadline(), None);
    }
    drop(senders);
    for canceller in cancellers {
        canceller.join().expect("no panic");
    }
}

#[test]
fn a_remote_outlives_its_wheel() {
    let drops = Arc::new(AtomicUsize::new(0));
    for _ in 0..if cfg!(miri) { 2 } else { 100 } {
        drops.store(0, Ordering::Relaxed);
        let mut wheel = Wheel::new(Tick::ZERO);
        let keys: Vec<Key> = (0..100)
            .map(|n| wheel.insert(tick(n), Counted(Arc::clone(&drops))))
            .collect();
        let remote = wheel.remote();
        let canceller = thread::spawn(move || {
            for key in keys {
                drop(remote.cancel(key));
            }
            remote
        });
        drop(wheel);
        let remote = canceller.join().expect("no panic");
        assert_eq!(drops.load(Ordering::Relaxed), 100, "each value once");
        assert_eq!(remote.len(), 0);
    }
}

#[test]
fn forged_keys_are_harmless_while_the_wheel_grows() {
    let mut wheel = Wheel::new(Tick::ZERO);
    let remote = wheel.remote();
    // Two wheels give out the same keys, so those of another are those that are to come.
    let mut other = Wheel::new(Tick::ZERO);
    let timers = if cfg!(miri) { 100 } else { 4000 };
    let forged: Vec<Key> = (0..timers + 1000)
        .map(|_| other.insert(Tick::MAX, ()))
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let guesser = thread::spawn(move || {
        let mut cancelled = 0;
        while !stopped.load(Ordering::Relaxed) {
            for &key in &forged {
                if let Some(value) = remote.cancel(key) {
                    assert_eq!(value, "a value that was seen whole");
                    cancelled += 1;
                }
            }
        }
        cancelled
    });
    let mut fired = 0;
    for n in (0..).take(timers) {
        wheel.insert(
            tick(n % 100 * 10),
            String::from("a value that was seen whole"),
        );
    }
    fired += wheel.advance(tick(2000), drop);
    stop.store(true, Ordering::Relaxed);
    let cancelled = guesser.join().expect("no panic");
    assert_eq!(fired + cancelled, timers);
}
