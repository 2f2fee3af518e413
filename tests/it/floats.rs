//! Floating-point control (rounding, traps) belongs to the green thread, as it does to a thread.

use std::time::Duration;

use crate::support::{Flag, Mode, in_each_mode, os_thread, own_runtime, runtime};

unsafe extern "C" {
    fn fesetround(mode: i32) -> i32;
    fn fegetround() -> i32;
}

const NEAREST: i32 = 0;
const UPWARD: i32 = if cfg!(target_arch = "x86_64") {
    0x800
} else {
    0x40_0000
};

fn round_upward() {
    // SAFETY: every function here that computes is not inlined and hides its operands, so nothing is
    // computed by the compiler or moved over this call.
    assert_eq!(unsafe { fesetround(UPWARD) }, 0);
}

/// Reads the control word of x87 on x86-64.
fn rounding() -> i32 {
    // SAFETY: reads a register.
    unsafe { fegetround() }
}

/// Reads MXCSR on x86-64.
#[inline(never)]
fn third() -> u64 {
    (std::hint::black_box(1.0_f64) / std::hint::black_box(3.0)).to_bits()
}

const THIRD: u64 = 0x3fd5_5555_5555_5555;

fn check_nearest() {
    assert_eq!((rounding(), third()), (NEAREST, THIRD));
}

fn check_upward() {
    assert_eq!((rounding(), third()), (UPWARD, THIRD + 1));
}

#[test]
fn rounding_is_kept_over_waits_and_does_not_reach_neighbours() {
    in_each_mode(|| {
        let stop = Flag::default();
        let neighbour = |upward: bool| {
            let stop = stop.clone();
            weald::spawn(move || {
                if upward {
                    round_upward();
                }
                while !stop.is_set() {
                    if upward {
                        check_upward();
                    } else {
                        check_nearest();
                    }
                    weald::yield_now();
                }
            })
        };
        let neighbours: Vec<_> = (0..8).map(|n| neighbour(n % 2 == 0)).collect();
        let upward = weald::spawn(|| {
            round_upward();
            for _ in 0..100 {
                weald::yield_now();
                check_upward();
            }
            weald::sleep(Duration::from_millis(1));
            check_upward();
            weald::blocking(check_upward);
            check_upward();
        });
        upward.join().unwrap();
        check_nearest();
        stop.set();
        for neighbour in neighbours {
            neighbour.join().unwrap();
        }
        check_nearest();
    });
}

#[test]
fn rounding_goes_along_to_another_os_thread() {
    // Pinned threads stay on their OS thread.
    let runtimes = [own_runtime(1), Some(runtime(1, Mode::Shared))];
    for rt in runtimes.into_iter().flatten() {
        for upward in [true, false] {
            let moves = move || {
                if upward {
                    round_upward();
                }
                let first = os_thread();
                while os_thread() == first {
                    let go = Flag::default();
                    let sets = go.clone();
                    // The worker goes to another carrier for this thread, and this thread continues there.
                    let other = weald::spawn(move || {
                        check_nearest_unless(upward);
                        sets.set();
                    });
                    weald::blocking(|| {
                        while !go.is_set() {
                            std::thread::yield_now();
                        }
                    });
                    check_nearest_unless(upward);
                    other.join().unwrap();
                }
                check_nearest_unless(upward);
            };
            rt.spawn(moves).join().unwrap();
            rt.run(check_nearest);
        }
    }
}

fn check_nearest_unless(upward: bool) {
    if upward {
        check_upward();
    } else {
        check_nearest();
    }
}

#[test]
fn rounding_ends_with_its_green_thread() {
    in_each_mode(|| {
        for _ in 0..20 {
            weald::spawn(round_upward).join().unwrap();
            weald::spawn(check_nearest).join().unwrap();
            let killed = weald::spawn(|| {
                round_upward();
                weald::park();
            });
            weald::yield_now();
            killed.thread().kill();
            assert!(killed.join().is_err());
            weald::spawn(check_nearest).join().unwrap();
        }
        check_nearest();
    });
}

#[test]
fn a_green_thread_begins_with_the_rounding_of_who_asked_for_it() {
    in_each_mode(|| {
        let asks = weald::spawn(|| {
            round_upward();
            let spawned = weald::spawn(check_upward);
            weald::scope(|scope| scope.spawn(check_upward).join().unwrap());
            let (tell, told) = std::sync::mpsc::channel();
            weald::call_after(Duration::from_millis(1), move || {
                tell.send((rounding(), third())).unwrap();
            });
            spawned.join().unwrap();
            let told = loop {
                match told.try_recv() {
                    Ok(told) => break told,
                    Err(_) => weald::sleep(Duration::from_millis(1)),
                }
            };
            assert_eq!(told, (UPWARD, THIRD + 1));
        });
        asks.join().unwrap();
        weald::spawn(check_nearest).join().unwrap();
    });
}

#[test]
fn a_green_thread_that_an_os_thread_asks_for_begins_with_its_rounding() {
    crate::support::each_mode(|rt| {
        let asks = std::thread::scope(|scope| {
            let asks = scope.spawn(|| {
                round_upward();
                rt.run(check_upward);
                rt.spawn(check_upward).join().unwrap();
                check_upward();
            });
            asks.join()
        });
        asks.unwrap();
        rt.run(check_nearest);
    });
}
