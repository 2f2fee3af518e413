#!/usr/bin/env bash
# tracing-subscriber 0.3.23 (sharded-slab 0.1.7): after a peak of more than 4,096 threads with an open span, a share of
# all later threads panics at its first span, as long as the process lives.
#
# The registry gives each thread that opens a span a number, and has room for 4,096. Thread 4,097 panics; the
# constants of a type document that. The following is not documented: the numbers above the room go back to the list of
# free ones when their threads end, and later threads get them again, first in, first out. So a server that once had
# 5,000 connections, a thread each, fails a part of its requests until it is restarted.
#
# Output seen:
#   5000 threads at once: 904 panic; then 5000 threads, one at a time: more than 100 panic
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/src"
cat > "$place/Cargo.toml" <<'T'
[package]
name = "ids"
version = "0.0.0"
edition = "2021"
[dependencies]
tracing = "=0.1.44"
tracing-subscriber = { version = "=0.3.23", default-features = false, features = ["registry", "std"] }
sharded-slab = "=0.1.7"
[workspace]
T
cat > "$place/src/main.rs" <<'R'
use std::sync::{Arc, Barrier};
use std::thread;

/// A thread that opens a span; true: it panicked.
fn start(barrier: Option<Arc<Barrier>>) -> thread::JoinHandle<bool> {
    let body = move || {
        let span = std::panic::catch_unwind(|| tracing::info_span!("request"));
        if let Some(barrier) = barrier {
            barrier.wait();
        }
        span.is_err()
    };
    thread::Builder::new().stack_size(64 << 10).spawn(body).unwrap()
}

fn main() {
    tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
    std::panic::set_hook(Box::new(|_| ()));
    const PEAK: usize = 5000;
    let barrier = Arc::new(Barrier::new(PEAK));
    let all: Vec<_> = (0..PEAK).map(|_| start(Some(barrier.clone()))).collect();
    let peak = all.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>();
    // The list of free numbers begins with those of the threads that ended first.
    let later = (0..PEAK).map(|_| usize::from(start(None).join().unwrap())).sum::<usize>();
    let many = later > 100;
    println!("{PEAK} threads at once: {peak} panic; then {PEAK} threads, one at a time: {}",
        if many { "more than 100 panic".into() } else { format!("{later} panic") });
    std::process::exit(i32::from(!(peak == 904 && many)));
}
R
cd "$place"
cargo run --quiet --release
