//! Models of `scheduler/src/parts/state.rs`: which side may resume a green thread.
//!
//! A cell stands for the thread's stack. Each side that runs the thread touches it. So loom reports a race if two run
//! it at once, or if one does not see what the one before has left there.
//!
//! Invariant 1: a wait ends exactly once, and its reason is the one of the waker that ended it.
//! Invariant 2: the winner of a parked thread sees its stack.
//! Invariant 3: a waker of a wait that is over does nothing to the next one.
//! Invariant 4: a token or an exception that came early is not lost.
//! Invariant 5: of the end and the handle, exactly one drops the result; a joiner that announces
//! itself is seen by the end or sees it.
#![allow(unsafe_code, reason = "a stack without a lock is what is checked")]

#[macro_use]
#[path = "../../scheduler/src/shim/for_models.rs"]
mod for_models;
#[cfg_attr(loom, path = "../../scheduler/src/shim/loom.rs")]
#[cfg_attr(not(loom), path = "../../scheduler/src/shim/std.rs")]
#[allow(dead_code, unused_imports, reason = "only the atomics are used")]
mod shim;
#[path = "../../scheduler/src/parts/state.rs"]
#[allow(dead_code, reason = "the hints have no model")]
mod state;

#[cfg(not(loom))]
use weald_loom_tests::bypass;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

use self::shim::cell::UnsafeCell;
use self::state::{State, WaitKind, Wake, Why};

/// A thread that can wait.
struct Waiter {
    state: State,
    stack: UnsafeCell<usize>,
}

// SAFETY: that the stack is touched by one at a time is what the models check.
unsafe impl Sync for Waiter {}
// SAFETY: a number.
unsafe impl Send for Waiter {}

impl Waiter {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: State::new(true),
            stack: UnsafeCell::new(0),
        })
    }

    /// Runs it for a moment.
    fn run(&self) -> usize {
        // SAFETY: what is checked.
        self.stack.with_mut(|stack| unsafe {
            *stack += 1;
            *stack
        })
    }

    /// Runs, then waits. The reason, if the wait was over before it parked.
    fn wait(&self, kind: WaitKind) -> Result<(), Why> {
        self.wait_for(self.state.next_epoch(), kind)
    }

    /// As `wait`; the epoch has been told to wakers.
    fn wait_for(&self, epoch: u32, kind: WaitKind) -> Result<(), Why> {
        self.run();
        let parked = self.state.park(epoch, kind);
        if parked.is_err() {
            self.run();
        }
        parked
    }

    /// Runs it on if the verdict says that it is ours. True: it ended a wait or will keep one from
    /// beginning.
    fn deliver(&self, wake: Wake) -> bool {
        if wake == Wake::Won {
            self.run();
        }
        wake != Wake::Lost
    }
}

const BY_TOKEN: WaitKind = WaitKind {
    by_token: true,
    interruptible: true,
    in_place: false,
};
const PLAIN: WaitKind = WaitKind {
    by_token: false,
    interruptible: true,
    in_place: false,
};

#[test]
fn an_unpark_is_not_lost() {
    let witnesses = &["early", "won"];
    check(Model::new("an_unpark_is_not_lost", 11, witnesses), || {
        let waiter = Waiter::new();
        let waker = thread::spawn({
            let waiter = Arc::clone(&waiter);
            move || {
                let wake = waiter.state.unpark();
                waiter.deliver(wake);
                wake
            }
        });
        let parked = waiter.wait(BY_TOKEN);
        let wake = waker.join().unwrap();
        witness!("early", wake == Wake::Early);
        witness!("won", wake == Wake::Won);
        match (parked, wake) {
            (Ok(()), Wake::Won) => assert_eq!(waiter.state.why(), Why::UNPARKED),
            (Err(Why::UNPARKED), Wake::Early) => {}
            other => panic!("the wait goes on for ever or ended twice: {other:?}"),
        }
        assert!(!waiter.state.take_token(), "the token was used");
    });
}

