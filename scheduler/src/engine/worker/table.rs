//! The workers of a runtime by their number: the first ones, with which the runtime begins, and those that were made
//! later (`Runtime::set_workers`).
//!
//! A worker that was made stays at its address as long as the runtime.

use std::ops::Index;
use std::sync::OnceLock;

use super::Worker;

/// Workers in a chunk of those that were made later.
const CHUNK: usize = 32;

type Chunk = Box<[OnceLock<Worker>]>;

#[derive(Debug)]
pub(crate) struct Workers {
    first: Box<[Worker]>,
    later: Box<[OnceLock<Chunk>]>,
}

impl Workers {
    /// Takes the workers with which a runtime begins, and makes room for so many in all.
    pub(crate) fn new(first: Box<[Worker]>, room: usize) -> Self {
        let chunks = 0..room.saturating_sub(first.len()).div_ceil(CHUNK);
        let later = chunks.map(|_| OnceLock::new()).collect();
        Self { first, later }
    }

    /// The place of a worker that does not belong to the first ones.
    fn place(&self, index: usize) -> &OnceLock<Worker> {
        let later = index - self.first.len();
        let new = || (0..CHUNK).map(|_| OnceLock::new()).collect();
        let chunk = self.later[later / CHUNK].get_or_init(new);
        &chunk[later % CHUNK]
    }

    /// Makes the worker with this number by `make`, if it does not exist yet.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn ensure<E>(
        &self,
        index: usize,
        make: impl FnOnce() -> Result<Worker, E>,
    ) -> Result<(), E> {
        if index >= self.first.len() && self.place(index).get().is_none() {
            let worker = make()?;
            self.place(index).get_or_init(|| worker);
        }
        Ok(())
    }

    /// All workers that have been made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Worker> {
        let later = self.later.iter().filter_map(OnceLock::get);
        let later = later.flat_map(|chunk| chunk.iter().filter_map(OnceLock::get));
        self.first.iter().chain(later)
    }

    #[cold]
    fn made_later(&self, index: usize) -> &Worker {
        let worker = self.place(index).get();
        worker.expect("nobody knows of a worker before it is made")
    }
}

impl Index<usize> for Workers {
    type Output = Worker;

    #[inline]
    fn index(&self, index: usize) -> &Worker {
        match self.first.get(index) {
            Some(worker) => worker,
            None => self.made_later(index),
        }
    }
}
