//! Runtimes for models: how they begin, how they come to rest, and how they end.
#![allow(unsafe_code, reason = "a model has shared thread-locals")]

pub(crate) mod ends;

use std::time::Duration;

use weald_loom_tests::{thread, unexplored};
use weald_scheduler::{Exception, Killed, Runtime, RuntimeBuilder};

/// A limit. Its length does not matter: the clock stands still unless a thread waits until a limit.
pub(crate) const LIMIT: Duration = Duration::from_millis(1);

pub(crate) fn builder(workers: usize) -> RuntimeBuilder {
    Runtime::builder().workers(workers).spare_threads(1)
}

pub(crate) fn runtime(workers: usize) -> Runtime {
    let builder = builder(workers);
    // SAFETY: the models keep nothing in thread-locals.
    let builder = unsafe { builder.share_thread_locals() };
    builder.build().expect("a model starts")
}

/// A runtime whose workers sleep.
pub(crate) fn resting(workers: usize) -> Runtime {
    let runtime = runtime(workers);
    runtime.run(|| ());
    for _ in 0..workers {
        // The others run until they sleep.
        thread::yield_now();
    }
    runtime
}

/// Runs `program` with a runtime whose workers sleep when it begins. Its end is not explored.
pub(crate) fn at_rest<R>(workers: usize, program: impl FnOnce(&Runtime) -> R) -> R {
    let runtime = unexplored(|| resting(workers));
    let result = program(&runtime);
    unexplored(|| {
        // The worker has done what it was about to do.
        runtime.run(|| ());
        assert_eq!(runtime.metrics().timers, 0, "a timer is left");
        drop(runtime);
    });
    result
}

/// Which carrier runs the caller.
pub(crate) fn carrier() -> loom::thread::ThreadId {
    loom::thread::current().id()
}

pub(crate) fn is_killed<T>(result: std::thread::Result<T>) -> bool {
    result.is_err_and(|payload| {
        let exception = payload.downcast_ref::<Exception>();
        exception.is_some_and(|exception| exception.downcast_ref::<Killed>().is_some())
    })
}
