//! Numbers that are random enough to be fair. Each thread has a sequence of its own, so a draw
//! touches nothing that another CPU writes.
//!
//! Source: splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).

use std::cell::Cell;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence. Only its owner uses it.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// Begins at a point that the sequences of other seeds do not reach soon.
    pub(crate) fn new(number: u64) -> Self {
        Self(Cell::new(number.wrapping_mul(0xd134_2543_de82_ef95)))
    }

    #[inline]
    pub(crate) fn next(&self) -> u64 {
        let step = self.0.get().wrapping_add(STEP);
        self.0.set(step);
        let mut z = step;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
