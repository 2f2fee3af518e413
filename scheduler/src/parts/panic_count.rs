//! Takes a green thread's panics from the count of the OS thread that it leaves, and gives them back
//! where it goes on.
//!
//! std counts the panics that unwind on each OS thread; `thread::panicking()` tells whether there are
//! any. A green thread that waits in a destructor while it unwinds would leave its panics on that count,
//! and the threads that run there meanwhile would seem to unwind. Where green threads have thread-locals of their
//! own, the count goes with them. Elsewhere this file moves it, and it uses only what std promises about
//! unwinding: `resume_unwind` counts one more on the OS thread where it is called, and `catch_unwind` one less
//! on the OS thread where it catches. A [`Half`] is a coroutine that unwinds and has stopped in the
//! middle, in a destructor. To begin a half adds one to the count of this OS thread. To finish a half takes one
//! off the count of this OS thread, wherever the half was begun.
//!
//! | step                        | count of the OS thread          | halves                                       |
//! |-----------------------------|---------------------------------|----------------------------------------------|
//! | a thread leaves its stack   | goes down to zero               | for each panic one of the stock is finished  |
//! | it goes on, on any OS thread | goes up by as many as before   | for each panic one is begun, for the stock   |
//!
//! The *keeper* begins the first halves. It is an OS thread that does nothing else, so its count may be anything. It
//! also finishes the halves that are too many. When nobody has needed one for a second, it finishes all of them and
//! ends: while there is a half, `thread::panicking()` costs every thread a few instructions more.
//!
//! Invariant 1: the count of any other OS thread is that of the green thread that runs there.
//! Invariant 2: the count of the keeper is the sum of `away` and of the number of halves in the stock, except
//! for halves that are just being begun or finished. So it never falls below zero.
//!
//! Rejected: a flag that is set where a green thread begins to unwind. The panic hook would be the only
//! place for it; programs replace hooks, and `resume_unwind` calls none.
#![allow(unsafe_code, reason = "runs coroutines")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use crate::parts::coroutine::{Control, Coroutine, Resumed, Suspender};
use crate::parts::last_words;
use crate::parts::stack::{self, Cache, DEFAULT_STACK, Stack};
use crate::shim::bypass::Bypass;
use crate::shim::plain::{Condvar, Mutex, MutexGuard};

/// How many halves the keeper begins at a time: at first, and at most. The number doubles each time that the stock
/// was used up. A half takes some 3 us, and a thread that needs one waits for the whole batch.
const BATCH: usize = 16;
const LARGEST_BATCH: usize = 128;

/// The keeper reduces the stock to this many halves.
const MOST: usize = 4 * LARGEST_BATCH;

/// The keeper ends when nobody has needed it for so long.
const REST: Duration = Duration::from_secs(1);

/// How often a thread that comes back asks for a stack, a millisecond apart, before the process ends.
const ATTEMPTS: u32 = 1000;

/// A coroutine that unwinds and has stopped in the middle.
struct Half(Coroutine<(), ()>);

/// Its destructor stops the unwinding.
struct Stop<'a>(&'a Suspender<(), ()>);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.suspend(());
    }
}

impl Half {
    /// One more panic on this OS thread.
    fn begin(stack: Stack) -> Self {
        let body = |suspender: &Suspender<(), ()>, ()| {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let _stop = Stop(suspender);
                resume_unwind(Box::new(()));
            }));
            debug_assert!(unwound.is_err(), "it has unwound");
        };
        // SAFETY: the body borrows nothing, and what it holds, a payload without a value, may be sent.
        let mut coroutine = unsafe { Coroutine::new(stack, Control::current(), body) };
        let stopped = coroutine.resume(());
        debug_assert_eq!(stopped, Resumed::Suspended(()));
        Self(coroutine)
    }

    /// One less panic on this OS thread. Returns the stack.
    fn finish(mut self) -> Stack {
        let ended = self.0.resume(());
        debug_assert_eq!(ended, Resumed::Finished);
        self.0.into_stack()
    }
}

/// What all OS threads share.
struct Stock {
    halves: Vec<Half>,
    /// How many panics were taken off a count and not given back.
    away: usize,
    /// How many threads wait for the keeper.
    wanted: usize,
    /// How often the keeper has failed to begin a half.
    failures: usize,
    is_kept: bool,
}

static STOCK: Mutex<Stock> = Mutex::new(Stock {
    halves: Vec::new(),
    away: 0,
    wanted: 0,
    failures: 0,
    is_kept: false,
});

/// There is something to do for the keeper.
static FOR_KEEPER: Condvar = Condvar::new();

/// The keeper has done something, or a half was given back.
static FROM_KEEPER: Condvar = Condvar::new();

fn stock() -> MutexGuard<'static, Stock> {
    STOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the caller's panics off this OS thread's count, before the caller leaves its stack. Returns how many
/// there were. `None`: the system is short of memory or OS threads, and the count is as before.
#[cold]
pub(crate) fn take() -> Option<usize> {
    if cfg!(panic = "abort") {
        // The caller is in a panic hook, where nothing can unwind.
        return None;
    }
    let _bypass = Bypass::enter();
    let mut taken = 0;
    while thread::panicking() {
        let Some(half) = take_half() else {
            give_back(taken);
            return None;
        };
        stack::release(half.finish());
        taken += 1;
    }
    Some(taken)
}

