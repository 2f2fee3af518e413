//! Models of `scheduler/src/parts/idle.rs`: a pusher against a worker that goes to sleep.
//!
//! The workers here do what `Carrier::idle` does, over a count of tasks in place of the queues.
//!
//! Invariant 1: work that was pushed is taken: either its pusher wakes a sleeper or the sleeper sees
//! it before it sleeps. A lost wake-up is a deadlock here, as a worker that has a task is gone.
//! Invariant 2: a worker's bit is cleared once for each time it is set, by a waker or by itself.
//! Invariant 3: no worker stays counted as searching: that would suppress all later wake-ups.
//! Invariant 4: the last searcher that finds work wakes the next one.
//! Invariant 5: a worker that passes over workers that sleep misses no work.
//! Invariant 6: a worker that was none of the retired meanwhile takes its retirement for another one.

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[path = "../../scheduler/src/parts/idle.rs"]
#[allow(dead_code, reason = "the hints have no model")]
mod idle;
#[cfg_attr(loom, path = "../../scheduler/src/shim/loom.rs")]
#[cfg_attr(not(loom), path = "../../scheduler/src/shim/std.rs")]
#[allow(
    dead_code,
    unused_imports,
    reason = "only the atomics and locks are used"
)]
mod shim;

#[cfg(not(loom))]
use weald_loom_tests::bypass;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Flag, Model, check, thread, witness};

use self::idle::Idle;
use self::shim::atomic::{AtomicUsize, Ordering};

struct Pool {
    idle: Idle,
    /// Tasks that nobody has taken; relaxed, as the looks at the real queues may be.
    tasks: AtomicUsize,
    wake_ups: [Flag; 2],
}

impl Pool {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            idle: Idle::new(2),
            tasks: AtomicUsize::new(0),
            wake_ups: [Flag::new(), Flag::new()],
        })
    }

    fn notify(&self) {
        if let Some(worker) = self.idle.notify() {
            witness!("woke one");
            self.wake_ups[worker].set();
        }
    }

    fn push(&self) {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        self.notify();
    }

    fn take(&self) -> bool {
        self.tasks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tasks| {
                tasks.checked_sub(1)
            })
            .is_ok()
    }

    /// A worker until it has taken so many tasks.
    fn work(&self, worker: usize, tasks: usize) {
        let mut left = tasks;
        while left > 0 {
            let searching = self.idle.start_search();
            if searching && self.take() {
                left -= 1;
                if self.idle.found() {
                    self.notify();
                }
                continue;
            }
            self.idle.sleep(worker, searching);
            let in_sight = self.tasks.load(Ordering::Relaxed) > 0;
            let searches = if in_sight {
                witness!("stayed");
                self.idle.stay(worker);
                true
            } else {
                witness!("slept");
                self.wake_ups[worker].wait();
                self.idle.wake(worker)
            };
            let found = self.take();
            if found {
                left -= 1;
            } else {
                thread::yield_now();
            }
            if searches && self.idle.found() && found {
                self.notify();
            }
        }
    }

    fn check_nobody_searches(&self) {
        assert!(self.idle.start_search(), "somebody is left counted");
        assert!(!self.idle.somebody_sleeps(), "a bit is left");
    }
}

#[test]
fn a_push_meets_a_worker_that_goes_to_sleep() {
    let witnesses = &["slept", "stayed", "woke one"];
    check(
        Model::new("a_push_meets_a_worker_that_goes_to_sleep", 15, witnesses),
        || {
            let pool = Pool::new();
            let worker = thread::spawn({
                let pool = Arc::clone(&pool);
                move || pool.work(0, 1)
            });
            pool.push();
            worker.join().unwrap();
            pool.check_nobody_searches();
        },
    );
}

#[test]
fn two_pushers_meet_one_sleeper() {
    let witnesses = &["slept", "stayed", "woke one"];
    // At 2 the fault `idle_no_recheck_after_claim` is out of reach.
    let model = Model::new("two_pushers_meet_one_sleeper", 6000, witnesses).bounded(3);
    check(model, || {
        let pool = Pool::new();
        let worker = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.work(0, 2)
        });
        let pusher = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.push()
        });
        pool.push();
        pusher.join().unwrap();
        worker.join().unwrap();
        pool.check_nobody_searches();
    });
}

