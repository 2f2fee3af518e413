//! What the programs that measure allocators have in common.

use std::collections::BTreeMap;
use std::time::Instant;

use weald::{Runtime, ThreadLocals};

/// Returns a runtime in the mode of this name, or `None` if the mode is not available here.
pub fn runtime(mode: &str, workers: usize) -> Option<Runtime> {
    let builder = Runtime::builder().workers(workers);
    let mode = match mode {
        "own" => ThreadLocals::Own,
        _ => ThreadLocals::Pinned,
    };
    builder.thread_locals(mode).build().ok()
}

/// Resident bytes of the process.
pub fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}

/// Allocates as a request may, and frees it all.
#[inline(never)]
pub fn request() {
    let text = |n: usize| format!("header-{n}: {}", "x".repeat(10 + n * 7));
    let headers: Vec<String> = (0..50).map(text).collect();
    let map: BTreeMap<usize, String> = headers.iter().cloned().enumerate().collect();
    std::hint::black_box((&headers, &map, vec![7_u8; 16 << 10]));
}

/// Prints how many bytes each of 10,000 parked threads keeps after a request, and how many ms it took until all were
/// parked. The argument is the mode.
pub fn measure_crowd() {
    const THREADS: usize = 10_000;
    let mode = std::env::args().nth(1).unwrap_or_default();
    let Some(rt) = runtime(&mode, 2) else {
        println!("none");
        return;
    };
    rt.run(request);
    let before = resident();
    let begun = Instant::now();
    let body = || {
        request();
        weald::park();
    };
    let all: Vec<_> = (0..THREADS).map(|_| rt.spawn(body)).collect();
    while rt.metrics().parked < THREADS {
        std::thread::yield_now();
    }
    let took = begun.elapsed().as_millis();
    println!("{} {took}", (resident() - before) / THREADS);
    for thread in &all {
        thread.thread().unpark();
    }
    for thread in all {
        thread.join().unwrap();
    }
}
