//! Permits, flags, promises and groups; `GreenPool` and `block_on`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use weald::sync::{Event, Promise, Semaphore, WaitGroup};
use weald::{GreenPile, GreenPool};

use crate::support::{
    Count, Flag, HOUR, LIMIT, MS, Mark, caught, each_mode, each_mode_on, everywhere, in_each_mode,
    mark_in, settle, spin, wait_until, was_killed, with_deadline,
};

#[test]
fn no_more_permits_are_out_than_there_are_whoever_is_killed() {
    each_mode_on(2, |rt| {
        let permits = Arc::new(Semaphore::new(3));
        let (inside, most) = (Count::default(), Arc::new(std::sync::Mutex::new(0)));
        let threads: Vec<_> = (0..200_u64)
            .map(|n| {
                let (permits, inside, most) = (permits.clone(), inside.clone(), most.clone());
                rt.spawn(move || {
                    if n % 4 == 1 {
                        weald::exc_after(Duration::from_micros(n), Mark(1));
                    }
                    let limit = Duration::from_micros(20 * n);
                    let permit = match n % 4 {
                        3 => permits.acquire_timeout(limit),
                        _ => Some(permits.acquire()),
                    };
                    let Some(_permit) = permit else { return };
                    // `Count::add` gives the number before.
                    let entered = inside.add() + 1;
                    let _left = crate::support::OnDrop(|| inside.sub());
                    let mut most = most.lock().unwrap();
                    *most = entered.max(*most);
                    drop(most);
                    weald::sleep(Duration::from_micros(n % 7));
                })
            })
            .collect();
        for thread in threads.iter().step_by(5) {
            thread.thread().kill();
        }
        for thread in threads {
            let _ = thread.join();
        }
        assert!(*most.lock().unwrap() <= 3);
        assert_eq!(permits.available_permits(), 3);
    });
}

#[test]
fn permits_can_be_added_forgotten_owned_and_closed() {
    everywhere(|| {
        let permits = Arc::new(Semaphore::new(0));
        assert!(permits.try_acquire().is_none());
        assert!(permits.acquire_timeout(MS).is_none());
        let theirs = permits.clone();
        let waiter = weald::spawn(move || theirs.acquire_timeout(HOUR).is_some());
        permits.add_permits(2);
        assert!(waiter.join().unwrap());
        permits.try_acquire().unwrap().forget();
        assert_eq!(permits.available_permits(), 1);
        let owned = permits.clone().try_acquire_owned().unwrap();
        assert!(permits.clone().try_acquire_owned().is_none());
        drop(owned);
        permits.clone().acquire_owned().forget();
        let theirs = permits.clone();
        let waiter = weald::spawn(move || theirs.acquire_timeout(HOUR).is_none());
        permits.close();
        assert!(waiter.join().unwrap());
        assert!(caught(|| permits.acquire()).is_err());
    });
}

#[test]
fn who_waits_for_a_permit_does_not_starve_behind_those_who_try() {
    /// How often others may go first. A waiter is passed over a few times before it is handed a permit.
    const FIRST: usize = 1000;
    const WAITS: usize = 5;
    let try_again_and_again = |permits: Arc<Semaphore>, took: Count, ends: Flag| {
        move || {
            while !ends.is_set() {
                if let Some(_permit) = permits.try_acquire() {
                    took.add();
                    spin(MS);
                }
            }
        }
    };
    let wait = |permits: Arc<Semaphore>, took: Count, ends: Flag| {
        move || {
            let most = (0..WAITS).map(|_| {
                let before = took.get();
                let permit = permits.acquire();
                let passed = took.get() - before;
                drop(permit);
                // It goes on until another thread has it again.
                let now = took.get();
                wait_until(|| took.get() != now);
                passed
            });
            let most = most.max().unwrap();
            ends.set();
            assert!(most < FIRST, "{most} went first");
        }
    };
    let start = || {
        (
            Arc::new(Semaphore::new(1)),
            Count::default(),
            Flag::default(),
        )
    };
    let (permits, took, ends) = start();
    let tries = std::thread::spawn(try_again_and_again(
        permits.clone(),
        took.clone(),
        ends.clone(),
    ));
    with_deadline(LIMIT, wait(permits, took, ends));
    tries.join().unwrap();

    // A green thread that does not give way would keep the OS thread of threads that are pinned to it.
    each_mode(|rt| {
        let (permits, took, ends) = start();
        let tries = try_again_and_again(permits.clone(), took.clone(), ends.clone());
        let tries = std::thread::spawn(tries);
        rt.spawn(wait(permits, took, ends)).join().unwrap();
        tries.join().unwrap();
    });
}