/// Puts so many panics on this OS thread's count.
#[cold]
pub(crate) fn give_back(panics: usize) {
    let _bypass = Bypass::enter();
    for _ in 0..panics {
        let half = Half::begin(stack_for_return());
        let mut stock = stock();
        stock.halves.push(half);
        stock.away -= 1;
        if stock.wanted > 0 {
            // This half may be the last that is wanted, and the keeper begins none then.
            FROM_KEEPER.notify_one();
        }
        if stock.halves.len() > MOST {
            FOR_KEEPER.notify_one();
        }
    }
}

/// A stack for a thread that cannot go on without it.
fn stack_for_return() -> Stack {
    for _ in 0..ATTEMPTS {
        if let Ok(stack) = Cache::new().get(DEFAULT_STACK) {
            return stack;
        }
        thread::sleep(Duration::from_millis(1));
    }
    last_words::abort(format_args!(
        "no memory for a green thread that waited while it unwound"
    ))
}

/// A half from the stock. It counts as away.
fn take_half() -> Option<Half> {
    let mut stock = stock();
    let failures = stock.failures;
    loop {
        if let Some(half) = stock.halves.pop() {
            stock.away += 1;
            return Some(half);
        }
        if stock.failures != failures {
            return None;
        }
        if !stock.is_kept {
            let name = String::from("weald-unwinding");
            thread::Builder::new().name(name).spawn(keep).ok()?;
            stock.is_kept = true;
        }
        stock.wanted += 1;
        FOR_KEEPER.notify_one();
        stock = FROM_KEEPER
            .wait(stock)
            .unwrap_or_else(PoisonError::into_inner);
        stock.wanted -= 1;
    }
}

/// The keeper's life.
fn keep() {
    let mut stock = stock();
    let mut batch = BATCH;
    // When the keeper last had something to do.
    let mut since = Instant::now();
    loop {
        if stock.wanted > stock.halves.len() {
            drop(stock);
            let mut cache = Cache::new();
            let one = |_| cache.get(DEFAULT_STACK).map(Half::begin).ok();
            let mut some: Vec<_> = (0..batch).map_while(one).collect();
            stock = self::stock();
            if some.is_empty() {
                stock.failures += 1;
            }
            stock.halves.append(&mut some);
            batch = (2 * batch).min(LARGEST_BATCH);
            FROM_KEEPER.notify_all();
            since = Instant::now();
            continue;
        }
        if stock.halves.len() > MOST {
            let surplus = stock.halves.split_off(MOST / 2);
            drop(stock);
            finish(surplus);
            stock = self::stock();
            since = Instant::now();
            continue;
        }
        let (guard, _) = FOR_KEEPER
            .wait_timeout(stock, REST.saturating_sub(since.elapsed()))
            .unwrap_or_else(PoisonError::into_inner);
        stock = guard;
        if since.elapsed() >= REST && stock.wanted == 0 {
            batch = BATCH;
            since = Instant::now();
            let all = std::mem::take(&mut stock.halves);
            drop(stock);
            finish(all);
            stock = self::stock();
            if stock.away == 0 && stock.wanted == 0 && stock.halves.is_empty() {
                stock.is_kept = false;
                return;
            }
        }
    }
}

fn finish(halves: Vec<Half>) {
    for half in halves {
        stack::release(half.finish());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Calls `f` in a destructor that unwinds.
    fn unwinding(f: impl FnMut()) {
        struct Calls<F: FnMut()>(F);
        impl<F: FnMut()> Drop for Calls<F> {
            fn drop(&mut self) {
                (self.0)();
            }
        }
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _calls = Calls(f);
            resume_unwind(Box::new(()));
        }));
        assert!(unwound.is_err());
    }

    /// The keeper gets no turn meanwhile, as if another thread always had the lock first.
    fn a_half_that_is_given_back_goes_to_a_thread_that_waits_for_the_keeper() {
        {
            let mut stock = stock();
            stock.is_kept = true;
            stock.away += 1;
        }
        let (sender, receiver) = mpsc::channel();
        let waits = thread::spawn(move || {
            unwinding(|| {
                assert_eq!(take(), Some(1));
                sender.send(()).unwrap();
                give_back(1);
            });
        });
        while stock().wanted == 0 {
            thread::yield_now();
        }
        give_back(1);
        receiver.recv_timeout(LONG).expect("the thread goes on");
        waits.join().unwrap();
        assert_eq!(take(), Some(1));
        let mut stock = stock();
        stock.is_kept = false;
        stock.away -= 1;
    }

    #[test]
    fn panics_leave_an_os_thread_and_come_back_and_the_keeper_ends() {
        a_half_that_is_given_back_goes_to_a_thread_that_waits_for_the_keeper();
        for _ in 0..100 {
            unwinding(|| {
                unwinding(|| {
                    assert_eq!(take(), Some(2));
                    assert!(!thread::panicking());
                    unwinding(|| assert!(thread::panicking()));
                    assert!(!thread::panicking());
                    give_back(2);
                });
                assert!(thread::panicking());
            });
            assert!(!thread::panicking());
        }
        // They may also come back on another OS thread.
        unwinding(|| {
            assert_eq!(take(), Some(1));
            let other = thread::spawn(|| {
                assert!(!thread::panicking());
                give_back(1);
                assert!(thread::panicking());
                assert_eq!(take(), Some(1));
                assert!(!thread::panicking());
            });
            other.join().unwrap();
            give_back(1);
            assert!(thread::panicking());
        });
        while stock().is_kept {
            thread::sleep(Duration::from_millis(10));
        }
        let stock = stock();
        assert_eq!((stock.halves.len(), stock.away, stock.wanted), (0, 0, 0));
    }
}
