//! A worker's own blocks of thread-locals, for its next green threads.
#![allow(unsafe_code, reason = "makes blocks new that nobody runs on")]

use std::sync::Arc;

use super::block::Block;
use super::images::Images;
use super::own::Support;
use super::pool;

/// How many blocks a worker keeps. Half as many go to the pool, or come from there, at a time.
const KEEP: usize = 32;

/// A worker's own blocks, the hottest last, and the images by which they are made new.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    blocks: Vec<Block>,
    images: Option<Arc<Images>>,
}

impl Cache {
    /// A block like that of a new thread. `None`: there is no memory for one.
    #[inline]
    pub(crate) fn get(&mut self, own: &Support) -> Option<Block> {
        let version = own.version();
        if !self.images.as_ref().is_some_and(|it| it.are_of(version)) {
            self.images = Some(own.newest_images()?);
        }
        let block = self.blocks.pop().or_else(|| self.refill(own))?;
        let images = self.images.as_ref().expect("seen above");
        // SAFETY: the block is idle and ours.
        unsafe {
            own.kept.renew(&own.library, &own.heap, block.pointer());
            images.renew(&own.library, block.pointer());
        }
        Some(block)
    }

    #[cold]
    fn refill(&mut self, own: &Support) -> Option<Block> {
        pool::take(KEEP / 2, &mut self.blocks);
        self.blocks.pop().or_else(|| own.make())
    }

    /// Takes back a block whose thread has ended.
    #[inline]
    pub(crate) fn put(&mut self, block: Block) {
        if self.blocks.len() >= KEEP {
            pool::put(self.blocks.drain(..KEEP / 2));
        }
        self.blocks.push(block);
    }

    /// Gives all blocks to the pool. For a worker that will sleep for long.
    pub(crate) fn flush(&mut self) {
        if !self.blocks.is_empty() {
            pool::put(self.blocks.drain(..));
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.flush();
    }
}