#[test]
fn an_event_lets_all_go_even_if_it_is_reset_at_once() {
    each_mode(|rt| {
        let event = Arc::new(Event::new());
        let waits = Count::default();
        let green: Vec<_> = (0..10)
            .map(|_| {
                let (event, waits) = (event.clone(), waits.clone());
                rt.spawn(move || {
                    waits.add();
                    event.wait();
                })
            })
            .collect();
        wait_until(|| waits.get() == 10);
        // All of them wait when nothing of theirs is left to run.
        wait_until(|| rt.metrics().parked == 10);
        event.set();
        event.reset();
        for t in green {
            t.join().unwrap();
        }
        assert!(!event.is_set());
        assert!(!event.wait_timeout(MS));
        event.set();
        event.wait();
        assert!(event.wait_timeout(HOUR));
    });
}

#[test]
fn a_promise_gives_all_the_same_until_it_is_reset() {
    everywhere(|| {
        let promise = Arc::new(Promise::new());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let promise = promise.clone();
                weald::spawn(move || promise.wait())
            })
            .collect();
        assert!(promise.wait_timeout(MS).is_none());
        assert_eq!(promise.set(1), Ok(()));
        assert_eq!(promise.set(2), Err(2));
        assert!(!promise.fail("too late"));
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().unwrap(), 1);
        }
        promise.reset();
        assert!(!promise.is_ready());
        assert!(promise.fail(Mark(6)));
        let error = promise.wait().unwrap_err();
        assert_eq!(error.downcast_ref::<Mark>(), Some(&Mark(6)));
    });
}

#[test]
fn a_group_is_waited_for_until_the_last_of_it_is_gone() {
    everywhere(|| {
        let (group, done) = (WaitGroup::new(), Count::default());
        for _ in 0..10 {
            let (one, done) = (group.clone(), done.clone());
            weald::spawn(move || {
                weald::sleep(MS);
                done.add();
                drop(one);
            });
        }
        group.wait();
        assert_eq!(done.get(), 10);
    });
}

#[test]
fn a_pool_runs_so_many_at_a_time_and_gives_seats_back_whatever_happens() {
    in_each_mode(|| {
        let pool = GreenPool::new(3);
        let (inside, over) = (Count::default(), Flag::default());
        for n in 0..30 {
            let (inside, over) = (inside.clone(), over.clone());
            let thread = pool.spawn(move || {
                if inside.add() >= 3 {
                    over.set();
                }
                let _left = crate::support::OnDrop(|| inside.sub());
                weald::yield_now();
                assert!(n % 5 != 0, "on purpose");
                weald::park_timeout(Duration::from_micros(100));
            });
            if n % 7 == 0 {
                thread.thread().kill();
            }
        }
        pool.wait_all();
        assert!(!over.is_set());
        assert_eq!((pool.running(), pool.free()), (0, 3));
        assert!(caught(|| GreenPool::new(0)).is_err());
    });
}

#[test]
fn a_thread_of_a_full_pool_may_spawn_into_it() {
    in_each_mode(|| {
        fn tree(pool: &GreenPool, depth: u32) -> u32 {
            if depth == 0 {
                return 1;
            }
            let halves: Vec<_> = (0..2)
                .map(|_| {
                    let own = pool.clone();
                    pool.spawn(move || tree(&own, depth - 1))
                })
                .collect();
            halves.into_iter().map(|h| h.join().unwrap()).sum()
        }
        for size in [1, 3] {
            let pool = GreenPool::new(size);
            let own = pool.clone();
            let sum = pool.spawn(move || tree(&own, 5));
            assert_eq!(sum.join().unwrap(), 32);
            pool.wait_all();
            assert_eq!(pool.free(), size);
        }
    });
}

#[test]
fn a_lender_that_is_killed_leaves_the_new_thread_running_and_the_seat_comes_back() {
    in_each_mode(|| {
        let pool = GreenPool::new(1);
        let (started, go, done) = (Flag::default(), Flag::default(), Flag::default());
        let lender = {
            let (own, started) = (pool.clone(), started.clone());
            let (go, done) = (go.clone(), done.clone());
            pool.spawn(move || {
                own.spawn(move || {
                    started.set();
                    go.wait();
                    done.set();
                });
            })
        };
        started.wait();
        lender.thread().kill();
        assert!(was_killed(&lender.join()));
        assert_eq!((pool.running(), pool.free()), (1, 0));
        go.set();
        pool.wait_all();
        assert!(done.is_set());
        assert_eq!(pool.free(), 1);
    });
}

