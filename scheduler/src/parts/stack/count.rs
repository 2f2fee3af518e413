//! How many stacks are out of the depot, in the whole process.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::slot::MIN_STACK;

/// Stacks outside the depot: run on, or in a hot list.
static OUT: AtomicUsize = AtomicUsize::new(0);

/// Usable bytes of those stacks.
static OUT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes of address space of all stacks that green threads have or that workers keep at hand (at
/// most 32 each), guards left aside. Only touched pages of it cost memory. It counts the whole
/// process, is exact at any quiet moment, and costs nothing to keep: it changes once in a batch.
pub(crate) fn stack_bytes() -> u64 {
    OUT_BYTES.load(Ordering::Relaxed)
}

/// The number of stacks that [`stack_bytes`] counts, for error messages.
pub(super) fn live() -> usize {
    OUT.load(Ordering::Relaxed)
}

pub(super) fn count_out(class: usize, stacks: usize) {
    OUT.fetch_add(stacks, Ordering::Relaxed);
    OUT_BYTES.fetch_add(bytes_of(class, stacks), Ordering::Relaxed);
}

pub(super) fn count_in(class: usize, stacks: usize) {
    OUT.fetch_sub(stacks, Ordering::Relaxed);
    OUT_BYTES.fetch_sub(bytes_of(class, stacks), Ordering::Relaxed);
}

pub(super) fn bytes_of(class: usize, stacks: usize) -> u64 {
    (stacks * (MIN_STACK << class)) as u64
}
