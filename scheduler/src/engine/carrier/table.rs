//! The carriers of a runtime by their number. A carrier is made when it is first asked for, because there may be
//! thousands, and mostly only a few are needed.
//!
//! Once made a carrier stays where it is as long as the runtime.

use std::ops::Index;
use std::sync::OnceLock;

use super::Carrier;

/// Carriers in the first chunk; each further chunk has twice as many as the one before.
const FIRST: usize = 16;

/// Room for `bound` carriers.
#[derive(Debug)]
pub(crate) struct Carriers {
    chunks: Box<[OnceLock<Box<[Carrier]>>]>,
    bound: usize,
}

/// Where a chunk begins.
const fn start_of(chunk: usize) -> usize {
    FIRST * ((1 << chunk) - 1)
}

/// The chunk of a number.
const fn chunk_of(index: usize) -> usize {
    (index / FIRST + 1).ilog2() as usize
}

impl Carriers {
    pub(crate) fn new(bound: usize) -> Self {
        let chunks = bound.checked_sub(1).map_or(0, |last| chunk_of(last) + 1);
        let carriers = Self {
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            bound,
        };
        if chunks > 0 {
            carriers.chunk(0);
        }
        carriers
    }

    #[inline]
    fn chunk(&self, chunk: usize) -> &[Carrier] {
        self.chunks[chunk].get_or_init(|| {
            let end = start_of(chunk + 1).min(self.bound);
            (start_of(chunk)..end).map(Carrier::new).collect()
        })
    }

    /// All carriers that have been made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Carrier> {
        self.chunks.iter().filter_map(OnceLock::get).flatten()
    }
}

impl Index<usize> for Carriers {
    type Output = Carrier;

    #[inline]
    fn index(&self, index: usize) -> &Carrier {
        let chunk = chunk_of(index);
        &self.chunk(chunk)[index - start_of(chunk)]
    }
}

#[cfg(test)]
mod tests {
    use super::Carriers;

    #[test]
    fn each_number_up_to_the_bound_is_a_carrier_of_its_own() {
        // Miri takes a minute for a thousand.
        let most = if cfg!(miri) { 49 } else { 1000 };
        for bound in [1, 15, 16, 17, 48, 49, most] {
            let carriers = Carriers::new(bound);
            assert_eq!(
                carriers.iter().count(),
                bound.min(16),
                "the first are there"
            );
            for index in (0..bound).rev() {
                assert_eq!(carriers[index].index, index);
            }
            let all: Vec<_> = carriers.iter().map(|carrier| carrier.index).collect();
            assert_eq!(all, (0..bound).collect::<Vec<_>>());
        }
        assert_eq!(Carriers::new(0).iter().count(), 0);
    }
}
