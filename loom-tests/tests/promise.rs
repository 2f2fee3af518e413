//! Models of `sync/src/promise.rs`, with the mutex, the wait queue and all that stands behind them. The
//! threads are OS threads, which wait in place.
//!
//! Invariant 1: the promise is kept or failed once; later values go back to their owners.
//! Invariant 2: all waiters see the same outcome.
//! Invariant 3: an exception ends one wait and no other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use weald::sync::Promise;
use weald_loom_tests::sync::Arc;
use weald_loom_tests::{Model, check, thread, witness};

fn spawn<T: Send + 'static>(
    promise: &Arc<Promise<usize>>,
    body: impl FnOnce(&Promise<usize>) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let promise = Arc::clone(promise);
    thread::spawn(move || body(&promise))
}

#[test]
fn it_is_kept_once() {
    let witnesses = &["by the first", "by the second"];
    check(Model::new("it_is_kept_once", 2700, witnesses), || {
        let promise = Arc::new(Promise::new());
        let others = [1, 2].map(|number| spawn(&promise, move |promise| promise.set(number)));
        let seen = promise.wait().expect("nobody fails it");
        witness!("by the first", seen == 1);
        witness!("by the second", seen == 2);
        let [one, two] = others.map(|other| other.join().unwrap());
        assert_eq!(one, if seen == 1 { Ok(()) } else { Err(1) });
        assert_eq!(two, if seen == 2 { Ok(()) } else { Err(2) });
    });
}

#[test]
fn it_is_kept_or_failed() {
    let witnesses = &["kept", "failed"];
    check(Model::new("it_is_kept_or_failed", 320, witnesses), || {
        let promise = Arc::new(Promise::new());
        let keeper = spawn(&promise, |promise| promise.set(1).is_ok());
        let waiter = spawn(&promise, |promise| promise.wait().is_ok());
        let failed = promise.fail("no");
        let kept = keeper.join().unwrap();
        witness!("kept", kept);
        witness!("failed", failed);
        assert!(kept != failed, "one of the two");
        assert_eq!(waiter.join().unwrap(), kept);
    });
}

#[test]
fn an_exception_ends_one_wait() {
    let witnesses = &["interrupted", "kept"];
    check(
        Model::new("an_exception_ends_one_wait", 11000, witnesses),
        || {
            let promise = Arc::new(Promise::new());
            let me = weald_scheduler::current();
            let other = spawn(&promise, |promise| promise.wait().is_ok());
            let keeper = spawn(&promise, move |promise| {
                me.throw("enough");
                promise.set(1)
            });
            let kept = catch_unwind(AssertUnwindSafe(|| promise.wait())).is_ok();
            witness!("kept", kept);
            witness!("interrupted", !kept);
            assert!(other.join().unwrap());
            assert_eq!(keeper.join().unwrap(), Ok(()));
        },
    );
}
