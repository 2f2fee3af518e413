#!/usr/bin/env bash
# arc-swap 1.9.5: a `store` takes longer the more threads have ever been in a `load` at once, even if these threads have ended
# and have used another ArcSwap.
#
# Each thread that loads owns a node of one global list, and a `store` looks at all nodes for readers of its value.
# Nodes are used again and never freed. So each later `store` pays for a crowd of threads that ended long ago.
#
# Output seen (132 ns before, 132 us after; the ratio is what is checked):
#   store: more than 10 times as long after 3000 threads that used another ArcSwap and ended
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/src"
cat > "$place/Cargo.toml" <<'T'
[package]
name = "walk"
version = "0.0.0"
edition = "2021"
[dependencies]
arc-swap = "=1.9.5"
[workspace]
T
cat > "$place/src/main.rs" <<'R'
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

const THREADS: usize = 3000;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_nanos() as f64
}

fn store(cell: &ArcSwap<u32>) -> f64 {
    median((0..201).map(|n| {
        let new = Arc::new(n);
        let start = Instant::now();
        cell.store(new);
        start.elapsed()
    }).collect())
}

fn main() {
    let (cell, other) = (Arc::new(ArcSwap::from_pointee(0)), Arc::new(ArcSwap::from_pointee(0)));
    let before = store(&cell);
    let (all, over) = (Arc::new(Barrier::new(THREADS + 1)), Arc::new(Barrier::new(THREADS + 1)));
    let threads: Vec<_> = (0..THREADS).map(|_| {
        let (other, all, over) = (other.clone(), all.clone(), over.clone());
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let _guard = other.load();
            all.wait();
            over.wait();
        }).unwrap()
    }).collect();
    all.wait();
    over.wait();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let after = store(&cell);
    eprintln!("store: {before:.0} ns, then {after:.0}");
    let longer = after > 10.0 * before;
    if longer {
        println!("store: more than 10 times as long after {THREADS} threads that used another ArcSwap and ended");
    }
    std::process::exit(i32::from(!longer));
}
R
cd "$place"
cargo run --quiet --release
