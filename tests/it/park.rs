//! `park` and `unpark`: one token, never lost, never spent by another wait, and no spurious wake-ups.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use weald::GreenThread;

use crate::support::{
    Count, Flag, LIMIT, MODES, MS, each_mode, everywhere, green_pair, in_each_mode, runtime,
    settle, v4, wait_until, with_deadline,
};

#[test]
fn unpark_before_park_returns_at_once() {
    everywhere(|| {
        weald::current().unpark();
        weald::park();
    });
}

#[test]
fn unpark_ends_a_park_that_waits() {
    everywhere(|| {
        let about_to_park = Flag::default();
        let tells = about_to_park.clone();
        let handle = weald::spawn(move || {
            tells.set();
            weald::park();
        });
        about_to_park.wait();
        settle();
        assert!(!handle.is_finished());
        handle.thread().unpark();
        handle.join().unwrap();
    });
}

#[test]
fn two_tokens_are_one() {
    everywhere(|| {
        weald::current().unpark();
        weald::current().unpark();
        weald::park();
        let start = Instant::now();
        weald::park_timeout(30 * MS);
        assert!(start.elapsed() >= 30 * MS, "the second token was kept");
    });
}

#[test]
fn park_timeout_ends_after_its_time_and_not_before() {
    everywhere(|| {
        for micros in [1, 300, 999, 1000, 1500, 20_000] {
            let time = Duration::from_micros(micros);
            let start = Instant::now();
            weald::park_timeout(time);
            let took = start.elapsed();
            assert!(took >= time, "{time:?} took {took:?}");
        }
        weald::park_timeout(Duration::ZERO);
    });
}

#[test]
fn park_timeout_with_the_longest_time_waits_for_unpark() {
    everywhere(|| {
        let me = weald::current();
        let unparked = Flag::default();
        let tells = unparked.clone();
        weald::call_after(20 * MS, move || {
            tells.set();
            me.unpark();
        });
        weald::park_timeout(Duration::MAX);
        assert!(unparked.is_set());
    });
}

#[test]
fn the_timer_of_an_earlier_park_never_ends_a_later_one() {
    everywhere(|| {
        for _ in 0..20 {
            weald::current().unpark();
            weald::park_timeout(MS);
            let start = Instant::now();
            weald::park_timeout(10 * MS);
            assert!(
                start.elapsed() >= 10 * MS,
                "ended after {:?}",
                start.elapsed()
            );
        }
    });
}

#[test]
fn no_other_wait_sets_or_spends_the_token() {
    in_each_mode(|| {
        let me = weald::current();
        let (mut near, far) = green_pair(v4());
        let waits: [(&str, &mut dyn FnMut()); 8] = [
            ("sleep", &mut || weald::sleep(2 * MS)),
            ("yield_now", &mut weald::yield_now),
            ("checkpoint", &mut weald::checkpoint),
            ("join", &mut || {
                weald::spawn(|| weald::sleep(MS)).join().unwrap();
            }),
            ("blocking", &mut || {
                weald::blocking(|| std::thread::sleep(MS));
            }),
            ("scope", &mut || {
                weald::scope(|s| drop(s.spawn(|| weald::sleep(MS))));
            }),
            ("timeout", &mut || {
                assert!(weald::timeout(2 * MS, || weald::sleep(10 * MS)).is_err());
            }),
            ("a socket", &mut || {
                use std::io::{Read as _, Write as _};
                weald::scope(|s| {
                    s.spawn(|| {
                        weald::sleep(MS);
                        (&far).write_all(b"x").unwrap();
                    });
                    near.read_exact(&mut [0]).unwrap();
                });
            }),
        ];
        for (name, wait) in waits {
            wait();
            let start = Instant::now();
            weald::park_timeout(5 * MS);
            assert!(start.elapsed() >= 5 * MS, "{name} left a token behind");
            me.unpark();
            wait();
            let start = Instant::now();
            weald::park_timeout(10_000 * MS);
            assert!(start.elapsed() < 5_000 * MS, "{name} spent the token");
        }
    });
}

#[test]
fn unpark_does_not_cut_a_sleep_short() {
    everywhere(|| {
        let me = weald::current();
        weald::call_after(5 * MS, move || me.unpark());
        let start = Instant::now();
        weald::sleep(50 * MS);
        assert!(start.elapsed() >= 50 * MS);
        weald::park();
    });
}

