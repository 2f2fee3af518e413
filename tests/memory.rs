//! What a process keeps when it has become idle, what lies below a stack, and what becomes of threads for which there
//! is no stack. Each case runs in a process of its own.

#![allow(unsafe_code, reason = "limits and frames are not Rust's")]
#![allow(
    clippy::large_stack_arrays,
    reason = "to use the stack is what they are for"
)]
#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use weald::{JoinHandle, Runtime};

use support::{LIMIT, MODES, MS, Mode, in_child, is_child};

#[path = "memory/guards.rs"]
mod guards;
#[path = "memory/no_stack.rs"]
mod no_stack;
#[path = "memory/stacks.rs"]
mod stacks;
#[path = "it/support.rs"]
mod support;
#[path = "memory/timers.rs"]
mod timers;

/// Calls the check in a child process for each mode and number of workers. All modes run at the same time, as they
/// wait most of the time.
fn each_mode_in_child(test: &str, env: &[(&str, &str)], body: impl Fn(Mode, usize) + Sync) {
    let run = |env: &[(&str, &str)]| {
        in_child(test, env, || {
            let said = |name| std::env::var(name).unwrap().parse::<usize>().unwrap();
            body(MODES[said("MODE_OF_THE_TEST")], said("WORKERS_OF_THE_TEST"));
        })
    };
    if is_child() {
        run(&[]);
    }
    for workers in ["1", "2"] {
        let run = |index: usize| {
            let number = index.to_string();
            let mut env = env.to_vec();
            env.extend([
                ("MODE_OF_THE_TEST", &*number),
                ("WORKERS_OF_THE_TEST", workers),
            ]);
            let child = run(&env);
            assert!(
                child.success,
                "{:?}, {workers} workers: {child:?}",
                MODES[index]
            );
        };
        std::thread::scope(|scope| {
            for index in 0..MODES.len() {
                scope.spawn(move || run(index));
            }
        });
    }
}

/// Resident memory in MiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib >> 10
}

fn unpark<T>(threads: &[JoinHandle<T>]) {
    for thread in threads {
        thread.thread().unpark();
    }
}

/// Ends threads that are parked.
fn end(threads: Vec<JoinHandle<()>>) {
    unpark(&threads);
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Waits, as an OS thread, until little memory is left.
fn wait_until_below(most: usize) {
    let begun = Instant::now();
    while resident() >= most {
        let seconds = begun.elapsed().as_secs();
        assert!(seconds < LIMIT / 4, "{} MiB after {seconds} s", resident());
        std::thread::sleep(10 * MS);
    }
}

/// Waits until the workers have slept for some time, so that nothing wakes them any more.
fn wait_for_rest(rt: &Runtime) {
    let begun = Instant::now();
    loop {
        let before = rt.metrics().polls;
        std::thread::sleep(Duration::from_millis(1200));
        if rt.metrics().polls == before {
            return;
        }
        assert!(
            begun.elapsed().as_secs() < LIMIT / 4,
            "something wakes them"
        );
    }
}
