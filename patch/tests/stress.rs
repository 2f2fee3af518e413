//! Hooked calls and migration together: many threads on several workers use all that std has, and everything is
//! counted.
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use weald::Runtime;

const THREADS: u64 = 64;
const ROUNDS: u64 = 100;

thread_local! {
    static MINE: Cell<u64> = const { Cell::new(0) };
}

#[derive(Default)]
struct Shared {
    sum: Mutex<u64>,
    turn: Mutex<u64>,
    turned: Condvar,
    echoed: AtomicU64,
    spawned: AtomicU64,
    rounds: AtomicU64,
}

fn worker(number: u64, shared: &Shared, results: &mpsc::Sender<u64>) {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let echo = thread::spawn(move || {
        let mut byte = [0];
        let mut count = 0;
        while far.read(&mut byte).unwrap() == 1 {
            far.write_all(&byte).unwrap();
            count += 1;
        }
        count
    });
    assert!(weald::is_green());
    let identity = thread::current().id();
    for round in 0..ROUNDS {
        MINE.set(number * ROUNDS + round);
        match (number + round) % 5 {
            0 => {
                let mut sum = shared.sum.lock().unwrap();
                let before = *sum;
                if round % 16 == 0 {
                    thread::sleep(Duration::from_micros(50));
                }
                *sum = before + 1;
            }
            1 => {
                near.write_all(&[1]).unwrap();
                near.read_exact(&mut [0]).unwrap();
                shared.echoed.fetch_add(1, Ordering::Relaxed);
            }
            2 => {
                let mut turn = shared.turn.lock().unwrap();
                *turn += 1;
                shared.turned.notify_all();
                let short = Duration::from_micros(200);
                drop(shared.turned.wait_timeout(turn, short).unwrap());
            }
            3 => {
                let child = thread::spawn(move || {
                    thread::yield_now();
                    assert!(weald::is_green());
                    MINE.get() + round
                });
                assert_eq!(child.join().unwrap(), round);
                shared.spawned.fetch_add(1, Ordering::Relaxed);
            }
            _ => results.send(1).unwrap(),
        }
        // errno belongs to the thread too.
        let error = std::fs::File::open("/nonexistent").unwrap_err();
        weald::yield_now();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(MINE.get(), number * ROUNDS + round);
        assert_eq!(thread::current().id(), identity);
        shared.rounds.fetch_add(1, Ordering::Relaxed);
    }
    drop(near);
    let echoed: u64 = echo.join().unwrap();
    shared.sum.lock().map(|sum| assert!(*sum > 0)).unwrap();
    assert_eq!(
        echoed,
        (0..ROUNDS)
            .filter(|round| (number + round) % 5 == 1)
            .count() as u64
    );
}

#[test]
fn nothing_is_lost_and_every_thread_stays_itself() {
    weald_patch::all().unwrap();
    let rt = Runtime::builder().workers(4).build().unwrap();
    let shared = Arc::new(Shared::default());
    let total = rt.run(|| {
        let (results, sums) = mpsc::channel();
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (shared, results) = (Arc::clone(&shared), results.clone());
                thread::spawn(move || worker(number, &shared, &results))
            })
            .collect();
        drop(results);
        let total: u64 = sums.iter().sum();
        for thread in threads {
            thread.join().unwrap();
        }
        total
    });
    let each = THREADS * ROUNDS / 5;
    assert_eq!(total, each);
    assert_eq!(*shared.sum.lock().unwrap(), each);
    assert_eq!(*shared.turn.lock().unwrap(), each);
    assert_eq!(shared.echoed.load(Ordering::Relaxed), each);
    assert_eq!(shared.spawned.load(Ordering::Relaxed), each);
    assert_eq!(shared.rounds.load(Ordering::Relaxed), THREADS * ROUNDS);
    assert!(rt.metrics().steals > 0, "nobody has moved");
}