#[test]
fn a_wait_ends_once() {
    let witnesses = &["the timer won", "the peer won", "early"];
    check(Model::new("a_wait_ends_once", 180, witnesses), || {
        let waiter = Waiter::new();
        let epoch = waiter.state.next_epoch();
        let wakers = [Why::TIMED_OUT, Why::NOTIFIED].map(|why| {
            let waiter = Arc::clone(&waiter);
            thread::spawn(move || {
                let wake = waiter.state.wake(epoch, why);
                waiter.deliver(wake);
                wake
            })
        });
        let parked = waiter.wait_for(epoch, PLAIN);
        let [timer, peer] = wakers.map(|waker| waker.join().unwrap());
        witness!("the timer won", timer != Wake::Lost);
        witness!("the peer won", peer != Wake::Lost);
        witness!("early", parked.is_err());
        assert!(
            (timer == Wake::Lost) != (peer == Wake::Lost),
            "one ends it: {timer:?} {peer:?}"
        );
        let why = if peer == Wake::Lost {
            Why::TIMED_OUT
        } else {
            Why::NOTIFIED
        };
        assert_eq!(waiter.state.why(), why, "the reason is the winner's");
        assert_eq!(parked.err(), parked.err().map(|_| why));
    });
}

/// The replay of JDK-8369227: the timer of a wait that has ended meets the next wait.
#[test]
fn a_stale_timer_leaves_the_next_wait_alone() {
    let witnesses = &["the timer ended the first", "the timer came too late"];
    check(
        Model::new("a_stale_timer_leaves_the_next_wait_alone", 40, witnesses),
        || {
            let waiter = Waiter::new();
            let epoch = waiter.state.next_epoch();
            let timer = thread::spawn({
                let waiter = Arc::clone(&waiter);
                move || {
                    // Nothing is run here: if it wins, the other side goes on for the thread.
                    waiter.state.wake(epoch, Why::TIMED_OUT)
                }
            });
            // The first wait ends by the token, unless the timer is first.
            let wake = waiter.state.unpark();
            assert_eq!(wake, Wake::Early);
            let first = waiter.wait_for(epoch, BY_TOKEN);
            assert!(first.is_err(), "the token was there");
            let second = waiter.wait(PLAIN);
            let timer = timer.join().unwrap();
            let was_first = first == Err(Why::TIMED_OUT);
            witness!("the timer ended the first", was_first);
            witness!("the timer came too late", !was_first);
            assert_eq!(timer != Wake::Lost, was_first, "what did the timer end?");
            assert_eq!(second, Ok(()), "nobody has ended the second wait");
            let epoch = epoch.wrapping_add(1);
            let wake = waiter.state.wake(epoch, Why::NOTIFIED);
            assert_eq!(wake, Wake::Won);
        },
    );
}

#[test]
fn an_exception_ends_a_wait_that_admits_it() {
    let witnesses = &["early", "won"];
    check(
        Model::new("an_exception_ends_a_wait_that_admits_it", 11, witnesses),
        || {
            let waiter = Waiter::new();
            let killer = thread::spawn({
                let waiter = Arc::clone(&waiter);
                move || {
                    let wake = waiter.state.interrupt();
                    waiter.deliver(wake);
                    wake
                }
            });
            let parked = waiter.wait(PLAIN);
            let wake = killer.join().unwrap();
            witness!("early", wake == Wake::Early);
            witness!("won", wake == Wake::Won);
            match (parked, wake) {
                (Ok(()), Wake::Won) | (Err(Why::EXCEPTION), Wake::Early) => {}
                other => panic!("the wait goes on for ever or ended twice: {other:?}"),
            }
            assert!(waiter.state.is_pending(), "it is still to be raised");
            waiter.state.clear_pending();
            assert!(!waiter.state.is_pending());
        },
    );
}

#[test]
fn an_exception_and_a_wake_up_end_a_wait_once() {
    let witnesses = &["the exception won", "the peer won"];
    check(
        Model::new("an_exception_and_a_wake_up_end_a_wait_once", 200, witnesses),
        || {
            let waiter = Waiter::new();
            let epoch = waiter.state.next_epoch();
            let killer = thread::spawn({
                let waiter = Arc::clone(&waiter);
                move || waiter.deliver(waiter.state.interrupt())
            });
            let peer = thread::spawn({
                let waiter = Arc::clone(&waiter);
                move || waiter.deliver(waiter.state.wake(epoch, Why::NOTIFIED))
            });
            let parked = waiter.wait_for(epoch, PLAIN);
            let _ = killer.join().unwrap();
            let notified = peer.join().unwrap();
            let why = waiter.state.why();
            witness!("the exception won", !notified);
            witness!("the peer won", notified);
            assert_eq!(why == Why::NOTIFIED, notified, "it was {why:?}");
            assert!(parked.is_ok() || parked == Err(why));
            assert!(waiter.state.is_pending(), "an exception is not lost");
        },
    );
}

