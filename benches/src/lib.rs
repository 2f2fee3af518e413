//! What the benchmarks share: contestants in processes of their own, interleaved repetitions,
//! medians, and the table at the end.
//!
//! Each file in `benches/` answers one question:
//!
//! ```text
//! cargo bench -p weald-benches --bench ping_pong
//! WEALD_BENCH_QUICK=1 cargo bench -p weald-benches      # a smoke run of all: figures mean nothing
//! ```
//!
//! How a figure comes about:
//!
//! 1. A contestant (a mode of weald, a rival, a floor) runs in a process of its own, because may has
//!    one scheduler a process, because memory and CPU time are counted per process, and because a
//!    contestant that dies must not take the others with it. The bench starts itself again with
//!    [`Role`] in the environment; parent and child talk by lines over the child's standard input
//!    and output, see [`Process`].
//! 2. The repetitions interleave (A B C A B C), so that a noisy minute hits all of them. The table
//!    shows `median [min-max]`. Compare inside one run only.
//! 3. The nanosecond questions go to Criterion as well, which measures the contestants one after the
//!    other and keeps its history under `target/criterion`.
//!
//! Linux only: `/proc`, `epoll` and `sched_setaffinity`.

mod case;
mod contestant;
mod epoll;
mod load;
mod machine;
mod process;
mod statistics;

pub use crate::case::{Case, Lifetime, Metric, compare, compare_by, criterion, repetitions};
pub use crate::contestant::{Contestant, weald_runtime};
pub use crate::epoll::Epoll;
pub use crate::load::Load;
pub use crate::machine::{
    CpuTime, Memory, cpu_time, memory, pin_to_nth_cpu, raise_descriptor_limit,
};
pub use crate::process::{Process, Role, answer};
pub use crate::statistics::{median, nanos_each, percentile, seconds_per_million};

/// Tells if this is a smoke run: `WEALD_BENCH_QUICK=1`. Its figures mean nothing.
pub fn quick() -> bool {
    std::env::var("WEALD_BENCH_QUICK").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// `full`, or `small` in a smoke run.
pub fn unless_quick<T>(full: T, small: T) -> T {
    if quick() { small } else { full }
}
