//! Which threads are patched if nothing is switched on for the process.
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weald::{Builder, Runtime, RuntimeBuilder, ThreadLocals};
use weald_patch::{Kind, is_patched};

fn runtime() -> RuntimeBuilder {
    // A thread that blocks the worker's OS thread leaves one carrier, and a second leaves none.
    Runtime::builder().workers(1).spare_threads(1)
}

/// This many threads read at a time, and something is written only after all of them do: so they were suspended.
fn talk(rt: &Runtime, builder: impl Fn() -> Builder + Sync) {
    rt.run(|| {
        let reading = Arc::new(AtomicUsize::new(0));
        let pairs: Vec<_> = (0..10)
            .map(|_| {
                let (mut near, far) = UnixStream::pair().unwrap();
                let reading = Arc::clone(&reading);
                let body = move || {
                    reading.fetch_add(1, Ordering::Relaxed);
                    near.read(&mut [0]).unwrap()
                };
                (builder().spawn(body).unwrap(), far)
            })
            .collect();
        while reading.load(Ordering::Relaxed) < pairs.len() {
            weald::yield_now();
        }
        for (reader, far) in pairs {
            drop(far);
            assert_eq!(reader.join().unwrap(), 0);
        }
    });
}

#[test]
fn a_runtime_and_a_thread_may_be_patched_alone() {
    talk(&runtime().patched(true).build().unwrap(), Builder::new);
    let plain = runtime().build().unwrap();
    talk(&plain, || Builder::new().patched(true));
    assert!(!is_patched(Kind::Sockets));
    // The opposite: a thread that is not patched keeps its OS thread, and the monitor sees that.
    let (mut near, far) = UnixStream::pair().unwrap();
    let before = plain.metrics().hogs;
    let reader = plain.spawn(move || near.read(&mut [0]).unwrap());
    while plain.metrics().hogs == before {
        std::thread::yield_now();
    }
    drop(far);
    assert_eq!(reader.join().unwrap(), 0);
}

#[test]
fn without_thread_locals_of_their_own_it_is_an_error_that_says_so() {
    let pinned = || runtime().thread_locals(ThreadLocals::Pinned);
    let error = pinned().patched(true).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("thread-locals"), "{error}");
    let rt = pinned().build().unwrap();
    rt.run(|| {
        let error = Builder::new().patched(true).spawn(|| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("Pinned"), "{error}");
    });
}
