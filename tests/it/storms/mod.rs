//! Storms: 10 to 50 green threads on 3 workers do one kind of thing to each other at random, in each mode. When all
//! that was begun has ended, every message, permit, coin and thread is counted.
//!
//! If a storm fails or hangs, its seed is printed. `WEALD_STORM_SEED` makes the same choices again, though not in the
//! same order of the threads. `WEALD_STORM_ROUNDS` is the number of storms of each kind (3).
//!
//! `loom-tests/` tries every order of small programs; `examples/soak.rs` runs a large crowd for long. Storms are
//! between these two.

mod messages;
mod threads;
mod time;

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weald::{JoinHandle, Runtime};

use crate::support::{HOUR, LIMIT, MODES, runtime, wait_until, with_deadline};

/// Marsaglia's xorshift.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    /// Returns a generator for another thread.
    fn fork(&mut self) -> Self {
        Self(self.next() | 1)
    }

    fn micros(&mut self, bound: usize) -> Duration {
        Duration::from_micros(self.below(bound) as u64)
    }

    /// Now and then lets the others run, or waits or computes for a moment.
    fn pause(&mut self) {
        match self.below(12) {
            0..4 => weald::yield_now(),
            4 => weald::checkpoint(),
            5 => weald::sleep(self.micros(300)),
            6 => weald::park_timeout(self.micros(200)),
            7 => crate::support::spin(self.micros(50)),
            _ => {}
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|error| panic!("{variable} {value}: {error}")))
}

/// Runs the storm in each mode, with random choices of its own each time.
fn each_storm(storm: fn(&Runtime, &mut Random)) {
    let name = thread::current().name().unwrap_or("a storm").to_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = number("WEALD_STORM_SEED");
    let rounds = number("WEALD_STORM_ROUNDS").unwrap_or(3);
    for round in 0..rounds {
        for mode in MODES {
            let seed = first.unwrap_or(u64::from(now.subsec_nanos())) + round;
            // Panics and the deadline print the thread's name.
            let named = thread::Builder::new();
            let named = named.name(format!("{name}, WEALD_STORM_SEED={seed}, {mode:?}"));
            thread::scope(|s| {
                let outcome = named.spawn_scoped(s, || {
                    with_deadline(LIMIT, || {
                        let rt = runtime(3, mode);
                        storm(
                            &rt,
                            &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
                        );
                        wait_until(|| rt.metrics().live == 0 && rt.metrics().timers == 0);
                        assert!(rt.shutdown(HOUR), "something was left to be killed");
                    });
                });
                assert!(
                    outcome.unwrap().join().is_ok(),
                    "the seed was {seed}, {mode:?}"
                );
            });
        }
    }
}

/// Starts threads that run `body`, each with its number and random choices of its own.
fn crowd<T: Send + 'static>(
    rt: &Runtime,
    random: &mut Random,
    size: usize,
    body: impl Fn(usize, Random) -> T + Clone + Send + 'static,
) -> Vec<JoinHandle<T>> {
    (0..size)
        .map(|number| {
            let (body, random) = (body.clone(), random.fork());
            rt.spawn(move || body(number, random))
        })
        .collect()
}