#[test]
fn threads_of_a_pool_wait_for_the_others_and_not_for_each_other() {
    in_each_mode(|| {
        let (pool, done) = (GreenPool::new(4), Count::default());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (own, done) = (pool.clone(), done.clone());
                pool.spawn(move || {
                    own.wait_all();
                    done.get()
                })
            })
            .collect();
        for _ in 0..4 {
            let done = done.clone();
            pool.spawn(move || {
                weald::sleep(MS);
                done.add();
            });
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
        pool.wait_all();
        assert_eq!(done.get(), 4);
    });
}

#[test]
fn imap_is_lazy_in_order_and_never_far_ahead() {
    in_each_mode(|| {
        let (pool, asked) = (GreenPool::new(4), Count::default());
        let asks = asked.clone();
        let items = (0..50_u64).inspect(move |_| {
            asks.add();
        });
        let mut results = pool.imap(items, |n| {
            assert!(n != 13, "on purpose");
            weald::sleep(Duration::from_micros(100 * (n % 5)));
            n
        });
        assert_eq!(asked.get(), 0);
        for n in 0..50 {
            let result = results.next().unwrap();
            assert!(asked.get() <= usize::try_from(n).unwrap() + 5, "{n}");
            if n == 13 {
                assert!(result.is_err());
            } else {
                assert_eq!(result.unwrap(), n);
            }
        }
        assert!(results.next().is_none());
        // An exception while it waits for a result loses none.
        let go = Flag::default();
        let until = go.clone();
        let mut one = pool.imap([5], move |n| {
            until.wait();
            n
        });
        weald::exc_after(MS, Mark(2));
        let interrupted = caught(|| one.next().is_some());
        assert_eq!(mark_in(&interrupted), Some(2));
        go.set();
        assert_eq!(one.next().unwrap().unwrap(), 5);
        let mut pile = GreenPile::new(&pool);
        (0..10).for_each(|n| pile.spawn(move || n));
        let sum: i32 = pile.map(Result::unwrap).sum();
        assert_eq!(sum, 45);
    });
}

/// A future that is ready once the flag is set. It gives its waker to the setter.
struct Told {
    flag: Flag,
    waker: Arc<std::sync::Mutex<Option<Waker>>>,
}

impl Future for Told {
    type Output = u32;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
        *self.waker.lock().unwrap() = Some(context.waker().clone());
        if self.flag.is_set() {
            Poll::Ready(9)
        } else {
            Poll::Pending
        }
    }
}

#[test]
fn a_future_runs_where_it_is_and_is_woken_from_anywhere() {
    everywhere(|| {
        for spurious in [false, true] {
            let (flag, waker) = (Flag::default(), Arc::default());
            let future = Told {
                flag: flag.clone(),
                waker: Arc::clone(&waker),
            };
            let waking = move || {
                let wake = || {
                    let waker: Option<Waker> = waker.lock().unwrap().clone();
                    waker.map(Waker::wake)
                };
                wait_until(|| waker.lock().unwrap().is_some());
                if spurious {
                    wake();
                    weald::yield_now();
                }
                flag.set();
                wake();
            };
            let waker = if spurious {
                weald::spawn(waking)
            } else {
                let os = std::thread::spawn(waking);
                weald::spawn(move || os.join().unwrap())
            };
            // A waker does not use up the user's token.
            weald::current().unpark();
            assert_eq!(weald::block_on(future), 9);
            weald::park();
            waker.join().unwrap();
        }
        weald::exc_after(MS, Mark(3));
        let result = caught(|| weald::block_on(std::future::pending::<()>()));
        assert_eq!(mark_in(&result), Some(3));
    });
}

#[test]
fn a_wait_that_an_exception_ends_leaves_the_primitive_as_it_was() {
    in_each_mode(|| {
        let event = Arc::new(Event::new());
        let promise = Arc::new(Promise::<()>::new());
        let group = WaitGroup::new();
        let (e, p, g) = (event.clone(), promise.clone(), group.clone());
        let waiters = [
            weald::spawn(move || e.wait()),
            weald::spawn(move || drop(p.wait())),
            weald::spawn(move || g.wait()),
        ];
        settle();
        for waiter in waiters {
            waiter.thread().throw(Mark(7));
            assert_eq!(mark_in(&waiter.join()), Some(7));
        }
        event.set();
        event.wait();
        promise.set(()).unwrap();
        promise.wait().unwrap();
        group.wait();
    });
}