#[test]
fn the_last_searcher_wakes_the_next() {
    let witnesses = &["slept", "woke one"];
    check(
        Model::new("the_last_searcher_wakes_the_next", 5000, witnesses),
        || {
            let pool = Pool::new();
            let workers = [0, 1].map(|worker| {
                let pool = Arc::clone(&pool);
                // A worker that has a task is busy for good: the other one must come for the second task.
                thread::spawn(move || pool.work(worker, 1))
            });
            pool.push();
            pool.push();
            for worker in workers {
                worker.join().unwrap();
            }
        },
    );
}

/// A worker that retires may be the one on which a pusher has counted.
#[test]
fn a_worker_that_retires_leaves_no_work_unseen() {
    let witnesses = &["found it first", "woke one"];
    check(
        Model::new(
            "a_worker_that_retires_leaves_no_work_unseen",
            1000,
            witnesses,
        ),
        || {
            let pool = Pool::new();
            let stays = Arc::clone(&pool);
            let stays = thread::spawn(move || stays.work(0, 1));
            let retires = Arc::clone(&pool);
            let retires = thread::spawn(move || {
                let searches = retires.idle.start_search();
                let took = searches && retires.take();
                if searches && retires.idle.found() && took {
                    retires.notify();
                }
                if took {
                    witness!("found it first");
                    retires.push();
                }
                if let Some(worker) = retires.idle.retire() {
                    retires.wake_ups[worker].set();
                }
            });
            pool.push();
            stays.join().unwrap();
            retires.join().unwrap();
            pool.check_nobody_searches();
        },
    );
}

/// Fewer workers, more, fewer again, while the last one looks now and then.
#[test]
fn a_second_retirement_is_not_taken_for_the_first() {
    let witnesses = &["came back", "knows the second"];
    check(
        Model::new(
            "a_second_retirement_is_not_taken_for_the_first",
            10,
            witnesses,
        ),
        || {
            let pool = Pool::new();
            let changes = Arc::clone(&pool);
            let changes = thread::spawn(move || {
                for workers in [1, 2, 1] {
                    changes.idle.set_workers(workers);
                }
            });
            let noticed = pool.idle.retirement(1);
            let came_back = !pool.idle.is_retired(1);
            changes.join().unwrap();
            let retirement = pool.idle.retirement(1);
            assert!(retirement.is_some(), "it has retired");
            witness!("came back", noticed.is_some() && came_back);
            witness!("knows the second", noticed == retirement);
            assert!(
                !(came_back && noticed == retirement),
                "what it did in between stays"
            );
        },
    );
}

#[test]
fn a_worker_that_goes_to_sleep_passes_over_those_that_sleep_only() {
    let witnesses = &["seen", "slept"];
    let name = "a_worker_that_goes_to_sleep_passes_over_those_that_sleep_only";
    check(Model::new(name, 15, witnesses), || {
        let pool = Pool::new();
        // Worker 0 sleeps; an event wakes it.
        pool.idle.sleep(0, false);
        let other = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                pool.idle.sleep(1, false);
                // All tasks are in the queue of worker 0.
                let has_some = |worker| {
                    let tasks = pool.tasks.load(Ordering::Relaxed);
                    (worker == 0 && tasks > 0).then_some(())
                };
                let in_sight = pool.idle.find_awake(0, has_some).is_some();
                if in_sight {
                    witness!("seen");
                    pool.idle.stay(1);
                } else {
                    witness!("slept");
                    pool.wake_ups[1].wait();
                    pool.idle.wake(1);
                }
                assert!(pool.take(), "the task of worker 0");
            }
        });
        if fault!("idle_tells_before_it_is_awake") {
            pool.push();
            pool.idle.wake(0);
        } else {
            pool.idle.wake(0);
            pool.push();
        }
        other.join().unwrap();
    });
}

#[test]
fn a_bit_is_claimed_once() {
    let witnesses = &["claimed", "left by itself"];
    check(Model::new("a_bit_is_claimed_once", 170, witnesses), || {
        let idle = Arc::new(Idle::new(2));
        let wakers = [0, 1].map(|_| {
            let idle = Arc::clone(&idle);
            thread::spawn(move || idle.notify().is_some())
        });
        idle.sleep(0, false);
        let claimed = idle.wake(0);
        let woken = wakers.map(|waker| waker.join().unwrap());
        witness!("claimed", claimed);
        witness!("left by itself", !claimed);
        let claims = woken.iter().filter(|&&woken| woken).count();
        assert_eq!(claims, usize::from(claimed), "who cleared the bit?");
        if claimed {
            assert!(idle.found(), "a claimed worker counts as searching");
        }
        assert!(idle.start_search(), "somebody is left counted");
    });
}
