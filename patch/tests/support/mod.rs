//! What the tests of this folder share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use weald::Runtime;

/// A runtime of one worker with everything patched.
pub(crate) fn runtime() -> Runtime {
    weald_patch::all().unwrap();
    Runtime::builder().workers(1).build().unwrap()
}

/// Runs the body in a green thread of such a runtime.
pub(crate) fn in_green<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    runtime().run(body)
}

/// Runs the body in many green threads on one worker, and says how long all of them took.
pub(crate) fn at_once(many: usize, body: impl Fn(usize) + Send + Sync + 'static) -> Duration {
    let body = Arc::new(body);
    in_green(move || {
        let start = Instant::now();
        let threads: Vec<_> = (0..many)
            .map(|n| {
                let body = Arc::clone(&body);
                weald::spawn(move || body(n))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        start.elapsed()
    })
}
