//! With `ThreadLocals::Own` a green thread may block its OS thread in a lock or a channel of another crate: a spare OS
//! thread runs the others, one of which ends the wait.

use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use weald::Runtime;

use super::own_crates::{CROWD, ROUNDS};
use crate::support::{LIMIT, in_child, own_runtime, with_deadline};

/// Checks that the body works with spare OS threads, and that with a single OS thread some thread waits in vain.
fn check_brought_through(test: &str, body: fn(usize, Duration) -> bool) {
    let test = format!("own_blocked::{test}");
    let crowd = |rt: &Runtime, patience| {
        let threads: Vec<_> = (0..CROWD)
            .map(|number| rt.spawn(move || body(number, patience)))
            .collect();
        let outcomes = threads.into_iter().map(weald::JoinHandle::join);
        outcomes
            .filter(|outcome| !matches!(outcome, Ok(true)))
            .count()
    };
    let child = in_child(&test, &[], || {
        let builder = Runtime::builder().workers(1).spare_threads(1);
        let rt = builder.build().unwrap();
        let alone = crowd(&rt, Duration::from_millis(50));
        println!("anomalies: {alone}");
    });
    assert!(child.success, "{child:?}");
    assert!(!child.stdout.contains("anomalies: 0\n"), "{child:?}");
    for workers in [1, 2] {
        with_deadline(LIMIT, || {
            if let Some(rt) = own_runtime(workers) {
                let wrong = crowd(&rt, Duration::from_secs(LIMIT));
                assert_eq!(wrong, 0, "with {workers} workers");
            }
        });
    }
}

#[test]
fn who_blocks_in_a_lock_of_parking_lot_is_brought_through() {
    static MUTEX: parking_lot::Mutex<u64> = parking_lot::const_mutex(0);
    static RWLOCK: parking_lot::RwLock<u64> = parking_lot::const_rwlock(0);
    static CHANGED: parking_lot::Condvar = parking_lot::Condvar::new();
    check_brought_through(
        "who_blocks_in_a_lock_of_parking_lot_is_brought_through",
        |number, patience| {
            for _ in 0..ROUNDS {
                let Some(mut count) = MUTEX.try_lock_for(patience) else {
                    return false;
                };
                weald::yield_now();
                *count += 1;
                drop(count);
                if number % 2 == 0 {
                    let Some(mut count) = RWLOCK.try_write_for(patience) else {
                        return false;
                    };
                    weald::yield_now();
                    *count += 1;
                } else {
                    let Some(count) = RWLOCK.try_read_for(patience) else {
                        return false;
                    };
                    let before = *count;
                    weald::yield_now();
                    if *count != before {
                        return false;
                    }
                }
            }
            // All threads wait until each of them has come here.
            let mut count = MUTEX.lock();
            *count += 1000;
            CHANGED.notify_all();
            let mut waited = false;
            while !waited && !(*count / 1000).is_multiple_of(CROWD as u64) {
                waited = CHANGED.wait_for(&mut count, patience).timed_out();
            }
            !waited
        },
    );
}

#[test]
fn who_blocks_in_a_channel_of_std_is_brought_through() {
    type Ends = (mpsc::SyncSender<usize>, Option<mpsc::Receiver<usize>>);
    static RING: Mutex<Vec<Ends>> = Mutex::new(Vec::new());
    // The channels form a ring of rendezvous: each thread hands to the next one, so no thread gets on unless all run.
    fn ends(number: usize) -> (mpsc::SyncSender<usize>, mpsc::Receiver<usize>) {
        let mut ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
        while ring.len() < CROWD {
            let (send, receive) = mpsc::sync_channel(0);
            ring.push((send, Some(receive)));
        }
        let receive = ring[number].1.take().unwrap();
        let send = ring[(number + 1) % CROWD].0.clone();
        if ring.iter().all(|(_, receive)| receive.is_none()) {
            ring.clear();
        }
        (send, receive)
    }
    check_brought_through(
        "who_blocks_in_a_channel_of_std_is_brought_through",
        |number, patience| {
            let (send, receive) = ends(number);
            for round in 0..ROUNDS {
                let before = (number + CROWD - 1) % CROWD * 100 + round;
                if number != 0 && receive.recv_timeout(patience) != Ok(before) {
                    return false;
                }
                weald::yield_now();
                if send.send(number * 100 + round).is_err() {
                    return false;
                }
                if number == 0 && receive.recv_timeout(patience) != Ok(before) {
                    return false;
                }
            }
            true
        },
    );
}