#[test]
fn park_never_returns_without_an_unpark() {
    in_each_mode(|| {
        // The two alternate strictly: if a park returned without an unpark, it would not be its turn yet.
        const ROUNDS: usize = 20_000;
        let turn = Arc::new(AtomicUsize::new(0));
        let seats: Arc<[OnceLock<GreenThread>; 2]> = Arc::default();
        let player = |me: usize| {
            let (turn, seats) = (Arc::clone(&turn), Arc::clone(&seats));
            weald::spawn(move || {
                seats[me].set(weald::current()).unwrap();
                wait_until(|| seats[1 - me].get().is_some());
                let partner = seats[1 - me].get().unwrap();
                for round in 0..ROUNDS {
                    if round > 0 || me == 1 {
                        weald::park();
                    }
                    assert_eq!(turn.fetch_add(1, SeqCst), 2 * round + me);
                    partner.unpark();
                }
            })
        };
        let (first, second) = (player(0), player(1));
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(turn.load(SeqCst), 2 * ROUNDS);
    });
}

#[test]
fn a_yielding_crowd_never_unparks_a_parked_one() {
    in_each_mode(|| {
        let (awake, stop) = (Flag::default(), Flag::default());
        let tells = awake.clone();
        let parked = weald::spawn(move || {
            weald::park();
            tells.set();
        });
        let crowd: Vec<_> = (0..50)
            .map(|_| {
                let stop = stop.clone();
                weald::spawn(move || {
                    while !stop.is_set() {
                        weald::yield_now();
                        weald::park_timeout(Duration::from_micros(50));
                    }
                })
            })
            .collect();
        weald::sleep(50 * MS);
        assert!(!awake.is_set());
        stop.set();
        for h in crowd {
            h.join().unwrap();
        }
        parked.thread().unpark();
        parked.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_however_many_unpark() {
    each_mode(|rt| {
        // The counter goes up before each unpark. A thread that parks only while there is nothing new loses nothing.
        const EACH: usize = 5000;
        let posted = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&posted);
        let taker = rt.spawn(move || {
            while seen.load(SeqCst) < 4 * EACH {
                weald::park();
            }
        });
        let green: Vec<_> = (0..2)
            .map(|_| {
                let (posted, taker) = (Arc::clone(&posted), taker.thread().clone());
                rt.spawn(move || {
                    for i in 0..EACH {
                        posted.fetch_add(1, SeqCst);
                        taker.unpark();
                        if i % 7 == 0 {
                            weald::yield_now();
                        }
                    }
                })
            })
            .collect();
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..EACH {
                        posted.fetch_add(1, SeqCst);
                        taker.thread().unpark();
                    }
                });
            }
        });
        for h in green {
            h.join().unwrap();
        }
        taker.join().unwrap();
    });
}

#[test]
fn an_unpark_that_races_the_limit_is_a_token_or_a_wake_up_and_never_neither() {
    in_each_mode(|| {
        let rounds = Count::default();
        for round in 0..2000_u64 {
            let me = weald::current();
            let racer = weald::spawn(move || {
                for _ in 0..round % 5 {
                    weald::yield_now();
                }
                me.unpark();
            });
            weald::park_timeout(Duration::from_micros(round % 60));
            racer.join().unwrap();
            // The unpark has come: it ended the park, or it is the token now. A second one tells which, and does no
            // harm.
            weald::current().unpark();
            weald::park();
            rounds.add();
        }
        assert_eq!(rounds.get(), 2000);
    });
}

#[test]
fn unparking_one_that_has_ended_does_nothing() {
    everywhere(|| {
        let handle = weald::spawn(|| ());
        let thread = handle.thread().clone();
        handle.join().unwrap();
        thread.unpark();
        weald::spawn(|| weald::park_timeout(MS)).join().unwrap();
        thread.unpark();
    });
}

#[test]
fn a_token_given_before_the_start_is_there_at_the_first_park() {
    in_each_mode(|| {
        for _ in 0..200 {
            let handle = weald::spawn(weald::park);
            handle.thread().unpark();
            handle.join().unwrap();
        }
    });
}

#[test]
fn unpark_works_from_another_runtime() {
    for mode in MODES {
        with_deadline(LIMIT, || {
            let (here, there) = (runtime(1, mode), runtime(1, mode));
            for _ in 0..300 {
                let parked = here.spawn(weald::park);
                let thread = parked.thread().clone();
                there.run(|| thread.unpark());
                parked.join().unwrap();
            }
        });
    }
}
