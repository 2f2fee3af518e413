//! `WEALD_PATCH_REPORT` tells at the end of the process which call blocked an OS thread.
#![allow(unsafe_code, reason = "calls libc as a C program would")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

mod support;

use std::process::Command;
use std::thread;
use std::time::Duration;

use support::runtime;

/// Set in the process that `a_call_that_weald_does_not_know_is_told_with_its_stack` starts.
const CHILD: &str = "WEALD_TEST_REPORT_CHILD";

#[inline(never)]
fn take_a_lock_of_libcs(mutex: &mut libc::pthread_mutex_t) {
    // SAFETY: an initialised mutex.
    unsafe {
        assert_eq!(libc::pthread_mutex_lock(mutex), 0);
        assert_eq!(libc::pthread_mutex_unlock(mutex), 0);
    }
}

#[test]
fn the_process_that_blocks() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
    let address = (&raw mut mutex).expose_provenance();
    // SAFETY: an initialised mutex, which is unlocked by the thread that has locked it.
    assert_eq!(unsafe { libc::pthread_mutex_lock(&raw mut mutex) }, 0);
    let rt = runtime(1);
    thread::scope(|scope| {
        scope.spawn(|| {
            rt.run(|| {
                let mutex = std::ptr::with_exposed_provenance_mut::<libc::pthread_mutex_t>(address);
                // SAFETY: it lives until the scope ends.
                take_a_lock_of_libcs(unsafe { &mut *mutex });
            });
        });
        while weald_scheduler::patch::blocked_calls() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(&raw mut mutex) }, 0);
    });
}

#[test]
fn a_call_that_weald_does_not_know_is_told_with_its_stack() {
    let run = |report: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_that_blocks", "--nocapture"])
            .env(CHILD, "1")
            .env("WEALD_PATCH_REPORT", report)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let told = run("1");
    assert!(told.contains("blocked its OS thread"), "{told}");
    assert!(told.contains("take_a_lock_of_libcs"), "{told}");
}
