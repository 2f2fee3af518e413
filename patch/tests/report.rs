//! `WEALD_PATCH_REPORT` makes the process tell at its end which call blocked an OS thread.
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
fn wait_at_a_barrier_of_libcs(barrier: &mut libc::pthread_barrier_t) {
    // SAFETY: an initialised barrier.
    let result = unsafe { libc::pthread_barrier_wait(barrier) };
    assert!(result == 0 || result == libc::PTHREAD_BARRIER_SERIAL_THREAD);
}

#[test]
fn the_process_that_blocks() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    // SAFETY: it is initialised before anybody waits there, for two.
    let mut barrier: libc::pthread_barrier_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::pthread_barrier_init(&raw mut barrier, std::ptr::null(), 2) };
    let address = (&raw mut barrier).expose_provenance();
    let wait = move || {
        let barrier = std::ptr::with_exposed_provenance_mut::<libc::pthread_barrier_t>(address);
        // SAFETY: it lives until the scope ends; libc allows two threads to use it.
        wait_at_a_barrier_of_libcs(unsafe { &mut *barrier });
    };
    let rt = runtime(1);
    thread::scope(|scope| {
        scope.spawn(|| rt.run(wait));
        while weald_scheduler::patch::blocked_calls() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        wait();
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
    assert!(told.contains("wait_at_a_barrier_of_libcs"), "{told}");
}
