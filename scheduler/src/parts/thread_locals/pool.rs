//! The blocks that no worker keeps. `excess.rs` gives back those that nobody has needed for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::block::Block;

/// `stack/excess.rs` says what `low` and `excess` mean.
pub(super) struct Pool {
    /// The hottest last.
    pub(super) blocks: Vec<Block>,
    pub(super) low: usize,
    pub(super) excess: usize,
    pub(super) next_mark: Option<Instant>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    blocks: Vec::new(),
    low: 0,
    excess: 0,
    next_mark: None,
});

/// How many blocks are in the pool.
pub(super) static LEN: AtomicUsize = AtomicUsize::new(0);

/// Blocks that can never go back (`excess.rs`, invariant 1). They are used first.
static KEPT: Mutex<Vec<Block>> = Mutex::new(Vec::new());

pub(super) fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn kept() -> MutexGuard<'static, Vec<Block>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes up to so many blocks, the hottest last.
pub(super) fn take(most: usize, into: &mut Vec<Block>) {
    let mut pool = pool();
    let rest = pool.blocks.len().saturating_sub(most);
    into.extend(pool.blocks.drain(rest..));
    pool.low = pool.low.min(rest);
    pool.excess = pool.excess.min(rest);
    LEN.store(rest, Ordering::Relaxed);
    drop(pool);
    if into.is_empty() {
        let mut kept = kept();
        let rest = kept.len().saturating_sub(most);
        into.extend(kept.drain(rest..));
    }
}

/// Takes blocks in, the hottest last.
pub(super) fn put(blocks: impl Iterator<Item = Block>) {
    let mut pool = pool();
    pool.blocks.extend(blocks);
    LEN.store(pool.blocks.len(), Ordering::Relaxed);
}

/// Takes in the block of a thread that has ended without a worker.
pub(crate) fn release(block: Block) {
    put(std::iter::once(block));
}
