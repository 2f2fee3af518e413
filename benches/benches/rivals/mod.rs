//! How the rivals are started, the same in every bench.
#![allow(dead_code, reason = "not every bench has every rival")]
#![allow(unsafe_code, reason = "may's go! expands to its unsafe spawn")]

use std::future::Future;

/// A tokio runtime of `workers` threads; multi-threaded also if it is one, as weald is.
pub(crate) fn tokio_runtime(workers: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .expect("the tokio runtime starts")
}

/// Runs `root` as a task on a worker: `block_on` alone would poll it on the calling thread.
pub(crate) fn tokio_run<T: Send + 'static>(
    runtime: &tokio::runtime::Runtime,
    root: impl Future<Output = T> + Send + 'static,
) -> T {
    runtime
        .block_on(runtime.spawn(root))
        .expect("the root task ends")
}

/// Sets the worker count of the one scheduler that may has, and waits until it has started: it
/// makes a thousand stacks then, which is not what any question asks about.
pub(crate) fn may_start(workers: usize) {
    may::config().set_workers(workers);
    may_run(|| ());
}

/// Runs `root` as a coroutine of may; a panic in it ends the process, may has printed the message.
pub(crate) fn may_run<T: Send + 'static>(root: impl FnOnce() -> T + Send + 'static) -> T {
    may::go!(root)
        .join()
        .unwrap_or_else(|_| std::process::exit(3))
}
