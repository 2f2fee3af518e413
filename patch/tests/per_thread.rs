//! Who is patched, where nothing is switched on for the process.
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use weald::{Builder, Runtime, ThreadLocals};
use weald_patch::{Kind, is_patched};

/// Two threads of a runtime of one worker can talk only if the first one's read suspends it.
fn talks(rt: &Runtime, builder: impl Fn() -> Builder + Sync) {
    rt.run(|| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let reader = builder()
            .spawn(move || near.read(&mut [0]).unwrap())
            .unwrap();
        weald::yield_now();
        drop(far);
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn a_runtime_and_a_thread_may_be_patched_alone() {
    let patched = Runtime::builder().workers(1).patched(true).build().unwrap();
    talks(&patched, Builder::new);
    let plain = Runtime::builder().workers(1).build().unwrap();
    talks(&plain, || Builder::new().patched(true));
    assert!(!is_patched(Kind::Sockets));
    // The other side of it: this one blocks its OS thread, and the monitor sees that.
    plain.run(|| {
        let (mut near, _far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    });
    assert_eq!(patched.metrics().hogs, 0);
}

#[test]
fn without_thread_locals_of_their_own_it_is_an_error_that_says_so() {
    let pinned = || {
        Runtime::builder()
            .workers(1)
            .thread_locals(ThreadLocals::Pinned)
    };
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