#[test]
fn unparks_before_a_wait_count_as_one() {
    let witnesses = &["one was enough for both", "each ended one"];
    check(
        Model::new("unparks_before_a_wait_count_as_one", 300, witnesses),
        || {
            let waiter = Waiter::new();
            let wakers = [0, 1].map(|_| {
                let waiter = Arc::clone(&waiter);
                thread::spawn(move || waiter.deliver(waiter.state.unpark()))
            });
            let parked = waiter.wait(BY_TOKEN);
            let ends = wakers.map(|waker| waker.join().unwrap());
            let ended = ends.iter().filter(|&&ended| ended).count();
            let left = waiter.state.take_token();
            witness!("one was enough for both", ended == 1);
            witness!("each ended one", ended == 2 && left);
            assert_eq!(ended, 1 + usize::from(left), "a token was lost or made");
            assert_eq!(waiter.state.why(), Why::UNPARKED);
            assert!(parked.is_ok() || parked == Err(Why::UNPARKED));
        },
    );
}

#[test]
fn the_end_and_the_handle_share_out_the_result() {
    let witnesses = &[
        "the handle was first",
        "the end was first",
        "the handle went in between",
    ];
    check(
        Model::new("the_end_and_the_handle_share_out_the_result", 3, witnesses),
        || {
            let waiter = Waiter::new();
            let handle = thread::spawn({
                let waiter = Arc::clone(&waiter);
                move || {
                    let mine = waiter.state.drop_handle();
                    if mine {
                        waiter.run();
                    }
                    mine
                }
            });
            // The result.
            waiter.run();
            let kept = waiter.state.has_handle();
            if !kept {
                // The thread drops it.
                waiter.run();
            }
            let orphan = waiter.state.finish(kept, false);
            assert_eq!(orphan, waiter.state.remains().result);
            if orphan {
                waiter.run();
            }
            let handles = handle.join().unwrap();
            witness!("the handle was first", !kept);
            witness!("the end was first", handles);
            witness!("the handle went in between", orphan);
            let dropped = [!kept, orphan, handles];
            let times = dropped.into_iter().filter(|&dropped| dropped).count();
            assert_eq!(times, 1, "the result is dropped once: {dropped:?}");
        },
    );
}

/// Nothing was ever raised in the thread, so it ends without saying that it looks no more.
#[test]
fn an_error_that_comes_at_the_end_is_dropped_once() {
    let witnesses = &["too late", "before the end"];
    check(
        Model::new(
            "an_error_that_comes_at_the_end_is_dropped_once",
            2,
            witnesses,
        ),
        || {
            let waiter = Waiter::new();
            let thrower = thread::spawn({
                let waiter = Arc::clone(&waiter);
                move || waiter.state.interrupt() == Wake::Lost
            });
            let left = waiter.state.finish(true, true);
            assert_eq!(left, waiter.state.remains().errors);
            let takes_back = thrower.join().unwrap();
            witness!("too late", takes_back);
            witness!("before the end", left);
            assert!(takes_back != left, "who throws drops it, or the end");
        },
    );
}

#[test]
fn a_joiner_and_the_end_see_each_other() {
    let witnesses = &["the joiner waits", "the end was first"];
    check(
        Model::new("a_joiner_and_the_end_see_each_other", 2, witnesses),
        || {
            let waiter = Waiter::new();
            let joiner = thread::spawn({
                let waiter = Arc::clone(&waiter);
                move || {
                    let ended = waiter.state.announce_joiner();
                    if ended {
                        // It takes the result.
                        waiter.run();
                    }
                    ended
                }
            });
            waiter.run();
            waiter.state.finish(true, false);
            let joiners = waiter.state.remains().joiners;
            let ended = joiner.join().unwrap();
            witness!("the joiner waits", !ended);
            witness!("the end was first", ended);
            // Both, if the joiner came between the end and the look at who waits.
            assert!(joiners || ended, "one sees the other");
        },
    );
}
