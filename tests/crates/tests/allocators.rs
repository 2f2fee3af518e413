//! What allocators keep for green threads: the bytes of each of 10,000 threads after the allocations of a request.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The tests measure, so one test runs at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Returns bytes and milliseconds, or `None` if the mode is not available here.
fn crowd(program: &str, mode: &str) -> Option<(usize, usize)> {
    let output = Command::new(program).arg(mode).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    println!(
        "{} in {mode}: {}",
        program.rsplit('/').next().unwrap(),
        text.trim()
    );
    let mut numbers = text.split_whitespace().map(str::parse::<usize>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Checks that a thread keeps at most `most` bytes more in `Own` than in `Pinned`, and that the crowd is there within
/// a second.
fn check(program: &str, most: usize) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (pinned, _) = crowd(program, "pinned").unwrap();
    let Some(first) = crowd(program, "own") else {
        return;
    };
    // The machine may be busy.
    let more = (0..2).filter_map(|_| crowd(program, "own"));
    let took = more.map(|(_, took)| took).chain([first.1]).min().unwrap();
    assert!(
        first.0 <= pinned + most,
        "{} bytes, in Pinned {pinned}",
        first.0
    );
    assert!(took < 1000, "{took} ms");
}

/// How many bytes a block of thread-locals takes, without large thread-locals.
const BLOCK: usize = 5 << 10;

#[test]
fn glibc_keeps_as_much_as_in_pinned() {
    check(env!("CARGO_BIN_EXE_glibc"), BLOCK);
}

#[test]
fn mimalloc_on_os_threads_keeps_little_more_than_in_pinned() {
    check(
        env!("CARGO_BIN_EXE_mimalloc_on_os_thread"),
        BLOCK + (1 << 10),
    );
}

#[test]
fn jemalloc_on_os_threads_keeps_little_more_than_in_pinned() {
    // The allocator's own thread-locals take 2.5 KiB in each block.
    check(
        env!("CARGO_BIN_EXE_jemalloc_on_os_thread"),
        BLOCK + (3 << 10),
    );
}

/// Prints the figures of the allocators without help, for the table. The figures are not bounds. mimalloc would take
/// 14 GB.
#[test]
fn jemalloc_as_it_is_works() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    crowd(env!("CARGO_BIN_EXE_jemalloc"), "own");
}
