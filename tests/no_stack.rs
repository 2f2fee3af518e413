//! No address space is left for a stack: what belongs to a thread that cannot start is dropped where waiting works.
//! The tests run in processes of their own.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "the limit is the kernel's")]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "it/support.rs"]
mod support;

use std::time::Duration;

use support::{Count, MODES, Mode, in_child, panic_text, runtime};
use weald::JoinHandle;

/// Leaves the process this much address space beyond what it has.
fn limit_address_space(more: u64) {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
    // SAFETY: the call has no conditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let bytes = pages * u64::try_from(page).unwrap() + more;
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the pointer is to a live rlimit.
    let outcome = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(outcome, 0);
}

/// Waits until the other OS threads have started and sleep: std ends the process if one that starts finds no
/// memory for its signal stack.
fn let_others_start() {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let sleeps = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        state.starts_with('S') || own.ends_with(task.file_name())
    };
    support::wait_until(|| {
        let mut tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks.all(|task| sleeps(task.unwrap()))
    });
}

/// Joins a thread when it is dropped.
struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.join().unwrap();
        }
    }
}

fn check(mode: Mode) {
    let rt = runtime(1, mode);
    // The stacks that are needed exist by now.
    rt.run(|| weald::spawn(|| weald::sleep(Duration::from_millis(1))).join())
        .unwrap();
    let_others_start();
    limit_address_space(64 << 20);
    let ended = rt.run(|| {
        let sleeper = weald::spawn(|| weald::sleep(Duration::from_millis(20)));
        let guard = JoinOnDrop(Some(sleeper));
        let builder = weald::Builder::new().stack_size(1 << 30);
        builder.spawn(move || drop(guard)).map(JoinHandle::join)
    });
    // The thread may be told at once.
    if let Ok(ended) = ended {
        let text = panic_text(&*ended.unwrap_err());
        assert!(text.contains("failed to start a green thread"), "{text:?}");
    }
    assert_eq!(rt.run(|| weald::spawn(|| 7).join().unwrap()), 7);
}

/// Many more threads than there is memory for at a time: all run.
fn check_many(mode: Mode) {
    const MANY: usize = 20_000;
    let rt = runtime(2, mode);
    let ran = Count::default();
    rt.run(|| {
        let spawn = |n| {
            let ran = ran.clone();
            let body = move || {
                weald::yield_now();
                ran.add();
            };
            match n % 3 {
                2 => weald::spawn(body),
                worker => weald::Builder::new().worker(worker).spawn(body).unwrap(),
            }
        };
        let threads: Vec<_> = (0..MANY).map(spawn).collect();
        // Most of the threads have not started yet.
        limit_address_space(128 << 20);
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert_eq!(ran.get(), MANY);
}

#[test]
fn threads_that_find_no_memory_start_when_others_have_ended() {
    let test = "threads_that_find_no_memory_start_when_others_have_ended";
    for index in 0..MODES.len() {
        let mode = index.to_string();
        let child = in_child(test, &[("MODE_OF_THE_TEST", &*mode)], || {
            let index: usize = std::env::var("MODE_OF_THE_TEST").unwrap().parse().unwrap();
            check_many(MODES[index]);
        });
        assert!(child.success, "{}{}", child.stdout, child.stderr);
    }
}

/// The check in a process of its own.
fn alone(test: &str, mode: Mode) {
    if MODES.contains(&mode) {
        let child = in_child(test, &[], || check(mode));
        assert!(child.success, "{}{}", child.stdout, child.stderr);
    }
}

#[test]
fn what_a_thread_owns_that_gets_no_stack_may_wait_pinned() {
    let test = "what_a_thread_owns_that_gets_no_stack_may_wait_pinned";
    alone(test, Mode::Pinned);
}

#[test]
fn what_a_thread_owns_that_gets_no_stack_may_wait_shared() {
    let test = "what_a_thread_owns_that_gets_no_stack_may_wait_shared";
    alone(test, Mode::Shared);
}

#[test]
fn what_a_thread_owns_that_gets_no_stack_may_wait_own() {
    let test = "what_a_thread_owns_that_gets_no_stack_may_wait_own";
    alone(test, Mode::Own);
}
