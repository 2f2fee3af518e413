//! A green thread forks that is patched only by its builder. The test is a program of its own: nothing is switched on
//! for the process.
#![allow(unsafe_code, reason = "code between fork and exec")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "small numbers; closures that are kept"
)]

extern crate weald_patch as _;

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn the_child_of_a_fork_runs_none_of_its_parents_green_threads() {
    if !weald::Runtime::builder()
        .thread_locals(weald::ThreadLocals::Own)
        .build()
        .is_ok_and(|rt| rt.shutdown(Duration::from_secs(1)))
    {
        return;
    }
    let rt = weald::Runtime::builder().workers(1).build().unwrap();
    let (gate, mut open) = io::pipe().unwrap();
    let (mut told, tell) = io::pipe().unwrap();
    let parent = std::process::id();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let beats = rt.spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            weald::sleep(Duration::from_millis(1));
            if std::process::id() != parent {
                (&tell).write_all(b"x").unwrap();
            }
        }
    });
    let number = gate.as_raw_fd();
    let waits = move || {
        let mut byte = [0_u8];
        // SAFETY: room for one byte.
        match unsafe { libc::read(number, byte.as_mut_ptr().cast(), 1) } {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let forks = move || {
        let mut command = Command::new("true");
        // SAFETY: the closure only makes a system call.
        unsafe { command.pre_exec(waits) };
        command.status().unwrap().success()
    };
    let builder = weald::Builder::new().patched(true);
    let forker = rt.run(move || builder.spawn(forks).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    open.write_all(b"x").unwrap();
    assert!(forker.join().unwrap());
    stop.store(true, Ordering::SeqCst);
    beats.join().unwrap();
    let mut all = Vec::new();
    told.read_to_end(&mut all).unwrap();
    assert!(all.is_empty(), "{} beats in the child", all.len());
}
